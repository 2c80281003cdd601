"""Runs a part of a token's work in a process of its own, under the supervisor: heavy libraries stay out of the worker.

Such a process is ended as every command is: by its token's timeout, by a cancel, with its worker. It gets its request as a
JSON file and leaves its answer as another; what it prints is the token's log.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from ..children import Finished
from .base import Context, Places

Json = dict[str, Any]
Answer = Optional[Json]

#: Where the package is found: a folder, or a single file.
ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.append(sys.argv[1]); from {module} import main; main(*sys.argv[2:])"


def run_helper(
    module: str, request: Json, places: Places, context: Context, timeout: float | None
) -> tuple[Finished, Answer]:
    """Run ``main(request_file, answer_file)`` of a module; return how it ended and what it answered, None for nothing.

    Its environment is the worker's, without what the token asks for: that is meant for the token's own processes.
    """
    asked, answered = f"{places.bay.work}.request", f"{places.bay.work}.answer"
    own = {name: value for name, value in places.own.items() if name.startswith("TOKENPOOL_")}
    alone = replace(places, own=own, ram_gb=0.0)
    try:
        _write(asked, request)
        argv = [sys.executable, "-c", _START.format(module=module), ROOT, asked, answered]
        finished = context.execute(argv, alone, timeout)
        return finished, _read(answered)
    finally:
        for path in (asked, answered):
            if os.path.exists(path):
                os.unlink(path)


def serve(work: Callable[[Json], Json], request: str, answer: str) -> None:
    """Do the work of a helper process: read the request, leave the answer whole."""
    done = work(json.loads(Path(request).read_text("utf-8")))
    _write(f"{answer}.part", done)
    os.replace(f"{answer}.part", answer)


def _write(path: str, value: Mapping[str, Any]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file)


def _read(path: str) -> Answer:
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

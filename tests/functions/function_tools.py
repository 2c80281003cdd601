"""Pushes calls, has a real worker process make them, and shows what became of each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli_tools import ROOT, command

import tokenpool

HERE = Path(__file__).resolve().parent
DEEDS = ("--allow-module", "deeds")


def call(name: str, *args: Any, **fields: Any) -> dict[str, Any]:
    """Return the fields of a token that calls a function of `deeds`."""
    return {"function": {"name": f"deeds:{name}", "args": list(args)}, **fields}


def surroundings() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}


def work(url: str, *words: str) -> None:
    """Let one worker work until nothing waits; it must leave in peace, whatever the functions did."""
    argv = command("--pool", url, "work", "--quit", "--grace", "1s", *words)
    done = subprocess.run(argv, env=surroundings(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def made(url: str, *tokens: dict[str, Any], words: tuple[str, ...] = DEEDS, slots: int = 2) -> list[Any]:
    """Push tokens, have them run, and return them in order."""
    with tokenpool.connect(url, create=True) as pool:
        ids = pool.push(list(tokens))
        work(url, "--slots", str(slots), *words)
        return [pool.get(each) for each in ids]


@contextmanager
def worker(url: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Give a worker that works until the end of the body."""
    argv = command("--pool", url, "work", "--grace", "1s", *words)
    with subprocess.Popen(argv, env=surroundings(), stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def failure(token: Any) -> str:
    """Return the failure class of the last attempt."""
    return str(token["attempts"][-1]["failure_class"])


def message(token: Any) -> str:
    return str(token["error"][-1]["message"])

"""Begins the process that runs the containers of one attempt: reads what is wanted, leaves the answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .base import Json, job_of


def main(request: str, answer: str) -> None:
    """Serve one request, and leave the answer whole."""
    job = job_of(json.loads(Path(request).read_text("utf-8")))
    os.unlink(request)  # it holds secrets
    try:
        from .client import serve
    except ImportError as error:
        told = f"the library that asks container engines cannot be used ({error}); pip install 'tokenpool[container]'"
        done: Json = {"exit_code": 99, "failure_class": "system", "message": told}
    else:
        done = serve(job)
    Path(f"{answer}.part").write_text(json.dumps(done), "utf-8")
    os.replace(f"{answer}.part", answer)

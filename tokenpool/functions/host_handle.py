"""One host process as the worker sees it."""

from __future__ import annotations

import socket
import time

from ..children import Child
from .ends import Call


class Host:
    """One process; `call` is what it runs, `leaving` that it takes no more."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: Child = None  # type: ignore[assignment]  # known a line later
        self.link: socket.socket | None = None
        self.call: Call | None = None
        self.leaving = False
        self.rest = b""
        self.idle_since = time.monotonic()


def end_of(path: str) -> str:
    """Return the last line of a file of errors, "" where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()[-500:].decode("utf-8", "replace").strip().rpartition("\n")[2]
    except OSError:
        return ""

"""What transfers are made of: a file to fetch, a file to put, a file that arrived, and how far they are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import TokenpoolError
from ..storage.base import Entry


class Stopped(TokenpoolError):
    """Somebody asked for transfers to end before they were done."""


class WrongContent(TokenpoolError):
    """What arrived is not what was announced, also when it was fetched again."""


@dataclass(frozen=True)
class Download:
    """A file to be fetched to a path of this machine."""

    url: str
    path: str
    credentials: str = ""
    sha256: str = ""
    #: What its storage said of it a moment ago; None: it is asked.
    entry: Entry | None = None


@dataclass(frozen=True)
class Upload:
    """A file of this machine to be put somewhere."""

    path: str
    url: str
    credentials: str = ""


@dataclass(frozen=True)
class File:
    """A file that arrived: where it is on this machine, and what it is."""

    path: str
    url: str
    size: int
    sha256: str


@dataclass
class Progress:
    """How far transfers are; others read it meanwhile."""

    files: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    #: What was tried again, for people.
    note: str = field(default="")

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, files: int = 0, done: int = 0, total: int = 0, moved: int = 0) -> None:
        """Count on; several threads may at once."""
        with self._lock:
            self.files += files
            self.files_done += done
            self.bytes_total += total
            self.bytes_done += moved


class Task:
    """One file on its way, or one question, and the threads that are at it."""

    def __init__(self, what: Download | Upload | Callable[[], Any], progress: Progress) -> None:
        self.what, self.progress = what, progress
        #: The File that arrived, or what the question was answered with.
        self.answer: Any = None
        self.error: BaseException | None = None
        self.done = False
        #: Set when nobody wants it any more.
        self.ended = threading.Event()
        #: The threads that work for it.
        self.threads: set[int] = set()
        #: Held by whoever makes something of it appear, or takes it away.
        self.last_word = threading.Lock()
        #: Removes what it wrote so far.
        self.undo: Callable[[], None] = lambda: None

    def check(self) -> None:
        """Raise Stopped where nobody wants it any more."""
        if self.ended.is_set():
            raise Stopped("the transfer was stopped")

    def drop(self) -> None:
        """Take away what it did so far; what a thread still does for it has no effect."""
        with self.last_word:
            self.ended.set()
            self.undo()

"""What the ways to Grid storage have in common, and calls of foreign libraries that end in time."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds until a server must have taken a connection; XRootD's own 120 would hide that it is away.
CONNECT = 20


@dataclass(frozen=True)
class Found:
    """One name on a storage."""

    name: str
    size: int
    folder: bool
    #: When its content last changed, in seconds since 1970.
    changed: int


class Door(ABC):
    """One library that reaches Grid storage. Its methods raise OSError with the error's number, and may hang."""

    @abstractmethod
    def stat(self, url: str) -> Found:
        """Return what is known of a file or folder."""

    @abstractmethod
    def names(self, url: str) -> list[Found]:
        """Return what is in a folder."""

    @abstractmethod
    def read(self, url: str, start: int, end: int | None) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` to `end`, or further."""

    @abstractmethod
    def put(self, path: str, url: str, tell: Callable[[int], None]) -> None:
        """Copy a file of this machine to a new name there; `tell` hears the bytes that went since it last did."""

    @abstractmethod
    def make_folders(self, url: str) -> None:
        """Make a folder and those above it; those that are there are left."""

    @abstractmethod
    def rename(self, old: str, new: str) -> None:
        """Give a file another name; what had that name is replaced."""

    @abstractmethod
    def remove(self, url: str) -> None:
        """Delete a file."""

    @abstractmethod
    def checksum(self, url: str, kind: str) -> str:
        """Return the ``adler32`` or ``md5`` that the server says of a file, in small hexadecimal."""


class Beat:
    """When something last moved; one thread tells, another one waits."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self) -> None:
        """Tell that something moved."""
        self.last = time.monotonic()


def within(seconds: float, function: Callable[[], T], beat: Beat | None = None) -> T:
    """Return what the function returns, or raise what it raises; TimeoutError when nothing moved for so long.

    The thread of a call that never ends stays behind; it holds up nothing, not even the end of the process.
    """
    beat = beat or Beat()
    answer: list[Any] = []
    failure: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            answer.append(function())
        except BaseException as error:
            failure.append(error)
        ended.set()

    threading.Thread(target=run, name="grid", daemon=True).start()
    while not ended.wait(max(beat.last + seconds - time.monotonic(), 0.01)):
        if time.monotonic() - beat.last >= seconds:
            raise TimeoutError(f"nothing came for {seconds:g} s")
    if failure:
        raise failure[0]
    result: T = answer[0]
    return result

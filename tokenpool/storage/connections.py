"""Lends the connections of protocols that can do one thing at a time on each: FTP and SFTP."""

from __future__ import annotations

import contextlib
import netrc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from ..errors import BadInput
from .base import Stalled
from .fsspec_storage import account_of
from .urls import path_of, shown
from .walks import part_of

T = TypeVar("T")
#: Seconds after which a connection that nobody used is not trusted any more.
_FRESH = 20.0


class Lending(Generic[T]):
    """Connections by server; those that failed, or were left in the middle, are thrown away."""

    def __init__(self, close: Callable[[T], None]) -> None:
        self._close = close
        self._idle: dict[str, list[tuple[float, T]]] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._idle, close)

    @contextlib.contextmanager
    def one(self, url: str, connect: Callable[[str], T]) -> Iterator[T]:
        """Lend a connection to a URL's server as long as the body runs; a new one where none is idle."""
        place = urlsplit(url).netloc
        connection = self._taken(place) or connect(url)
        try:
            yield connection
        except BaseException:
            with contextlib.suppress(Exception):
                self._close(connection)
            raise
        with self._lock:
            self._idle.setdefault(place, []).append((time.monotonic(), connection))

    def _taken(self, place: str) -> T | None:
        with self._lock:
            idle = self._idle.pop(place, [])
            fresh = [each for each in idle if time.monotonic() - each[0] < _FRESH]
            stale = [connection for since, connection in idle if (since, connection) not in fresh]
            found = fresh.pop()[1] if fresh else None
            if fresh:
                self._idle[place] = fresh
        for each in stale:
            with contextlib.suppress(Exception):
                self._close(each)
        return found


def _close_all(idle: dict[str, list[tuple[float, T]]], close: Callable[[T], None]) -> None:
    for connections in idle.values():
        for _, connection in connections:
            with contextlib.suppress(Exception):
                close(connection)


def login_of(url: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str]:
    """Return user and password for a URL's server: of the options, else of the URL, else of ``.netrc``; "": none."""
    user, password = account_of(url)
    user, password = str(options.get("username") or user), str(options.get("password") or password)
    if not password:
        path = environ.get("NETRC") or os.path.join(environ.get("HOME", ""), ".netrc")
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            found = netrc.netrc(path).authenticators(urlsplit(url).hostname or "")
            if found and user in ("", found[0]):
                user, password = found[0], found[2] or ""
    return user, password


def above(path: str) -> list[str]:
    """Return the folders above a path, the outermost first.

    >>> above("/a/b/c")
    ['/a', '/a/b']
    """
    parts = path.strip("/").split("/")[:-1]
    return ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]


def beside(url: str) -> tuple[str, str]:
    """Return the path of a file that is to be written, and the one beside it where it grows until it is whole."""
    target = path_of(url)
    folder, _, name = target.rpartition("/")
    if not name:
        raise BadInput(f"{shown(url)} is a folder", "say the file's name too")
    return target, f"{folder}/{part_of(name)}"


@contextlib.contextmanager
def or_else(remove: Callable[[], None]) -> Iterator[None]:
    """Remove what came of a body that failed; not from a server that does not answer any more."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Stalled):
            with contextlib.suppress(Exception):
                remove()
        raise

"""The interface of a place where files are: four methods, all by URL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import NotPermitted, ServerAway
from .urls import shown

#: Bytes of one piece of a file on its way.
PIECE = 1 << 20


class CredentialsRefused(NotPermitted):
    """What this machine shows a storage is expired, unknown or missing: its owner has to renew it; no token is at fault."""


class Stalled(ServerAway):
    """A storage took the request, then sent nothing for as long as was allowed."""


@dataclass(frozen=True)
class Entry:
    """One file of a storage."""

    url: str
    #: Bytes; None: the storage does not say.
    size: int | None = None
    #: ``sha256:...``, ``md5:...`` or ``adler32:...`` in small hexadecimal; "": the storage does not say.
    checksum: str = ""
    #: Another one when the content changes: an ETag, a time of modification; "": the storage does not say.
    version: str = ""


class Storage(ABC):
    """Reads and writes the files of some schemes. Safe from several threads; made anew in a process that was forked.

    `options` are what the owner of this machine set for the URL's place (an endpoint, credentials), `environ` is
    where else the scheme's own customs look (``AWS_*``, ``X509_USER_PROXY``). Every method raises NotFound,
    NotPermitted, CredentialsRefused, BadInput, OutOfSpace or ServerAway (and Stalled); no other error leaves it, no message
    holds a secret, and none waits longer than `STALL` seconds for a byte.
    """

    #: Reading may begin anywhere without reading what is before: large files come in several streams at once.
    ranges = False

    def __init__(self, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.options, self.environ = options, environ

    @abstractmethod
    def stat(self, url: str) -> Entry:
        """Return what is known of one file. Raises NotFound where there is none, also where there is a folder."""

    @abstractmethod
    def list(self, url: str) -> Iterator[Entry]:
        """Yield all files below a folder, however deep, in the order of their paths; NotFound: there is no such folder."""

    @abstractmethod
    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` to before `end` in pieces; it is left before its end by `close()`."""

    @abstractmethod
    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Put a file of this machine there, with the folders above it; nobody ever sees a part of it.

        What was there is replaced. `tell` hears the bytes that went since it last did. Returns what is there then.
        """

    def remove(self, url: str) -> None:
        """Remove a file; none there is no error. Not every storage has this: then it raises NotPermitted."""
        raise NotPermitted(f"{shown(url)} cannot be removed from here", "remove it with the tools of its place")


#: Seconds without a byte after which a storage counts as stalled.
STALL = 60.0

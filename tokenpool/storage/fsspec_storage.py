"""Files of the storages that fsspec knows, as it knows them: clouds, HDFS, and the memory of this process."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from ..errors import BadInput, NotFound, ServerAway
from . import base
from .base import PIECE, Entry, Storage
from .fsspec_errors import errors_of
from .local import errors_of as local_errors_of
from .urls import below, path_of, scheme_of, shown
from .walks import Item, part_of, walk

#: What each scheme needs, as pip spells it.
NEEDS = {
    **dict.fromkeys(("s3", "s3a"), "tokenpool[s3]"),
    **dict.fromkeys(("gs", "gcs"), "tokenpool[gs]"),
    **dict.fromkeys(("az", "abfs"), "tokenpool[az]"),
    **dict.fromkeys(("http", "https"), "tokenpool[http]"),
    **dict.fromkeys(("ftp", "ftps"), "tokenpool[ftp]"),
    "sftp": "tokenpool[sftp]",
    **dict.fromkeys(("webdav", "webdavs", "dav"), "tokenpool[webdav]"),
    "hdfs": "fsspec pyarrow",
    "memory": "fsspec",
}
#: Storages whose objects appear whole or not at all, so that nothing has to be written beside.
_WHOLE = frozenset({"gs", "gcs", "az", "abfs", "memory"})
_SECRETS = ("password", "secret", "token", "key", "passphrase", "account_key", "sas_token", "connection_string", "auth")


class FsspecStorage(Storage):
    """Storages by fsspec's own four or five calls; those with ways of their own are classes below this one."""

    ranges = True
    #: Options that are not fsspec's but our own.
    ours = frozenset({"stall"})

    def __init__(self, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        super().__init__(options, environ)
        self._systems: dict[str, Any] = {}
        self._lock = threading.Lock()

    # --- the four methods --------------------------------------------------------------------------------------------

    def stat(self, url: str) -> Entry:
        """Return what fsspec's info says."""
        with self.told(url):
            found = self.system(url).info(self.path(url))
            if found.get("type") == "directory":
                raise NotFound(f"{shown(url)} is a folder, not a file", "a folder is meant by a / at the end")
            return Entry(url, found.get("size"), version=_version(found))

    def list(self, url: str) -> Iterator[Entry]:
        """Yield the files below a folder."""
        root = self.path(url).rstrip("/")

        def items(folder: str) -> Iterator[Item]:
            for each in self.system(url).ls(f"{root}/{folder}" if folder else root or "/", detail=True):
                name = str(each["name"]).rstrip("/").rpartition("/")[2]
                yield Item(name, each.get("type") == "directory", each.get("size"), version=_version(each))

        with self.told(url):
            if self.system(url).isfile(root):
                raise NotFound(f"{shown(url)} is a file, not a folder", "leave the / at its end out")
            yield from walk(items, lambda name: below(url, name))

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a file; one that ends too early is an error."""
        with self.told(url):
            system, path, size = self.system(url), self.path(url), self.stat(url).size
            last = size if end is None else end if size is None else min(end, size)
            for at in range(start, last or 0, PIECE):
                piece = system.cat_file(path, start=at, end=min(at + PIECE, last or 0))
                if len(piece) != min(PIECE, (last or 0) - at):
                    raise ServerAway(f"{shown(url)} ended too early", "try again later")
                yield piece

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Put a file there whole, or beside its place and then rename it."""
        with opened(path) as source, self.told(url):
            system, target = self.system(url), self.path(url)
            if scheme_of(url) == "memory":
                tell(os.fstat(source.fileno()).st_size)
                system.pipe_file(target, source.read())
            elif scheme_of(url) in _WHOLE:
                system.put_file(path, target, callback=_callback(tell))
            else:
                folder, _, name = target.rpartition("/")
                system.makedirs(folder, exist_ok=True)
                part = f"{folder}/{part_of(name)}"
                try:
                    system.put_file(path, part, callback=_callback(tell))
                    system.mv(part, target)
                except BaseException:
                    with contextlib.suppress(Exception):
                        system.rm_file(part)
                    raise
            return arrived(self.stat(url), source)

    def remove(self, url: str) -> None:
        """Remove a file."""
        with self.told(url), contextlib.suppress(FileNotFoundError):
            self.system(url).rm_file(self.path(url))

    # --- for the classes below ---------------------------------------------------------------------------------------

    @property
    def stall(self) -> float:
        """Seconds without a byte after which a storage counts as stalled."""
        return float(self.options.get("stall") or base.STALL)

    @contextlib.contextmanager
    def told(self, url: str) -> Iterator[None]:
        """Tell what goes wrong about a URL in our words."""
        with errors_of(url, hidden(self.options, url)):
            yield

    def system(self, url: str) -> Any:
        """Return fsspec's file system for a URL, one for each server."""
        key = url.partition("://")[2].partition("/")[0] if scheme_of(url) not in ("s3", "s3a") else ""
        with self._lock:
            if key not in self._systems:
                self._systems[key] = self.made(url)
            return self._systems[key]

    def made(self, url: str) -> Any:
        """Return a new file system of fsspec for a URL. Raises BadInput where a library is missing."""
        scheme = scheme_of(url)
        needed = NEEDS.get(scheme, "fsspec")
        own = {name: value for name, value in self.options.items() if name not in self.ours}
        try:
            import fsspec

            return fsspec.filesystem(self.kind(url), skip_instance_cache=True, **{**own, **self.defaults(url)})
        except ImportError as error:
            raise BadInput(
                f"{scheme}:// needs a library that is not here ({error.name or error})", _advice(scheme, needed)
            ) from None
        except TypeError as error:
            raise BadInput(f"the options for {scheme}:// are no good: {error}", "look at fsspec's names") from None

    def defaults(self, url: str) -> dict[str, Any]:
        """Return the options of fsspec's file system that hold where nobody said others."""
        place = urlsplit(url)
        options: dict[str, Any] = {"use_listings_cache": False}
        if scheme_of(url) == "hdfs" and place.hostname:
            options.update(host=place.hostname, port=place.port or 8020)
        return options

    def kind(self, url: str) -> str:
        """Return fsspec's name for what a URL needs."""
        return scheme_of(url)

    def path(self, url: str) -> str:
        """Return what fsspec calls a file: bucket and key for clouds, else the path."""
        if scheme_of(url) in ("hdfs",):
            return path_of(url)
        rest = url.partition("://")[2]
        return "/" + rest.lstrip("/") if scheme_of(url) == "memory" else rest


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a file of this machine that is to be sent."""
    with contextlib.ExitStack() as stack:
        with local_errors_of(path):
            file = stack.enter_context(open(path, "rb"))
        yield file


def arrived(entry: Entry, source: BinaryIO) -> Entry:
    """Return what is there after a write. Raises ServerAway where its size is not what was sent."""
    size = os.fstat(source.fileno()).st_size
    if entry.size is not None and entry.size != size:
        raise ServerAway(f"{shown(entry.url)} has {entry.size} bytes of {size} sent", "try again later")
    return entry


def account_of(url: str) -> tuple[str, str]:
    """Return user and password that stand in a URL, "" where there is none."""
    place = urlsplit(url)
    return unquote(place.username or ""), unquote(place.password or "")


def hidden(options: Mapping[str, Any], url: str = "") -> list[str]:
    """Return the words that no message may hold.

    >>> hidden({"key": "abc", "client_kwargs": {"aws_session_token": "t0k"}, "endpoint_url": "http://h"})
    ['abc', 't0k']
    """
    found = [account_of(url)[1]] if "@" in url else []
    for name, value in options.items():
        if isinstance(value, Mapping):
            found += hidden(value)
        elif isinstance(value, str) and any(name.endswith(word) for word in _SECRETS):
            found.append(value)
        elif isinstance(value, (list, tuple)) and name == "auth":
            found += [str(each) for each in value]
    return [word for word in found if word]


def _advice(scheme: str, needed: str) -> str:
    if scheme in ("s3", "s3a") and sys.version_info < (3, 10):
        return f"take Python 3.10 or newer, where pip install '{needed}' works: below it botocore wants an old urllib3"
    return f"pip install '{needed}'"


def _version(found: Mapping[str, Any]) -> str:
    for name in ("ETag", "etag", "generation", "mtime", "modify", "last_modified", "LastModified", "created"):
        if found.get(name):
            return str(found[name])
    return ""


def _callback(tell: Callable[[int], None]) -> Any:
    from fsspec import Callback

    class Told(Callback):  # type: ignore[misc]
        """Passes on how many bytes went."""

        def relative_update(self, inc: int = 1) -> None:
            tell(inc)

    return Told()

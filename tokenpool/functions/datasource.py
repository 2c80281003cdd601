"""What a task reads and writes: get, put and delete by key, over a folder or another storage, with a cache before it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Union

from ..errors import BadInput
from ..storage import Storages
from ..storage.urls import below
from .cache import Cache

#: Where the data of typed tasks is: a folder, or a URL that `tokenpool.storage` knows; and where copies are kept.
PLACE, COPIES = "TOKENPOOL_DATASOURCE", "TOKENPOOL_CACHE"

Data = Union[bytes, str, "os.PathLike[str]", BinaryIO]


class Place(Protocol):
    """A place of files by key."""

    def read(self, key: str, file: BinaryIO) -> int | None:
        """Copy what is under a key into `file`; return its size where that is known. Raises NotFound."""

    def write(self, key: str, path: str) -> None:
        """Put a file of this machine under a key, whole or not at all."""

    def delete(self, key: str) -> None:
        """Remove what is under a key; nothing there is no error."""


class UrlPlace:
    """A folder, or what else a URL that `tokenpool.storage` knows means: ``s3://bucket``, ``sftp://host/data``."""

    def __init__(self, url: str, environ: Mapping[str, str] = os.environ) -> None:
        self._url, self._storage = url, Storages(environ=environ).of(url)

    def read(self, key: str, file: BinaryIO) -> int | None:
        """Copy a file."""
        url = below(self._url, _clean(key))
        size = self._storage.stat(url).size
        for piece in self._storage.read(url):
            file.write(piece)
        return size

    def write(self, key: str, path: str) -> None:
        """Write a file."""
        self._storage.write(below(self._url, _clean(key)), path)

    def delete(self, key: str) -> None:
        """Remove a file."""
        self._storage.remove(below(self._url, _clean(key)))


class Datasource:
    """The files of tasks by key. What was read once is kept in the cache, which all processes of the machine share."""

    def __init__(self, place: Place, cache: Cache) -> None:
        self.place, self.cache = place, cache

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] = os.environ) -> Datasource:
        """Return the one that ``TOKENPOOL_DATASOURCE`` and ``TOKENPOOL_CACHE`` name."""
        place = environ.get(PLACE, "")
        copies = environ.get(COPIES) or os.path.join(tempfile.gettempdir(), f"tokenpool-{os.getuid()}-cache")
        return cls(UrlPlace(place, environ) if place else _Nowhere(), Cache(copies))

    def get(self, key: str, override_cache: bool = False) -> Path:
        """Return a local copy of what is under a key, not to be changed. Raises NotFound."""
        return self.cache.get(key, lambda file: self.place.read(key, file), anew=override_cache)

    def read(self, key: str, override_cache: bool = False) -> bytes:
        """Return what is under a key. Raises NotFound."""
        return self.get(key, override_cache).read_bytes()

    def put(self, key: str, data: Data, only_cache: bool = False) -> None:
        """Put bytes, text, or the file of a path or an open one, under a key."""
        with _opened(data) as source:
            path = self.cache.put(key, lambda file: shutil.copyfileobj(source, file, 1 << 20))
        if not only_cache:
            self.place.write(key, str(path))

    def delete(self, key: str, only_cache: bool = False) -> None:
        """Remove what is under a key."""
        if not only_cache:
            self.place.delete(key)
        self.cache.delete(key)


class _Nowhere:
    """Stands in where nobody said where the data is."""

    def read(self, key: str, file: BinaryIO) -> int | None:
        raise self._error(key)

    def write(self, key: str, path: str) -> None:
        raise self._error(key)

    def delete(self, key: str) -> None:
        raise self._error(key)

    def _error(self, key: str) -> BadInput:
        return BadInput(
            f"nobody said where {key!r} is", f"set {PLACE}=FOLDER (or a URL) for the worker, or in the token's env"
        )


def _clean(key: str) -> str:
    parts = [part for part in key.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise BadInput(f"{key!r} is no key", "names with slashes between, without ..")
    return "/".join(parts)


def _opened(data: Any) -> Any:
    import io

    if isinstance(data, bytes):
        return io.BytesIO(data)
    if isinstance(data, str):
        return io.BytesIO(data.encode())
    if isinstance(data, os.PathLike):
        return open(data, "rb")  # the caller closes it
    return data

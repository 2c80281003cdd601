"""What a task reads and writes: get, put and delete by key, over a folder or another storage, with a cache before it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Union
from urllib.parse import unquote, urlsplit

from ..errors import BadInput, NotFound
from .cache import Cache

#: Where the data of typed tasks is: a folder, ``file://`` or a URL that fsspec knows; and where copies are kept.
PLACE, COPIES = "TOKENPOOL_DATASOURCE", "TOKENPOOL_CACHE"

Data = Union[bytes, str, "os.PathLike[str]", BinaryIO]


class Storage(Protocol):
    """A place of files by key."""

    def read(self, key: str, file: BinaryIO) -> int | None:
        """Copy what is under a key into `file`; return its size where that is known. Raises NotFound."""

    def write(self, key: str, file: BinaryIO) -> None:
        """Put the rest of `file` under a key, whole or not at all where the place can."""

    def delete(self, key: str) -> None:
        """Remove what is under a key; nothing there is no error."""


class Folder:
    """A folder of this machine."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def read(self, key: str, file: BinaryIO) -> int | None:
        """Copy a file of the folder."""
        try:
            with open(self._path(key), "rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
                return os.fstat(source.fileno()).st_size
        except FileNotFoundError:
            raise NotFound(f"there is no {key!r} in {self.root}", "look at the names of the inputs") from None

    def write(self, key: str, file: BinaryIO) -> None:
        """Put a file into the folder under its name once it is whole."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as part:
            try:
                shutil.copyfileobj(file, part, 1 << 20)
                part.flush()
                os.chmod(part.name, 0o644)
                os.replace(part.name, path)
            except BaseException:
                os.unlink(part.name)
                raise

    def delete(self, key: str) -> None:
        """Remove a file of the folder."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / _clean(key)


class Remote:
    """Any storage that fsspec has: ``s3://bucket``, ``gs://bucket``, ``memory://``."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError:
            raise BadInput(f"{url} needs fsspec, which is not installed here", "pip install fsspec") from None
        try:
            self._system, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise BadInput(f"{url} cannot be used here: {error}", "pip install what fsspec needs for it") from None
        self._url: str = url

    def read(self, key: str, file: BinaryIO) -> int | None:
        """Copy an object."""
        path = self._path(key)
        try:
            size: int | None = self._system.info(path).get("size")
            with self._system.open(path, "rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
            return size
        except FileNotFoundError:
            raise NotFound(f"there is no {key!r} in {self._url}", "look at the names of the inputs") from None

    def write(self, key: str, file: BinaryIO) -> None:
        """Write an object."""
        path = self._path(key)
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self._system.open(path, "wb") as target:
            shutil.copyfileobj(file, target, 1 << 20)

    def delete(self, key: str) -> None:
        """Remove an object."""
        try:
            self._system.rm_file(self._path(key))
        except FileNotFoundError:
            pass

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{_clean(key)}"


class Datasource:
    """The files of tasks by key. What was read once is kept in the cache, which all processes of the machine share."""

    def __init__(self, storage: Storage, cache: Cache) -> None:
        self.storage, self.cache = storage, cache

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] = os.environ) -> Datasource:
        """Return the one that ``TOKENPOOL_DATASOURCE`` and ``TOKENPOOL_CACHE`` name."""
        place = environ.get(PLACE, "")
        copies = environ.get(COPIES) or os.path.join(tempfile.gettempdir(), f"tokenpool-{os.getuid()}-cache")
        return cls(open_storage(place) if place else _Nowhere(), Cache(copies))

    def get(self, key: str, override_cache: bool = False) -> Path:
        """Return a local copy of what is under a key, not to be changed. Raises NotFound."""
        return self.cache.get(key, lambda file: self.storage.read(key, file), anew=override_cache)

    def read(self, key: str, override_cache: bool = False) -> bytes:
        """Return what is under a key. Raises NotFound."""
        return self.get(key, override_cache).read_bytes()

    def put(self, key: str, data: Data, only_cache: bool = False) -> None:
        """Put bytes, text, or the file of a path or an open one, under a key."""
        with _opened(data) as source:
            path = self.cache.put(key, lambda file: shutil.copyfileobj(source, file, 1 << 20))
        if not only_cache:
            with open(path, "rb") as file:
                self.storage.write(key, file)

    def delete(self, key: str, only_cache: bool = False) -> None:
        """Remove what is under a key."""
        if not only_cache:
            self.storage.delete(key)
        self.cache.delete(key)


def open_storage(place: str) -> Storage:
    """Return the storage of a folder or a URL; raises BadInput where this machine has no way to it."""
    scheme = urlsplit(place).scheme if "://" in place else ""
    if not scheme:
        return Folder(place)
    return Folder(unquote(urlsplit(place).path)) if scheme == "file" else Remote(place)


class _Nowhere:
    """Stands in where nobody said where the data is."""

    def read(self, key: str, file: BinaryIO) -> int | None:
        raise self._error(key)

    def write(self, key: str, file: BinaryIO) -> None:
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

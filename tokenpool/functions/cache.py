"""Keeps copies of files in a folder that many processes share, each of which may be killed at any moment."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Optional

from ..errors import TokenpoolError

#: Writes one file, and returns its size where the source knows it.
Fill = Callable[[BinaryIO], Optional[int]]


class ShortFile(TokenpoolError):
    """Fewer bytes arrived than the source said; nothing was put into the cache."""


class Cache:
    """Files by their keys. One process fetches a key while the others wait; what is there is always whole."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, key: str) -> Path:
        """Return where the copy of a key is, or would be; a key never leads out of the folder."""
        parts = [part for part in key.split("/") if part not in ("", ".", "..")]
        return self.root.joinpath("files", *parts) if parts else self.root / "files" / "_"

    def get(self, key: str, fill: Fill, anew: bool = False) -> Path:
        """Return the copy of a key, made by `fill` where there is none, or `anew`. Raises ShortFile, and what it raises."""
        target = self.path(key)
        if target.is_file() and not anew:
            return target
        with self._locked(key):
            if anew or not target.is_file():  # somebody else may have fetched it while we waited
                self._publish(target, fill)
        return target

    def put(self, key: str, fill: Fill) -> Path:
        """Make `fill`'s file the copy of a key, whatever was there."""
        return self.get(key, fill, anew=True)

    def delete(self, key: str) -> None:
        """Forget the copy of a key."""
        with self._locked(key):
            self.path(key).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all copies; whoever has one open can read it to its end."""
        for path in sorted((self.root / "files").rglob("*"), reverse=True):
            if not path.is_dir():
                path.unlink(missing_ok=True)

    def _publish(self, target: Path, fill: Fill) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the files, so that what a killed process leaves is never taken for one; the same disk, for the rename.
        parts = self.root / "parts"
        parts.mkdir(exist_ok=True)
        number, part = tempfile.mkstemp(dir=parts)
        try:
            with open(number, "wb") as file:
                expected = fill(file)
                file.flush()
                size = file.tell()
                if expected is not None and size != expected:
                    raise ShortFile(f"{size} of {expected} bytes of {target.name} arrived", "try it again")
                os.fsync(number)
            os.replace(part, target)
        finally:
            if os.path.exists(part):
                os.unlink(part)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock of a key; the kernel lets go of it for a process that dies."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        # Never removed: who locks a file that another has just unlinked would be alone with it.
        with open(locks / hashlib.sha256(key.encode()).hexdigest()[:16], "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

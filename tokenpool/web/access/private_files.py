"""Writes small files that only their owner may read, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...errors import NotPermitted


def write_private(path: Path, text: str) -> None:
    """Replace a file by one of mode 0600; who reads meanwhile sees the old one or the new one. Raises NotPermitted."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                if path.exists() and os.geteuid() == 0:
                    # What root changes still belongs to who reads it.
                    os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except PermissionError as error:
        raise NotPermitted(f"{path} cannot be written: {error.strerror}", "check the folder: ls -ld") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from changing a file meanwhile, by a lock file beside it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

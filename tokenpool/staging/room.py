"""Room on the disks of this machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import NotPermitted, OutOfSpace, TokenpoolError

#: Bytes that are left free.
SPARE = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
HINT = "make room there, or give the worker a larger disk with --workdir; the token runs elsewhere meanwhile"


def free_bytes(path: str) -> int:
    """Return the bytes that may still be written where a path is, or is going to be."""
    folder = os.path.abspath(path)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def expect_room(path: str, size: int, what: str) -> None:
    """Raise OutOfSpace where `size` more bytes would fill the disk of a path."""
    free = free_bytes(path)
    if size + (SPARE if size > SPARE else 0) > free:
        raise OutOfSpace(
            f"{what} needs {size / 1e6:.1f} MB, the disk of {os.path.dirname(path) or path} has {free / 1e6:.1f} MB left",
            HINT,
        )


@contextmanager
def local_errors() -> Iterator[None]:
    """Raise what this machine's disks say in our own words."""
    try:
        yield
    except TokenpoolError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise OutOfSpace(f"the disk of {error.filename or 'this worker'} is full", HINT) from None
        if isinstance(error, PermissionError):
            raise NotPermitted(
                f"{error.filename} cannot be used: {error.strerror}", "look at its owner and mode"
            ) from None
        raise

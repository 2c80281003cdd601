"""Locks between the processes of a machine: the kernel lets go of them for a process that dies."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .values import Stopped

#: Seconds between two tries to get a lock; they grow, as a fetch may take hours.
SHORTEST, LONGEST = 0.01, 0.2


class Busy(Exception):
    """Somebody else has the lock, and nobody was to wait for it."""


@contextmanager
def locked(
    path: Path, shared: bool = False, stopped: Callable[[], bool] = lambda: False, wait: bool = True
) -> Iterator[None]:
    """Hold the lock that a file stands for; raises Stopped as soon as `stopped` says so, Busy where it is not to wait."""
    pause = SHORTEST
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _try(number, fcntl.LOCK_SH if shared else fcntl.LOCK_EX) and _is(number, path):
                yield
                return
        finally:
            os.close(number)
        if not wait:
            raise Busy
        if stopped():
            raise Stopped("stopped while another process fetched the same")
        time.sleep(pause)
        pause = min(LONGEST, pause * 1.5)


def _try(number: int, how: int) -> bool:
    try:
        fcntl.flock(number, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return False
        raise
    return True


def _is(number: int, path: Path) -> bool:
    """Tell whether the file is still the one by that name: somebody may have tidied it away before it was locked."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    own = os.fstat(number)
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)

"""Knows which containers of this machine somebody looks after: a locked file each, free again however its holder ends."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import home
from ..processes import birth

#: Seconds for which a container is left to the next attempt of its token after its client died.
ADOPTABLE = 600.0
#: Seconds between two signs of life.
BEAT = 5.0


def folder_of(environ: Mapping[str, str]) -> str:
    """Return where the records of this machine are."""
    base = environ.get("XDG_STATE_HOME") or str(home(environ) / ".local" / "state")
    return str(Path(base) / "tokenpool" / "containers" / socket.gethostname())


def boot() -> str:
    """Return what is another after this machine was started again, "" where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@dataclass
class Record:
    """A record that is ours: nobody else can take it until we close it or die."""

    path: str
    fd: int

    def write(self, **fields: Any) -> None:
        """Put down what others need to clean up after us."""
        data = json.dumps({**self.read(), **fields}).encode()
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, data, 0)

    def read(self) -> dict[str, Any]:
        """Return what was put down."""
        return _parsed(os.pread(self.fd, 1 << 20, 0))

    def beat(self) -> None:
        """Give a sign of life."""
        os.utime(self.fd)

    def remove(self) -> None:
        """Say that there is nothing left to look after."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        self.close()

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def make(folder: str, claim: str) -> Record:
    """Make and take a new record."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{claim}.json")
    record = Record(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    fcntl.flock(record.fd, fcntl.LOCK_EX)
    return record


def take(path: str) -> Record | None:
    """Take a record whose holder is dead; None where he lives, or where it is not for us.

    Raises FileNotFoundError where there is none.
    """
    try:
        record = Record(path, os.open(path, os.O_RDWR))
    except PermissionError:
        return None
    try:
        fcntl.flock(record.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(record.fd).st_ino == os.stat(path).st_ino:
            return record
    except BlockingIOError:
        pass
    except FileNotFoundError:
        record.close()
        raise
    record.close()
    return None


def paths(folder: str) -> Iterator[str]:
    """Give all records."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if name.endswith(".json"):
            yield os.path.join(folder, name)


def held_for(folder: str, claim: str) -> str:
    """Return the record of what runs for a claim, "" without any."""
    for path in paths(folder):
        try:
            if _parsed(Path(path).read_bytes()).get("holder") == claim:
                return path
        except OSError:
            pass
    return ""


def age(path: str) -> float:
    """Return the seconds since the last sign of life; 0 where the record is gone."""
    try:
        return max(0.0, time.time() - os.stat(path).st_mtime)
    except OSError:
        return 0.0


def remove_folder(work: str) -> None:
    """Remove the folder and the logs of a dead worker's attempt, and what was only there for them."""
    if not os.path.isabs(work) or os.path.dirname(work) == "/":
        return
    shutil.rmtree(work, ignore_errors=True)
    for ending in (".out", ".err", ".request", ".answer"):
        try:
            os.unlink(work + ending)
        except OSError:
            pass
    try:
        os.rmdir(os.path.dirname(work))
    except OSError:
        pass


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def me() -> str:
    """Return what tells this process from all others of this machine, also from later ones with its number."""
    return f"{os.getpid()}:{birth(os.getpid())}"


def lives(process: str) -> bool:
    """Tell whether the process that `me` named is there."""
    pid, _, began = process.partition(":")
    return pid.isdigit() and began.isdigit() and birth(int(pid)) == int(began) != 0

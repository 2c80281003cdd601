"""The files of a spool: written whole or not at all, locked by who owns them, read with suspicion."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from .commits import Outcome

SCHEMA = 1
LOCK, PARTIAL, DAMAGED = "lock", ".tmp", ".damaged"
#: Seconds that one waits for who only looks whether a lock is held, or removes an empty folder.
PATIENCE = 10.0


class Newer(Exception):
    """A file of a schema that this version does not know."""


def lock(path: Path, patience: float = 0.0) -> int | None:
    """Take the lock of a folder and return its handle; None where another holds it for `patience` seconds.

    Raises OSError, FileNotFoundError where the folder is not there.
    """
    deadline = time.monotonic() + patience
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who removes a folder removes its lock first: a lock that is not there any more protects nothing.
            if _is_still(path, handle):
                return handle
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(handle)
                return None
            time.sleep(0.02)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock of a folder."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def write(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, a power cut included. Raises OSError."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.rename(partial, path)
        sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system knows it for folders
            raise
    finally:
        os.close(handle)


def dump(outcome: Outcome, pool_url: str) -> bytes:
    """Return an outcome as it is kept. Raises TypeError, ValueError where it is no JSON."""
    told = {
        "schema": SCHEMA, "pool": pool_url, "kept": round(time.time(), 3),
        "claim": outcome.claim, "doc": outcome.doc, "base": outcome.base,
    }  # fmt: skip
    return json.dumps(told, separators=(",", ":")).encode("ascii")


def load(path: Path) -> Outcome:
    """Return the outcome in a file. Raises ValueError for a damaged one, Newer, OSError."""
    told = json.loads(path.read_bytes())
    if not isinstance(told, dict):
        raise ValueError("it holds no object")
    if isinstance(told.get("schema"), int) and told["schema"] > SCHEMA:
        raise Newer
    doc, claim, base = told.get("doc"), told.get("claim"), told.get("base")
    if not (isinstance(doc, dict) and isinstance(doc.get("_id"), str) and isinstance(claim, str)):
        raise ValueError("it holds no token")
    attachments = doc.get("_attachments") or {}
    if not (base is None or isinstance(base, dict)) or not isinstance(attachments, dict):
        raise ValueError("it holds no token")
    if not all(isinstance(each, dict) for each in attachments.values()):
        raise ValueError("it holds no attachments")
    return Outcome(doc, claim, base)


def finished(folder: Path) -> list[Path]:
    """Return what a dead worker kept; a file that it had written whole, and died before naming, is among it."""
    for path in folder.glob(f".*.json{PARTIAL}"):
        # What is not whole was never promised to be kept.
        with contextlib.suppress(ValueError, Newer):
            load(path)
            path.rename(folder / path.name[1 : -len(PARTIAL)])
    return kept(folder)


def remove(folder: Path) -> None:
    """Remove an empty folder whose lock we hold, and that of its pool; one that holds anything else stays."""
    for path in folder.glob(f".*.json{PARTIAL}"):
        path.unlink()
    (folder / LOCK).unlink()
    folder.rmdir()
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def kept(folder: Path) -> list[Path]:
    """Return the files of a folder that hold an outcome."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # its worker left it empty, or another one took it over, just now
        return []
    return sorted(folder / name for name in names if name.endswith(".json") and not name.startswith("."))


def oldest_first(paths: Iterable[Path]) -> list[Path]:
    """Return the files in the order in which they were written."""
    times = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            times.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(times)]


def folders(folder: Path) -> list[Path]:
    """Return the folders in a folder; none where it is not there or may not be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def file_name(text: str) -> str:
    """Return a name of a file for any text; those that we make ourselves stay as they are."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,100}", text):
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def without_password(url: str) -> str:
    """Return a pool's URL as it may be written down.

    >>> without_password("couchdb+https://me:secret@host:6984/db")
    'couchdb+https://me@host:6984/db'
    """
    parts = urlsplit(url)
    account, at, host = parts.netloc.rpartition("@")
    return url.replace(parts.netloc, f"{account.partition(':')[0]}{at}{host}", 1) if at else url

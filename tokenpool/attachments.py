"""Carries files of an attempt into its token and back: logs, and checkpoints for the next attempt."""

from __future__ import annotations

import base64
import io
import logging
import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import transitions
from .backends.base import Backend, Json
from .errors import Conflict, ServerAway, TokenpoolError

log = logging.getLogger(__name__)

#: Files up to this many bytes travel inside the closing write; larger ones are streamed before it.
INLINE = 256 * 1024
#: Attempts whose logs are kept, the newest ones.
KEPT_LOGS = 5
#: Where a token keeps the files that its next attempt begins with.
CHECKPOINT = "checkpoint/"


def attach_logs(closed: Json, stdout: str, stderr: str, limit: int, backend: Backend) -> None:
    """Put the logs into the document: the closing attempt's under picas' names, earlier ones' with their number."""
    number = len(closed["attempts"])
    final = transitions.state_of(closed) in transitions.FINAL
    base = f"logs_{closed['_id']}" if final else f"logs_{closed['_id']}.{number}"
    _drop_old_logs(closed, number)
    for kind, path, name in (("stdout", stdout, f"{base}.out"), ("stderr", stderr, f"{base}.err")):
        closed["attempts"][-1][kind] = name
        _attach(closed, name, read_capped(path, limit), "text/plain", backend)


def _drop_old_logs(closed: Json, number: int) -> None:
    """Forget the logs of old attempts: a token that is retried for a year must not grow for a year."""
    kept = dict(closed.get("_attachments") or {})
    front = f"logs_{closed['_id']}."
    for name in [name for name in kept if name.startswith(front)] if number > KEPT_LOGS else ():
        attempt, _, end = name[len(front) :].partition(".")
        if end in ("out", "err") and attempt.isdecimal() and int(attempt) <= number - KEPT_LOGS:
            del kept[name]
    closed["_attachments"] = kept


def attach_files(closed: Json, files: Mapping[str, str], backend: Backend) -> None:
    """Put files that a run made into the document, by the names that they are to have there."""
    for name, path in files.items():
        content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        _attach(closed, name, Path(path).read_bytes(), content_type, backend)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def keep_checkpoint(closed: Json, work: Path, backend: Backend) -> None:
    """Carry the files that the token names as its checkpoint to its next attempt; a finished one needs none."""
    if transitions.state_of(closed) in transitions.FINAL:
        names = [name for name in closed.get("_attachments") or {} if name.startswith(CHECKPOINT)]
        for name in names:
            del closed["_attachments"][name]
        return
    patterns = closed.get("checkpoint")
    for path in _matching(work, patterns if isinstance(patterns, list) else []):
        name = CHECKPOINT + path.relative_to(work).as_posix()
        try:
            _attach(closed, name, path.read_bytes(), "application/octet-stream", backend)
        except OSError as error:
            log.warning("the checkpoint %s could not be read: %s", path, error)


def _matching(work: Path, patterns: list[Any]) -> list[Path]:
    found: set[Path] = set()
    for pattern in patterns:
        if isinstance(pattern, str) and pattern and not pattern.startswith("/") and ".." not in Path(pattern).parts:
            found.update(path for path in work.glob(pattern) if path.is_file() and not path.is_symlink())
    return sorted(found)


def restore_checkpoint(doc: Mapping[str, Any], work: Path, backend: Backend) -> None:
    """Write the files that an earlier attempt left into the work folder; raises as the backend does."""
    for name in doc.get("_attachments") or {}:
        if not name.startswith(CHECKPOINT):
            continue
        target = (work / name[len(CHECKPOINT) :]).resolve()
        if work.resolve() not in target.parents:
            continue  # written by hand: nothing leaves the folder of the attempt
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for piece in backend.get_attachment(doc["_id"], name):
                file.write(piece)


# --- files -----------------------------------------------------------------------------------------------------------


def _attach(closed: Json, name: str, data: bytes, content_type: str, backend: Backend) -> None:
    attachments = closed.setdefault("_attachments", {})
    if len(data) > INLINE and _stream(closed, name, data, content_type, backend):
        return
    attachments[name] = {"content_type": content_type, "data": base64.b64encode(data).decode("ascii")}


def size_of(path: str) -> int:
    """Return the bytes in a file; one that is not there has none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def read_capped(path: str, limit: int) -> bytes:
    """Return a log file whole, or its head and tail with a mark between where it is larger than `limit` bytes."""
    size = size_of(path)
    if not size:
        return b""
    with open(path, "rb") as file:
        if size <= limit:
            return file.read()
        head = file.read(limit // 2)
        file.seek(size - (limit - limit // 2))
        tail = file.read()
    mark = f"\n\n[tokenpool: {size - len(head) - len(tail)} of {size} bytes left out here]\n\n".encode()
    return head + mark + tail


def _stream(closed: Json, name: str, data: bytes, content_type: str, backend: Backend) -> bool:
    """Send a large file ahead of the closing write; False where it has to travel inside after all."""
    rev, stale = closed["_rev"], False
    for _ in range(3):
        try:
            body = io.BytesIO(data)
            rev = backend.put_attachment(closed["_id"], rev, name, body, len(data), content_type)
        except Conflict:
            stale = True  # somebody wrote to the token: the file goes to what it has become
        except ServerAway:
            pass  # nobody knows what arrived: the token is read, the file sent again
        except TokenpoolError:
            return False
        try:
            now = backend.get(closed["_id"])
        except TokenpoolError:
            return False
        if not transitions.is_held_by(now, closed["attempts"][-1]["claim"]):
            return False
        arrived = now["_rev"] == rev and name in now.get("_attachments", {})
        stale = stale or not (arrived or now["_rev"] == closed["_rev"])
        rev = now["_rev"]
        if arrived:
            # The stub is the server's: some want their own digest back.
            closed["_attachments"][name] = now["_attachments"][name]
            if not stale:  # else the closing write has to meet its conflict, and be merged with what others wrote
                closed["_rev"] = rev
            return True
    return False

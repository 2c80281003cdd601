"""Writes a line for each thing that somebody did, or was refused: who, from where, what."""

from __future__ import annotations

import json
import logging
import os
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from starlette.requests import HTTPConnection

log = logging.getLogger("tokenpool.audit")

#: Characters of what was done that are kept.
LONGEST = 2000


class Trail:
    """Lines of JSON in ``audit.jsonl`` of a folder; without one they go to the log of the server."""

    def __init__(self, folder: Path | None) -> None:
        self.file = folder / "audit.jsonl" if folder else None
        self._lock = threading.Lock()

    def write(self, line: dict[str, Any]) -> None:
        """Add a line; opened anew each time, so that the file may be moved away by who rotates logs."""
        text = json.dumps({"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **line})
        if self.file is None:
            log.info("%s", text)
            return
        try:
            with self._lock:
                self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                handle = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.write(handle, text.encode() + b"\n")
                finally:
                    os.close(handle)
        except OSError as error:
            log.error("%s cannot be written (%s): %s", self.file, error, text)


def audit(request: HTTPConnection, verb: str, what: str, **more: Any) -> None:
    """Note that who sent this request did `verb` to `what`; `more` are figures of it."""
    from ..site import site_of

    person = getattr(request.state, "person", None)
    who = {"name": person.name, "role": person.role.word} if person else {"name": "", "role": ""}
    site_of(request).access.trail.write(
        {**who, "address": address_of(request), "verb": verb, "what": what[:LONGEST], **more}
    )


def address_of(connection: HTTPConnection) -> str:
    """Return the address that a request came from; behind a trusted proxy, the one that the proxy names."""
    return connection.client.host if connection.client else "?"

"""Write log records into a CouchDB database, one document each."""

from __future__ import annotations

import logging
import socket
import uuid
from typing import Any, Protocol

from . import chance

#: Seconds; a log line must never hold up the work it tells about for longer.
TIMEOUT = 10.0

default_log_formatter = logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")


class Saver(Protocol):
    """What takes the documents; python-couchdb's `Database` is one."""

    def save(self, doc: dict[str, Any]) -> Any:
        """Store one document."""


class CouchDBLogger(logging.Handler):
    """A logging handler that saves each record in a database: `db` by its name at `url`, or any object with `save`."""

    def __init__(self, url: str | None, db: str | Saver) -> None:
        super().__init__()
        self.server: Any = None
        if isinstance(db, str):
            self.server = _server(url)
            self.db: Saver = self.server[db]
        else:
            self.db = db
        self.hostname = socket.gethostname()
        # Tells apart the handlers of one host; the field's odd name is picas' own.
        self.trace_nr = int(chance.uniform(0, 100_000))
        self._saving = False

    def emit(self, record: logging.LogRecord) -> None:
        """Save one record; what goes wrong is reported as logging reports it, and never reaches the caller."""
        # The database's own client may log while it saves. logging holds our lock, so this flag is ours alone.
        if self._saving:
            return
        self._saving = True
        try:
            self.db.save(self._document(record))
        except Exception:
            self.handleError(record)
        finally:
            self._saving = False

    def _document(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the document of one record."""
        doc = {
            "_id": f"{self.hostname}:{uuid.uuid4().hex}",
            "type": "log",
            "lvl": record.levelno,
            "msg": record.getMessage(),
            "created": record.created,
            "func": record.funcName,
            "host": self.hostname,
            "trance_nr": self.trace_nr,
        }
        if record.exc_info:
            doc["exception"] = default_log_formatter.formatException(record.exc_info)
        return doc


def _server(url: str | None) -> Any:
    """Return python-couchdb's server, with the time limit it lacks."""
    import couchdb
    from couchdb.http import Session

    session = Session(timeout=TIMEOUT)
    return couchdb.Server(url, session=session) if url else couchdb.Server(session=session)

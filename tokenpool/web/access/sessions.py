"""Remembers who is logged in: on this side only, so that a session can be ended; survives a restart in a file."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...errors import TokenpoolError
from .private_files import write_private

log = logging.getLogger(__name__)

#: The oldest ones end where there are more.
MOST = 5000
#: Seconds between two notes of when a session was used last.
NOTED = 60.0
#: However busy: after so many sessions' lives one has to log in again.
LIVES = 14


@dataclass(frozen=True)
class Session:
    """One browser of one person, between login and logout."""

    name: str
    role: str
    #: What a form must bring to be believed.
    csrf: str
    #: What was true of the password at login.
    stamp: str
    began: float
    seen: float


class Sessions:
    """All sessions; the file holds hashes of their names, so that who reads it cannot take one over."""

    def __init__(self, file: Path | None, lasts: float, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._lasts, self._clock = lasts, clock
        self._lock = threading.Lock()
        self._known = self._load()

    def begin(self, name: str, role: str, stamp: str) -> tuple[str, Session]:
        """Begin a session; return its secret name, which goes into the cookie, and itself."""
        now, secret = self._clock(), secrets.token_urlsafe(32)
        session = Session(name, role, secrets.token_urlsafe(32), stamp, now, now)
        with self._lock:
            self._known[_digest(secret)] = session
            self._drop_old()
            self._save()
        return secret, session

    def find(self, secret: str) -> Session | None:
        """Return a session that goes on, by its secret name."""
        now, key = self._clock(), _digest(secret)
        with self._lock:
            session = self._known.get(key)
            if session is None or self._over(session, now):
                return None
            if now - session.seen > NOTED:
                session = self._known[key] = replace(session, seen=now)
            return session

    def end(self, secret: str) -> None:
        """End one session."""
        with self._lock:
            if self._known.pop(_digest(secret), None):
                self._save()

    def save(self) -> None:
        """Write all to the folder, as the server does when it stops."""
        with self._lock:
            self._drop_old()
            self._save()

    def _over(self, session: Session, now: float) -> bool:
        return now - session.seen > self._lasts or now - session.began > LIVES * self._lasts

    def _drop_old(self) -> None:
        now = self._clock()
        going_on = [(key, each) for key, each in self._known.items() if not self._over(each, now)]
        self._known = dict(sorted(going_on, key=lambda pair: pair[1].seen)[-MOST:])

    def _save(self) -> None:
        if self._file is None:
            return
        try:
            write_private(self._file, json.dumps({key: asdict(session) for key, session in self._known.items()}))
        except (OSError, TokenpoolError) as error:
            log.warning("sessions are not kept: %s", error)

    def _load(self) -> dict[str, Session]:
        try:
            kept = json.loads(self._file.read_text("utf-8")) if self._file else {}
            return {key: Session(**fields) for key, fields in kept.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s is not read, everybody has to log in again: %s", self._file, error)
            return {}


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()

"""A script as a worker: its claims hold as long as its process lives."""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import transitions
from .backends.base import Backend, Json
from .errors import TokenpoolError
from .leases import LEASE, Lease
from .membership import Membership
from .util import timestamp

#: Seconds that a token runs until others' orders about it are listened to: shorter ones are over too soon.
LONG = 1.0


def note_attempt(doc: Json, claimed: Json, began: str) -> None:
    """Add a run to a token's history; `claimed` is the token as it was claimed, `began` when it was started."""
    lease = claimed.get("lease") or {}
    failed = transitions.state_of({**doc, "type": "token"}) == transitions.ERROR
    entry = {
        "claim": lease.get("claim", ""),
        "worker": lease.get("worker", ""),
        "hostname": socket.gethostname(),
        "start_time": began,
        "end_time": timestamp(),
        "exit_code": doc.get("exit_code"),
        "failure_class": "executor" if failed else None,
        "counted": True,
    }
    before = doc.get("attempts")
    doc["attempts"] = [*(before if isinstance(before, list) else ()), entry]


class Attendance:
    """The lease of one process that claims by itself: `Pool.claim`, picas' iterators and actors."""

    def __init__(self, backend: Backend, seconds: float = LEASE) -> None:
        self._backend, self._pid = backend, os.getpid()
        self._member = Membership(backend, seconds, 1, self._tell, self._news)
        self._current: tuple[Json, float, str] | None = None
        self._end: Callable[[], None] = lambda: None
        self._watch: threading.Thread | None = None
        self._asked = threading.Event()
        self._closed = False
        atexit.register(self.close)

    @property
    def is_ours(self) -> bool:
        """A forked child is a process of its own, whose parent may end before it."""
        return self._pid == os.getpid() and not self._closed

    @property
    def lease(self) -> Lease:
        """The lease to claim under; a new one after it was ended by others."""
        if self._member.lost.is_set():
            self._member.renew_identity(1)
        self._member.start()
        return self._member.lease

    # --- one token at a time, as actors run them -----------------------------------------------------------------------

    def begin(self, doc: Json, end: Callable[[], None]) -> None:
        """A claimed token is being run; `end` is called if it is cancelled or not ours any more."""
        self._end, self._current = end, (doc, time.monotonic(), timestamp())
        if self._watch is None:
            self._watch = threading.Thread(target=self._watching, name="tokenpool-attendance", daemon=True)
            self._watch.start()

    def finish(self) -> None:
        """It ended."""
        self._current = None

    def _watching(self) -> None:
        while not self._closed:
            self._asked.wait(LONG)
            self._asked.clear()
            current = self._current
            is_long = current is not None and time.monotonic() - current[1] >= LONG
            self._member.ear.want(is_long)
            if current is not None and is_long:
                self._look(current[0])

    def _look(self, doc: Json) -> None:
        """End the token that runs where somebody asked for it, or took it."""
        lost = self._member.lost.is_set()
        if not lost and self._member.take_orders() is None:
            return
        try:
            now = None if lost else self._backend.get_many([doc["_id"]])[0]
        except TokenpoolError:
            return
        if now is None or now.get("cancel") or not transitions.is_held_by(now, doc["lease"]["claim"]):
            self._end()

    def _news(self) -> None:
        self._asked.set()

    def _tell(self) -> Mapping[str, Any]:
        current = self._current
        if current is None:
            return {"running": []}
        doc, _, since = current
        lease = doc.get("lease") or {}
        told = {"token": doc["_id"], "claim": lease.get("claim", ""), "batch": str(doc.get("batch") or "")}
        return {"running": [{**told, "since": since, "phase": "run", "command": str(doc.get("input") or "")[:120]}]}

    def close(self) -> None:
        """Leave: what is still claimed goes back to the others after a while."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        atexit.unregister(self.close)
        self._asked.set()
        self._member.close(orderly=True)

"""Wakes idle workers: a document that is written when there may be work, and a thread that listens to it."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Sequence

from . import chance
from .backends.base import Backend
from .errors import TokenpoolError
from .leases import Contact

log = logging.getLogger(__name__)

BELL = "bell"
#: Seconds between two rings of one process.
PAUSE = 1.0
#: Seconds that one request listens; the server sends a sign of life in between.
HOLD = 900.0


def ring(backend: Backend) -> None:
    """Write the bell. Somebody who writes it at the same moment wakes the same workers, so a conflict is no harm.

    A server that is away at this moment has workers that look for themselves, later.
    """
    try:
        now = backend.get_many([BELL])[0]
        rings = now.get("rings", 0) if now else 0
        doc = {"_id": BELL, "type": "bell", "rings": (rings if isinstance(rings, int) else 0) + 1}
        backend.put_many([{**doc, "_rev": now["_rev"]} if now else doc])
    except TokenpoolError as error:
        log.debug("the bell could not be rung: %s", error)


class Bell:
    """Rings at most once a second; a ring that comes sooner is kept for later, or for `flush`."""

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        self._backend, self._clock = backend, clock
        self._rang = -PAUSE
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Wake all idle workers, now or within a second."""
        with self._lock:
            if self._timer is not None:
                return
            wait = self._rang + PAUSE - self._clock()
            if wait > 0:
                self._timer = threading.Timer(wait, self._later)
                self._timer.daemon = True
                self._timer.start()
                # A script may end within this second without closing its pool.
                atexit.register(self.flush)
                return
            self._rang = self._clock()
        ring(self._backend)

    def _later(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            self._timer, self._rang = None, self._clock()
        atexit.unregister(self.flush)
        ring(self._backend)

    def flush(self) -> None:
        """Ring now what was to be rung later: this process ends."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            atexit.unregister(self.flush)
            timer.cancel()
            ring(self._backend)


class Ear:
    """Listens to some documents in a thread, while it is wanted; `heard` gets the ids that changed.

    It gets no ids when listening begins: what happened before went unheard, so everything is to be looked at once.
    """

    def __init__(
        self,
        backend: Backend,
        ids: Callable[[], Sequence[str]],
        heard: Callable[[frozenset[str]], None],
        contact: Contact,
    ) -> None:
        self._backend, self._ids, self._heard, self._contact = backend, ids, heard, contact
        self._wanted = threading.Event()
        self._closed = False
        self.listens = False
        self._thread: threading.Thread | None = None

    def want(self, wanted: bool) -> None:
        """Begin to listen, or do not listen again after the present request."""
        if not wanted:
            self._wanted.clear()
            return
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tokenpool-ear", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End; a request that is still open is left to the process's end."""
        self._closed = True
        self._wanted.set()

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            self._wanted.wait()
            try:
                self._listen()
                failures = 0
            except Exception as error:  # the pool may be closed under us, or away
                self._contact.broken()
                self.listens = False
                failures += 1
                if not isinstance(error, TokenpoolError) and not self._closed:
                    log.exception("listening failed")
                if self._closed:
                    return
                time.sleep(chance.uniform(0.2, min(30.0, 0.5 * 2**failures)))

    def _listen(self) -> None:
        """Listen as long as it is wanted."""
        ids = list(self._ids())
        marker = self._backend.listen(ids, "").marker
        self._contact.ok()
        self.listens = True
        self._heard(frozenset())
        while self._wanted.is_set() and not self._closed:
            if list(self._ids()) != ids:
                break
            self._contact.hold()
            answer = self._backend.listen(ids, marker, chance.uniform(0.8, 1.0) * HOLD)
            self._contact.let_go()
            marker = answer.marker
            if answer.changed and not self._closed:
                self._heard(answer.changed)
        self.listens = False

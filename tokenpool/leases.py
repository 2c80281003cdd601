"""A worker's right to its tokens: one document a worker, renewed while it lives, never compared by clocks.

A lease is over when an observer has seen its document unchanged for one whole lease of the observer's own uninterrupted
contact with the server. So an outage ends no lease, and no two clocks are ever compared.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from . import chance
from .backends.base import Backend, Json, Saved, WriteResult
from .errors import TokenpoolError
from .util import timestamp

log = logging.getLogger(__name__)

#: Seconds of a lease, unless said otherwise.
LEASE = 120.0
#: A lease is renewed at this share of itself; contact counts as broken after a silence of that share.
RENEW_AT, SILENCE = 1 / 3, 1 / 2
#: Seconds after which a line that died is noticed at the latest, with some to spare.
DEAD_LINE = 75.0
#: An idle worker holds nothing: it renews so much more seldom.
IDLE_FACTOR = 30
#: Fields of the document that others write; all the rest is the worker's own.
ORDERS = ("slots", "prefetch", "drain", "stop", "fenced", "look", "follow")
#: Names the order that started us, where a launcher did: who asked for workers knows by it which ones came.
JOB = "TOKENPOOL_LAUNCH"
#: Every worker document has an id from here to there.
FIRST, LAST = "worker_", "worker_\uffff"


def new_worker_id() -> str:
    """Return a name for a worker that nobody else has."""
    return f"worker_{uuid4().hex}"


class Contact:
    """Since when this process talks with the server without an interruption; safe from many threads."""

    def __init__(self, lease: float = LEASE, clock: Callable[[], float] = time.monotonic) -> None:
        self._silence, self._clock = lease * SILENCE, clock
        self._since = self._last = -math.inf
        self._held_since = math.inf

    def watch_for(self, lease: float) -> None:
        """Be strict enough to judge leases of so many seconds."""
        self._silence = lease * SILENCE

    @property
    def since(self) -> float:
        """When the present contact began, by the clock; now where there is none."""
        now = self._clock()
        held = self._held_since <= self._last
        return self._since if now - self._last <= self._silence or held else now

    def ok(self) -> None:
        """A request was answered."""
        now = self._clock()
        if now - self._last > self._silence and not self._held_since <= self._last:
            self._since = now
        self._last = now

    def broken(self) -> None:
        """A request failed: whatever was seen before does not count any more."""
        self._last = -math.inf
        self._held_since = math.inf

    def hold(self) -> None:
        """A request that stays open for long begins: as long as it stands, there is contact, for leases that are long.

        A line that died is noticed after a while only; within a short lease that would hide an outage.
        """
        self.ok()
        if self.may_hold:
            self._held_since = self._last

    @property
    def may_hold(self) -> bool:
        """Tell whether an open request counts as contact for the leases that are watched."""
        return self._silence / SILENCE * (1 - RENEW_AT) >= DEAD_LINE

    def let_go(self) -> None:
        """The long request ended well."""
        self._held_since = math.inf
        self._last = self._clock()


class Lease:
    """The document of one worker, kept alive by a thread of its own that nothing else blocks.

    `tell` gives what the worker says of itself at each renewal; `obey` gets the document whenever others wrote into it
    (slots, prefetch, drain, stop, look, follow); `lost` is called once, when the lease is gone: children must end then.
    """

    def __init__(
        self,
        backend: Backend,
        seconds: float = LEASE,
        contact: Contact | None = None,
        slots: int = 1,
        tell: Callable[[], Mapping[str, Any]] = dict,
        obey: Callable[[Json], None] = lambda doc: None,
        lost: Callable[[], None] = lambda: None,
        prefetch: int = 0,
    ) -> None:
        self.backend, self.seconds = backend, seconds
        self.contact = contact or Contact(seconds)
        self.name = new_worker_id()
        self.is_open = False
        self.is_lost = False
        self._tell, self._obey, self._lost = tell, obey, lost
        self._idle = self._rests = False
        self._orders: Json = {
            "slots": slots, "prefetch": prefetch, "drain": False, "stop": False, "fenced": False, "look": 0, "follow": {},
        }  # fmt: skip
        self._own: Json = {
            "type": "worker",
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "started": timestamp(),
            "job": os.environ.get(JOB, ""),
        }
        #: The revision that was written or read last.
        self.rev = ""
        self._renewals = 0
        self._lock = threading.RLock()
        self._kicked = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    # --- what is written ---------------------------------------------------------------------------------------------

    def document(self) -> Json:
        """Return the document as it is to be written now, also together with a claim."""
        told = dict(self._tell())
        with self._lock:
            self._renewals += 1
            doc = {
                "_id": self.name, **self._own, **self._orders, **told,
                "idle": self._idle, "lease": self.seconds * (IDLE_FACTOR if self._idle else 1),
                "renewed": timestamp(), "renewals": self._renewals,
            }  # fmt: skip
            return {**doc, "_rev": self.rev} if self.rev else doc

    def opening(self) -> list[Json]:
        """Return what a claim has to write along: the document, while nobody could know that this worker lives."""
        self._rests = False
        if self.is_open and not self._idle:
            return []
        self._idle = False
        return [self.document()]

    def written(self, result: WriteResult | None) -> None:
        """Take note of what became of a document that was written along; None: nobody knows."""
        if isinstance(result, Saved):
            self._saved(result.rev)
        else:
            self.renew_soon()
        self._begin()

    def _saved(self, rev: str) -> None:
        with self._lock:
            self.rev, self.is_open = rev, True
        self.contact.ok()

    # --- renewing ----------------------------------------------------------------------------------------------------

    def renew(self) -> bool:
        """Write the document; on a conflict read it back. False: the server could not be asked, or the lease is lost."""
        try:
            for _ in range(8):
                result = self.backend.put_many([self.document()])[0]
                if isinstance(result, Saved):
                    self._saved(result.rev)
                    return True
                if not self.read():
                    return False
        except TokenpoolError as error:
            self.contact.broken()
            log.info("the lease could not be renewed: %s", error)
        return False

    def read(self) -> bool:
        """Read the document back and take the orders in it; False where the lease is lost. Raises as the backend does."""
        now = self.backend.get_many([self.name])[0]
        self.contact.ok()
        with self._lock:
            if now is None and not self.rev:
                return True  # it was never written
            if now is None or now.get("fenced"):
                self._lose()
                return False
            changed = now["_rev"] != self.rev
            self.rev, self.is_open = now["_rev"], True
            self._orders = {name: now.get(name, value) for name, value in self._orders.items()}
        if changed:
            self._obey(now)
        return True

    def show(self) -> None:
        """Write the document soon, though nothing is claimed: others can see this worker then, and give it orders."""
        if not self.is_open and self._thread is None:
            self._begin()
            self.renew_soon()

    def idle(self) -> None:
        """This worker holds nothing and waits: it says so when it would renew next, and from then on renews seldom."""
        self._rests = True

    @property
    def is_idle(self) -> bool:
        """It told everybody that it holds nothing."""
        return self._idle

    def renew_soon(self) -> None:
        """Renew now rather than at the next time."""
        self._kicked.set()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                arguments = (weakref.ref(self), self._kicked, self._period())
                self._thread = threading.Thread(target=_keep, args=arguments, name="tokenpool-lease", daemon=True)
                self._thread.start()

    def turn(self) -> float:
        """Renew once, for the thread; return the seconds until the next time, below 0 where there is none."""
        if self._closed or self.is_lost:
            return -1.0
        self._idle = self._rests
        try:
            renewed = self.renew()
        except Exception:  # whatever it was, a lease that is not renewed costs all running tokens
            log.exception("the lease could not be renewed")
            renewed = False
        return self._period() if renewed else chance.uniform(0.5, 1) * min(5.0, self.seconds / 12)

    def _period(self) -> float:
        return self.seconds * RENEW_AT * (IDLE_FACTOR if self._idle else 1) * chance.uniform(0.9, 1.0)

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            log.warning("the lease of %s was ended by others: its tokens are theirs now", self.name)
            self._lost()

    # --- leaving -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop renewing and delete the document: this worker holds no token any more."""
        self._closed = True
        self._kicked.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)
        if not self.is_open or self.is_lost:
            return
        try:
            for _ in range(3):
                if isinstance(
                    self.backend.put_many([{"_id": self.name, "_rev": self.rev, "_deleted": True}])[0], Saved
                ):
                    return
                if not self.read():
                    return
        except TokenpoolError as error:
            log.info("the worker document stays behind: %s", error)  # others delete it when it is over


def _keep(lease: weakref.ref[Lease], kicked: threading.Event, wait: float) -> None:
    """Renew a lease until it ends, or nobody holds it any more: a forgotten one must not live as long as its process."""
    while wait >= 0:
        kicked.wait(wait)
        kicked.clear()
        held = lease()
        if held is None:
            return
        wait = held.turn()
        del held

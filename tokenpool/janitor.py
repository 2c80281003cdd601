"""Brings back what dead workers held, opens what waited, and settles conflicts: every worker does it, nobody must.

Each step is idempotent and every write a compare-and-set, so any number of janitors may work at once. On a large fleet
only the first few workers are on duty; the others look now and then whether those are still alive.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from . import chance, conflicts, dependencies, transitions
from .backends.base import ALL_DOCS, Backend, Json, Saved
from .bell import ring
from .errors import TokenpoolError
from .leases import FIRST, LAST, RENEW_AT, Contact
from .reopening import reopen
from .retries import lose

log = logging.getLogger(__name__)

#: Workers that are on duty: so many may die at once before it takes the others longer to notice.
ON_DUTY = 8
#: Of these, so many look at waiting tokens as soon as the bell rings.
FIRST_TO_LOOK = 2
#: Seconds between the first pass and the second one, which double until they are the usual ones.
EARLY = 2.0
#: Nobody looks more often than for leases of so many seconds, whatever a document says.
SHORTEST = 1.0
#: Tokens written in one request.
CHUNK = 200
#: Seconds after a token closed until its children are looked at: others that close meanwhile share the look.
SOON = 0.3


@dataclass
class Seen:
    """What a janitor remembers between two passes, by the name of what it saw: since when it stands unchanged."""

    clock: Callable[[], float]
    contact: Contact
    entries: dict[str, tuple[str, float]] = field(default_factory=dict)

    def age(self, name: str, mark: str) -> float:
        """Return for how many seconds of uninterrupted contact `name` has borne this mark."""
        now = self.clock()
        before = self.entries.get(name)
        if before is None or before[0] != mark:
            self.entries[name] = (mark, now)
            return 0.0
        return now - max(before[1], self.contact.since)

    def keep(self, names: Iterable[str]) -> None:
        """Forget everything else."""
        kept = set(names)
        self.entries = {name: entry for name, entry in self.entries.items() if name in kept}


class Janitor:
    """One process's passes over the pool, in a thread of its own."""

    def __init__(
        self,
        backend: Backend,
        lease: float,
        contact: Contact,
        me: Callable[[], str] = str,
        adopt_picas_after: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend, self.lease, self.contact, self.me = backend, lease, contact, me
        self.adopt_picas_after = adopt_picas_after
        self.on_duty = True
        #: The hosts of all workers that the last pass saw.
        self.hosts: frozenset[str] = frozenset()
        #: About how many workers there are.
        self.fleet = 1
        self._clock = clock
        self._shortest = lease
        self._passes = 0
        self._workers = Seen(clock, contact)
        self._orphans = Seen(clock, contact)
        self._broken: dict[str, float] = {}
        #: Whether any token waits; None: not known.
        self._held: bool | None = None
        self._look_at_all = True
        #: Our place among the workers; a process that has not looked yet leaves the bell to others.
        self._rank = 0 if not me() else ON_DUTY
        self._parents: set[str] = set()
        self._lock = threading.Lock()
        self._todo = 0
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    # --- the thread --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to make passes."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tokenpool-janitor", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Make no more passes; one that is under way is left to end by itself."""
        self._closed = True
        self._wake.set()

    def closed_some(self, ids: Iterable[str]) -> None:
        """Tokens were closed: if any wait for parents, look at their children soon."""
        if self._held is not False:
            with self._lock:
                self._parents.update(ids)
            self._wake.set()

    def rung(self) -> None:
        """Something was pushed or opened: it may be a token that waits. The first on duty look at once."""
        if self._rank < FIRST_TO_LOOK:
            self._held = None
            self._look_at_all = True
            self._wake.set()

    def expect(self) -> None:
        """This process has seen that tokens wait: look at them soon."""
        self._held = self._look_at_all = True
        self._wake.set()

    def _run(self) -> None:
        # At first, soon: a worker that is started because others died should not wait long before it looks.
        next_pass = self._clock() + min(chance.uniform(0.5, 2.0), chance.uniform(0, 0.15) * self.lease)
        next_release = float("inf")
        while not self._closed:
            wait = min(next_pass, next_release) - self._clock()
            if self._wake.wait(max(0.0, wait)) and not self._closed:
                self._wake.clear()
                next_release = min(next_release, self._clock() + SOON)
                continue
            if self._closed:
                return
            try:
                if self._clock() >= next_pass:
                    self.sweep()
                    self._look_at_all = True
                    next_pass = self._clock() + self._period()
                wait = self.release()
                next_release = self._clock() + max(SOON, wait)
            except TokenpoolError as error:
                self.contact.broken()
                log.info("the janitor could not finish its pass: %s", error)
                next_pass, next_release = self._clock() + self._period() / 2, float("inf")
            except Exception:  # a fault here must not end the only one who brings tokens back
                log.exception("a pass of the janitor failed")
                next_pass, next_release = self._clock() + self._period(), float("inf")

    def _period(self) -> float:
        # More often in the beginning: a fleet that is started together comes up one by one.
        off_duty = 1.0 if self.contact.may_hold else 0.4
        usual = self._shortest * (RENEW_AT if self.on_duty else off_duty)
        self._passes += 1
        return min(usual, EARLY * 2.0 ** min(self._passes, 30)) * chance.uniform(0.8, 1.0)

    # --- one pass ------------------------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Look at all workers and tokens once; return how many tokens were brought back."""
        workers = self._read_workers()
        self.hosts = frozenset(str(doc.get("hostname")) for doc in workers)
        dead = [doc for doc in workers if self._is_over(doc)]
        self._decide_duty({doc["_id"] for doc in workers} - {doc["_id"] for doc in dead})
        if not self.on_duty:
            return 0
        back = sum(self._bury(doc) for doc in dead)
        back += self._bring_orphans(workers)
        back += self._adopt()
        self._settle_conflicts()
        self._count(back, any(doc.get("idle") for doc in workers))
        self.contact.ok()
        return back

    def _read_workers(self) -> list[Json]:
        """Return the worker documents: all of them on duty, else the first, who should be on duty."""
        limit = None if self.on_duty else 2 * ON_DUTY
        params = {"startkey": FIRST, "endkey": LAST, "include_docs": True, "limit": limit}
        rows = self.backend.view(ALL_DOCS, "", params).rows
        self.contact.ok()
        # A token may have a name like that.
        workers = [row.doc for row in rows if row.doc is not None and row.doc.get("type") == "worker"]
        self.fleet = fleet_of([doc["_id"] for doc in workers], limit)
        if self.on_duty:
            self._workers.keep(doc["_id"] for doc in workers)
        # Some may have a shorter lease than this process: it looks as often as they need it.
        self._shortest = min((lease for doc in workers if (lease := _lease_of(doc)) is not None), default=self.lease)
        self._shortest = max(SHORTEST, min(self.lease, self._shortest))
        self.contact.watch_for(self._shortest)
        return workers

    def _is_over(self, doc: Json) -> bool:
        """Tell whether a worker has not renewed for its lease, by what this process saw itself."""
        if doc["_id"] == self.me():
            return False
        own = _lease_of(doc)
        lease = self.lease if own is None else max(SHORTEST, own)
        if doc.get("fenced"):
            lease = min(lease, self.lease)
        # Not its revision: others write into the document too, a dead worker's included.
        return self._workers.age(doc["_id"], f"{doc.get('renewals')} {bool(doc.get('fenced'))}") >= lease

    def _decide_duty(self, alive: set[str]) -> None:
        """The first by name are on duty; a process that is no worker (`wait`) always is."""
        me = self.me()
        self._rank = sorted(alive | {me}).index(me) if me else 0
        self.on_duty = self._rank < ON_DUTY

    def _bury(self, doc: Json) -> int:
        """End a lease: who wins the mark brings the tokens back, and deletes the document at last."""
        if not doc.get("fenced"):
            result = self.backend.put_many([{**doc, "fenced": True}])[0]
            if not isinstance(result, Saved):
                return 0  # it lives after all, or another janitor was faster
            doc = {**doc, "_rev": result.rev}
            log.warning("worker %s on %s is gone: its tokens come back", doc["_id"], doc.get("hostname"))
        back = self._bring_back(doc["_id"])
        self.backend.put_many([{"_id": doc["_id"], "_rev": doc["_rev"], "_deleted": True}])
        return back

    def _bring_orphans(self, workers: list[Json]) -> int:
        """Bring back tokens whose worker has no living document: a claim that arrived after its worker's end."""
        revs = {doc["_id"]: doc["_rev"] for doc in workers if not doc.get("idle")}
        held = {worker for _, worker in self.backend.holders() if worker and worker not in revs}
        held.discard(self.me())
        self._orphans.keep(held)
        return sum(self._bring_back(name) for name in held if self._orphans.age(name, "") >= self.lease)

    def _settle_conflicts(self) -> None:
        """Settle what a cluster let two workers do; who lost a token is told to look, and children are judged anew."""
        ids = [token_id for _, token_id in self.backend.waiting("conflict", limit=CHUNK)]
        settled = [each for each in ids if conflicts.resolve(self.backend, each, displaced=self._call)]
        if settled:
            reopen(self.backend, settled)
            self._held = self._look_at_all = True

    def _call(self, worker: str) -> None:
        """Ask a worker to look at its tokens: one of them is not its own any more."""
        doc = self.backend.get_many([worker])[0]
        if doc is not None:
            look = doc.get("look")
            self.backend.put_many([{**doc, "look": look + 1 if isinstance(look, int) else 1}])

    def _bring_back(self, worker: str) -> int:
        """Put all tokens that this worker holds back to todo."""
        return self._write_lost(self.backend.scan(transitions.LOCKED, holder=worker))

    def _adopt(self) -> int:
        """Bring back what picas holds for longer than we were told that it may."""
        if self.adopt_picas_after is None:
            return 0
        before = self.backend.now() - self.adopt_picas_after
        docs = self.backend.scan(transitions.LOCKED, holder="")
        return self._write_lost(doc for doc in docs if _is_number(doc.get("lock")) and doc["lock"] < before)

    def _write_lost(self, docs: Iterable[Json]) -> int:
        back, iterator = 0, iter(docs)
        while chunk := list(islice(iterator, CHUNK)):
            # A conflict is a token that moved by itself; the next pass sees how it stands.
            back += sum(isinstance(result, Saved) for result in self.backend.put_many([lose(doc) for doc in chunk]))
        return back

    def _count(self, back: int, somebody_idles: bool) -> None:
        """Learn whether tokens wait for others, and wake idle workers for what came without a ring: picas' pushes."""
        totals = dict.fromkeys(transitions.STATES, 0)
        for (state, _), number in self.backend.counts().items():
            totals[state] += number
        if back or (somebody_idles and totals[transitions.TODO] > self._todo):
            ring(self.backend)
        self._held, self._todo = totals[transitions.HELD] > 0, totals[transitions.TODO]

    def release(self) -> float:
        """Open what is due or has its parents done, close what waits in vain; return the seconds until the next one."""
        with self._lock:
            parents, self._parents = self._parents, set()
        if self._held is None:
            self._count(0, False)
        if not self._held:
            return math.inf
        everything, self._look_at_all = self._look_at_all, False
        found = dependencies.release(self.backend, parents=None if everything else sorted(parents))
        if everything:
            dependencies.end_broken(self.backend, self._broken, self.lease, self._clock)
        if found.released:
            ring(self.backend)
        if found.more:
            self._look_at_all = True
            return 0.0
        if found.next_due is not None:
            self._look_at_all = True
            return found.next_due - self.backend.now()
        return math.inf


def fleet_of(names: Sequence[str], limit: int | None) -> int:
    """Return the number of workers, guessed from the first names where only `limit` were read: names are random.

    >>> fleet_of(["worker_00" + "0" * 30, "worker_10" + "0" * 30], 2)
    16
    """
    if limit is None or len(names) < limit:
        return max(1, len(names))
    try:
        place = int(names[-1][len(FIRST) : len(FIRST) + 8], 16) / 2**32
    except ValueError:
        return len(names)
    return max(len(names), round((len(names) - 1) / place)) if place > 0 else len(names)


def _lease_of(doc: Json) -> float | None:
    """Return the lease that a worker claims to have, None where it is no time."""
    lease = doc.get("lease")
    if isinstance(lease, bool) or not isinstance(lease, (int, float)):
        return None
    return float(lease) if 0 < lease < math.inf else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

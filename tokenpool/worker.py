"""One process that claims tokens, runs N of them at a time and records what became of each.

A single loop does all talking about tokens: what finished since the last round and what the free slots may take go out
in one write. Slots are threads that only run tokens; the lease, the bell and the janitor have threads of their own.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from . import chance, transitions
from .backends.base import Json, Want
from .bays import Bays
from .children import Supervisor
from .claims import Claimer, Places
from .commits import Written
from .deliveries import Deliveries
from .dependencies import comes_soon
from .errors import ServerAway, TokenpoolError
from .fit import capacity
from .health import Health, run_check
from .lifecycle import Context, Run, clean, inherited
from .limits import Limits
from .oversight import WATCH, Oversight
from .pacing import LINGER, Look, Pace
from .pool import Pool
from .retries import AVOID, failed_here
from .rooms import Rooms
from .slots import Slots, Work
from .walltime import SPARE, Walltime
from .worker_options import Event, Summary, WorkerOptions, cpu_count
from .workplace import HighWater, MovesData, context_of, member_of, scratch, signals

log = logging.getLogger(__name__)

#: Seconds without a write, or with nothing to do, after which a worker listens instead of looking.
QUIET = 1.0
#: Workers that hear the same bell come to a server one after another, so many seconds apart; all of them within these.
APART, SPREAD = 0.02, 1.5
#: A worker that quits when nothing waits stays for tokens that are due within so many seconds.
SOON = 60.0
#: Seconds that a worker which leaves tries to deliver its outcomes to a pool that is away.
LAST_DELIVERY = 30.0
#: The longest pauses, in seconds, of a worker that listens; off duty it is told even what came without a bell.
LISTENING, OFF_DUTY = 60.0, 600.0


class Worker:
    """Claims and runs tokens until it is told to leave; `run` is to be called once."""

    def __init__(
        self, pool: Pool, options: WorkerOptions, observer: Callable[[Event], None] = lambda event: None
    ) -> None:
        self.pool, self.options, self.observer, self.summary = pool, options, observer, Summary()
        self.health = Health(options.max_fast_failures, options.check)
        self.rooms = Rooms(options.capacity or capacity(), options.slots)
        self.walltime = Walltime.until(options.ends, options.grace + SPARE)
        self.member = member_of(options, pool.backend, self._tell, self._wake)
        want = Want(options.batches, options.tags, options.design, options.view, fits=self._fits)
        self.claimer = Claimer(
            pool.backend, self.member.lease, want, options.slots, Places(self.rooms.take, self.rooms.free)
        )
        self.deliveries = Deliveries(options.spool, pool.url, self.name)
        self._slots: Slots | None = None
        self._oversight: Oversight | None = None
        self._stopping = threading.Event()
        self._drain = False
        self._claimed = 0
        self._away = 0
        self._look = Look()
        self._attention = WATCH
        # Who watches for a machine that fails everything must not have a hundred tokens in hand when it does.
        self._pace = Pace(options.prefetch, eager=options.max_fast_failures is None)
        self._wrote_at = time.monotonic()
        self._held_until = 0.0
        #: Seconds that it tries, when it leaves, to deliver to a pool that is away.
        self.last_delivery = LAST_DELIVERY
        #: Why this worker cannot run anything here; it leaves then.
        self.broken: OSError | None = None

    @property
    def name(self) -> str:
        """The name that its tokens carry; a new one after its lease was ended by others."""
        return self.member.lease.name

    @property
    def drained(self) -> bool:
        """Somebody told it to claim no more and to leave."""
        return self._drain

    # --- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> Summary:
        """Work until the pool is empty (`quit`), a limit is reached, or somebody says stop."""
        environ = inherited(os.environ)
        with scratch(self.options.workdir, self.name) as bays, Supervisor(environ) as supervisor:
            limits = Limits(self.name)
            self._moves_data = MovesData(self.options, self.pool.backend, bays)
            self._disk = HighWater(bays.root, self.options.scratch_limit)
            context = self._context(supervisor, bays, limits, environ)
            context.runners.begin(context)
            self._slots = Slots(
                self.options.slots, Work(context, self._cannot_run), self.options.grace, self.options.prefetch
            )
            sized = (self._slots.resize, self.rooms.resize, lambda slots: self.health.forgive())
            self._oversight = Oversight(self.pool.backend, self.member, self.claimer, self._slots, self._pace, sized)
            with signals(self.stop, lambda: self.slots.stop_all("preempted", 0), self._oversight.warn):
                try:
                    self.member.start()
                    self.deliveries.deliver_inherited(self.pool.backend)
                    self._loop(context)
                finally:
                    self._leave(context)
                    self._slots.close()
                    context.runners.close()
                    self._moves_data.close()
                    limits.close()
        return self.summary

    def _loop(self, context: Context) -> None:
        started = idle_since = time.monotonic()
        while not self._stopping.is_set():
            self._attend()
            room = self._room(time.monotonic() - started)
            if self._time_to_write(room):
                # Where something of ours ended, there may be a place for what had none.
                written = self._write(room if self._look.due() or (self.claimer.crowded and self.deliveries) else 0)
                self._settle(written, context)
                self._start(written.claimed)
            now = time.monotonic()
            if self.slots.running or self.deliveries:
                idle_since = now
                self.member.ear.want(now - self._wrote_at > QUIET)
            elif self._over(room, now - idle_since):
                return
            elif self.claimer.exhausted and not self._away and now - idle_since > QUIET:
                self.member.idle()
            self._sleep(self._pause(room, now - idle_since))

    def _attend(self) -> None:
        """Act on what others want of this worker."""
        oversight = self._oversight
        assert oversight is not None, "only while it runs"
        oversight.attend(self.deliveries.waiting)
        if oversight.anew:
            oversight.anew = False
            self._look.soon(self._spread())
        if oversight.stop:
            self.stop()
        self._drain = oversight.drain
        self._attention = oversight.pause

    @property
    def slots(self) -> Slots:
        """The threads that run tokens."""
        assert self._slots is not None, "only while it runs"
        return self._slots

    def _room(self, elapsed: float) -> int:
        """Return how many tokens may be claimed now."""
        options, limit = self.options, self.options.max_total_time
        over = limit is not None and elapsed > limit
        if over or self._drain or self.member.lost.is_set() or not self.health.ok() or not self._disk.ok():
            return 0
        if self.walltime.over():
            self.stop()
            return 0
        room = self.slots.size + self._pace.ahead(self.slots.size) - len(self.slots.running)
        return room if options.max_tasks is None else min(room, options.max_tasks - self._claimed)

    def _time_to_write(self, room: int) -> bool:
        size, deliveries = self.slots.size, self.deliveries
        return self._pace.time_to_write(len(self.slots.running) - size, size, room, bool(deliveries), deliveries.age)

    def _over(self, room: int, idle: float) -> bool:
        """Tell whether an idle worker should leave: no room for ever, an empty pool to quit, or idle for too long."""
        limit = self.options.idle_timeout
        if limit is not None and idle >= limit and not self._away:
            if self.options.on_idle:
                log.info("idle: %s", run_check(self.options.on_idle) or "done")
            return True
        if room <= 0:
            return not (self.member.lost.is_set() or ((self.health.note or self._disk.note) and not self.options.quit))
        return not self._away and self.options.quit and self.claimer.exhausted and not self._something_waits()

    def _something_waits(self) -> bool:
        """Tell whether held tokens may be ours to run soon; asks at most once a second or two."""
        now = time.monotonic()
        if now < self._held_until:
            return True
        try:
            waits = comes_soon(self.pool.backend, self.options.batches, SOON)
        except TokenpoolError:
            return True
        if waits:
            self._held_until = now + chance.uniform(0.5, 1.0) * WATCH
            self.member.janitor.expect()
        return waits

    def _pause(self, room: int, idle: float) -> float:
        """Return how long to sleep when nothing happens."""
        if self._away:
            return chance.uniform(0, min(self.options.poll, 0.2 * 2 ** min(self._away, 10)))
        pause = WATCH if self.slots.running or room <= 0 else self._longest_pause()
        if self.deliveries:
            pause = max(0.0, LINGER - self.deliveries.age)
        if room > 0 and len(self.slots.running) < self.slots.size:
            pause = min(pause, self._look.remaining())
        if self.slots.running:
            pause = min(pause, self._attention)
        if self.options.idle_timeout is not None and not self.slots.running:
            pause = min(pause, max(0.01, self.options.idle_timeout - idle))
        return min(pause, max(0.05, self.walltime.remaining() - self.walltime.margin))

    def _spread(self) -> float:
        """Return the seconds within which to look when everybody does: late ones should see what is left."""
        return 0.0 if self.pool.backend.ordered else min(SPREAD, APART * self.member.janitor.fleet)

    def _longest_pause(self) -> float:
        """Return the longest pause between two looks at an empty pool: one that listens only looks for what is not told."""
        if not self.member.ear.listens:
            return self.options.poll
        return max(self.options.poll, LISTENING if self.member.janitor.on_duty else OFF_DUTY)

    def _sleep(self, seconds: float) -> None:
        """Wait for a token to end, at most so long; then take all that ended."""
        for running, run in self.slots.ended(seconds):
            claim = running.doc["lease"]["claim"]
            if run is None:
                self._give_back([running.doc])
                self._stopping.set()
                continue
            self.rooms.free(claim)
            self.deliveries.add(claim, run)
            self._pace.learn(run.seconds)
            if self.health.attempt(run.result.failure_class in ("executor", "system", "staging"), run.seconds):
                self.member.lease.renew_soon()

    # --- the pool --------------------------------------------------------------------------------------------------

    def _write(self, room: int) -> Written:
        """Record what finished and claim for the free slots; a pool that is away is asked again later."""
        outcomes = self.deliveries.outcomes
        try:
            written = self.claimer.commit(max(0, room), outcomes)
        except TokenpoolError as error:
            self._away += 1
            if isinstance(error, ServerAway):
                log.warning("the pool is away, trying again: %s", error)
            else:
                log.error("the pool refuses: %s; %s", error, error.hint)
            self.deliveries.save()
            return Written()
        if self._away:
            self._away = 0
            self.deliveries.deliver_inherited(self.pool.backend)
        if outcomes or written.claimed:
            self._wrote_at = time.monotonic()
        if written.claimed:
            self._look.now()
        elif not (self.claimer.exhausted or self.claimer.crowded):  # others took what we saw: the rest goes fast
            self._look.soon(self._spread())
        elif room > 0:
            self._look.later(self._longest_pause(), self.member.ear.listens)
            self.observer(Event("idle", {}))
        return written

    def _settle(self, written: Written, context: Context) -> None:
        """Forget the outcomes that are recorded, tell the observer, clean up."""
        for docs, superseded in ((written.closed, False), (written.superseded, True)):
            for run, doc in self.deliveries.settle(docs):
                self._tell_observer(run, doc, superseded)
                clean(run, context)
        if written.closed:
            self.member.janitor.closed_some(doc["_id"] for doc in written.closed)

    def _tell_observer(self, run: Run, doc: Json, superseded: bool) -> None:
        state, workdir = transitions.state_of({**doc, "type": "token"}), str(run.places.work)
        if superseded:
            self.summary.superseded += 1
            self.observer(Event("superseded", doc, state, workdir))
        elif state in transitions.FINAL:
            self.summary.done += state == transitions.DONE
            self.summary.failed += state == transitions.ERROR
            self.observer(Event("finished", doc, state, workdir))
        else:
            self.summary.returned += 1
            self.claimer.refresh()
            self._look.now()
            if state == transitions.HELD:
                self.member.janitor.expect()
            else:
                self.member.bell.ring()
            self.observer(Event("returned", doc, state, workdir))

    def _give_back(self, docs: list[Json]) -> None:
        """Return tokens that nobody is left to run."""
        try:
            self.claimer.give_back(docs)
            if docs:
                self.member.bell.ring()
        except TokenpoolError as error:
            log.warning("tokens could not be given back: %s", error)
        for doc in docs:
            self.rooms.free(doc["lease"]["claim"])

    def _fits(self, doc: Json) -> bool:
        """Tell whether this worker should take a token at all: it has room for it, time for it, and no bad record."""
        if not (self.rooms.fits(doc) and self.walltime.can_finish(doc)):
            return False
        hosts = self.member.janitor.hosts
        return len(hosts) < 2 or not failed_here(doc, socket.gethostname(), AVOID)

    def _tell(self) -> dict[str, Any]:
        """Return what this worker says of itself in its document."""
        slots, oversight = self._slots, self._oversight
        return {
            "batches": list(self.options.batches),
            "tags": dict(self.options.tags),
            "resources": self.rooms.told,
            "ends": self.options.ends,
            "load": round(os.getloadavg()[0], 2),
            **self._disk.told(self.health.note),
            "running": slots.told(oversight.followed) if slots is not None and oversight is not None else [],
        }

    # --- slots -----------------------------------------------------------------------------------------------------

    def _start(self, docs: list[Json]) -> None:
        self._claimed += len(docs)
        for doc in docs:
            self.observer(Event("started", doc))
        if docs:
            self.slots.start(docs)

    def _cannot_run(self, folder: str, error: OSError) -> None:
        """A scratch disk that is full or read-only: no token can run here, so they go back to the others."""
        log.error("tokens cannot be run in %s: %s", folder, error)
        self.broken = error

    def _wake(self) -> None:
        if self._slots is not None:
            self._slots.wake()

    # --- coming and going --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the worker to leave: it claims no more, ends its children, gives their tokens back."""
        self._stopping.set()
        self._wake()

    def _leave(self, context: Context) -> None:
        """End the children, then deliver every outcome, as long as there is hope; the rest stays in the spool."""
        self.slots.stop_all("preempted")
        deadline: float | None = None
        while self.slots.running or self.deliveries:
            self._sleep(0.2 if self.slots.running else 0.01)
            written = self._write(0)
            self._settle(written, context)
            self._give_back(written.claimed)
            if self._away:
                deadline = deadline or time.monotonic() + self.last_delivery
                if time.monotonic() > deadline and not self.slots.running:
                    break
                time.sleep(chance.uniform(0, 0.5))
        try:
            self.claimer.abandon()
        except TokenpoolError:
            self._away += 1
        self.summary.undelivered = len(self.deliveries.waiting)
        self.member.close(orderly=not self.deliveries and not self._away)
        self.summary.spool = self.deliveries.close()

    def _context(self, supervisor: Supervisor, bays: Bays, limits: Limits, environ: dict[str, str]) -> Context:
        return context_of(
            self.options,
            backend=self.pool.backend,
            supervisor=supervisor,
            bays=bays,
            limits=limits,
            environ=environ,
            stager=self._moves_data,
            on_phase=lambda claim, name, progress: self.slots.on_phase(claim, name, progress),
            on_child=lambda claim, child, places: self.slots.on_child(claim, child, places),
            stopped=lambda claim: self.slots.why_stopped(claim),
            leaves=self._stopping.wait,
            placement=self.rooms.placement,
        )


__all__ = ["Event", "Summary", "Worker", "WorkerOptions", "cpu_count"]

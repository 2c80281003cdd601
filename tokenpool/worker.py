"""One process that claims tokens, runs N of them at a time and records what became of each.

A single loop does all talking to the pool: what finished since the last round and what the free slots may take go
out in one write. Slots are threads that only run tokens.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from . import transitions
from .backends.base import Json, Want
from .children import Child, Supervisor
from .claims import Claimer, new_worker_id
from .commits import Outcome, Written, commit
from .errors import ServerAway, TokenpoolError
from .lifecycle import Context, Run, clean, run_token
from .pool import Pool
from .worker_options import Event, Look, Summary, WorkerOptions, cpu_count

log = logging.getLogger(__name__)

#: Seconds between two looks at running tokens: was a cancel asked, are they still ours?
WATCH = 2.0
#: Tokens are claimed ahead for at most this many seconds of work, so that slots need not wait for a round trip.
AHEAD, AHEAD_MOST = 0.2, 128
#: Seconds that an outcome may wait for others to share its write, while no slot waits for work.
LINGER = 0.1
#: Seconds that a worker which leaves tries to deliver its outcomes to a pool that is away.
LAST_DELIVERY = 30.0


@dataclass
class Running:
    """A token in a slot; `stopped` says why its child was told to end."""

    doc: Json
    child: Child | None = None
    stopped: str = ""


class Worker:
    """Claims and runs tokens until it is told to leave; `run` is to be called once."""

    def __init__(
        self, pool: Pool, options: WorkerOptions, observer: Callable[[Event], None] = lambda event: None
    ) -> None:
        self.pool, self.options, self.observer = pool, options, observer
        self.name = new_worker_id()
        want = Want(options.batches, options.tags, options.design, options.view)
        self.claimer = Claimer(pool.backend, self.name, want, options.slots)
        self.summary = Summary()
        self._finished: SimpleQueue[tuple[str, Run | None] | None] = SimpleQueue()
        self._running: dict[str, Running] = {}
        self._unwritten: dict[str, Run] = {}
        self._stopping = threading.Event()
        self._claimed = 0
        self._away = 0
        self._look = Look(options.poll)
        self._took: float | None = None
        self._oldest = 0.0
        #: Why this worker cannot run anything here; it leaves then.
        self.broken: OSError | None = None

    # --- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> Summary:
        """Work until the pool is empty (`quit`), a limit is reached, or somebody says stop."""
        with self._root() as root, Supervisor() as supervisor, self._signals():
            with ThreadPoolExecutor(self.options.slots, thread_name_prefix="slot") as slots:
                context = self._context(supervisor, root)
                try:
                    self._loop(slots, context)
                finally:
                    self._leave(context)
        return self.summary

    def _loop(self, slots: ThreadPoolExecutor, context: Context) -> None:
        started = idle_since = watched = time.monotonic()
        while not self._stopping.is_set():
            room = self._room(time.monotonic() - started)
            if self._time_to_write(room):
                written = self._write(room if self._look.due() else 0)
                self._settle(written, context)
                for doc in written.claimed:
                    self._start(doc, slots, context)
            now = time.monotonic()
            if self._running or self._unwritten:
                idle_since = now
            elif self._over(room, now - idle_since):
                return
            if now - watched > WATCH:
                watched = now
                self._watch()
            self._sleep(self._pause(room, now - idle_since))

    def _room(self, elapsed: float) -> int:
        """Return how many tokens may be claimed now."""
        options = self.options
        if options.max_total_time is not None and elapsed > options.max_total_time:
            return 0
        room = options.slots + self._ahead() - len(self._running)
        return room if options.max_tasks is None else min(room, options.max_tasks - self._claimed)

    def _ahead(self) -> int:
        """Return how many tokens may wait here for a slot: none unless tokens are so short that slots would wait."""
        if self._took is None or self._took >= AHEAD:
            return 0
        return min(AHEAD_MOST, int(self.options.slots * AHEAD / max(self._took, 1e-3)))

    def _time_to_write(self, room: int) -> bool:
        """Tell whether to talk to the pool now: a slot has or will soon have nothing to do, or an outcome waited."""
        waiting = len(self._running) - self.options.slots
        if waiting <= self._ahead() // 2:
            return bool(self._unwritten) or room > 0
        return bool(self._unwritten) and time.monotonic() - self._oldest >= LINGER

    def _over(self, room: int, idle: float) -> bool:
        """Tell whether an idle worker should leave: no room for ever, an empty pool to quit, or idle for too long."""
        if room <= 0:
            return True
        if self._away:
            return False
        limit = self.options.idle_timeout
        return (self.options.quit and self.claimer.exhausted) or (limit is not None and idle >= limit)

    def _pause(self, room: int, idle: float) -> float:
        """Return how long to sleep when nothing happens."""
        if self._away:
            return random.uniform(0, min(self.options.poll, 0.2 * 2 ** min(self._away, 10)))
        pause = WATCH if self._running or room <= 0 else self.options.poll
        if self._unwritten:
            pause = max(0.0, self._oldest + LINGER - time.monotonic())
        if room > 0 and len(self._running) < self.options.slots:
            pause = min(pause, self._look.remaining())
        if self.options.idle_timeout is not None and not self._running:
            pause = min(pause, max(0.01, self.options.idle_timeout - idle))
        return pause

    def _sleep(self, seconds: float) -> None:
        """Wait for a slot to finish, at most so long; then take all that finished."""
        try:
            ended = self._finished.get(timeout=seconds) if seconds > 0 else self._finished.get_nowait()
            while True:
                if ended is not None:
                    claim, run = ended
                    running = self._running.pop(claim)
                    if run is not None:
                        self._ended(claim, run)
                    else:
                        self._give_back([running.doc])
                        self._stopping.set()
                ended = self._finished.get_nowait()
        except Empty:
            return

    def _ended(self, claim: str, run: Run) -> None:
        if not self._unwritten:
            self._oldest = time.monotonic()
        self._unwritten[claim] = run
        self._took = run.seconds if self._took is None else 0.8 * self._took + 0.2 * run.seconds

    # --- the pool --------------------------------------------------------------------------------------------------

    def _write(self, room: int) -> Written:
        """Record what finished and claim for the free slots; a pool that is away is asked again later."""
        try:
            written = self.claimer.commit(max(0, room), [run.outcome for run in self._unwritten.values()])
        except ServerAway as error:
            self._away += 1
            log.warning("the pool is away, trying again: %s", error)
            return Written()
        except TokenpoolError as error:
            self._away += 1
            log.error("the pool refuses: %s; %s", error, error.hint)
            return Written()
        self._away = 0
        if written.claimed or not self.claimer.exhausted:
            self._look.now()
        elif room > 0:
            self._look.later()
            self.observer(Event("idle", {}))
        return written

    def _settle(self, written: Written, context: Context) -> None:
        """Forget the outcomes that are recorded, tell the observer, clean up."""
        written_by_id = {run.outcome.doc["_id"]: run for run in self._unwritten.values()}
        for doc, superseded in [(d, False) for d in written.closed] + [(d, True) for d in written.superseded]:
            run = written_by_id.get(doc["_id"])
            if run is not None:
                del self._unwritten[run.outcome.claim]
                self._tell(run, doc, superseded)
                clean(run, context)

    def _tell(self, run: Run, doc: Json, superseded: bool) -> None:
        state = transitions.state_of({**doc, "type": "token"})
        workdir = str(run.places.work)
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
            self.observer(Event("returned", doc, state, workdir))

    def _watch(self) -> None:
        """Stop the children of tokens that were cancelled, or that are not ours any more."""
        held = dict(self._running)
        if not held:
            return
        try:
            docs = self.pool.backend.get_many([running.doc["_id"] for running in held.values()])
        except TokenpoolError:
            return
        for (claim, running), now in zip(held.items(), docs):
            if now is None or not transitions.is_held_by(now, claim):
                self._stop_child(running, "lost", self.options.grace)
            elif now.get("cancel"):
                self._stop_child(running, "cancelled", self.options.grace)

    # --- slots -----------------------------------------------------------------------------------------------------

    def _start(self, doc: Json, slots: ThreadPoolExecutor, context: Context) -> None:
        self._running[doc["lease"]["claim"]] = Running(doc)
        self._claimed += 1
        self.observer(Event("started", doc))
        slots.submit(self._in_slot, doc, context)

    def _in_slot(self, doc: Json, context: Context) -> None:
        run = None
        try:
            run = run_token(doc, context)
        except OSError as error:
            # A scratch disk that is full or read-only: no token can run here, so this one goes back to the others.
            log.error("tokens cannot be run in %s: %s", context.root, error)
            self.broken = error
        self._finished.put((doc["lease"]["claim"], run))

    def _on_child(self, claim: str, child: Child) -> None:
        running = self._running[claim]
        running.child = child
        if running.stopped or self._stopping.is_set():
            self._stop_child(running, running.stopped or "preempted", self.options.grace)

    def _stop_child(self, running: Running, why: str, grace: float) -> None:
        running.stopped = running.stopped or why
        if running.child is not None:
            running.child.kill(grace)

    # --- coming and going --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the worker to leave: it claims no more, ends its children, gives their tokens back."""
        self._stopping.set()
        self._finished.put(None)

    def _leave(self, context: Context) -> None:
        """End the children, then deliver every outcome, as long as there is hope."""
        for running in list(self._running.values()):
            self._stop_child(running, "preempted", self.options.grace)
        deadline: float | None = None
        while self._running or self._unwritten:
            self._sleep(0.2 if self._running else 0.01)
            written = self._write(0)
            self._settle(written, context)
            self._give_back(written.claimed)
            if self._away:
                deadline = deadline or time.monotonic() + LAST_DELIVERY
                if time.monotonic() > deadline and not self._running:
                    break
                time.sleep(random.uniform(0, 0.5))
        self.summary.undelivered = len(self._unwritten)

    def _give_back(self, docs: list[Json]) -> None:
        """Return tokens whose claim was confirmed only now that nobody is left to run them."""
        if docs:
            outcomes = [Outcome(dict(transitions.unlock({**doc})), doc["lease"]["claim"]) for doc in docs]
            try:
                commit(self.pool.backend, (), outcomes)
            except TokenpoolError as error:
                log.warning("tokens could not be given back: %s", error)

    def _context(self, supervisor: Supervisor, root: Path) -> Context:
        options = self.options
        return Context(
            backend=self.pool.backend,
            supervisor=supervisor,
            root=root,
            worker=self.name,
            cwd=options.cwd,
            cpus=max(1, cpu_count() // options.slots),
            grace=options.grace,
            log_limit=options.log_limit,
            cleanup=options.cleanup,
            on_child=self._on_child,
            stopped=lambda claim: self._running[claim].stopped,
        )

    @contextmanager
    def _root(self) -> Iterator[Path]:
        """Give the folder of all attempts; an empty one is removed at the end."""
        base = self.options.workdir or Path(tempfile.gettempdir()) / f"tokenpool-{os.getuid()}"
        root = base / self.name[:15]
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            yield root
        finally:
            for folder in (root, base):
                try:
                    folder.rmdir()
                except OSError:
                    break

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Leave in order on SIGTERM and SIGINT; a second one does not wait for the children's grace."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(signum: int, frame: Any) -> None:
            if self._stopping.is_set():
                for running in list(self._running.values()):
                    self._stop_child(running, "preempted", 0)
            self.stop()

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


__all__ = ["Event", "Summary", "Worker", "WorkerOptions", "cpu_count"]

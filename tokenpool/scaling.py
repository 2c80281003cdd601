"""Keeps the number of workers right, round after round: looks at the pool and the jobs, decides, does it, remembers."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from . import steering
from .demand import Size, read
from .errors import BadInput, TokenpoolError
from .launchers import launching
from .launchers.base import ENDED, RUNNING, UNKNOWN, Job, Launcher, LaunchFailed, Left
from .launchers.base import Order as LaunchOrder
from .launchers.ledger import Ledger
from .pool import Pool
from .scale import Decision, Demand, Memory, Order, Rules, decide, refused

log = logging.getLogger(__name__)


class Notes:
    """What one `scale` remembers over a restart: one small file for each pool and launcher, written whole or not at all."""

    def __init__(self, folder: Path, pool: str, kind: str, batches: Collection[str] = ()) -> None:
        told = "\n".join((pool, kind, *sorted(batches)))
        self.key = hashlib.sha256(told.encode()).hexdigest()[:8]
        self._path = folder / f"{self.key}.json"

    @property
    def prefix(self) -> str:
        """What the names of our orders begin with: by it they are found again."""
        return f"scale-{self.key}-"

    def load(self) -> Memory:
        """Return what was remembered; a file that makes no sense is as good as none."""
        try:
            told = json.loads(self._path.read_text("utf-8"))
            orders = {name: Order(**each) for name, each in told["orders"].items()}
            return Memory(int(told["refusals"]), float(told["retry_at"]), float(told["surplus"]), orders)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return Memory()

    def save(self, memory: Memory) -> None:
        """Remember this in place of what was remembered."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"schema": 1, **asdict(memory)}), "utf-8")
        os.replace(part, self._path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second `scale` of the same kind away for as long as the body runs; raises BadInput."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.with_suffix(".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(
                    "another `tokenpool scale` looks after these workers already",
                    "end that one first, or name a --batch",
                ) from None
            yield


@dataclass
class Scaler:
    """One `scale`: the pool, the launcher, the order that it repeats, and its rules. `backlog` of the rules None: as many
    tokens as a worker runs side by side."""

    pool: Pool
    kind: str
    launcher: Launcher
    order: LaunchOrder
    rules: Rules
    ledger: Ledger
    notes: Notes
    batches: tuple[str, ...] = ()
    #: Take as backlog how many tokens a worker runs side by side.
    side_by_side: bool = False
    clock: Callable[[], float] = field(default=time.time)

    def look(self) -> tuple[Decision, Demand]:
        """Return what is to be done now; nothing is changed but the notes on what jobs are doing."""
        reading = read(self.pool.backend, Size.of(self.order), self.batches)
        rules = replace(self.rules, backlog=reading.side_by_side) if self.side_by_side else self.rules
        workers = self.pool.workers()
        decision = decide(rules, reading.demand, workers, self.jobs(), self.notes.load(), self.clock())
        return decision, reading.demand

    def jobs(self) -> list[Job]:
        """Return the jobs of our own orders as they are now; those whose id got lost are found by their names."""
        found = launching.refresh(self.ledger, self.order.pool, self.kind, lambda kind: self.launcher, self.clock)
        return [job for job in found if job.name.startswith(self.notes.prefix)]

    def step(self) -> tuple[Decision, list[str]]:
        """Look, decide, do it; returns the decision and what was done in one line each. Raises what the pool raises."""
        decision, demand = self.look()
        self.notes.save(decision.memory)
        told = list(decision.reasons)
        for name in decision.forget:
            self.ledger.forget(name)
        if decision.drain:
            steering.steer_many(self.pool.backend, decision.drain, drain=True)
        told += self._cancel(decision.cancel)
        told += self._sweep(decision.memory)
        told += self._start(decision, demand)
        return decision, told

    def _cancel(self, jobs: Collection[Job]) -> list[str]:
        """Cancel jobs that never started: those that did since we looked are left alone."""
        if not jobs:
            return []
        try:
            self.launcher.cancel(list(jobs), only_waiting=True)
        except LaunchFailed as error:
            return [f"not cancelled: {error.message}"]
        told = []
        for job in self.launcher.status(list(jobs)):
            if job.state in (RUNNING, UNKNOWN):
                told.append(f"{job.name} started meanwhile" if job.running else f"{job.name}: {job.reason}")
            else:
                job = replace(job, state=ENDED, reason="cancelled by scale")
            self.ledger.note(self.order.pool, [job])
        return told

    def _sweep(self, memory: Memory) -> list[str]:
        """Remove machines that our workers have left; what a cloud refuses now is tried again in the next round."""
        workers = self.pool.workers()
        there = {worker.job for worker in workers}
        left = [Left(name) for name, order in memory.orders.items() if order.seen and name not in there]
        try:
            return self.launcher.sweep(self.order, [*workers, *left], self.notes.prefix)
        except TokenpoolError as error:
            return [f"nothing was swept: {error.message}"]

    def _start(self, decision: Decision, demand: Demand) -> list[str]:
        """Hand in one order for each worker, so that each is seen, and let go, by itself."""
        memory = decision.memory
        for _ in range(decision.start):
            now = self.clock()
            order = replace(self.order, jobs=1, name=self.notes.prefix + uuid.uuid4().hex[:8])
            memory = replace(memory, orders={**memory.orders, order.name: Order(now, demand.ended)})
            # Before it is handed in: who is killed in between still knows that it may be there.
            self.notes.save(memory)
            try:
                launching.launch(self.kind, self.launcher, order, self.launcher.script(order), self.ledger)
            except LaunchFailed as error:
                memory, line = refused(memory, error.message, now)
                self.notes.save(memory)
                return [line]
        return []

    def run(self, every: float, tell: Callable[[list[str]], None], wait: Callable[[float], bool]) -> None:
        """Do a round, `wait` so many seconds, and again until it says that it is time to leave.

        Meanwhile the pool is looked after, so that what dead workers held comes back even if none is left.
        """
        with self.pool.looked_after():
            tell(self.step()[1])  # what is wrong from the beginning ends it
            while not wait(every):
                try:
                    tell(self.step()[1])
                except TokenpoolError as error:
                    log.warning("nothing was decided: %s; %s", error.message, error.hint)

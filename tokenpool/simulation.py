"""Shows what `scale` would do over hours, in a second: a pool and a batch system that are made up, with a time of their own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .launchers.base import ENDED, RUNNING, WAITING, Job
from .scale import Decision, Demand, Memory, Order, Rules, decide, refused
from .steering import WorkerInfo

#: Seconds until a worker that was told so has left.
LEAVES_IN = 2.0


@dataclass(frozen=True)
class World:
    """What the made-up world is like; times in seconds."""

    tokens: int = 100_000
    #: Tokens come in so many portions, one each `pause`.
    portions: int = 1
    pause: float = 3600.0
    #: What one token takes, on average, and how many a worker runs at a time.
    takes: float = 10.0
    slots: int = 1
    #: A job waits so long at most, and its worker needs so long to show itself.
    queue: float = 120.0
    boots: float = 20.0
    walltime: float = 7200.0
    #: Jobs that the system allows at a time, and the share of jobs that die at once, and of workers that die on the way.
    quota: int = 1_000_000
    stillborn: float = 0.0
    dies: float = 0.0
    #: Seconds from a worker's death until its tokens come back.
    lease: float = 240.0
    seed: int = 1


@dataclass
class _Worker:
    job: str
    begins: float
    shows: float
    ends: float
    stillborn: bool
    held: int = 0
    drain: bool = False
    dead: bool = False


@dataclass(frozen=True)
class Frame:
    """One round: when it was, what was there, what was decided."""

    time: float
    waiting: int
    running: int
    ended: int
    workers: int
    jobs: int
    decision: Decision


@dataclass
class Outcome:
    """How it went."""

    frames: list[Frame] = field(default_factory=list)
    ended: int = 0
    started: int = 0
    drained: int = 0
    cancelled: int = 0
    refusals: int = 0
    lost: int = 0
    #: Busy workers that were told to go, and jobs that were cancelled although they had started. Both are to stay 0.
    harmed: int = 0
    most_jobs: int = 0
    seconds: float = 0.0


class Simulation:
    """Plays a world under some rules, a round every so many seconds, until all is done and everybody has left."""

    def __init__(self, world: World, rules: Rules, every: float = 15.0) -> None:
        self.world, self.rules, self.every = world, rules, every
        self.outcome = Outcome()
        self._chance = random.Random(world.seed)
        self._workers: dict[str, _Worker] = {}
        self._waiting, self._to_come = 0, world.portions
        self._back: list[tuple[float, int]] = []
        self._memory = Memory()
        self._now = 0.0
        self._numbers = 0

    def play(self, most: float = 30 * 86400.0) -> Outcome:
        """Play to the end, or for so many seconds."""
        for _ in self.frames(most):
            pass
        return self.outcome

    def frames(self, most: float = 30 * 86400.0) -> Iterator[Frame]:
        """Yield each round."""
        while self._now <= most:
            self._bring()
            frame = self._round()
            self.outcome.frames.append(frame)
            yield frame
            over = self.outcome.ended >= self.world.tokens
            if over and len(self._alive()) <= self.rules.minimum and not frame.decision.drain:
                break
            self._pass(self.every)
        self.outcome.seconds = self._now

    # --- a round of scale ----------------------------------------------------------------------------------------------

    def _round(self) -> Frame:
        jobs, workers = self._jobs(), self._documents()
        demand = Demand(self._waiting, self._held(), self.outcome.ended)
        decision = decide(self.rules, demand, workers, jobs, self._memory, self._now)
        self._memory = decision.memory
        for name in decision.forget:
            self._workers.pop(name, None)
        for job in decision.cancel:
            self.outcome.harmed += self._workers[job.name].begins <= self._now
            self.outcome.cancelled += 1
            self._workers[job.name].dead = True
        for name in decision.drain:
            self.outcome.harmed += self._workers[name].held > 0
            self.outcome.drained += 1
            self._workers[name].drain = True
            self._workers[name].ends = min(self._workers[name].ends, self._now + LEAVES_IN)
        self._start(decision.start, demand)
        alive = self._alive()
        self.outcome.most_jobs = max(self.outcome.most_jobs, len(alive))
        shown = sum(each.shows <= self._now for each in alive)
        return Frame(self._now, self._waiting, self._held(), self.outcome.ended, shown, len(alive), decision)

    def _start(self, number: int, demand: Demand) -> None:
        for _ in range(number):
            if len(self._alive()) >= self.world.quota:
                self._memory, _ = refused(self._memory, "the quota is reached", self._now)
                self.outcome.refusals += 1
                return
            self._numbers += 1
            name = f"job-{self._numbers:06}"
            begins = self._now + self._chance.uniform(0, self.world.queue)
            stillborn = self._chance.random() < self.world.stillborn
            worker = _Worker(name, begins, begins + self.world.boots, begins + self.world.walltime, stillborn)
            if not stillborn and self._chance.random() < self.world.dies:
                worker.ends = worker.shows + self._chance.uniform(0, self.world.walltime)
            self._workers[name] = worker
            self.outcome.started += 1
            orders = {**self._memory.orders, name: Order(self._now, demand.ended)}
            self._memory = replace(self._memory, orders=orders)

    # --- what is there -------------------------------------------------------------------------------------------------

    def _alive(self) -> list[_Worker]:
        return [each for each in self._workers.values() if not each.dead]

    def _held(self) -> int:
        return sum(each.held for each in self._alive()) + sum(number for _, number in self._back)

    def _jobs(self) -> list[Job]:
        found = []
        for name, each in self._workers.items():
            state = ENDED if each.dead else WAITING if each.begins > self._now else RUNNING
            submitted = self._memory.orders[name].submitted if name in self._memory.orders else 0.0
            found.append(Job("simulated", name, name, state, running=int(state == RUNNING), submitted=submitted))
        return found

    def _documents(self) -> list[WorkerInfo]:
        found = []
        for each in self._alive():
            if each.shows <= self._now:
                found.append(_document(each, self.world.slots))
        return found

    # --- time passes ---------------------------------------------------------------------------------------------------

    def _bring(self) -> None:
        """Put in the tokens that come now, and those of the dead."""
        done = self.world.portions - self._to_come
        while self._to_come and self._now >= done * self.world.pause:
            each, rest = divmod(self.world.tokens, self.world.portions)
            self._waiting += each + (rest if self._to_come == 1 else 0)
            self._to_come -= 1
            done += 1
        self._waiting += sum(number for when, number in self._back if when <= self._now)
        self._back = [(when, number) for when, number in self._back if when > self._now]

    def _pass(self, seconds: float) -> None:
        """Let time pass: workers come, work, and go."""
        until = self._now + seconds
        for each in self._alive():
            if each.begins <= until and each.stillborn:
                each.dead = True
            elif each.ends <= until:
                each.dead = True
                if each.held:
                    self.outcome.lost += each.held
                    self._back.append((until + self.world.lease, each.held))
                    each.held = 0
            elif each.shows <= until and not each.drain:
                self._work(each, until - max(self._now, each.shows))
        self._now = until

    def _work(self, each: _Worker, seconds: float) -> None:
        """Let a worker end what it can in so many seconds, and take new tokens."""
        share = seconds * self.world.slots / self.world.takes
        able = int(share) + (self._chance.random() < share % 1)
        ended = min(able, each.held + self._waiting)
        self.outcome.ended += ended
        self._waiting -= max(0, ended - each.held)
        each.held = max(0, each.held - ended)
        more = min(self.world.slots - each.held, self._waiting)
        each.held += more
        self._waiting -= more


def _document(each: _Worker, slots: int) -> WorkerInfo:
    state = "draining" if each.drain else "working" if each.held else "idle"
    times: dict[str, Any] = {"age": 0.0, "lease": 120.0, "renewed": "", "started": "", "ends": each.ends}
    return WorkerInfo(each.job, "simulated", state, slots, each.held, running=(), job=each.job, **times)


def lines(simulation: Simulation, tell: Callable[[str], None]) -> Outcome:
    """Play a simulation, and tell each decision that does something, and how it went."""
    before = ""
    for frame in simulation.frames():
        does = frame.decision.start or frame.decision.drain or frame.decision.cancel
        line = frame.decision.reasons[-1].partition(":")[0]
        if does or line.partition(" ")[0] != before:
            tell(f"{frame.time / 60:8.1f} min  {frame.workers:4} workers  {'; '.join(frame.decision.reasons)}")
        before = line.partition(" ")[0]
    return simulation.outcome

"""Decides how many workers to start and which to let go: a pure function of what is seen, with a reason for each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .launchers.base import ENDED, RUNNING, UNKNOWN, WAITING, Job
from .steering import WorkerInfo

#: Seconds until the next try after a first refusal, and at most; each further one doubles them.
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 1800.0


@dataclass(frozen=True)
class Rules:
    """What somebody wants: how many workers at least and at most, and how many tokens there are to be for each."""

    minimum: int = 0
    maximum: int = 10
    #: Open tokens for each worker.
    backlog: int = 1
    #: Seconds for which there have to be too many workers before one is let go.
    patience: float = 60.0
    #: Seconds for which a job that its system does not know counts as there.
    unknown: float = 600.0
    #: A job that ended within so many seconds, with no sign of its worker, died at once.
    early: float = 60.0


@dataclass(frozen=True)
class Demand:
    """The tokens that these workers could run: those that wait, those that run, and how many have ended ever."""

    waiting: int = 0
    running: int = 0
    ended: int = 0
    #: Tokens that wait and are too large for such workers, and what they ask for.
    unfit: int = 0
    why_unfit: str = ""

    @property
    def open(self) -> int:
        """Tokens that still need somebody."""
        return self.waiting + self.running


@dataclass(frozen=True)
class Order:
    """What is remembered of an order: when it was handed in, how many tokens had ended then, whether its workers came."""

    submitted: float = 0.0
    ended: int = 0
    seen: bool = False
    #: Since when its batch system does not know it; 0: it does.
    unknown: float = 0.0


@dataclass(frozen=True)
class Memory:
    """What one decision leaves for the next; it is kept over a restart."""

    refusals: int = 0
    retry_at: float = 0.0
    #: Since when there are too many workers; 0: there are not.
    surplus: float = 0.0
    orders: Mapping[str, Order] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What is to be done now, why in one line each, and what is to be remembered."""

    start: int = 0
    #: Ids of idle workers that are told to claim no more.
    drain: tuple[str, ...] = ()
    #: Jobs that never started.
    cancel: tuple[Job, ...] = ()
    #: Orders of which nothing is left.
    forget: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    memory: Memory = field(default_factory=Memory)
    wanted: int = 0
    have: int = 0


@dataclass(frozen=True)
class _Fleet:
    """The workers there are, and those to come."""

    #: Our workers that claim, and those of them that run nothing.
    ours: tuple[WorkerInfo, ...] = ()
    idle: tuple[WorkerInfo, ...] = ()
    #: Workers of others that claim.
    others: int = 0
    #: Workers of our jobs that did not show themselves yet.
    coming: int = 0
    #: Our workers that are there but claim no more.
    leaving: int = 0
    #: Jobs of which nothing runs.
    waiting: tuple[Job, ...] = ()

    @property
    def have(self) -> int:
        """Workers of ours that take tokens, or will."""
        return len(self.ours) + self.coming


def decide(
    rules: Rules, demand: Demand, workers: Sequence[WorkerInfo], jobs: Sequence[Job], memory: Memory, now: float
) -> Decision:
    """Return what brings the number of workers nearer to what is wanted.

    `jobs` are those of our own orders, as their system tells now; `workers` all of the pool, those of our orders by
    their `job`. No worker that runs something is let go, and no job that has started is cancelled.
    """
    reasons: list[str] = []
    memory, gone = _remember(rules, demand, workers, jobs, memory, now, reasons)
    fleet = _fleet(workers, [job for job in jobs if job.name not in gone])
    if demand.unfit:
        reasons.append(f"{_count(demand.unfit, 'token')} can never run on such workers: {demand.why_unfit}")
    asked = -(-demand.open // max(1, rules.backlog))
    wanted = max(rules.minimum, min(rules.maximum, asked - fleet.others))
    told = _told(rules, demand, fleet, asked, wanted)
    decision = Decision(forget=tuple(sorted(gone)), memory=memory, wanted=wanted, have=fleet.have)
    if fleet.have < wanted:
        return _grow(rules, fleet, decision, told, reasons, now)
    if fleet.have > wanted:
        return _shrink(rules, fleet, decision, told, reasons, now)
    reasons.append(f"keep {_count(fleet.have, 'worker')}: {told}")
    return replace(decision, memory=replace(memory, surplus=0.0), reasons=tuple(reasons))


def refused(memory: Memory, why: str, now: float) -> tuple[Memory, str]:
    """Return what is remembered after a launcher refused, and the line that tells about it."""
    memory = _pause(memory, now)
    return memory, f"no more workers for {memory.retry_at - now:.0f} s: {why}"


def _pause(memory: Memory, now: float) -> Memory:
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(memory.refusals, 10))
    return replace(memory, refusals=memory.refusals + 1, retry_at=now + pause)


# --- more, fewer -----------------------------------------------------------------------------------------------------


def _grow(rules: Rules, fleet: _Fleet, decision: Decision, told: str, reasons: list[str], now: float) -> Decision:
    memory = replace(decision.memory, surplus=0.0)
    lacking = decision.wanted - fleet.have
    start = min(lacking, max(0, rules.maximum - fleet.have - fleet.leaving))
    if memory.retry_at > now:
        start = 0
        reasons.append(f"wait {memory.retry_at - now:.0f} s before the next try, {lacking} lacking: {told}")
    elif start:
        reasons.append(f"start {_count(start, 'worker')}: {told}")
    else:
        reasons.append(f"wait for {_count(fleet.leaving, 'worker')} to leave: {told}")
    return replace(decision, start=start, memory=memory, reasons=tuple(reasons))


def _shrink(rules: Rules, fleet: _Fleet, decision: Decision, told: str, reasons: list[str], now: float) -> Decision:
    memory = replace(decision.memory, surplus=decision.memory.surplus or now)
    decision, surplus = replace(decision, memory=memory), fleet.have - decision.wanted
    left = memory.surplus + rules.patience - now
    if left > 0:
        reasons.append(f"{surplus} too many, let go in {left:.0f} s: {told}")
        return replace(decision, reasons=tuple(reasons))
    cancel = []
    for job in sorted(fleet.waiting, key=lambda job: (job.submitted, job.id), reverse=True):
        if job.size <= surplus:
            cancel.append(job)
            surplus -= job.size
    drain = tuple(worker.id for worker in sorted(fleet.idle, key=_dispensable)[:surplus])
    if cancel:
        reasons.append(f"cancel {_count(len(cancel), 'job')} that did not start: {told}")
    if drain:
        reasons.append(f"drain {_count(len(drain), 'idle worker')}: {told}")
    if not cancel and not drain:
        reasons.append(f"keep {_count(decision.have, 'worker')}, none of them is idle: {told}")
    return replace(decision, drain=drain, cancel=tuple(cancel), reasons=tuple(reasons))


def _dispensable(worker: WorkerInfo) -> tuple[float, str]:
    """Those that have to leave first anyway go first."""
    return (float("inf") if worker.ends is None else worker.ends), worker.id


def _told(rules: Rules, demand: Demand, fleet: _Fleet, asked: int, wanted: int) -> str:
    """Return in words how many workers there are, and why how many are wanted."""
    there = [f"{len(fleet.ours) - len(fleet.idle)} busy", f"{len(fleet.idle)} idle", f"{fleet.coming} coming"]
    if fleet.leaving:
        there.append(f"{fleet.leaving} leaving")
    why = f"one for each {rules.backlog}" if rules.backlog > 1 else "one for each"
    if fleet.others:
        why += f", {_count(fleet.others, 'other worker')} besides"
    if wanted == rules.maximum and asked - fleet.others > wanted:
        why += f", {asked} cut to the maximum"
    elif wanted == rules.minimum and asked - fleet.others < wanted:
        why += ", the minimum"
    return f"{_count(demand.open, 'open token')} want {wanted} ({why}); {', '.join(there)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


# --- what is there ---------------------------------------------------------------------------------------------------


def _fleet(workers: Iterable[WorkerInfo], jobs: Sequence[Job]) -> _Fleet:
    by_name: dict[str, list[Job]] = {}
    for job in jobs:
        by_name.setdefault(job.name, []).append(job)
    ended = {name for name, those in by_name.items() if all(job.state == ENDED for job in those)}
    # A worker that was killed leaves a document that looks alive for a while; its batch system knows better.
    alive = [worker for worker in workers if worker.alive and worker.job not in ended]
    ours = [worker for worker in alive if worker.job in by_name]
    coming = 0
    for name, those in by_name.items():
        coming += max(0, sum(map(_living, those)) - sum(worker.job == name for worker in ours))
    claiming = tuple(worker for worker in ours if worker.claims)
    return _Fleet(
        ours=claiming,
        idle=tuple(worker for worker in claiming if worker.held == 0),
        others=sum(worker.claims for worker in alive if worker.job not in by_name),
        coming=coming,
        leaving=len(ours) - len(claiming),
        waiting=tuple(job for job in jobs if job.state == WAITING and job.running == 0 and job.id),
    )


def _living(job: Job) -> int:
    """Return how many workers of a job are there or will be; one that nobody can tell about counts whole."""
    return 0 if job.state == ENDED else max(job.size, job.running)


def _remember(
    rules: Rules,
    demand: Demand,
    workers: Sequence[WorkerInfo],
    jobs: Sequence[Job],
    memory: Memory,
    now: float,
    reasons: list[str],
) -> tuple[Memory, set[str]]:
    """Return the memory brought up to date, and the orders that are over: ended, or unknown for too long."""
    came = {worker.job for worker in workers if worker.job}
    alive = {worker.job for worker in workers if worker.alive}
    states: dict[str, set[str]] = {}
    for job in jobs:
        states.setdefault(job.name, set()).add(job.state)
    orders: dict[str, Order] = {}
    gone: set[str] = set()
    dead = 0
    for name, those in states.items():
        order = memory.orders.get(name, Order(submitted=_submitted(jobs, name), ended=demand.ended))
        unknown = (order.unknown or now) if UNKNOWN in those and not those & {WAITING, RUNNING} else 0.0
        order = replace(order, seen=order.seen or name in came, unknown=unknown)
        if those == {ENDED} and name in alive:
            orders[name] = order  # until its document looks dead too: else it would pass for somebody else's worker
        elif those == {ENDED}:
            gone.add(name)
            dead += not order.seen and now - order.submitted <= rules.early and demand.ended <= order.ended
        elif unknown and now - unknown >= rules.unknown:
            gone.add(name)
            reasons.append(f"{name} is given up: its system has not known it for {now - unknown:.0f} s")
        else:
            orders[name] = order
    if any(order.seen and not memory.orders.get(name, Order()).seen for name, order in orders.items()):
        memory = replace(memory, refusals=0, retry_at=0.0)
    memory = replace(memory, orders=orders)
    if dead:
        memory = _pause(memory, now)
        why = "; ".join(sorted({job.reason for job in jobs if job.name in gone and job.reason})) or "look at their logs"
        reasons.append(f"{_count(dead, 'order')} ended before a worker showed itself: {why}")
    return memory, gone


def _submitted(jobs: Iterable[Job], name: str) -> float:
    return min(job.submitted for job in jobs if job.name == name)

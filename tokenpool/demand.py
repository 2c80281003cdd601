"""Counts the tokens for which workers are wanted: those that such workers could run, from the counts and a sample."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from . import transitions
from .backends.base import Backend, Json, Want
from .batch_rules import batch_rules
from .errors import BadInput
from .fit import AMOUNTS, Resources, lacking, wanted
from .launchers.base import Order
from .prospects import spoken
from .scale import Demand
from .steering import number_of

#: Tokens that are looked at to learn what all of them ask for.
SAMPLE = 500


@dataclass(frozen=True)
class Size:
    """What one worker of an order has, and how many tokens it takes at a time."""

    have: Resources
    slots: int
    walltime: float | None

    @classmethod
    def of(cls, order: Order) -> Size:
        """Return the size of an order's workers; what it does not say is taken to be enough."""
        ram = math.inf if order.ram_gb is None else order.ram_gb
        return cls(Resources(order.cpus, ram, order.gpus, math.inf), order.slots, order.walltime)

    @property
    def share(self) -> float:
        """CPUs of a token that does not say how many it wants."""
        return max(1.0, self.have.cpu_cores // self.slots)

    def short(self, doc: Json) -> str:
        """Return in words why such a worker can never run a token; empty where it can."""
        timeout = number_of(doc.get("timeout"), 0)
        if self.walltime is not None and timeout > self.walltime:
            return f"{spoken(timeout)} where a worker has {spoken(self.walltime)}"
        try:
            return lacking(self.have, wanted(doc, self.share))
        except BadInput:  # any worker takes it, to end it with the reason
            return ""

    def side_by_side(self, docs: Collection[Json]) -> int:
        """Return how many tokens like these run in it at a time."""
        if not docs:
            return self.slots
        wants = []
        for doc in docs:
            try:
                wants.append(wanted(doc, self.share))
            except BadInput:
                wants.append(Resources())
        rooms = [float(self.slots)]
        for name in AMOUNTS:
            mean = math.fsum(getattr(want, name) for want in wants) / len(wants)
            if mean > 0 and not math.isinf(getattr(self.have, name)):
                rooms.append(getattr(self.have, name) / mean)
        return max(1, int(min(rooms)))


@dataclass(frozen=True)
class Reading:
    """The demand, and how many of its tokens one worker runs at a time."""

    demand: Demand
    side_by_side: int


def read(backend: Backend, size: Size, batches: Collection[str] = ()) -> Reading:
    """Return the demand for workers of this size, of all batches or of some; paused ones want nobody."""
    waiting, running, ended = _counted(backend, batches)
    want = Want(batches=tuple(batches))
    sample = backend.candidates(want, SAMPLE).tokens if waiting else []
    short = [why for why in map(size.short, sample) if why]
    fitting = [doc for doc in sample if not size.short(doc)]
    unfit = len(short) if len(sample) < SAMPLE else round(waiting * len(short) / len(sample))
    if sample and not fitting and len(sample) >= SAMPLE:
        more = Want(batches=tuple(batches), fits=lambda doc: not size.short(doc))
        unfit = waiting - len(backend.candidates(more, SAMPLE).tokens)
    demand = Demand(max(0, waiting - unfit), running, ended, unfit, short[0] if short else "")
    return Reading(demand, size.side_by_side(fitting))


def _counted(backend: Backend, batches: Collection[str]) -> tuple[int, int, int]:
    """Return how many tokens wait and may start, run, and have ended."""
    rules, counts = batch_rules(backend), backend.counts()
    waiting = running = ended = 0
    for (state, batch), number in counts.items():
        if batches and batch not in batches:
            continue
        rule = rules.get(batch)
        if state == transitions.LOCKED:
            running += number
        elif state in transitions.FINAL:
            ended += number
        elif state == transitions.TODO and not (rule and rule.paused):
            room = math.inf
            if rule and rule.max_running is not None:
                room = max(0, rule.max_running - counts.get((transitions.LOCKED, batch), 0))
            waiting += int(min(number, room))
    return waiting, running, ended

"""Says which workers could take a token that waits, and what stands before it in the queue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import transitions
from .backends.base import Backend, Json, Want
from .batch_rules import BatchRule, batch_rule, batch_rules
from .errors import BadInput
from .fit import AMOUNTS, Resources, lacking, wanted
from .retries import AVOID
from .selectors import parse_time
from .steering import WorkerInfo, number_of, workers

#: How much of the queue is read to find a token's place in it.
QUEUE = 1000


@dataclass(frozen=True)
class Reason:
    """One reason: a stable `code`, a text for people, and what they can do."""

    code: str
    text: str
    hint: str = ""


def prospects(backend: Backend, doc: Json) -> Iterator[Reason]:
    """Yield why a token in todo was not taken yet, what counts most first."""
    if doc.get("cancel"):
        yield Reason(
            "cancelled",
            f"it was cancelled{asker(doc)} while it waited",
            f"to run it again: tokenpool retry {doc['_id']}",
        )
    batch = str(doc.get("batch") or "")
    rule = batch_rule(backend, batch)
    stopped = list(_batch_stops(backend, rule))
    yield from stopped
    able, reasons = _able(doc, workers(backend), backend.now())
    yield from reasons
    if not stopped and not reasons and not doc.get("cancel"):
        yield from _place(backend, doc, able)


def _batch_stops(backend: Backend, rule: BatchRule) -> Iterator[Reason]:
    if rule.paused:
        yield Reason("batch_paused", f"its batch {rule.name} is paused", f"tokenpool batch resume {rule.name}")
    elif rule.max_running is not None:
        running = backend.counts().get((transitions.LOCKED, rule.name), 0)
        if running >= rule.max_running:
            text = f"its batch {rule.name} may run {rule.max_running} at a time, and {running} run"
            yield Reason("batch_full", text, f"tokenpool batch set {rule.name} --max-running {2 * rule.max_running}")


#: Narrows the workers down: those left, and the reason where none is.
Sieve = Callable[[Json, Sequence[WorkerInfo], float], tuple[list[WorkerInfo], Reason]]


def _able(doc: Json, found: Sequence[WorkerInfo], now: float) -> tuple[list[WorkerInfo], list[Reason]]:
    """Return the workers that could take the token, or why there is none."""
    left = list(found)
    sieves: list[Sieve] = [_alive, _claiming, _willing, _large_enough, _long_enough]
    for sieve in sieves:
        left, reason = sieve(doc, left, now)
        if not left:
            return [], [reason, *_notes(found)]
    healthy = [worker for worker in left if not worker.note]
    if not healthy:
        return [], list(_notes(left))
    return healthy, _left_to_others(doc, healthy, found, now)


def _notes(found: Sequence[WorkerInfo]) -> Iterator[Reason]:
    """Yield what workers themselves say of why they claim nothing."""
    for worker in found:
        if worker.alive and worker.note:
            yield Reason("worker_note", f"{worker.name} says: {worker.note}", "tokenpool worker list")


def _alive(doc: Json, found: Sequence[WorkerInfo], now: float) -> tuple[list[WorkerInfo], Reason]:
    silent = [worker for worker in found if not worker.alive]
    told = f"; {_count(silent, 'worker')} did not renew the lease for long" if silent else ""
    hint = "start one: tokenpool work (one that found nothing to do yet shows itself after a second)"
    return [worker for worker in found if worker.alive], Reason("no_worker", f"no live worker is known{told}", hint)


def _claiming(doc: Json, found: Sequence[WorkerInfo], now: float) -> tuple[list[WorkerInfo], Reason]:
    text = "the only worker is told to leave" if len(found) == 1 else f"all {len(found)} workers are told to leave"
    return [worker for worker in found if worker.claims], Reason("workers_leave", text, "start another: tokenpool work")


def _willing(doc: Json, found: Sequence[WorkerInfo], now: float) -> tuple[list[WorkerInfo], Reason]:
    batch, tags = str(doc.get("batch") or ""), doc.get("tags")
    own = {str(key): str(value) for key, value in tags.items()} if isinstance(tags, dict) else {}
    batched = [worker for worker in found if not worker.batches or batch in worker.batches]
    if not batched:
        named = sorted({name for worker in found for name in worker.batches})
        what = f"its batch {batch}" if batch else "tokens without a batch"
        text = f"no worker takes {what}; they take {', '.join(named)}"
        return [], Reason("not_wanted", text, f"tokenpool work --batch {batch}" if batch else "tokenpool work")
    left = [worker for worker in batched if all(own.get(key) == value for key, value in worker.tags.items())]
    asked = sorted({f"{key}={value}" for worker in batched for key, value in worker.tags.items()})
    return left, Reason("not_wanted", f"workers take only tokens with tag {', '.join(asked)}", "tokenpool work")


def _large_enough(doc: Json, found: Sequence[WorkerInfo], now: float) -> tuple[list[WorkerInfo], Reason]:
    try:
        want = wanted(doc)
    except BadInput:  # any worker takes it, to end it with the reason
        return list(found), Reason("too_big", "")
    have = {worker.id: _has(worker) for worker in found}
    left = [worker for worker in found if not lacking(have[worker.id], want)]
    most = Resources(**{name: max(getattr(each, name) for each in have.values()) for name in AMOUNTS})
    short = lacking(most, want)
    text = f"no worker is large enough: it asks for {short}" if short else "no single worker has all that it asks for"
    fitting = [
        f"{name}={math.floor(getattr(most, name) * 10) / 10:g}"
        for name in AMOUNTS
        if getattr(most, name) < getattr(want, name)
    ]
    less = " ".join(fitting) or "cpu_cores=1 ram_gb=1"
    return left, Reason("too_big", text, f"start a larger worker, or: tokenpool edit {doc['_id']} {less}")


def _has(worker: WorkerInfo) -> Resources:
    """Return what a worker has; one that does not say is taken to have enough."""
    return Resources(**{name: number_of(worker.resources.get(name), math.inf) for name in AMOUNTS})


def _long_enough(doc: Json, found: Sequence[WorkerInfo], now: float) -> tuple[list[WorkerInfo], Reason]:
    needs = float(number_of(doc.get("timeout"), 0))
    left = [worker for worker in found if worker.ends is None or now + needs <= worker.ends]
    longest = max((worker.ends or 0.0) - now for worker in found)
    text = f"it may run for {spoken(needs)}, and every worker has to leave within {spoken(longest)}"
    return left, Reason("too_long", text, "start a worker with more time, or lower its timeout")


def _left_to_others(doc: Json, able: Sequence[WorkerInfo], found: Sequence[WorkerInfo], now: float) -> list[Reason]:
    """Return the reason where only the host that has just failed the token could take it; it gives others a chance."""
    attempts = transitions.attempts_of(doc)
    last: Mapping[str, Any] = attempts[-1] if attempts else {}
    ended = parse_time(last.get("end_time"))
    failed = bool(last.get("failure_class")) and bool(last.get("counted"))
    left = AVOID - (now - ended) if failed and ended is not None else 0.0
    host = last.get("hostname")
    others = {worker.hostname for worker in found if worker.alive} - {host}
    if left <= 0 or not others or any(worker.hostname != host for worker in able):
        return []
    text = f"it failed on {host}, which leaves it to others for {spoken(left)} more; they cannot take it"
    return [Reason("other_hosts", text)]


def _place(backend: Backend, doc: Json, able: Sequence[WorkerInfo]) -> Iterator[Reason]:
    """Yield where the token stands in the queue, as far as one look can tell."""
    rules = batch_rules(backend)

    def rank(each: Json) -> tuple[float, float]:
        rule = rules.get(str(each.get("batch") or ""))
        return (rule.priority if rule else 0, number_of(each.get("priority"), 0))

    queue = [each for each in backend.candidates(Want(), QUEUE).tokens if each["_id"] != doc["_id"]]
    mine = rank(doc)
    before = [each for each in queue if rank(each) > mine]
    beside = [each for each in queue if rank(each) == mine]
    least = "at least " if len(queue) >= QUEUE - 1 else ""
    slots = sum(worker.slots for worker in able)
    free = sum(worker.free for worker in able)
    busy = f"; {free} of {slots} slots that may take it are free"
    if before:
        names = sorted({str(each.get("batch") or "") for each in before} - {""})
        of = f" (of {_listed(names)})" if names else ""
        text = f"{least}{len(before)} waiting tokens{of} have a higher priority{busy}"
        yield Reason("priority", text, f"tokenpool edit {doc['_id']} priority={math.floor(mine[1]) + 1}")
    elif beside:
        yield Reason("in_line", f"it is next in line, together with {least}{len(beside)} of the same priority{busy}")
    else:
        yield Reason("in_line", f"it is next in line{busy}")


# --- words ---------------------------------------------------------------------------------------------------------


def spoken(seconds: float) -> str:
    """Return a duration in words.

    >>> spoken(40), spoken(200), spoken(7200), spoken(200000)
    ('40 s', '3 min', '2 h', '2 d')
    """
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= (2 if unit == "min" else 1.5) * size:
            return f"{round(seconds / size)} {unit}"
    return f"{max(0, round(seconds))} s"


def asker(doc: Json) -> str:
    """Return who asked for the cancel, as ``by NAME`` with a space before, where that is known."""
    by = doc["cancel"].get("by") if isinstance(doc["cancel"], dict) else ""
    return f" by {by}" if by else ""


def _count(things: Sequence[Any], noun: str) -> str:
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""Says in a few sentences what stands out in the facts of a campaign."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..transitions import ERROR, STATES
from . import words
from .facts import Facts
from .runs import FAILED

#: A host stands out with so many runs, such a share of failures, and so many times that of all others.
RUNS, SHARE, TIMES = 10, 0.2, 3.0
#: Shares that are worth a sentence.
WASTED, IDLE, UNUSED = 0.1, 0.3, 0.5


@dataclass(frozen=True)
class Finding:
    """A sentence, and whether it is bad, worth a look, or only good to know."""

    level: str
    text: str


def findings(facts: Facts) -> list[Finding]:
    """Return what stands out, the worst first."""
    found = [*_open(facts), *_failed(facts), *_hosts(facts), *_memory(facts), *_cpu(facts), *_time(facts)]
    order = ("bad", "look", "good")
    if facts.tokens and facts.finished == facts.tokens and not facts.all.states[ERROR]:
        found.append(
            Finding(
                "good",
                "The only token is done." if facts.tokens == 1 else f"All {words.count(facts.tokens)} tokens are done.",
            )
        )
    return sorted(found, key=lambda each: order.index(each.level))


def _open(facts: Facts) -> Iterator[Finding]:
    left = {state: facts.all.states[state] for state in STATES if state not in ("done", "error")}
    if any(left.values()):
        told = ", ".join(f"{words.count(number)} {state}" for state, number in left.items() if number)
        number = sum(left.values())
        yield Finding("look", f"{words.things(number, 'token')} {'is' if number == 1 else 'are'} not finished: {told}.")


def _failed(facts: Facts) -> Iterator[Finding]:
    number = facts.all.states[ERROR]
    if not number:
        return
    worst = max(facts.failures.largest, key=lambda each: each.tokens, default=None)
    why = f"; {words.count(worst.tokens)} of them with “{worst.message}”" if worst is not None and worst.tokens else ""
    share = words.percent(number / facts.tokens)
    yield Finding("bad", f"{words.things(number, 'token')} failed ({share} of all){why}.")


def _hosts(facts: Facts) -> Iterator[Finding]:
    ended = facts.all.runs["done"] + facts.all.runs[FAILED]
    for name, host in facts.hosts.largest(lambda each: each.failed_share * each.runs[FAILED], 3):
        here = host.runs["done"] + host.runs[FAILED]
        elsewhere = (facts.all.runs[FAILED] - host.runs[FAILED]) / max(1, ended - here)
        if here >= RUNS and here < ended and host.failed_share >= max(SHARE, TIMES * elsewhere):
            share, others = words.percent(host.failed_share), words.percent(elsewhere)
            yield Finding(
                "bad", f"{share} of the {words.count(here)} runs on {name} failed; on the other hosts {others}."
            )


def _memory(facts: Facts) -> Iterator[Finding]:
    if facts.failures.classes["oom"]:
        yield Finding("bad", f"{words.things(facts.failures.classes['oom'], 'run')} ran out of memory.")
    asked, used = facts.memory_asked.quantile(0.5), facts.memory.most
    if facts.memory_asked.count >= RUNS and used < UNUSED * facts.memory_asked.least:
        more = f"No run used more than {words.megabytes(used)} of memory, while {words.megabytes(asked)} were asked for"
        yield Finding("look", f"{more}: with a smaller ram_gb more would fit side by side.")


def _cpu(facts: Facts) -> Iterator[Finding]:
    share = facts.all.efficiency
    if share is not None and share < IDLE and facts.all.runs["done"] >= RUNS:
        told = f"Runs used {words.percent(share)} of their CPUs"
        yield Finding("look", f"{told}: they waited for something else, so more slots on each worker may go faster.")


def _time(facts: Facts) -> Iterator[Finding]:
    wasted = facts.wasted
    if wasted is not None and wasted >= WASTED:
        yield Finding("look", f"{words.percent(wasted)} of the run time went into runs that failed or were given back.")
    half = facts.durations["done"].quantile(0.5)
    if facts.durations["done"].count >= 1000 and half < 0.2:
        yield Finding("look", f"Half of the runs take less than {words.span(half)}: several in one token cost less.")

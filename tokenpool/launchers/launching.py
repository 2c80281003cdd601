"""Hands orders in so that nothing is lost on the way, and finds out what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..errors import TokenpoolError
from . import open_launcher
from .base import ENDED, UNKNOWN, Job, Launcher, LaunchFailed, Order
from .commands import NoAnswer
from .ledger import PENDING, Ledger

#: Seconds after which an order that no system knows by its name was never taken.
DOUBT = 600.0
#: Seconds for which those that ended are remembered.
KEPT = 7 * 86400.0


def launch(kind: str, launcher: Launcher, order: Order, script: str, ledger: Ledger) -> list[Job]:
    """Hand an order in, noted before and after; raises what the launcher raises, with what was taken in the ledger."""
    now = time.time()
    ledger.intend(kind, order.name, order.pool, now, launcher.place(order))
    try:
        jobs = launcher.submit(order, script)
    except NoAnswer:
        raise  # it may have been taken: the note stays, and is looked up by its name
    except TokenpoolError as error:
        taken = error.jobs if isinstance(error, LaunchFailed) else []
        if taken:
            ledger.note(order.pool, [replace(job, submitted=now) for job in taken])
        else:
            ledger.forget(order.name)
        raise
    jobs = [replace(job, submitted=now) for job in jobs]
    ledger.note(order.pool, jobs)
    return jobs


def refresh(
    ledger: Ledger,
    pool: str = "",
    launcher: str = "",
    opened: Callable[[str], Launcher] = open_launcher,
    now: Callable[[], float] = time.time,
) -> list[Job]:
    """Return what was launched as it is now, the oldest first, and note it; what ended long ago is forgotten."""
    noted = ledger.jobs(pool, launcher)
    fresh: list[Job] = []
    for kind in sorted({job.launcher for job in noted}):
        fresh += _ask(opened(kind), [job for job in noted if job.launcher == kind], now())
    kept = []
    for name in {job.name for job in noted}:
        those = [job for job in fresh if job.name == name]
        if not those or all(job.state == ENDED and job.submitted < now() - KEPT for job in those):
            ledger.forget(name)
        else:
            ledger.note(ledger.pool_of(name), those)
            kept += those
    return sorted(kept, key=lambda job: (job.submitted, job.name))


def _ask(launcher: Launcher, jobs: Iterable[Job], now: float) -> list[Job]:
    """Return jobs as their system knows them; an intent becomes the jobs of its name, or nothing after a while."""
    known: list[Job] = []
    for job in jobs:
        if job.id != PENDING:
            known.append(job)
            continue
        try:
            found = launcher.look_for(job)
        except TokenpoolError as error:
            known.append(replace(job, state=UNKNOWN, reason=error.message))
            continue
        known += [replace(each, submitted=job.submitted) for each in found]
        if not found and now - job.submitted < DOUBT:
            known.append(replace(job, state=UNKNOWN, reason="nobody knows yet whether it was taken"))
    numbered = [job for job in known if job.id != PENDING and job.state != ENDED]
    try:
        told = dict(zip((job.id for job in numbered), launcher.status(numbered)))
    except TokenpoolError as error:
        told = {job.id: replace(job, state=UNKNOWN, reason=error.message) for job in numbered}
    return [told.get(job.id, job) for job in known]

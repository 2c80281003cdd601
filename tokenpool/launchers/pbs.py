"""Starts workers by PBS: one job array for each order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ..errors import BadInput
from .base import ENDED, RUNNING, UNKNOWN, WAITING, Job, Launcher, LaunchFailed, Order
from .commands import NoAnswer, Said, ask, refusal
from .rendering import script_of

SYSTEM = "PBS"
#: The longest name that every PBS takes.
NAME = 15
_WAITS, _RUNS = set("QHWTSM"), set("RE")
_GONE = re.compile(r"unknown job|has finished|not found", re.IGNORECASE)


class PbsLauncher(Launcher):
    """`qsub`, `qstat`, `qselect` and `qdel`, as PBS Professional and OpenPBS have them."""

    def script(self, order: Order) -> str:
        if len(order.name) > NAME:
            raise BadInput(f"the name {order.name} is too long for PBS", f"{NAME} characters or fewer")
        select = [f"select=1:ncpus={order.cpus}"]
        select += [f"mem={max(1, round(order.ram_gb * 1024))}mb"] if order.ram_gb is not None else []
        select += [f"ngpus={order.gpus}"] if order.gpus else []
        # An array of one is refused.
        more = {"array": str(order.jobs) if order.jobs > 1 else "", "select": ":".join(select)}
        return script_of(order, "pbs.sh", more)

    def submit(self, order: Order, script: str) -> list[Job]:
        said = ask(["qsub", "-N", order.name], SYSTEM, script)
        if said.code != 0:
            raise refusal(
                said, "PBS refuses the jobs", "see the script with --print; what stands behind -- goes to qsub"
            )
        lines = said.out.split()
        if not lines or not re.match(r"\d+", lines[-1]):
            raise NoAnswer(f"qsub says {said.out[:100]!r}, not an id", "tokenpool launch list looks for it by its name")
        return [Job("pbs", lines[-1], order.name, size=order.jobs)]

    def status(self, jobs: Sequence[Job]) -> list[Job]:
        if not jobs:
            return []
        try:
            said = ask(["qstat", "-t", *(job.id for job in jobs)], SYSTEM)
        except LaunchFailed as error:
            return [replace(job, state=UNKNOWN, reason=error.message) for job in jobs]
        return [_as_queued(job, said) for job in jobs]

    def cancel(self, jobs: Sequence[Job], only_waiting: bool = False) -> None:
        jobs = self._not_started(jobs) if only_waiting else jobs
        if not jobs:
            return
        said = ask(["qdel", *(job.id for job in jobs)], SYSTEM)
        wrong = [line for line in said.err.splitlines() if line.strip() and not _GONE.search(line)]
        if said.code != 0 and wrong:
            raise LaunchFailed(f"qdel: {wrong[-1].strip()}", "are they yours? qstat -u $USER", jobs)

    def find(self, name: str) -> list[Job]:
        said = ask(["qselect", "-N", name], SYSTEM)
        if said.code != 0:
            raise LaunchFailed(f"qselect: {said.complaint}", "does the server answer? qstat -B")
        return self.status([Job("pbs", number, name) for number in said.out.split()])


def _as_queued(job: Job, said: Said) -> Job:
    """Return the job as `qstat -t` shows it: a line for the array, and one for each of its tasks."""
    number = _number(job.id)
    # Job id, name, user, time used, state, queue; ids may be cut at the end.
    rows = [words for words in (line.split() for line in said.out.splitlines()) if len(words) >= 6]
    rows = [words for words in rows if _number(words[0]) == number]
    tasks = [words[-2] for words in rows if not re.match(r"\d+\[\]", words[0])]
    if rows:
        states = tasks or [words[-2] for words in rows]
        running = sum(state in _RUNS for state in states)
        waiting = any(state in _WAITS or state == "B" for state in states)
        state = RUNNING if running else WAITING if waiting else ENDED
        return replace(job, state=state, running=running, size=max(job.size, len(tasks)))
    known = said.code == 0 or any(_GONE.search(line) and number in line for line in said.err.splitlines())
    return replace(job, state=ENDED if known else UNKNOWN, running=0, reason="" if known else said.complaint)


def _number(job: str) -> str:
    return re.split(r"[.\[]", job, maxsplit=1)[0]

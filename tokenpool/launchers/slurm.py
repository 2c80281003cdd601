"""Starts workers by Slurm: one job array for each order."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from .base import ENDED, RUNNING, UNKNOWN, WAITING, Job, Launcher, LaunchFailed, Order
from .commands import NoAnswer, Said, ask, refusal
from .rendering import script_of

SYSTEM = "Slurm"
#: Seconds before its end at which a job is told to claim nothing more; jobs so short that this matters are not told.
WARNING, SHORT = 60, 600
_WAITS = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_RUNS = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}


class SlurmLauncher(Launcher):
    """`sbatch`, `squeue` and `scancel`; `sacct` tells how a job ended, where it works."""

    def script(self, order: Order) -> str:
        warned = order.walltime is not None and order.walltime >= SHORT
        output = f"{order.logs}/{order.name}-%A_%a.log" if order.logs else ""
        more = {"warning": str(WARNING) if warned else "", "output": shlex.quote(output) if output else ""}
        return script_of(order, "slurm.sh", more)

    def submit(self, order: Order, script: str) -> list[Job]:
        said = ask(["sbatch", "--parsable", f"--job-name={order.name}"], SYSTEM, script)
        if said.code != 0:
            if "timed out" in said.err.lower():  # the controller may have taken it nevertheless
                raise NoAnswer(f"sbatch: {said.complaint}", "tokenpool launch list tells later whether it was taken")
            raise refusal(said, "Slurm refuses the jobs", _advice(said))
        lines = said.out.split()
        if not lines or not re.match(r"\d+", lines[-1]):
            raise NoAnswer(
                f"sbatch says {said.out[:100]!r}, not an id", "tokenpool launch list looks for it by its name"
            )
        number, _, cluster = lines[-1].partition(";")
        place = {"cluster": cluster} if cluster else {}
        return [Job("slurm", number, order.name, size=order.jobs, place=place)]

    def status(self, jobs: Sequence[Job]) -> list[Job]:
        try:
            rows = _rows(ask(["squeue", "-h", "-r", "-u", str(os.getuid()), "-o", "%F|%T|%r|%j"], SYSTEM))
        except LaunchFailed as error:
            return [replace(job, state=UNKNOWN, reason=error.message) for job in jobs]
        here = [_as_queued(job, [row for row in rows if row[0] == job.id]) for job in jobs]
        gone = [job.id for job in here if job.state == ENDED]
        how = _accounts(gone) if gone else {}
        return [replace(job, reason=how.get(job.id, job.reason)) if job.state == ENDED else job for job in here]

    def cancel(self, jobs: Sequence[Job], only_waiting: bool = False) -> None:
        if not jobs:
            return
        which = ["--state=PENDING"] if only_waiting else []
        said = ask(["scancel", *which, *(job.id for job in jobs)], SYSTEM)
        wrong = [line for line in said.err.splitlines() if "Invalid job id" not in line and "already" not in line]
        if said.code != 0 and wrong:
            raise LaunchFailed(f"scancel: {wrong[-1].strip()}", "are they yours? squeue --me", jobs)

    def find(self, name: str) -> list[Job]:
        rows = _rows(ask(["squeue", "-h", "-r", "-u", str(os.getuid()), f"--name={name}", "-o", "%F|%T|%r|%j"], SYSTEM))
        found = []
        for number in sorted({row[0] for row in rows}):
            tasks = [row for row in rows if row[0] == number]
            found.append(_as_queued(Job("slurm", number, name, size=len(tasks)), tasks))
        return found


def _rows(said: Said) -> list[list[str]]:
    if said.code != 0:
        raise LaunchFailed(f"squeue: {said.complaint}", "is the controller up? scontrol ping")
    return [line.split("|", 3) for line in said.out.splitlines() if line.count("|") >= 3]


def _as_queued(job: Job, tasks: Sequence[Sequence[str]]) -> Job:
    """Return the job as its tasks in the queue tell; what is not there any more has ended."""
    states = [state for _, state, _, _ in tasks]
    running = sum(state in _RUNS for state in states)
    waiting = sum(state in _WAITS for state in states)
    state = RUNNING if running else WAITING if waiting else ENDED
    reasons = [reason for _, each, reason, _ in tasks if each in _WAITS and reason not in ("None", "")]
    reason = reasons[0] if state == WAITING and reasons else _counted(states) if state == ENDED else ""
    return replace(job, state=state, running=running, reason=reason)


def _accounts(numbers: Sequence[str]) -> dict[str, str]:
    """Return how jobs ended, for those that Slurm's accounting knows; it need not be there."""
    try:
        said = ask(["sacct", "-n", "-X", "-P", "-j", ",".join(numbers), "-o", "JobID,State"], SYSTEM)
    except Exception:  # a nicety: without it, the job has ended all the same
        return {}
    states: dict[str, list[str]] = {}
    for line in said.out.splitlines():
        number, _, state = line.partition("|")
        states.setdefault(number.partition("_")[0], []).append(state.split()[0] if state.split() else "")
    return {number: _counted(found) for number, found in states.items()}


def _counted(states: Sequence[str]) -> str:
    """Return states with their numbers.

    >>> _counted(["COMPLETED", "FAILED", "COMPLETED"])
    '2 completed, 1 failed'
    """
    return ", ".join(f"{count} {state.lower()}" for state, count in sorted(Counter(states).items()))


def _advice(said: Said) -> str:
    """Return what to do about a refusal."""
    for sign, advice in (
        ("artition", "sinfo -s lists the partitions; name one behind --, for example: -- -p short"),
        ("account", "sacctmgr show associations user=$USER lists your accounts; for example: -- -A ACCOUNT"),
        ("ime limit", "ask for less --time: sinfo -s shows the limits"),
        ("processors requested", "ask for fewer --cpus: sinfo -N -l shows what the nodes have"),
        ("node configuration", "ask for less: sinfo -N -l shows what the nodes have"),
        ("contact", "is the controller up? scontrol ping"),
    ):
        if sign in said.err:
            return advice
    return "see the script with --print; what stands behind -- goes to sbatch"

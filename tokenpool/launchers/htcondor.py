"""Starts workers by HTCondor: one cluster of jobs for each order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ..errors import BadInput
from .base import ENDED, RUNNING, UNKNOWN, WAITING, Job, Launcher, LaunchFailed, Order
from .commands import NoAnswer, Said, ask, refusal
from .rendering import check, environment, script_of, worker_line

SYSTEM = "HTCondor"
_HELD = "5"
_WAITS, _RUNS = {"1", _HELD}, {"2", "6", "7"}


class HTCondorLauncher(Launcher):
    """`condor_submit`, `condor_q` and `condor_rm`."""

    def script(self, order: Order) -> str:
        check(order)
        # HTCondor tells a job nothing of its end, so the worker counts from its own start.
        limit = [] if order.walltime is None else ["--walltime", f"{int(order.walltime)}s"]
        for line in order.extra:
            if "=" not in line:
                raise BadInput(f"{line!r} is no line of a submit description", "write -- 'requirements = ...'")
        more = {
            "arguments": quoted(["-c", "; ".join([*order.setup, f"exec {worker_line(order, *limit)}"])]),
            "variables": quoted([f"{name}={value}" for name, value in environment(order)]),
            "folder": order.logs or ".",
            "extra_lines": "\n".join(order.extra),
        }
        return script_of(order, "htcondor.sub", more)

    def submit(self, order: Order, script: str) -> list[Job]:
        said = ask(["condor_submit", "-terse", "-batch-name", order.name, "-"], SYSTEM, script)
        if said.code != 0:
            advice = "see the description with --print; what stands behind -- becomes lines of it"
            # What is wrong begins with ERROR, and may go on in further lines.
            told = re.sub(r"^.*?ERROR:\s*", "", " ".join((said.err or said.out).split()))
            raise refusal(Said(said.code, "", told), "HTCondor refuses the jobs", advice)
        found = re.match(r"(\d+)\.\d+", said.out.strip())
        if found is None:
            raise NoAnswer(
                f"condor_submit says {said.out[:100]!r}, not an id", "tokenpool launch list looks for it by its name"
            )
        return [Job("htcondor", found.group(1), order.name, size=order.jobs)]

    def status(self, jobs: Sequence[Job]) -> list[Job]:
        if not jobs:
            return []
        try:
            rows = _rows([job.id for job in jobs])
        except LaunchFailed as error:
            return [replace(job, state=UNKNOWN, reason=error.message) for job in jobs]
        return [_as_queued(job, [row for row in rows if row[0] == job.id]) for job in jobs]

    def cancel(self, jobs: Sequence[Job], only_waiting: bool = False) -> None:
        if not jobs:
            return
        which = [job.id for job in jobs]
        if only_waiting:
            states = " || ".join(f"JobStatus == {state}" for state in sorted(_WAITS))
            clusters = " || ".join(f"ClusterId == {number}" for number in which)
            which = ["-constraint", f"({states}) && ({clusters})"]
        said = ask(["condor_rm", *which], SYSTEM)
        wrong = [line for line in said.err.splitlines() if line.strip() and "find/remove" not in line]
        if said.code != 0 and wrong:
            raise LaunchFailed(f"condor_rm: {wrong[-1].strip()}", "are they yours? condor_q", jobs)

    def find(self, name: str) -> list[Job]:
        rows = _rows(["-constraint", f'JobBatchName == "{name}"'])
        numbers = sorted({row[0] for row in rows})
        found = [(number, [row for row in rows if row[0] == number]) for number in numbers]
        return [_as_queued(Job("htcondor", number, name, size=len(those)), those) for number, those in found]


def _rows(which: Sequence[str]) -> list[list[str]]:
    said = ask(["condor_q", *which, "-af", "ClusterId", "JobStatus", "HoldReason"], SYSTEM)
    if said.code != 0:
        raise LaunchFailed(f"condor_q: {said.complaint}", "does the schedd answer? condor_status -schedd")
    return [line.split(None, 2) for line in said.out.splitlines() if len(line.split(None, 2)) == 3]


def _as_queued(job: Job, rows: Sequence[Sequence[str]]) -> Job:
    """Return the job as its processes in the queue tell; those that ended are not there any more."""
    running = sum(state in _RUNS for _, state, _ in rows)
    waiting = any(state in _WAITS for _, state, _ in rows)
    held = [reason for _, state, reason in rows if state == _HELD and reason != "undefined"]
    state = RUNNING if running else WAITING if waiting else ENDED
    return replace(job, state=state, running=running, reason=held[0] if held else "")


def quoted(words: Sequence[str]) -> str:
    """Return words as a submit description takes them: blanks between single quotes, quotes doubled, all in double ones.

    >>> print(quoted(["-c", 'echo "it\\'s"']))
    "-c 'echo ""it''s""'"
    """
    for word in words:
        if re.search(r"[\r\n]", word):
            raise BadInput(f"{word!r} has a line break in it", "HTCondor takes one line of it")
    each = [word.replace("'", "''").replace('"', '""') for word in words]
    return '"' + " ".join(f"'{word}'" if re.search(r"[\s']", word) or not word else word for word in each) + '"'

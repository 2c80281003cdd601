"""Starts workers on the Grid by DIRAC: one parametric job for each order."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import quote

from .base import ENDED, RUNNING, UNKNOWN, WAITING, Job, Launcher, LaunchFailed, Order
from .commands import NoAnswer, Said, advice_for, ask
from .grid_files import expect_files, files_of, plain, variables_of, words_of
from .rendering import script_of

SYSTEM = "DIRAC"
#: Seconds that DIRAC gets to take the sandbox and the job.
PATIENCE = 300.0
_WAITS = {"Submitting", "Received", "Checking", "Staging", "Scouting", "Waiting", "Rescheduled"}
_RUNS = {"Matched", "Running", "Stalled", "Completing", "Completed"}
_ENDS = {"Done", "Failed", "Killed", "Deleted"}
_STATUS = re.compile(r"JobID=(\d+)\b(.*)")
_SANDBOX = re.compile(r"InputSandbox\s*=\s*\{(.*?)\}", re.DOTALL)


class DiracLauncher(Launcher):
    """`dirac-wms-job-submit`, `-status` and `-kill`; a DIRAC proxy is needed: dirac-proxy-init."""

    def script(self, order: Order) -> str:
        files = [plain(path, '"\\', "a JDL") for path in files_of(order)]
        arguments = plain(shlex.join(words_of(order)), '"\\%', "the arguments of a JDL")
        # DIRAC takes the value apart at every = and % itself.
        told = [f"{name}={quote(value, safe=':/@,')}" for name, value in variables_of(order).items()]
        lines = [plain(word, "\n", "a JDL").rstrip(";") + ";" for word in order.extra]
        seconds = "" if order.walltime is None else str(int(order.walltime) * order.cpus)
        more = {
            "arguments": arguments,
            "environment": _list(told),
            "files": _list(files),
            "cpu_seconds": seconds,
            "extra_lines": "\n".join(lines),
        }
        return script_of(order, "dirac.jdl", more)

    def submit(self, order: Order, script: str) -> list[Job]:
        expect_files([path for path in _files_in(script) if not path.startswith(("LFN:", "SB:", "lfn:"))])
        with tempfile.TemporaryDirectory(prefix="tokenpool-launch-") as folder:
            path = os.path.join(folder, f"{order.name}.jdl")
            with open(path, "w", encoding="utf-8") as file:
                file.write(script)
            said = ask(["dirac-wms-job-submit", path], SYSTEM, patience=PATIENCE)
        ids = _ids(said.out)
        if said.code != 0 or _errors(said):
            if _timed_out(said):
                raise NoAnswer(f"DIRAC: {_complaint(said)}", "tokenpool launch list tells later whether it was taken")
            taken = [Job("dirac", each, order.name) for each in ids]
            raise LaunchFailed(f"DIRAC refuses the job: {_complaint(said)}", _advice(said), taken)
        if not ids:
            raise NoAnswer(
                f"dirac-wms-job-submit says {said.out[-100:]!r}, no id",
                "tokenpool launch list looks for it by its name",
            )
        return [Job("dirac", each, order.name) for each in ids]

    def status(self, jobs: Sequence[Job]) -> list[Job]:
        if not jobs:
            return []
        try:
            rows = _rows(ask(["dirac-wms-job-status", *(job.id for job in jobs)], SYSTEM))
        except LaunchFailed as error:
            return [replace(job, state=UNKNOWN, reason=error.message) for job in jobs]
        return [_as_told(job, rows.get(job.id)) for job in jobs]

    def cancel(self, jobs: Sequence[Job], only_waiting: bool = False) -> None:
        jobs = self._not_started(jobs) if only_waiting else jobs
        if not jobs:
            return
        said = ask(["dirac-wms-job-kill", *(job.id for job in jobs)], SYSTEM)
        if said.code != 0 or _errors(said):
            raise LaunchFailed(f"dirac-wms-job-kill: {_complaint(said)}", _advice(said), jobs)

    def find(self, name: str) -> list[Job]:
        rows = _rows(ask(["dirac-wms-job-status", "-g", name], SYSTEM))
        return [
            _as_told(Job("dirac", each, name), row) for each, row in sorted(rows.items(), key=lambda one: int(one[0]))
        ]


def _list(texts: Iterable[str]) -> str:
    """Return texts as a list of a JDL.

    >>> _list(["a", "b"])
    '{"a", "b"}'
    """
    return "{" + ", ".join(f'"{text}"' for text in texts) + "}"


def _files_in(script: str) -> list[str]:
    """Return the files that a JDL, also a changed one, sends along."""
    found = _SANDBOX.search(script)
    return re.findall(r'"([^"]*)"', found.group(1)) if found else []


def _ids(out: str) -> list[str]:
    """Return the ids in what was printed.

    >>> _ids("JobID = [12, 13]"), _ids("JobID = 11")
    (['12', '13'], ['11'])
    """
    return [number for line in re.findall(r"JobID = (.*)", out) for number in re.findall(r"\d+", line)]


def _errors(said: Said) -> list[str]:
    """Return the lines in which DIRAC's commands, whose exit code is not always telling, say what is wrong."""
    lines = [re.sub(r"^.*? (?:ERROR|FATAL):\s*", "ERROR ", line) for line in (said.out + said.err).splitlines()]
    return [line[len("ERROR") :].strip(": ") for line in lines if line.startswith("ERROR")]


def _complaint(said: Said) -> str:
    errors = _errors(said)
    # The command names our temporary file first.
    return re.sub(r"^/\S+\.jdl: ", "", Said(1, "", errors[-1]).complaint if errors else said.complaint)


def _timed_out(said: Said) -> bool:
    return "timed out" in (said.out + said.err).lower()


def _advice(said: Said) -> str:
    """Return what to do about a refusal."""
    by_sign = {
        "proxy": "get a new one: dirac-proxy-init",
        "not found": "is this client configured? dirac-configure",
        "jdl": "see it with --print; what stands behind -- becomes lines of it",
    }
    return advice_for(said, by_sign, "see the JDL with --print, and try: dirac-wms-job-submit -ddd FILE")


def _rows(said: Said) -> dict[str, dict[str, str]]:
    """Return what is told of each job, by its id."""
    if said.code != 0 or _errors(said):
        raise LaunchFailed(f"dirac-wms-job-status: {_complaint(said)}", _advice(said))
    found = {}
    for number, rest in _STATUS.findall(said.out):
        pairs = (part.partition("=") for part in rest.split(";"))
        found[number] = {name.strip(): value.strip() for name, _, value in pairs if name.strip()}
    return found


def _as_told(job: Job, row: dict[str, str] | None) -> Job:
    """Return the job as DIRAC tells of it."""
    if row is None:
        return replace(job, state=UNKNOWN, running=0, reason="DIRAC does not tell of it")
    status = row.get("Status", "")
    reason = ", ".join(part for part in (status, row.get("MinorStatus"), row.get("Site")) if part)
    state = WAITING if status in _WAITS else RUNNING if status in _RUNS else ENDED if status in _ENDS else UNKNOWN
    return replace(job, state=state, running=int(state == RUNNING), reason=reason)

"""Starts workers on the Grid by an ARC computing element: one job for each worker."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import BadInput
from .base import ENDED, RUNNING, UNKNOWN, WAITING, Job, Launcher, LaunchFailed, Order
from .commands import Said, advice_for, ask, refusal
from .grid_files import expect_files, files_of, plain, variables_of, words_of
from .rendering import script_of

SYSTEM = "ARC"
#: Seconds that a computing element gets to take jobs and their files.
PATIENCE = 300.0
_WAITS = {"accepted", "preparing", "submitting", "hold", "queuing"}
_RUNS = {"running", "finishing"}
_ENDS = {"finished", "failed", "killed", "deleted"}
_FILES = re.compile(r'\(\s*"[^"]*"\s+"([^"]*)"\s*\)')
_INPUTS = re.compile(r"\(\s*inputFiles\s*=(.*?)\)\s*\)", re.DOTALL | re.IGNORECASE)
#: A proxy, a file of user's certificates, or a token; arcsub itself finds them.
_LOG = re.compile(r"^(?:\[[^\]]*\] )*(?:ERROR|FATAL|WARNING): ?", re.IGNORECASE)


class ArcLauncher(Launcher):
    """`arcsub`, `arcstat` and `arckill`; a proxy is needed: arcproxy. Words behind ``--`` go to arcsub: ``-C URL``."""

    def script(self, order: Order) -> str:
        files = [plain(path, '"', "an xRSL") for path in files_of(order)]
        words = [plain(word, '"', "an xRSL") for word in ("startpilot.sh", *words_of(order))]
        variables = [(name, plain(value, '"', "an xRSL")) for name, value in variables_of(order).items()]
        more = {
            "arguments": " ".join(f'"{word}"' for word in words),
            "environment": _pairs(variables),
            "files": _pairs((os.path.basename(path), path) for path in files),
            "walltime_minutes": "" if order.walltime is None else str(max(1, round(order.walltime / 60))),
        }
        if order.gpus:
            raise BadInput("an xRSL has no word for GPUs", "ask the site for its runtime environment: --template FILE")
        return script_of(order, "arc.xrsl", more)

    def submit(self, order: Order, script: str) -> list[Job]:
        expect_files(_files_in(script))
        with tempfile.TemporaryDirectory(prefix="tokenpool-launch-") as folder:
            path = os.path.join(folder, f"{order.name}.xrsl")
            with open(path, "w", encoding="utf-8") as file:
                file.write(script)
            jobs: list[Job] = []
            # One by one: computing elements refuse several descriptions in one request, and a half-taken order is known.
            for _ in range(order.jobs):
                said = ask(["arcsub", *order.extra, path], SYSTEM, patience=PATIENCE)
                found = re.findall(r"jobid: (\S+)", said.out)
                if not found:
                    raise _refused(said, jobs, order.jobs)
                jobs += [Job("arc", each, order.name) for each in found]
        return jobs

    def status(self, jobs: Sequence[Job]) -> list[Job]:
        if not jobs:
            return []
        try:
            rows = _rows(ask(["arcstat", "-J", *(job.id for job in jobs)], SYSTEM))
        except LaunchFailed as error:
            return [replace(job, state=UNKNOWN, reason=error.message) for job in jobs]
        return [_as_told(job, rows.get(job.id)) for job in jobs]

    def cancel(self, jobs: Sequence[Job], only_waiting: bool = False) -> None:
        jobs = self._not_started(jobs) if only_waiting else jobs
        if not jobs:
            return
        said = ask(["arckill", *(job.id for job in jobs)], SYSTEM)
        if said.code != 0 and [job for job in self.status(jobs) if job.state != ENDED]:
            raise LaunchFailed(f"arckill: {_complaint(said)}", _advice(said), jobs)

    def find(self, name: str) -> list[Job]:
        said = ask(["arcstat", "-J", name], SYSTEM)
        return [_as_told(Job("arc", each, name), row) for each, row in _rows(said).items()]


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Return pairs as an xRSL writes them.

    >>> _pairs([("a", "1"), ("b", "2")])
    '("a" "1") ("b" "2")'
    """
    return " ".join(f'("{name}" "{value}")' for name, value in pairs)


def _files_in(script: str) -> list[str]:
    """Return the files of this machine that an xRSL, also a changed one, sends along."""
    found = _INPUTS.search(script)
    paths = _FILES.findall(f"{found.group(1)})") if found else []
    return [path for path in paths if path and "://" not in path]


def _refused(said: Said, taken: Sequence[Job], wanted: int) -> LaunchFailed:
    """Return the error for a job that was not taken, after others that were."""
    what = f"ARC took {len(taken)} of {wanted} jobs" if taken else "ARC refuses the jobs"
    return refusal(Said(said.code, "", _complaint(said)), what, _advice(said), taken)


def _complaint(said: Said) -> str:
    """Return the most telling line: the first that says what is wrong."""
    lines = [line.strip() for line in (said.err + said.out).splitlines() if line.strip()]
    wrong = [_LOG.sub("", line) for line in lines if "ERROR" in line or "FATAL" in line]
    others = [line for line in lines if not line.startswith(("Job submitted", "Job submission summary", "---"))]
    chosen = wrong or others
    return Said(said.code, "", chosen[0] if chosen else f"exit code {said.code}").complaint


def _advice(said: Said) -> str:
    """Return what to do about a refusal."""
    by_sign = {
        "proxy": "get a new one: arcproxy",
        "credential": "get a proxy: arcproxy; the site must know its owner",
        "certificate": "get a proxy: arcproxy; X509_CERT_DIR names the certificates of authorities",
        "registry": "name a computing element behind --: -- -C https://ce.example.org/arex -T arcrest",
    }
    otherwise = (
        "see the xRSL with --print; what stands behind -- goes to arcsub: -C https://ce.example.org/arex -T arcrest"
    )
    return advice_for(said, by_sign, otherwise)


def _rows(said: Said) -> dict[str, dict[str, Any]]:
    """Return what is told of each job, by its id."""
    try:
        text = said.out.strip()
        rows = json.loads(text if text.startswith("{") else f"{{{text}}}").get(
            "jobs", []
        )  # ARC 6 leaves the braces out
        return {str(row.get("id", "")): row for row in rows}
    except (ValueError, AttributeError):
        raise LaunchFailed(f"arcstat: {_complaint(said)}", _advice(said)) from None


def _as_told(job: Job, row: dict[str, Any] | None) -> Job:
    """Return the job as its computing element tells of it."""
    if row is None:
        return replace(job, state=UNKNOWN, running=0, reason="ARC does not tell of it")
    status = str(row.get("state", "")).lower()
    code = f", exit code {row['exitCode']}" if row.get("exitCode") not in (None, "", -1, "-1") else ""
    state = WAITING if status in _WAITS else RUNNING if status in _RUNS else ENDED if status in _ENDS else UNKNOWN
    return replace(job, state=state, running=int(state == RUNNING), reason=f"{status}{code}")

"""When the batch job around a worker ends, and what can still be done before."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import BadInput
from .processes import birth, stat_fields
from .selectors import parse_duration, parse_time

#: Seconds, beside the grace, that a worker keeps back of its walltime to give its tokens back.
SPARE = 5.0
#: Seconds that Slurm gets to say when the job ends.
PATIENCE = 10.0
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)$")  # two numbers would be minutes here and hours there
_HINT = "write 2h, 90m, 1-12:00:00, or a time like 2030-01-31T18:00:00Z"


def end_of(environ: Mapping[str, str], now: float) -> float | None:
    """Return when the batch job that this process is part of ends, in seconds since 1970; None where nothing says so.

    Slurm and PBS say so, Slurm's commands are asked where its environment does not tell.
    """
    told = _positive(environ.get("SLURM_JOB_END_TIME"))
    if told is not None:
        return told
    if environ.get("SLURM_JOB_ID"):
        return _ask_slurm(environ)
    allowed = _positive(environ.get("PBS_WALLTIME"))
    if allowed is not None:
        return now - _age_of_job(environ.get("PBS_JOBID", "")) + allowed
    return None


def parse(text: str, now: float) -> float:
    """Return the end that somebody wrote, in seconds since 1970: a duration from now on, or a time.

    Raises BadInput.

    >>> parse("1h 30m", 1000.0), parse("1-00:00:00", 0.0), parse("1970-01-01T00:02:00Z", 0.0)
    (6400.0, 86400.0, 120.0)
    """
    text = text.strip()
    clock = _CLOCK.match(text)  # as batch systems write it: [days-]hours:minutes:seconds
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return now + 86400 * days + 3600 * hours + 60 * minutes + seconds
    when = parse_time(text) if re.match(r"\d{4}-\d\d-\d\d", text) else None
    if when is not None:
        return when
    try:
        return now + parse_duration(text)
    except BadInput:
        raise BadInput(f"{text!r} is neither a duration nor a time", _HINT) from None


class Walltime:
    """How much time a worker has left, and what fits into it.

    `end_monotonic` is the end by `clock`, `end` the same in seconds since 1970; None: there is none. The sooner counts:
    a machine that was suspended has lost time that only the wall clock knows of, and that one may be set back. All
    are seconds; `margin` is what it takes to end in order.
    """

    def __init__(
        self,
        end_monotonic: float | None,
        margin: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        end: float | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.margin, self.end = margin, end
        self._end_monotonic, self._clock, self._wall = end_monotonic, clock, wall

    @classmethod
    def until(
        cls,
        end: float | None,
        margin: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> Walltime:
        """Return the walltime that ends at `end`, in seconds since 1970."""
        return cls(None if end is None else clock() + end - wall(), margin, clock, end=end, wall=wall)

    def remaining(self) -> float:
        """Return the seconds until the end, below 0 after it; infinite where there is none."""
        left = math.inf if self._end_monotonic is None else self._end_monotonic - self._clock()
        return left if self.end is None else min(left, self.end - self._wall())

    def can_finish(self, doc: Mapping[str, Any]) -> bool:
        """Tell whether a token may be started: its timeout fits, or it has none and there is time at all."""
        left, timeout = self.remaining() - self.margin, doc.get("timeout")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            return left > 0
        return left > 0 and timeout <= left

    def over(self) -> bool:
        """Tell whether it is time to stop."""
        return self.remaining() <= self.margin


# --- batch systems -------------------------------------------------------------------------------------------------


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _ask_slurm(environ: Mapping[str, str]) -> float | None:
    """Return what Slurm's own commands say."""
    job = environ["SLURM_JOB_ID"]
    answer = _output(["squeue", "-h", "-j", job, "-O", "EndTime"], environ) or ""
    end = _local_time(answer)
    if end is None:
        answer = _output(["scontrol", "show", "job", job], environ) or ""
        end = _local_time(answer.partition("EndTime=")[2])
    return end


def _local_time(text: str) -> float | None:
    """Return a time that Slurm printed, in seconds since 1970; None for "N/A" and the like."""
    try:
        return time.mktime(time.strptime(text.split()[0], "%Y-%m-%dT%H:%M:%S"))
    except (IndexError, ValueError, OverflowError):
        return None


def _output(argv: list[str], environ: Mapping[str, str]) -> str | None:
    """Return what a command says; None if it cannot, or takes too long."""
    program = shutil.which(argv[0], path=environ.get("PATH", os.defpath))
    if program is None:
        return None
    settings = {**environ, "SLURM_TIME_FORMAT": "standard"}
    try:
        process = subprocess.Popen(
            [program, *argv[1:]], env=settings, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return None
    with process:
        try:
            answer = process.communicate(timeout=PATIENCE)[0].decode("ascii", "replace")
            return answer if process.returncode == 0 else None
        except subprocess.TimeoutExpired:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except OSError:
                pass
            return None


def _age_of_job(job: str) -> float:
    """Return for how many seconds the oldest process above this one that bears the job's name runs; 0 unknown."""
    oldest, pid = 0, os.getpid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if f"PBS_JOBID={job}".encode() not in file.read().split(b"\0"):
                    break
        except OSError:
            break
        oldest = birth(pid) or oldest
        pid = int((stat_fields(pid)[1:2] or [b"0"])[0])
    if not oldest:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - oldest / os.sysconf("SC_CLK_TCK"))

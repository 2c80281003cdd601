"""Runs the containers of a token by the command line of apptainer or singularity: each a child like any other command."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from ..children import Finished
from ..engines import apptainer
from ..engines.base import Job, Json, begun, ended
from .base import Context, Places, Result


def run_steps(program: str, job: Job, places: Places, context: Context, timeout: float | None) -> Result:
    """Run all steps of a job, the first that fails is the last."""
    end = None if timeout is None else time.monotonic() + timeout
    cpu, rss = 0.0, 0.0
    told: list[Json] = []
    for number, step in enumerate(job.steps, 1):
        left = None if end is None else max(0.1, end - time.monotonic())
        own = {name: value for name, value in places.own.items() if name.startswith("TOKENPOOL_")}
        inside = replace(places, own={**own, **apptainer.environment_of(job, step)})
        began = begun(number - 1, *_sizes(places))
        finished = context.execute(apptainer.argv_of(program, job, step), inside, left)
        told.append(ended(began, _code(finished), *_sizes(places)))
        places.oom = places.oom or inside.oom
        cpu, rss = cpu + finished.cpu_seconds, max(rss, finished.max_rss_mb)
        if finished.timed_out:
            message = f"stopped: it ran longer than its timeout of {timeout:g} s"
            return Result(143, "timeout", message, cpu, rss, executors=tuple(told))
        if finished.killed or (finished.returncode and not step.ignore_error):
            which = f"executor {number} of {len(job.steps)} failed" if len(job.steps) > 1 else ""
            failure, message = _judged(finished, places)
            return Result(_code(finished), failure, message or which, cpu, rss, executors=tuple(told))
    return Result(0, cpu_seconds=cpu, max_rss_mb=rss, executors=tuple(told))


def _sizes(places: Places) -> list[int]:
    """Return the bytes in the logs of an attempt, which are made when something is printed."""
    return [os.stat(path).st_size if os.path.exists(path) else 0 for path in (places.stdout, places.stderr)]


def _code(finished: Finished) -> int:
    return 128 - finished.returncode if finished.returncode < 0 else finished.returncode


def _judged(finished: Finished, places: Places) -> tuple[str, str]:
    """Return the class of a failure and what is to be said of it."""
    if finished.error:
        return "system", finished.error
    fatal = apptainer.own_failure(places.stderr) if finished.returncode == 255 else ""
    if not fatal:
        return "executor", ""
    missing = any(word in fatal.lower() for word in ("image", "manifest", "docker://", "could not open", "registry"))
    return ("staging" if missing else "system"), fatal

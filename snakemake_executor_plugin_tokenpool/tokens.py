"""Makes a token of a job: what is run, with what resources. Pure."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The function that runs a job where Snakemake is loaded already.
WARM = "snakemake_executor_plugin_tokenpool.warm:run"
#: The tag by which a job is found again.
KEY = "snakemake_job"
#: Megabytes of Snakemake in a GB of a token.
MB = 1024
#: Megabytes that Snakemake itself needs beside its job: a job of a few would be ended for want of memory. Large ones have
#: room for that, and are not to outgrow a worker that they fill.
OWN, LARGE = 300, 4096
#: What stands between Python and the arguments of Snakemake in the line that it makes.
_MODULE = ["-m", "snakemake"]
#: The priority that Snakemake gives a job that is to go before all others.
_HIGHEST = 1_000_000


@dataclass(frozen=True)
class Work:
    """A job as far as a token is concerned."""

    name: str
    line: str
    #: Where it is run; empty: where its worker runs its tokens.
    folder: str
    threads: int
    resources: Mapping[str, Any]
    priority: int = 0
    tags: Mapping[str, str] | None = None


def token_of(work: Work, token_id: str, batch: str, warm: bool) -> dict[str, Any]:
    """Return the token of a job. With `warm` it is a call that finds Snakemake loaded, where the line is no more than that."""
    token: dict[str, Any] = {"_id": token_id, "batch": batch, "name": work.name[:200], "tags": dict(work.tags or {})}
    asked = resources_of(work.threads, work.resources)
    runtime = work.resources.get("runtime")
    if _is_number(runtime) and runtime > 0:
        token["timeout"] = int(runtime * 60)
    if work.priority:
        token["priority"] = max(-_HIGHEST, min(_HIGHEST, work.priority))
    words = arguments(work.line) if warm else None
    if words is None:
        token["input"] = f"cd {shlex.quote(work.folder)} && {work.line}" if work.folder else work.line
    else:
        token["function"] = {"name": WARM, "args": [work.folder, words]}
        if asked == {"cpu_cores": 1}:
            asked = {}  # that is a worker's share; a token that names it gets a process of its own
    if asked:
        token["resources"] = asked
    return token


def key_of(rules: str, outputs: Iterable[str], number: str) -> str:
    """Return what a job is known by in the next run of its workflow: its rules and outputs; its number where it has none."""
    told = "\0".join((rules, *(sorted(outputs) or [number])))
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def resources_of(threads: int, resources: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a token asks for: threads are CPUs, mem_mb memory, disk_mb disk, gpu or gpus what they say.

    >>> resources_of(2, {"mem_mb": 8192, "tmpdir": "/tmp"})
    {'cpu_cores': 2, 'ram_gb': 8.0}
    """
    asked: dict[str, Any] = {"cpu_cores": max(1, threads)}
    memory, disk = resources.get("mem_mb"), resources.get("disk_mb")
    if _is_number(memory) and memory > 0:
        asked["ram_gb"] = round(max(memory, min(memory + OWN, LARGE)) / MB, 3)
    if _is_number(disk) and disk > 0:
        asked["disk_gb"] = round(disk / MB, 3)
    gpus = resources.get("gpu", resources.get("gpus"))
    if _is_number(gpus) and gpus > 0:
        asked["gpus"] = int(gpus)
    return asked


def arguments(line: str) -> Sequence[str] | None:
    """Return Snakemake's arguments of a line that only calls it; None where there is more in it than that.

    >>> arguments("/usr/bin/python3 -m snakemake --cores 'all'")
    ['--cores', 'all']
    >>> arguments("export A=b && python -m snakemake --cores 1") is None
    True
    """
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    if words[1:3] != _MODULE or any(word in ("&&", "||", ";", "|", ">", "<") for word in words):
        return None
    if any(sign in line for sign in ("`", "$(", "\n")):
        return None
    return words[3:]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

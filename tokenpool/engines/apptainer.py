"""Writes the command lines that run a container with apptainer or singularity, where clusters have no engine to ask."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .base import Job, Json, Step, all_mounts
from .folders import inside, volumes_of
from .options import pairs

#: Executes its arguments with the streams that go before them; "" is none.
_STREAMS = 'i=$1 o=$2 e=$3; shift 3; [ "$i" ] && exec <"$i"; [ "$o" ] && exec >"$o"; [ "$e" ] && exec 2>"$e"; exec "$@"'
#: How its own failures begin, in contrast to those of what runs inside.
FATAL = "FATAL:"


def options_of(given: Sequence[str], allowed: Sequence[str]) -> Json:
    """Return a token's options as words for the command line, where the worker allows them; raises BadInput."""
    return {"words": [f"--{name}={value}" if value else f"--{name}" for name, value in pairs(given, allowed)]}


def argv_of(program: str, job: Job, step: Step) -> list[str]:
    """Return the command that runs one step."""
    verb = ["exec"] if step.entrypoint else ["run"]
    words = [program, *verb, "--containall", "--no-home", *(["--pwd", step.workdir] if step.workdir else [])]
    for mount in all_mounts(job):
        words += ["--bind", f"{mount.source}:{mount.target}:{'rw' if mount.writable else 'ro'}"]
    if not job.network:
        words += ["--net", "--network", "none"]
    if job.gpus:
        words.append("--nv")
    words += [*job.options.get("words", ()), image_of(step.image), *(step.entrypoint or ()), *(step.command or ())]
    streams = [_host_path(job, step, path) for path in (step.stdin, step.stdout, step.stderr)]
    if any(streams):
        return ["/bin/sh", "-c", _STREAMS, "sh", *streams, *words]
    return words


def image_of(name: str) -> str:
    """Return how apptainer spells an image: names are those of a registry, but for files.

    >>> image_of("alpine:3"), image_of("/images/tool.sif")
    ('docker://alpine:3', '/images/tool.sif')
    """
    is_file = name.startswith(("/", "./")) or name.endswith((".sif", ".img", ".simg"))
    return name if is_file or "://" in name else f"docker://{name}"


def environment_of(job: Job, step: Step) -> dict[str, str]:
    """Return the variables by which apptainer and singularity learn those of the container: nobody sees them in `ps`."""
    # The folder for what it unpacks is its own business.
    inner = {name: value for name, value in step.env.items() if name != "HOME"}
    found = {f"{front}ENV_{name}": value for name, value in inner.items() for front in ("APPTAINER", "SINGULARITY")}
    for key, value in job.login.items():
        for front in ("APPTAINER", "SINGULARITY"):
            found[f"{front}_DOCKER_{key.upper()}"] = value
    return found


def own_failure(stderr: str) -> str:
    """Return the line by which apptainer says why it ran nothing, "" where the container failed by itself."""
    try:
        with open(stderr, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            tail = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line for line in tail.splitlines() if FATAL in line]
    return " ".join(lines[-1].partition(FATAL)[2].split()) if lines else ""


def _host_path(job: Job, step: Step, path: str) -> str:
    return os.path.join(job.folder, *inside(path, step.workdir, volumes_of(job))) if path else ""

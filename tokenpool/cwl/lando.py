"""Reads job files of lando: a git repository, a folder in it, a workflow there, and its input."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BadInput
from . import texts
from .checkouts import has_git
from .params import SECRET
from .sources import Source
from .tokens import Wanted, token_of

Json = dict[str, Any]

KEYS = ("git_clone", "cd", "input", "run_cwl")
_SECRET = re.compile(
    r"(^|[_\W]|[a-z](?=[A-Z]))(key|token|password|passwd|secret|credentials?)($|[_\W\d])", re.IGNORECASE
)


def read(path: str, secrets: Sequence[str] = ()) -> Iterator[Json]:
    """Yield the token that a job file describes; inputs named in `secrets` become secrets of the worker.

    Raises BadInput for a job file that makes no sense, or that holds what looks like a secret.
    """
    job = texts.load(Path(path), path)
    if not isinstance(job, dict) or not all(isinstance(name, str) for name in job):
        raise BadInput(f"{path} is no job file", f"it has the keys {', '.join(KEYS)}")
    missing = [name for name in KEYS if job.get(name) in (None, "") and name != "cd"]
    strange = [name for name in job if name not in KEYS]
    if missing or strange:
        what = f"has no {missing[0]}" if missing else f"has a key {strange[0]!r} that no job has"
        raise BadInput(f"{path} {what}", f"a job file has the keys {', '.join(KEYS)}")
    source = _source(job, path)
    params, named = _without_secrets(_inputs(job["input"], path), secrets, path)
    base = Path(os.path.abspath(path)).parent
    fields = token_of(source, params, base, Wanted(look=has_git(), may_miss=True))
    fields["name"] = f"{PurePosixPath(path).stem}: {job['run_cwl']}"
    if named:
        fields["secrets"] = named
    yield fields


def _source(job: Json, path: str) -> Source:
    url, folder, file = (str(job.get(name) or "") for name in ("git_clone", "cd", "run_cwl"))
    # `cd` is seen from where the clone is made, so it begins with the name that git gives a clone.
    parts = [part for part in PurePosixPath(folder).parts if part != "."]
    if parts and parts[0] == url.rstrip("/").rpartition("/")[2].removesuffix(".git"):
        parts = parts[1:]
    inner = str(PurePosixPath(*parts, file))
    if inner.startswith("/") or ".." in PurePosixPath(inner).parts:
        raise BadInput(f"{path}: cd and run_cwl lead out of the repository", "name a file inside of it")
    return Source(repo=url, path=inner)


def _inputs(value: Any, path: str) -> Json:
    inputs = texts.parse(value, f"{path}: input") if isinstance(value, str) else value
    if not isinstance(inputs, dict):
        raise BadInput(f"{path}: input holds no parameters", "names and values, as YAML")
    return inputs


def _without_secrets(inputs: Json, secrets: Sequence[str], path: str) -> tuple[Json, list[str]]:
    unknown = [name for name in secrets if name not in inputs]
    if unknown:
        raise BadInput(f"{path} has no input {unknown[0]!r} to be a secret", f"it has {', '.join(map(str, inputs))}")
    for name in inputs:
        if name not in secrets and _SECRET.search(str(name)):
            raise BadInput(
                f"{path}: input {name!r} looks like a secret, and everybody can read a token",
                f"--secret {name} leaves its value to the workers: TOKENPOOL_SECRET_{name}, or a file of their secrets",
            )
    return {name: {SECRET: name} if name in secrets else each for name, each in inputs.items()}, list(secrets)

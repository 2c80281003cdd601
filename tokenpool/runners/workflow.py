"""Runs a CWL workflow with a CWL runner, in a process of its own: source and files in, output object and files out."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..children import Finished
from ..cwl import complaints, params, results
from ..cwl.sources import ATTACHED, Source, source_of, split_fragment
from ..errors import BadInput, NotFound
from .base import Context, Places, Policy, Result, Runner
from .command import timeout_of
from .helper import run_helper

Json = dict[str, Any]

FAILED = 99
#: The exit code of a CWL runner for what it cannot do.
UNSUPPORTED = 33
#: What knows the options of cwltool.
CWLTOOLS = ("cwltool", "cwl-runner")
PROVENANCE = "provenance.zip"


class WorkflowRunner(Runner):
    """The token's `workflow` with its `params`; the output object becomes `output.result`, its files are attached."""

    def run(self, token: Mapping[str, Any], places: Places, context: Context) -> Result:
        return _Attempt(token, places, context).run()


@dataclass
class _Attempt:
    """One run of one workflow, in its own folder."""

    token: Mapping[str, Any]
    places: Places
    context: Context
    timeout: float | None = None
    used: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def run(self) -> Result:
        """Bring the source and the files, run, collect what came out."""
        self.timeout = timeout_of(self.token)
        self.folder = Path(self.places.work)
        wanted = source_of(self.token["workflow"])
        if self.token["workflow"].get("provenance") and self.places.secrets:
            raise BadInput("a research object would hold the values of the token's secrets", "leave one of them out")
        try:
            command = runner_of(self.context.policy)
        except BadInput as error:  # the token is right: another machine may have one
            return Result(FAILED, "system", f"{error}; {error.hint}")
        self._bring_attachments(wanted)
        found = self._bring_source(wanted)
        if isinstance(found, Result):
            return found
        order = self._write_params(found)
        self.output = self.folder / "output"
        argv = [*command, *self._options(command[0]), "--outdir", str(self.output), self._target(found), str(order)]
        for name in ("tmp", "output"):
            (self.folder / name).mkdir(exist_ok=True)
        before = {path: _size(path) for path in (self.places.stdout, self.places.stderr)}
        finished = self.context.execute(argv, self.places, self._left())
        self.used += finished.cpu_seconds
        out, err = (_tail(path, start) for path, start in before.items())
        if finished.timed_out or finished.error or finished.returncode:
            return self._failed(finished, err)
        return self._succeeded(found, finished, out)

    # --- before --------------------------------------------------------------------------------------------------

    def _bring_attachments(self, wanted: Source) -> None:
        names = list(self.token.get("_attachments") or {})
        for name in params.attached(names):
            target = params.target(name, self.folder)
            if target is not None:
                self._write(name, target)
        if wanted.url.startswith(ATTACHED):
            name = wanted.url[len(ATTACHED) :]
            if name not in names:
                raise BadInput(
                    f"the workflow is the attachment {name!r}, which the token does not have", "push it again"
                )
            # Where it stands is where the source is unpacked from; one file alone is run as it is.
            self._write(name, self.folder / ("source.zip" if wanted.archive else name.rpartition("/")[2]))

    def _write(self, name: str, target: Path) -> None:
        try:
            with target.open("wb") as file:
                for piece in self.context.attachment(self.token, name):
                    file.write(piece)
        except NotFound:
            raise BadInput(f"attachment {name!r} is gone from the token", "push it again") from None

    def _bring_source(self, wanted: Source) -> Source | Result:
        """Return the source with its commit and path, or how bringing it failed."""
        if not wanted.repo and not wanted.archive:
            return wanted
        request = {"workflow": wanted.field(), "folder": str(self.folder / "source")}
        module = "tokenpool.runners.workflow_source"
        finished, answer = run_helper(module, request, self.places, self.context, self.timeout)
        self.used += finished.cpu_seconds
        if answer is not None and "workflow" in answer:
            return source_of(answer["workflow"])
        if answer is not None:
            return Result(FAILED, str(answer["failure_class"]), str(answer["error"]), self.used, finished.max_rss_mb)
        if finished.timed_out:
            return self._failed(finished, "")
        return Result(
            finished.returncode or FAILED, "system", "the workflow's source could not be brought; see the log"
        )

    def _write_params(self, found: Source) -> Path:
        near = None
        if found.repo or found.archive:
            near = (self.folder / "source" / split_fragment(found.path)[0]).parent
        given = self.token.get("params")
        order = params.localize(given if isinstance(given, dict) else {}, self.folder, near, self.places.secrets)
        path = self.folder / "params.json"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(order, file)
        return path

    def _target(self, found: Source) -> str:
        if found.repo or found.archive:
            return str(self.folder / "source" / found.path)
        if found.url.startswith(ATTACHED):
            return str(self.folder / found.url[len(ATTACHED) :].rpartition("/")[2]) + found.path
        return found.url

    def _options(self, program: str) -> list[str]:
        if os.path.basename(program) not in CWLTOOLS:
            return []
        temporary = str(self.folder / "tmp")
        options = ["--tmpdir-prefix", f"{temporary}/", "--tmp-outdir-prefix", f"{temporary}/out", "--disable-color"]
        if self.token["workflow"].get("provenance"):
            options += ["--provenance", str(self.folder / "provenance")]
        return options + engine_options(self.context.policy)

    def _left(self) -> float | None:
        return None if self.timeout is None else max(1.0, self.timeout - (time.monotonic() - self.began))

    # --- after ---------------------------------------------------------------------------------------------------

    def _failed(self, finished: Finished, err: str) -> Result:
        usage = (self.used, finished.max_rss_mb)
        code = finished.returncode
        code = 128 - code if code < 0 else code
        if finished.timed_out:
            return Result(code, "timeout", f"stopped: it ran longer than its timeout of {self.timeout:g} s", *usage)
        if finished.error:
            return Result(code, "system", finished.error, *usage)
        found = complaints.judge(err, str(self.folder))
        failure = "staging" if found.staging else "executor"
        failure = "invalid" if found.invalid or (code == UNSUPPORTED and not found.staging) else failure
        return Result(code, failure, found.message or f"the CWL runner ended with {code}; see its log", *usage)

    def _succeeded(self, found: Source, finished: Finished, out: str) -> Result:
        usage = (self.used, finished.max_rss_mb)
        if not os.path.exists(self.places.stdout):
            return Result(0, "", "", *usage)  # it ran on a terminal, where its output object stands
        told = results.last_object(out)
        if told is None:
            return Result(FAILED, "executor", "the CWL runner printed no output object; see its log", *usage)
        collected = results.collect(told, self.output)
        files = dict(collected.files)
        if self.token["workflow"].get("provenance"):
            files[PROVENANCE] = self._provenance()
        if self.token.get("outputs"):  # what is too large for the token goes where they say
            files = {name: path for name, path in files.items() if _size(path) <= self.context.policy.attach_limit}
        large = self._too_large(files)
        if large:
            return Result(FAILED, "staging", large, *usage)
        result = json.loads(json.dumps(collected.result))
        output = {"result": _without(result, self.places.secrets), "workflow": found.field()}
        return Result(0, "", "", *usage, output=output, files=files)

    def _too_large(self, files: Mapping[str, str]) -> str:
        limit = self.context.policy.attach_limit
        for name, path in files.items():
            size = _size(path)
            if size > limit:
                inner = name.removeprefix(results.FRONT)
                return (
                    f"the output {inner} has {size:,} bytes, and at most {limit:,} are attached to a token; "
                    "start the worker with a larger --attach-limit, or have the workflow make smaller files"
                )
        return ""

    def _provenance(self) -> str:
        base = str(self.folder / "provenance")
        return shutil.make_archive(base, "zip", base) if os.path.isdir(base) else os.devnull


# --- the runner that the worker's owner chose --------------------------------------------------------------------------


def runner_of(policy: Policy) -> list[str]:
    """Return the words that start the CWL runner; one that is not on the PATH is looked for beside Python."""
    words = shlex.split(policy.cwl_runner) or [Policy.cwl_runner]
    beside = os.path.join(os.path.dirname(sys.executable), words[0])
    if shutil.which(words[0]) is None and os.access(beside, os.X_OK):
        words[0] = beside
    if shutil.which(words[0]) is None:
        hint = "pip install 'tokenpool[cwl]', or name another one with --cwl-runner"
        raise BadInput(f"this machine has no CWL runner {words[0]!r}", hint)
    return words


def engine_options(policy: Policy) -> list[str]:
    """Return cwltool's options for the containers that steps ask for."""
    engine = policy.engine
    if engine == "auto":
        flags = {"docker": [], "podman": ["--podman"], "apptainer": ["--singularity"], "singularity": ["--singularity"]}
        options = next((flag for program, flag in flags.items() if shutil.which(program)), [])
    else:
        options = {"podman": ["--podman"], "apptainer": ["--singularity"]}.get(engine, [])
    # Only steps that ask for the network get one; where the worker does not allow it, nor do they.
    return options if policy.network else [*options, "--custom-net", "none"]


def _without(result: Any, secrets: Mapping[str, str]) -> Any:
    text = json.dumps(result)
    for value in secrets.values():
        if len(value) >= 4:
            text = text.replace(json.dumps(value)[1:-1], "*" * len(value))
    return json.loads(text)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _tail(path: str, start: int) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""

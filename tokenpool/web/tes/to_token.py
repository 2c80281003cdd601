"""Makes a token of a task: pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ... import retries
from ...checks import check
from ...documents import new_token
from ...engines import jobs
from ...errors import BadInput
from ...runners import equivalent_input
from ...staging import plan
from .models import tesNewExecutor, tesNewInput, tesNewOutput, tesNewResources, tesNewTask
from .parameters import OUTPUTS, Parameters, read_parameters

Fields = dict[str, Any]

#: Where a token keeps what only TES has a word for.
OWN = "tes"
_WILD = re.compile(r"[*?\[]")


def token_of(task: tesNewTask) -> Fields:
    """Return the fields of a task's token; one that could only fail is closed already, with the reason.

    Raises BadInput for one that a pool does not take.
    """
    resources = task.resources or tesNewResources()
    known = read_parameters(resources.backend_parameters or {})
    fields: Fields = {
        **_given(name=task.name, description=task.description, tags=task.tags, volumes=task.volumes),
        "executors": [_executor(each) for each in task.executors],
        **_given(
            inputs=[_input(each) for each in task.inputs or ()],
            outputs=[_output(each, known.outputs) for each in task.outputs or ()],
            resources=_resources(resources, known),
        ),
        **{name: value for name, value in known.fields.items() if name not in (OUTPUTS, "gpus")},
        **_given(**{OWN: _own(resources, known)}),
    }
    wrong = "; ".join(known.warnings) if resources.backend_parameters_strict else ""
    wrong = wrong or _wrong(fields)
    return retries.end_invalid(new_token(fields), wrong) if wrong else fields


def _given(**fields: Any) -> Fields:
    return {name: value for name, value in fields.items() if value}


def _executor(each: tesNewExecutor) -> Fields:
    streams = _given(stdin=each.stdin, stdout=each.stdout, stderr=each.stderr, env=each.env)
    return {
        "image": each.image,
        "command": each.command,
        "workdir": each.workdir or "",
        **streams,
        **_given(ignore_error=each.ignore_error),
    }


def _input(each: tesNewInput) -> Fields:
    # An empty file is a file: only where there is no url it is meant.
    source = {"content": each.content or ""} if each.content or each.url is None else {"url": each.url}
    kind = each.type.value if each.type else None
    words = _given(name=each.name, description=each.description, streamable=each.streamable)
    return {**source, "path": each.path, **_given(type=kind), **words}


def _output(each: tesNewOutput, when: str) -> Fields:
    url, prefix = each.url, None
    found = _WILD.search(each.path)
    if found:
        front, _, names = each.path[: found.start()].rpartition("/")
        prefix = each.path_prefix or front
        # Some clients name the pattern in the URL too.
        names += each.path[found.start() :]
        url = url[: -len(names)] if not each.path_prefix and url.endswith(f"/{names}") else url
    kind = each.type.value if each.type else None
    words = _given(path_prefix=prefix, type=kind, name=each.name, description=each.description)
    return {"path": each.path, "url": url, "when": when, **words}


def _resources(given: tesNewResources, known: Parameters) -> Fields:
    amounts = _given(cpu_cores=given.cpu_cores, ram_gb=given.ram_gb, disk_gb=given.disk_gb)
    return {**amounts, **_given(gpus=known.fields.get("gpus"))}


def _own(given: tesNewResources, known: Parameters) -> Fields:
    return _given(
        preemptible=given.preemptible,
        zones=given.zones,
        backend_parameters=known.kept,
        backend_parameters_strict=given.backend_parameters_strict,
        warnings=known.warnings,
    )


# --- what no worker could run ------------------------------------------------------------------------------------------


def _wrong(fields: Mapping[str, Any]) -> str:
    """Return why a token would fail wherever it ran, "" where it need not; raises BadInput for what is not even kept."""
    check(fields)
    names = (name for each in fields["executors"] for name in each.get("env", ()))
    if odd := [name for name in names if not name or "=" in name or "\0" in name]:
        return f"{odd[0]!r} is no name of a variable"
    try:
        layout = plan.layout_of(fields, "/")
        plan.inputs_of(fields, layout)
        plan.outputs_of(fields, layout)
        volumes = [(seen, folder.lstrip("/")) for seen, folder in layout.volumes]
        jobs.steps_of(fields, None, {}, volumes)
        equivalent_input(fields)
    except BadInput as error:
        return f"{error}; {error.hint}"
    return ""

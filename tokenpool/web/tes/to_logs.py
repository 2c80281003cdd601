"""Makes the logs of a task, one for each attempt, of a token's history: pure functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ... import transitions
from ...engines.base import FOLDERS, WORK
from ...errors import BadInput
from ...staging import plan
from ...util import timestamp

Doc = Mapping[str, Any]
Json = dict[str, Any]
#: The end of what stands between two places of an attachment, "" where it is not kept; no end: None.
Logs = Callable[[str, int, "int | None"], str]

_METADATA = ("hostname", "worker", "claim", "failure_class", "cpu_seconds", "max_rss_mb", "counted", "superseded")
_JOBS = ("slurm_job_id", "pbs_job_id", "dirac_job_id", "wms_job_id", "cream_job_id")


def task_logs(doc: Doc, logs: Logs | None) -> list[Json]:
    """Return a log for each attempt, and one for what runs now; `logs` reads attachments, None: the basic view."""
    attempts = transitions.attempts_of(doc)
    state = transitions.state_of(doc)
    found = [_attempt(doc, attempt, logs) for attempt in attempts]
    if state == transitions.LOCKED:
        found.append(_current(doc))
    elif state in transitions.FINAL and not attempts and doc.get("lock") != transitions.PICAS_ERROR:
        found.append(_foreign(doc, logs))
    notes = _notes(doc)
    if not found and notes and logs is not None:
        found.append({"logs": [], "outputs": []})
    if found and state in transitions.FINAL:
        found[-1]["outputs"] = output_files(doc)
    if found and notes and logs is not None:
        found[-1]["system_logs"] = [*found[-1].get("system_logs", ()), *notes]
    return found


# --- attempts ----------------------------------------------------------------------------------------------------------


def _attempt(doc: Doc, attempt: Doc, logs: Logs | None) -> Json:
    told: Json = {"logs": _executors(doc, attempt, logs), "outputs": []}
    told.update({name: attempt[name] for name in ("start_time", "end_time") if isinstance(attempt.get(name), str)})
    metadata = {name: _word(attempt[name]) for name in _METADATA if attempt.get(name) not in (None, "")}
    if metadata:
        told["metadata"] = metadata
    if logs is not None and attempt.get("failure_class"):
        again = "" if attempt.get("counted", True) else ", which does not count as a retry"
        told["system_logs"] = [f"failure: {attempt['failure_class']}{again}"]
    return told


def _executors(doc: Doc, attempt: Doc, logs: Logs | None) -> list[Json]:
    """Return how the executors of an attempt went: those that began."""
    told = attempt.get("executors")
    entries = [each for each in told if isinstance(each, Mapping)] if isinstance(told, list) else []
    if not entries:
        if not _ran(attempt):
            return []
        times = {name: attempt.get(name) for name in ("start_time", "end_time")}
        entries = [{**times, "exit_code": attempt.get("exit_code"), "stdout": [0], "stderr": [0]}]
    return [_executor(attempt, each, logs) for each in entries]


def _executor(attempt: Doc, entry: Doc, logs: Logs | None) -> Json:
    code = _code(entry.get("exit_code"))
    ended = {"end_time": attempt.get("end_time")} if code is None else {}
    times = {**{name: entry.get(name) for name in ("start_time", "end_time")}, **ended}
    # One that was stopped has no code of its own.
    own = code if code is not None else _code(attempt.get("exit_code"))
    found: Json = {name: value for name, value in times.items() if isinstance(value, str)}
    found["exit_code"] = transitions.PICAS_ERROR if own is None else own
    for stream in ("stdout", "stderr") if logs is not None else ():
        assert logs is not None
        name, (start, end) = attempt.get(stream), _span(entry.get(stream))
        found[stream] = logs(name, start, end) if isinstance(name, str) else ""
    return found


def _ran(attempt: Doc) -> bool:
    """Tell whether something was run in an attempt whose executors are not told of."""
    return attempt.get("failure_class") in (None, "", "executor", "timeout", "oom") and (
        _code(attempt.get("exit_code")) is not None
    )


def _current(doc: Doc) -> Json:
    """Return the log of the attempt that runs now."""
    lease = doc.get("lease")
    held = lease if isinstance(lease, Mapping) else {}
    known = {"hostname": doc.get("hostname"), "worker": held.get("worker"), "claim": held.get("claim")}
    metadata = {name: str(value) for name, value in [*known.items(), *_jobs(doc)] if value}
    began = _moment(doc.get("lock"))
    return {
        "logs": [],
        "outputs": [],
        **({"start_time": began} if began else {}),
        **({"metadata": metadata} if metadata else {}),
    }


def _foreign(doc: Doc, logs: Logs | None) -> Json:
    """Return the log of a token that picas' workers ran, or whose history is not kept."""
    name = doc.get("_id")
    attempt = {
        "start_time": _moment(doc.get("lock")),
        "end_time": _moment(doc.get("done")),
        "exit_code": doc.get("exit_code"),
        "hostname": doc.get("hostname"),
        "stdout": f"logs_{name}.out",
        "stderr": f"logs_{name}.err",
    }
    return _attempt(doc, {key: value for key, value in attempt.items() if value not in (None, "")}, logs)


def _jobs(doc: Doc) -> Iterable[tuple[str, Any]]:
    return ((name, doc.get(name)) for name in _JOBS)


def _notes(doc: Doc) -> list[str]:
    """Return what is to be said of the task as a whole."""
    own, errors = doc.get("tes"), doc.get("error")
    warned = own.get("warnings") if isinstance(own, Mapping) else None
    warnings = [f"warning: {each}" for each in warned] if isinstance(warned, list) else []
    entries = [each for each in errors if isinstance(each, Mapping)] if isinstance(errors, list) else []
    return warnings + [str(text) for each in entries for text in (each.get("message"), each.get("exception")) if text]


# --- outputs -----------------------------------------------------------------------------------------------------------


def output_files(doc: Doc) -> list[Json]:
    """Return the files that a token's work became, by their paths inside its container."""
    output = doc.get("output")
    files = output.get("files") if isinstance(output, Mapping) else None
    places = _places(doc)
    return [
        {
            "url": str(each.get("url") or ""),
            "path": inside(str(each.get("path") or ""), places, doc),
            "size_bytes": str(each["size"]) if type(each.get("size")) is int else "0",
        }
        for each in (files if isinstance(files, list) else ())
        if isinstance(each, Mapping)
    ]


def inside(path: str, places: Mapping[str, str], doc: Doc) -> str:
    """Return where a container sees a file that the token names by its place in the attempt's folder."""
    top, _, rest = path.partition("/")
    if top == "volumes":
        number, _, rest = rest.partition("/")
        top = f"volumes/{number}"
    seen = places.get(top)
    if seen is not None and rest and (top not in FOLDERS or _is_asked_for(f"{seen}/{rest}", doc)):
        return f"{seen}/{rest}"
    in_work = f"{WORK}/{path}"
    return in_work if _is_asked_for(in_work, doc) else f"{FOLDERS['output']}/{path}"


def _is_asked_for(path: str, doc: Doc) -> bool:
    """Tell whether one of the outputs begins like this path: a file in OUTPUT may be in a folder named like others."""
    fronts = [str(each.get("path") or "") for each in doc.get("outputs") or () if isinstance(each, Mapping)]
    return any(path.startswith(front.partition("*")[0].rstrip("/")) for front in fronts if front.startswith("/"))


def _places(doc: Doc) -> dict[str, str]:
    """Return what a container sees, by the folders below the attempt's that stand for it."""
    try:
        layout = plan.layout_of(doc, "/")
    except (BadInput, AttributeError, TypeError):
        layout = plan.layout_of({}, "/")
    return {os.path.relpath(folder, "/"): seen for seen, folder in (*layout.places, *layout.volumes) if seen != WORK}


# --- values ------------------------------------------------------------------------------------------------------------


def _span(value: Any) -> tuple[int, int | None]:
    if isinstance(value, list) and 1 <= len(value) <= 2 and all(type(each) is int and each >= 0 for each in value):
        return value[0], value[1] if len(value) == 2 else None
    return 0, None


def _code(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 1 << 31 else None


def _moment(value: Any) -> str:
    """Return a second since 1970 as RFC 3339 writes it, "" where it is none."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    return timestamp(value) if good and transitions.PICAS_ERROR < value < 253_402_300_799 else ""


def _word(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)

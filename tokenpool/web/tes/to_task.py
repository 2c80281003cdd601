"""Makes a task of a token, whatever wrote it: pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...engines.base import FOLDERS
from .states import tes_state
from .to_logs import Logs, task_logs
from .to_token import OWN

Doc = Mapping[str, Any]
Json = dict[str, Any]

SHELL = ["/bin/sh", "-c"]


def minimal(doc: Doc, phase: str = "") -> Json:
    """Return id and state of a task."""
    return {"id": str(doc["_id"]), "state": tes_state(doc, phase)}


def task_of(doc: Doc, phase: str = "", logs: Logs | None = None) -> Json:
    """Return a task; with `logs`, what its executors printed, all of it: the full view, else the basic one."""
    is_full = logs is not None
    inputs = [_input(each, is_full) for each in _objects(doc.get("inputs"))]
    found = {
        **minimal(doc, phase),
        **_texts(doc, "name", "description"),
        "inputs": inputs,
        "outputs": [_output(each) for each in _objects(doc.get("outputs"))],
        "resources": _resources(doc),
        "executors": _executors(doc),
        "volumes": [str(each) for each in _list(doc.get("volumes"))],
        "tags": words_of(doc.get("tags")),
        "logs": task_logs(doc, logs),
        "creation_time": _created(doc),
    }
    return {name: value for name, value in found.items() if value not in ("", [], {}) or name == "executors"}


# --- what was asked for ------------------------------------------------------------------------------------------------


def _executors(doc: Doc) -> list[Json]:
    given = _objects(doc.get("executors"))
    if given:
        return [_executor(each) for each in given]
    command = doc.get("command")
    argv = [str(word) for word in command] if isinstance(command, list) else [*SHELL, _line(doc)]
    image = doc.get("image")
    return [{"image": str(image or ""), "command": argv, **_given(env=words_of(doc.get("env")))}]


def _executor(each: Doc) -> Json:
    command = [str(word) for word in _list(each.get("command"))]
    told = {"image": str(each.get("image") or ""), "command": command}
    streams = _texts(each, "workdir", "stdin", "stdout", "stderr")
    ignored = {"ignore_error": True} if each.get("ignore_error") is True else {}
    return {**told, **streams, **_given(env=words_of(each.get("env"))), **ignored}


def _line(doc: Doc) -> str:
    """Return the shell line of a token that has no executors; "" where it cannot be said in one."""
    command = doc.get("command")
    if isinstance(command, str):
        return command
    if isinstance(doc.get("input"), str):
        return str(doc["input"])
    return ""


def _input(each: Doc, is_full: bool) -> Json:
    path = _absolute(each.get("path"), FOLDERS["resource" if each.get("shared") else "input"])
    content = {"content": each["content"]} if is_full and isinstance(each.get("content"), str) else {}
    flags = {"streamable": True} if each.get("streamable") is True else {}
    return {**_texts(each, "name", "description", "url"), "path": path, "type": _type(each), **content, **flags}


def _output(each: Doc) -> Json:
    path = _absolute(each.get("path"), FOLDERS["output"])
    url = str(each.get("url") or "attachment:output/")
    return {**_texts(each, "name", "description", "path_prefix"), "url": url, "path": path, "type": _type(each)}


def _type(each: Doc) -> str:
    if each.get("type") in ("FILE", "DIRECTORY"):
        return str(each["type"])
    is_folder = not each.get("path") if "content" not in each else False
    return "DIRECTORY" if is_folder or str(each.get("url") or "").endswith("/") else "FILE"


def _absolute(path: Any, folder: str) -> str:
    text = path if isinstance(path, str) else ""
    return text if text.startswith("/") else f"{folder}/{text}"


def _resources(doc: Doc) -> Json:
    given, own = _object(doc.get("resources")), _object(doc.get(OWN))
    amounts = {name: _amount(given.get(name)) for name in ("cpu_cores", "ram_gb", "disk_gb")}
    found = {**amounts, "cpu_cores": math.ceil(amounts["cpu_cores"])}
    flags = {name: True for name in ("preemptible", "backend_parameters_strict") if own.get(name) is True}
    zones = [str(each) for each in _list(own.get("zones"))]
    return _given(**found, **flags, zones=zones, backend_parameters=words_of(own.get("backend_parameters")))


def _amount(value: Any) -> float:
    """Return an amount; of several, one for each attempt, the first."""
    first = value[0] if isinstance(value, list) and value else value
    good = isinstance(first, (int, float)) and not isinstance(first, bool) and math.isfinite(first)
    return first if good else 0


def _created(doc: Doc) -> str:
    created = doc.get("creation_time")
    return created if isinstance(created, str) else ""


# --- whatever somebody wrote -------------------------------------------------------------------------------------------


def words_of(value: Any) -> dict[str, str]:
    """Return an object of texts; other values as they are written."""
    return {str(key): _word(each) for key, each in _object(value).items()}


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in _list(value) if isinstance(each, Mapping)]


def _texts(given: Doc, *names: str) -> Json:
    return {name: given[name] for name in names if isinstance(given.get(name), str) and given[name]}


def _given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value}

"""Reads the tasks of SimpleTasks and of python-task-queue, as they are, as fields of tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .registry import BasicInfo

Json = dict[str, Any]


def read_simpletasks(path: str) -> Iterator[Json]:
    """Yield a token for each task: ``{"basic_info": …, "payload_info": …}``, which its handler sees unchanged."""
    for place, task in _values(path):
        try:
            info = BasicInfo.of(task.get("basic_info") if isinstance(task, Mapping) else None)
            yield {"name": f"{info.name}/{info.id}", "function": {"name": info.name}, "input": task}
        except BadInput as error:
            raise BadInput(f"{place}: {error}", error.hint) from None


def read_ptq(path: str) -> Iterator[Json]:
    """Yield a token for each payload: ``[[module, name], args, kwargs, id]``, or ``{"class": name, …arguments}``."""
    for place, payload in _values(path):
        if isinstance(payload, Mapping):
            function = _registered(place, payload)
        else:
            function = _queueable(place, payload)
        yield {"name": function["name"], "function": function, "input": payload}


def _queueable(place: str, payload: Any) -> Json:
    hint = 'for example [["package.module", "function"], [1], {"x": 2}, -1]'
    if not isinstance(payload, list) or len(payload) not in (3, 4):
        raise BadInput(f"{place} is no payload", hint)
    target, args, kwargs = payload[:3]
    named = isinstance(target, list) and len(target) == 2 and all(isinstance(each, str) for each in target)
    if not named or not isinstance(args, list) or not isinstance(kwargs, Mapping):
        raise BadInput(f"{place} is no payload", hint)
    return {"name": ":".join(target), "args": args, "kwargs": dict(kwargs)}


def _registered(place: str, payload: Mapping[str, Any]) -> Json:
    name = payload.get("class")
    if not isinstance(name, str) or not name:
        raise BadInput(f"{place} has no class", 'for example {"class": "PrintTask", "index": 1}')
    return {"name": name, "kwargs": {key: value for key, value in payload.items() if key != "class"}}


def _values(path: str) -> Iterator[tuple[str, Any]]:
    """Yield what a file holds and where: one JSON value, a list of values, or one value a line.

    A folder is a file queue: each of its files holds one.
    """
    if Path(path).is_dir():
        folder = Path(path) / "queue" if (Path(path) / "queue").is_dir() else Path(path)
        for each in sorted(folder.glob("*.json")) or sorted(folder.iterdir()):
            yield str(each), _parsed(str(each), each.read_text("utf-8"))
        return
    text = Path(path).read_text("utf-8")
    try:
        whole = json.loads(text)
    except ValueError:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield f"{path}: line {number}", _parsed(f"{path}: line {number}", line)
        return
    # A payload of python-task-queue is a list itself: [[module, name], …].
    single = isinstance(whole, Mapping) or (
        isinstance(whole, list) and len(whole) > 1 and isinstance(whole[1], list) and _is_target(whole[0])
    )
    for number, value in enumerate([whole] if single else whole if isinstance(whole, list) else [whole], 1):
        yield path if single else f"{path}: task {number}", value


def _is_target(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadInput(f"{place}: {error}", "one JSON value a line, or one for the whole file") from None

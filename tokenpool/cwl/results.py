"""The result of a workflow: its output object, with the files that it names as attachments, and back into files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from .files import EMPTY, entries
from .sources import local_path

Json = dict[str, Any]

#: The attachments that are a workflow's output files.
FRONT = "output/"


@dataclass
class Collected:
    """An output object that names attachments, and the files to attach."""

    result: Json
    files: dict[str, str] = field(default_factory=dict)


def last_object(text: str) -> Json | None:
    """Return the JSON object that a text ends with, or None.

    >>> last_object('hello\\n{"a": {"b": 1}}\\n')
    {'a': {'b': 1}}
    """
    end = text.rstrip()
    lines = end.splitlines(keepends=True)
    for at in range(len(lines) - 1, -1, -1):
        if lines[at].startswith("{"):
            try:
                found = json.loads("".join(lines[at:]))
            except ValueError:
                continue
            return found if isinstance(found, dict) else None
    return None


def collect(result: Mapping[str, Any], folder: Path) -> Collected:
    """Return the output object with every local file named as an attachment; URLs of elsewhere stay."""
    collected = Collected(deepcopy(dict(result)))
    top = os.path.realpath(folder)
    for entry in entries(collected.result):
        path = _local(entry)
        entry.pop("path", None)
        if path is None:
            continue
        full = os.path.realpath(path)
        inside = full.startswith(f"{top}{os.sep}")
        name = _free(
            FRONT + (os.path.relpath(path, folder) if inside else os.path.basename(path)), path, collected.files
        )
        entry["location"] = quote(name)
        if entry["class"] == "File":
            collected.files[name] = path
        else:
            _folder(name, path, collected.files)
    return collected


def _local(entry: Mapping[str, Any]) -> str | None:
    location = entry.get("location")
    if isinstance(location, str) and location.startswith("file://"):
        return local_path(location)
    path = entry.get("path")
    return path if isinstance(path, str) and os.path.isabs(path) and not location else None


def _folder(name: str, path: str, files: dict[str, str]) -> None:
    for folder, folders, names in os.walk(path):
        here = name if folder == path else f"{name}/{os.path.relpath(folder, path)}"
        for each in names:
            files.setdefault(f"{here}/{each}", os.path.join(folder, each))
        if not names and not folders:
            files.setdefault(f"{here}/{EMPTY}", os.devnull)


def _free(name: str, path: str, files: Mapping[str, str]) -> str:
    """Return the name, with a number where another file has it."""
    stem, dot, end = name.rpartition(".")
    number = 1
    free = name
    while files.get(free, path) != path:
        number += 1
        free = f"{stem}_{number}{dot}{end}" if stem else f"{name}_{number}"
    return free


def place(result: Mapping[str, Any], names: Mapping[str, Any], read: Callable[[str], bytes], folder: Path) -> Json:
    """Write the attached output files into a folder; return the output object that names them there, as runners print it."""
    for name in names:
        inner = name[len(FRONT) :]
        if not name.startswith(FRONT) or ".." in inner.split("/") or inner.startswith("/"):
            continue
        at = folder / inner
        at.parent.mkdir(parents=True, exist_ok=True)
        if at.name != EMPTY:
            at.write_bytes(read(name))
    placed: Json = deepcopy(dict(result))
    for entry in entries(placed):
        location = entry.get("location")
        if isinstance(location, str) and not urlsplit(location).scheme and location.startswith(FRONT):
            path = (folder / unquote(location)[len(FRONT) :]).absolute()
            entry["location"], entry["path"] = path.as_uri(), str(path)
    return placed

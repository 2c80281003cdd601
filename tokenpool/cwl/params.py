"""The parameters of a workflow: read from a file and the command line, with their files taken along to the worker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ..errors import BadInput, NotFound
from . import texts
from .files import EMPTY, Cargo, beside, entries, path_of, patterns

Json = dict[str, Any]

#: The attachments that are a workflow's input files, and that its parameters name by relative locations.
FRONT = "input/"
#: A parameter of this form is the value of a secret, which the worker puts in.
SECRET = "$secret"


def read(file: str, pairs: Iterable[str]) -> Json:
    """Return the parameters of a file ("" for none) with those of ``name=value`` pairs on top; values are YAML."""
    params = texts.load(Path(file), file) if file else {}
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise BadInput(f"{file} holds no parameters", "an object was expected: names and values, as YAML or JSON")
    params = dict(_as_json(params, file))
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise BadInput(f"parameter {pair!r} has no value", "write name=value")
        params[name] = _as_json(texts.parse(value, f"parameter {name}"), name)
    return params


def _as_json(value: Any, name: str) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name} holds what JSON cannot: {error}", "use texts, numbers, lists and objects") from None


# --- at push ---------------------------------------------------------------------------------------------------------


def carry(params: Json, base: Path, cargo: Cargo, inputs: Mapping[str, Any], may_miss: bool = False) -> Json:
    """Return the parameters with their local files taken along, named by where they will be on the worker.

    `base` is the folder that relative paths are seen from; `inputs` the workflow's, whose secondary files go along too.
    URLs stay as they are, and so do files that are not there if they `may_miss`.
    """
    carried: Json = deepcopy(params)
    names = _Names(base)
    for name, value in carried.items():
        wanted = list(patterns(inputs.get(name)))
        for entry in entries(value):
            path = path_of(entry, base)
            if path is None or (may_miss and not path.exists()):
                continue
            if path.is_dir() != (entry["class"] == "Directory") or not path.exists():
                raise NotFound(
                    f"parameter {name}: there is no {'folder' if entry['class'] == 'Directory' else 'file'} {path}",
                    "check the name; where only the workers have it, write its location as file:///path",
                )
            _take(entry, path, names, cargo)
            for each in beside(path, wanted) if entry["class"] == "File" else ():
                cargo.add(names.of(each), each)
    return carried


def _take(entry: Json, path: Path, names: _Names, cargo: Cargo) -> None:
    name = names.of(path)
    cargo.add(name, path)
    entry.pop("path", None)
    entry["location"] = quote(name)


class _Names:
    """Gives each local file the name that it has on the worker; what lies in one folder here does so there."""

    def __init__(self, base: Path) -> None:
        self.base = os.path.abspath(base)
        self.others: dict[str, str] = {}

    def of(self, path: Path) -> str:
        full = os.path.abspath(path)
        if full.startswith(f"{self.base}{os.sep}"):
            return FRONT + os.path.relpath(full, self.base).replace(os.sep, "/")
        folder, name = os.path.split(full)
        return f"{FRONT}{self.others.setdefault(folder, f'.other-{len(self.others)}')}/{name}"


def absolute(params: Json, base: Path) -> Json:
    """Return the parameters with the paths of local files written out whole."""
    whole: Json = deepcopy(params)
    for entry in entries(whole):
        path = path_of(entry, base)
        if path is not None:
            entry.pop("location", None)
            entry["path"] = str(path)
    return whole


# --- at the worker ---------------------------------------------------------------------------------------------------


def attached(names: Iterable[str]) -> Iterator[str]:
    """Yield those attachments that are input files; raises BadInput for one that would be written somewhere else."""
    for name in names:
        if name.startswith(FRONT):
            if ".." in name.split("/") or "\0" in name or name.endswith("/"):
                raise BadInput(f"attachment {name!r} leaves the folder of the token", "name it without ..")
            yield name


def target(name: str, folder: Path) -> Path | None:
    """Return the file that an attachment is to be written to, its folder made; None: it stands for an empty folder."""
    path = folder / name
    if path.name == EMPTY:
        path.parent.mkdir(parents=True, exist_ok=True)
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def localize(params: Json, folder: Path, beside_workflow: Path | None, secrets: Mapping[str, str]) -> Json:
    """Return the parameters as a CWL runner takes them: files that came along, or lie beside the workflow; secrets."""
    here: Json = deepcopy(params)
    for entry in entries(here):
        at = entry.get("path", entry.get("location"))
        if not isinstance(at, str) or urlsplit(at).scheme or at.startswith(("/", "_:", "#")):
            continue
        places = [each / unquote(at) for each in (folder, beside_workflow) if each is not None]
        found = next((each for each in places if each.exists()), places[0])
        entry.pop("location", None)
        entry["path"] = str(found)
    return {name: _revealed(value, secrets) for name, value in here.items()}


def _revealed(value: Any, secrets: Mapping[str, str]) -> Any:
    if isinstance(value, dict) and set(value) == {SECRET}:
        name = value[SECRET]
        if name not in secrets:
            raise BadInput(f"a parameter is the secret {name!r}, which the token does not name", 'add it to "secrets"')
        return secrets[name]
    if isinstance(value, dict):
        return {name: _revealed(each, secrets) for name, each in value.items()}
    return [_revealed(each, secrets) for each in value] if isinstance(value, list) else value

"""Packs a local workflow with all the files that it names into one .zip, so that any worker can run it."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import BadInput, TokenpoolError
from . import texts
from .files import Cargo, beside, is_entry, path_of, patterns
from .sources import split_fragment

#: Imports inside of imports that are followed.
DEEPEST = 8


@dataclass(frozen=True)
class Bundle:
    """A workflow with its files: the .zip, and the path of its main file in there."""

    data: bytes
    path: str


def pack(main: Path, limit: int) -> Bundle:
    """Return a workflow's file with all that it names: steps, imports, scripts, default files; the same bytes each time.

    Raises BadInput where that is too large.
    """
    found = sorted(_Walk(limit).of(Path(os.path.abspath(main))).items())
    top = os.path.commonpath([path.parent for _, path in found])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, path in found:
            info = zipfile.ZipInfo(os.path.relpath(place, top))  # without a time
            info.external_attr = (0o755 if os.access(path, os.X_OK) and path.is_file() else 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
    return Bundle(buffer.getvalue(), os.path.relpath(os.path.abspath(main), top))


def inputs_of(main: Path, name: str = "") -> Mapping[str, Any]:
    """Return what is known of the inputs of the process in a file (`name`: ``#main`` where it holds several), by name.

    Types that the process defines by a name of their own belong to every input: which one uses them is not looked up.
    """
    try:
        document = texts.load(main)
    except TokenpoolError:
        return {}
    if isinstance(document, dict) and isinstance(document.get("$graph"), list):
        wanted = name or "#main"
        document = next((each for each in document["$graph"] if _is_called(each, wanted)), {})
    if not isinstance(document, dict):
        return {}
    inputs = _imported(document.get("inputs"), main.parent)
    types = [_imported(document.get(each), main.parent) for each in ("requirements", "hints")]
    if isinstance(inputs, list):
        named = {
            str(each.get("id", "")).rpartition("/")[2].lstrip("#"): each for each in inputs if isinstance(each, dict)
        }
    else:
        named = inputs if isinstance(inputs, dict) else {}
    return {name: [each, types] for name, each in named.items()}


def _imported(value: Any, base: Path, depth: int = 0) -> Any:
    """Return a part of a document with what it imports in its place."""
    if isinstance(value, list):
        return [_imported(each, base, depth) for each in value]
    if not isinstance(value, dict):
        return value
    at = _reference(value["$import"], base) if isinstance(value.get("$import"), str) else None
    if at is not None and depth < DEEPEST:
        try:
            return _imported(texts.load(at), at.parent, depth + 1)
        except TokenpoolError:
            return {}
    return {name: _imported(each, base, depth) for name, each in value.items()}


def _is_called(process: Any, wanted: str) -> bool:
    return isinstance(process, dict) and str(process.get("id", "")).lstrip("#") == wanted.lstrip("#")


class _Walk:
    """Follows what a CWL document names; a file that is not there is left for the CWL runner to miss."""

    def __init__(self, limit: int) -> None:
        self.cargo = Cargo(limit)
        self.read: set[Path] = set()

    def of(self, main: Path) -> dict[str, Path]:
        """Return all files, by the paths that they have here."""
        self._document(main)
        return {name: path for name, path in self.cargo.files.items() if path != Path(os.devnull)}

    def _document(self, path: Path) -> None:
        if path in self.read or not path.is_file():
            return
        self.read.add(path)
        self._take(path)
        try:
            document = texts.load(path)
        except TokenpoolError:
            return
        wanted = list(patterns(document))
        for kind, at in _named(document, path.parent):
            if kind == "document":
                self._document(at)
            elif at.exists():
                self._take(at)
                for each in beside(at, wanted) if kind == "entry" else ():
                    self._take(each)

    def _take(self, path: Path) -> None:
        try:
            self.cargo.add(str(path), path)
        except BadInput as error:
            raise BadInput(str(error), "keep large files out of the workflow: give them as parameters") from None


def _named(value: Any, base: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that a document names, with how: document, file, or entry (a File or Directory object)."""
    if isinstance(value, list):
        for each in value:
            yield from _named(each, base)
        return
    if not isinstance(value, dict):
        return
    if is_entry(value):
        at = path_of(value, base)
        if at is not None and not _is_absolute(value):
            yield "entry", at
    for name, each in value.items():
        if name in ("run", "$import", "$mixin", "$include") and isinstance(each, str):
            at = _reference(each, base)
            if at is not None:
                yield ("file" if name == "$include" else "document"), at
        elif name == "$schemas":
            for one in each if isinstance(each, list) else [each]:
                at = _reference(one, base) if isinstance(one, str) else None
                if at is not None:
                    yield "file", at
        else:
            yield from _named(each, base)


def _reference(text: str, base: Path) -> Path | None:
    file, _ = split_fragment(text)
    if not file or urlsplit(file).scheme or file.startswith("/"):
        return None
    return Path(os.path.normpath(base / unquote(file)))


def _is_absolute(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("path") or entry.get("location") or "").startswith("/")

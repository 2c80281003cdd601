"""Names files of this machine for a journey: which attachment each becomes, and which files belong beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import BadInput, NotFound

#: Bytes of all files together that travel with one token.
CARRY_LIMIT = 50_000_000
#: Attached in the place of a folder that holds nothing.
EMPTY = ".tokenpool-empty-folder"
#: Stands for a pattern of secondary files that only a CWL runner can work out.
ANY = "$"


@dataclass
class Cargo:
    """Files that travel with a token, by the names of their attachments; raises BadInput where they get too large."""

    limit: int = CARRY_LIMIT
    files: dict[str, Path] = field(default_factory=dict)
    size: int = 0

    def add(self, name: str, path: Path) -> None:
        """Take a file along, or all that is in a folder."""
        if path.is_dir():
            for folder, folders, names in os.walk(path, followlinks=True):
                folders.sort()
                here = f"{name}/{Path(folder).relative_to(path).as_posix()}".removesuffix("/.")
                for each in sorted(names):
                    self._add(f"{here}/{each}", Path(folder, each))
                if not folders and not names:
                    self.files[f"{here}/{EMPTY}"] = Path(os.devnull)
        else:
            self._add(name, path)

    def _add(self, name: str, path: Path) -> None:
        if name in self.files:
            return
        try:
            size = path.stat().st_size
        except OSError as error:
            raise NotFound(f"{path} cannot be taken along: {error.strerror}", "check the name") from None
        self.size += size
        if self.size > self.limit:
            raise BadInput(
                f"{path} ({size:,} bytes) is too large to travel with its token: at most {self.limit:,} bytes in all",
                "put it at a URL; or write file:///path as its location where every worker has it; or --carry-limit",
            )
        self.files[name] = path


def path_of(entry: Mapping[str, Any], base: Path) -> Path | None:
    """Return the local file that a File or Directory object names by a path; None: it names none, or has a URL."""
    path, location = entry.get("path"), entry.get("location")
    if isinstance(path, str) and "://" not in path:
        return Path(os.path.normpath(base / path))
    at = path if isinstance(path, str) else location
    if not isinstance(at, str) or urlsplit(at).scheme or at.startswith(("_:", "#")):
        return None
    return Path(os.path.normpath(base / unquote(at)))


def is_entry(value: Any) -> bool:
    """Tell whether a value is a File or Directory object."""
    return isinstance(value, dict) and value.get("class") in ("File", "Directory")


def entries(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all File and Directory objects in a value, with those inside of others."""
    if isinstance(value, dict):
        if is_entry(value):
            yield value
        for each in value.values():
            yield from entries(each)
    elif isinstance(value, list):
        for each in value:
            yield from entries(each)


# --- secondary files -------------------------------------------------------------------------------------------------


def patterns(value: Any) -> Iterator[str]:
    """Yield the patterns of secondary files that a part of a CWL document names."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == "secondaryFiles":
                yield from _patterns(each)
            else:
                yield from patterns(each)
    elif isinstance(value, list):
        for each in value:
            yield from patterns(each)


def _patterns(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        text = each.get("pattern") if isinstance(each, dict) else each
        if isinstance(text, str):
            yield ANY if "$(" in text or "${" in text else text.removesuffix("?")


def beside(path: Path, wanted: Iterable[str]) -> Iterator[Path]:
    """Yield the files and folders beside a file that are there and that patterns ask for."""
    for pattern in dict.fromkeys(wanted):
        if pattern == ANY:
            stem = path.name.partition(".")[0]
            yield from sorted(each for each in path.parent.glob("*") if each.name.startswith(stem) and each != path)
            continue
        name = path.name
        while pattern.startswith("^"):
            name, pattern = (name.rpartition(".")[0] or name), pattern[1:]
        found = path.with_name(name + pattern) if "/" not in pattern else None
        if found is not None and found.exists():
            yield found

"""Goes through folders, level by level, so that all files below one come in the order of their names."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .base import Entry

_PART = re.compile(r"\..*\.part-[0-9a-f]{12}")


@dataclass(frozen=True)
class Item:
    """One name in a folder, and what is known of it."""

    name: str
    is_folder: bool = False
    size: int | None = None
    checksum: str = ""
    version: str = ""


def part_of(name: str) -> str:
    """Return the name under which a file is written before it is whole; no listing shows such names."""
    return f".{name[:80]}.part-{secrets.token_hex(6)}"


def walk(items_of: Callable[[str], Iterable[Item]], url_of: Callable[[str], str], folder: str = "") -> Iterator[Entry]:
    """Yield the files below a folder in the order of their names.

    `items_of` lists one folder by its name relative to the first, "" for itself; `url_of` makes the URL of such a name.

    >>> tree = {"": [Item("b"), Item("a", True)], "a": [Item("c", size=3)]}
    >>> [entry.url for entry in walk(tree.__getitem__, "/data/{}".format)]
    ['/data/a/c', '/data/b']
    """
    for item in sorted(items_of(folder), key=lambda item: f"{item.name}/" if item.is_folder else item.name):
        name = f"{folder}/{item.name}" if folder else item.name
        if _PART.fullmatch(item.name):
            continue
        if item.is_folder:
            yield from walk(items_of, url_of, name)
        else:
            yield Entry(url_of(name), item.size, item.checksum, item.version)

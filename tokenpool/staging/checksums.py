"""Checksums of files on their way, in the spelling of `Entry.checksum`."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

from ..storage.base import PIECE


class Sums:
    """Several checksums of the same bytes; SHA-256 is always among them."""

    def __init__(self, *kinds: str) -> None:
        self._made: dict[str, Any] = {"sha256": hashlib.sha256()}
        for kind in kinds:
            if kind == "adler32":
                self._made[kind] = _Adler32()
            elif kind in ("md5", "sha1", "sha512"):
                self._made[kind] = hashlib.new(kind, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Take in more bytes."""
        for each in self._made.values():
            each.update(data)

    def of(self, kind: str) -> str:
        """Return one of them in hexadecimal, "" where it was not asked for."""
        made = self._made.get(kind)
        return str(made.hexdigest()) if made is not None else ""

    def agree(self, told: str) -> bool:
        """Tell whether ``kind:value`` is right; one of a kind that nobody computed says nothing."""
        kind, _, value = told.partition(":")
        own = self.of(kind)
        return not own or own == value.lower().rjust(len(own), "0")


class _Adler32:
    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def kind_of(told: str) -> str:
    """Return the kind of a checksum: ``md5`` of ``md5:...``."""
    return told.partition(":")[0]


def sums_of(path: str, *kinds: str, check: Callable[[], None] = lambda: None) -> Sums:
    """Return the checksums of a file of this machine; `check` is called between its pieces and may raise."""
    sums = Sums(*kinds)
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            check()
            sums.update(piece)
    return sums

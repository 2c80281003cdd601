"""Brings a token's inputs to their places: by url or written out, one file or many, unpacked, alone or shared."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import NotFound
from ..storage import shown
from ..storage.base import Entry
from ..storage.urls import name_of
from . import plan
from .cache import ONE, Cache, Source
from .plan import Wanted
from .room import expect_room, local_errors
from .transfers import Download, Progress, Transfers
from .unpack import unpack
from .values import Stopped, WrongContent

#: The folder of an attempt in which files lie until they are unpacked.
PACKED = ".packed"
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Found:
    """One input as it was found: its files, and their names below its folder (none where it is one file)."""

    wanted: Wanted
    entries: tuple[Entry, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The bytes that are known to come."""
        return sum(each.size or 0 for each in self.entries)

    def identity(self, work: str) -> list[Any]:
        """Return what is the same when the same files come to the same places."""
        wanted = self.wanted
        place = [os.path.relpath(wanted.target, work), wanted.unpack]
        if wanted.content is not None:
            return [*place, hashlib.sha256(wanted.content.encode()).hexdigest()]
        if wanted.sha256:
            return [*place, wanted.sha256]
        return [*place, *self.names, *(_same_as(each) for each in self.entries)]


def _same_as(entry: Entry) -> Any:
    return entry.checksum or [entry.url, entry.size, entry.version]


class Inputs:
    """Fetches inputs for the tokens of one worker. Safe from several threads."""

    def __init__(self, transfers: Transfers, cache: Cache) -> None:
        self.transfers, self.cache = transfers, cache

    def find(self, those: Sequence[Wanted], progress: Progress, stopped: Stop) -> list[Found]:
        """Ask the storages for what is wanted; raises NotFound where something is not there."""
        return self.transfers.ask([partial(self._find, each) for each in those], progress, stopped)

    def _find(self, wanted: Wanted) -> Found:
        if wanted.content is not None:
            return Found(wanted)
        storage = self.transfers.storages.of(wanted.url, wanted.credentials)
        if not wanted.is_many:
            return Found(wanted, (storage.stat(wanted.url),))
        folder, pattern = plan.listed(wanted)
        pairs = [(plan.relative(entry.url, folder), entry) for entry in storage.list(folder)]
        if pattern:
            match = plan.matching(pattern).fullmatch
            pairs = [pair for pair in pairs if match(pair[0])]
            if not pairs:
                raise NotFound(f"nothing matches {shown(wanted.url)}", "look at the pattern, and at what is there")
        pairs.sort(key=lambda pair: pair[0])
        return Found(wanted, tuple(entry for _, entry in pairs), tuple(name for name, _ in pairs))

    def bring(self, found: Sequence[Found], work: str, progress: Progress, stopped: Stop) -> None:
        """Put everything in its place; `work` is the attempt's folder. Raises as Transfers, Cache and `unpack` do."""
        own = [each for each in found if not each.wanted.shared]
        with local_errors():
            expect_room(os.path.join(work, "input"), sum(each.size for each in own), "the input of the token")
            for each in own:
                if each.wanted.content is not None:
                    _write(each.wanted)
        for each in found:
            if each.wanted.shared and each.wanted.content is not None:
                _write(each.wanted)
            elif each.wanted.shared:
                self._share(each, progress, stopped)
        packed = os.path.join(work, PACKED)
        try:
            self._fetch([each for each in own if each.entries], packed, progress, stopped)
        finally:
            shutil.rmtree(packed, ignore_errors=True)
        for each in own:
            if each.wanted.is_many:
                os.makedirs(each.wanted.target, exist_ok=True)

    def _share(self, found: Found, progress: Progress, stopped: Stop) -> None:
        wanted = found.wanted
        source = Source(wanted.url, found.entries, wanted.unpack, found.names)

        def fill(folder: str) -> Mapping[str, str]:
            target = os.path.join(folder, ONE) if source.is_file else folder
            inside = Found(_moved(wanted, target), found.entries, found.names)
            return self._fetch([inside], os.path.join(os.path.dirname(folder), PACKED), progress, stopped, folder)

        # What is taken from here was checked when it was fetched, against whatever that token knew.
        sums = self.cache.place(source, fill, wanted.target, stopped)
        if wanted.sha256 and not wanted.unpack and sums.get(ONE, wanted.sha256) != wanted.sha256:
            os.unlink(wanted.target)
            raise _unlike(wanted, sums[ONE])

    def _fetch(
        self, those: Sequence[Found], packed: str, progress: Progress, stopped: Stop, top: str = ""
    ) -> dict[str, str]:
        """Fetch files and unpack what is packed; return the SHA-256 of those that are as they came, by path below `top`."""
        downloads: list[Download] = []
        later: list[tuple[str, str, str]] = []
        for each in those:
            for target, entry in _targets(each):
                path = target
                if each.wanted.unpack:
                    path = os.path.join(packed, str(len(downloads)), name_of(entry.url) or ONE)
                    later.append((each.wanted.unpack, path, target))
                sha256 = "" if each.wanted.is_many else each.wanted.sha256
                downloads.append(Download(entry.url, path, each.wanted.credentials, sha256, entry))
        files = self.transfers.run(downloads, progress, stopped)
        self._unpack(later, progress, stopped)
        return {os.path.relpath(file.path, top): file.sha256 for file in files} if top and not later else {}

    def _unpack(self, those: Sequence[tuple[str, str, str]], progress: Progress, stopped: Stop) -> None:
        def check() -> None:
            if stopped():
                raise Stopped("stopped while data was unpacked")

        def one(how: str, path: str, target: str) -> None:
            unpack(how, path, target, check)
            os.unlink(path)

        self.transfers.ask([partial(one, *each) for each in those], progress, stopped)


def _targets(found: Found) -> list[tuple[str, Entry]]:
    """Return where each file goes: its path, or the folder into which an archive is unpacked."""
    wanted = found.wanted
    if not wanted.is_many:
        return [(wanted.target, found.entries[0])]
    pairs = []
    for name, entry in zip(found.names, found.entries):
        folder, _, last = os.path.join(wanted.target, name).rpartition("/")
        target = folder if wanted.is_archive else os.path.join(folder, plan.unpacked_name(last, wanted.unpack))
        pairs.append((target, entry))
    return pairs


def _moved(wanted: Wanted, target: str) -> Wanted:
    return Wanted(target, wanted.url, None, wanted.is_many, wanted.sha256, wanted.unpack, True, wanted.credentials)


def _write(wanted: Wanted) -> None:
    os.makedirs(os.path.dirname(wanted.target), exist_ok=True)
    with open(wanted.target, "w", encoding="utf-8", newline="") as file:
        file.write(wanted.content or "")


def _unlike(wanted: Wanted, sha256: str) -> Exception:
    told = f"{shown(wanted.url)} is not what was asked for: its sha256 is {sha256}, not {wanted.sha256}"
    return WrongContent(told, "look at the file, and at the token's sha256")

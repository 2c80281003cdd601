"""Keeps what tokens share on this machine: fetched once, read-only, by content, whoever is killed at whatever moment.

``objects/`` holds files by their SHA-256, ``manifests/`` says which of them a source is made of, ``parts/`` what is just
being fetched. Whoever fetches holds the lock of the source; whoever takes files out or puts them in shares the lock of
the whole, which whoever removes files has alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..storage import shown
from ..storage.base import Entry
from .checksums import sums_of
from .locks import Busy, locked
from .room import free_bytes, local_errors

#: Bytes that a cache may hold unless its owner says else.
LIMIT = 50 << 30
#: The time of modification of all objects: one that was written to has another.
UNTOUCHED = 946_684_800
#: Seconds for which a source is trusted that says neither version nor checksum of what it has.
UNSURE = 3600.0
#: The name of a file that is all there is of a source.
ONE = "file"
#: Writes the files of a source into an empty folder; returns the SHA-256 of those of which it knows it, by their paths.
Fill = Callable[[str], Mapping[str, str]]


@dataclass(frozen=True)
class CacheEntry:
    """What the cache holds of one source; times in seconds since 1970, `size` in bytes, no secret in `url`."""

    key: str
    url: str
    size: int
    used: float
    fetched: float


@dataclass(frozen=True)
class Source:
    """What is to be had: a URL, what its storage says of it now, and how it is unpacked."""

    url: str
    entries: tuple[Entry, ...]
    unpack: str = ""
    #: The names of several files below their folder; empty for one file, whose name is its user's.
    names: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        """It is one file, kept as `ONE`."""
        return not self.names and self.unpack not in ("untar", "unzip")

    @property
    def key(self) -> str:
        """The same for the same content of the same source."""
        told = [[each.url, each.size, each.checksum, each.version] for each in self.entries]
        text = json.dumps([self.url, self.unpack, self.names, told])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def sure(self) -> bool:
        """Its storage would say if the content changed."""
        return all(each.version or each.checksum for each in self.entries)


class Cache:
    """The cache of one machine, in a folder that any number of processes share. Safe from several threads."""

    def __init__(self, root: str | os.PathLike[str], limit: int = LIMIT) -> None:
        self.root, self.limit = Path(root), limit

    # --- taking out ------------------------------------------------------------------------------------------------------

    def place(
        self, source: Source, fill: Fill, target: str, stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, str]:
        """Put the files of a source below the folder `target`, read-only; return their SHA-256 by their paths there.

        What is one file gets the path `target` itself.

        `fill` is called where they are not here, in one process at a time; the others wait. Raises what `fill` raises,
        and Stopped.
        """
        with local_errors():
            found = self._take(source, target, stopped)
            if found is None:
                with locked(self._lock_of(source.key), stopped=stopped):
                    found = self._take(source, target, stopped)  # somebody else may have fetched it meanwhile
                    if found is None:
                        self._fetch(source, fill, stopped)
                        found = self._take(source, target, stopped)
            if found is None:  # it was removed, or written to, before it could be taken: rare, and no reason to give up
                return self.place(source, fill, target, stopped)
        return found

    def _take(self, source: Source, target: str, stopped: Callable[[], bool]) -> dict[str, str] | None:
        path = self._manifest(source.key)
        if not path.exists():
            return None
        with locked(self.root / "lock", shared=True, stopped=stopped):
            manifest = _read(path)
            if manifest is None or not self._is_whole(manifest):
                return None
            if not source.sure and time.time() - manifest["fetched"] > UNSURE:
                return None
            os.utime(path)
            for each in manifest["files"]:
                self._give(each, target if source.is_file else os.path.join(target, each["path"]))
        return {each["path"]: each["sha256"] for each in manifest["files"] if "sha256" in each}

    def _is_whole(self, manifest: Mapping[str, Any]) -> bool:
        return all(self._is_well(each) for each in manifest["files"] if "sha256" in each)

    def _is_well(self, each: Mapping[str, Any]) -> bool:
        try:
            there = os.lstat(self._object(each))
        except OSError:
            return False
        return (there.st_size, there.st_mtime) == (each["size"], UNTOUCHED)

    def _give(self, each: Mapping[str, Any], target: str) -> None:
        if each.get("folder"):
            os.makedirs(target, exist_ok=True)
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.lexists(target):
            os.unlink(target)
        if "link" in each:
            os.symlink(each["link"], target)
            return
        try:
            os.link(self._object(each), target)
        except OSError:  # another disk, or one that knows no links
            shutil.copy2(self._object(each), target)

    # --- putting in ------------------------------------------------------------------------------------------------------

    def _fetch(self, source: Source, fill: Fill, stopped: Callable[[], bool]) -> None:
        size = sum(each.size or 0 for each in source.entries)
        self._make_room(size, stopped)
        part = self.root / "parts" / source.key
        shutil.rmtree(part, ignore_errors=True)  # of somebody who was killed
        folder = part / "files"  # beside it there is room for what is unpacked
        folder.mkdir(parents=True, mode=0o700)
        try:
            known = fill(str(folder))
            files = [_described(folder, path, known) for path in _walk(folder)]
            with locked(self.root / "lock", shared=True, stopped=stopped):
                for each in files:
                    if "sha256" in each:
                        self._put_object(folder / each["path"], each)
                self._write_manifest(source, files)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _put_object(self, path: Path, each: Mapping[str, Any]) -> None:
        target = self._object(each)
        if self._is_well(each):
            return  # the same content from elsewhere
        target.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDONLY)
        try:
            os.fchmod(number, 0o555 if each.get("executable") else 0o444)
            os.utime(number, (UNTOUCHED, UNTOUCHED))
            os.fsync(number)
        finally:
            os.close(number)
        os.replace(path, target)

    def _write_manifest(self, source: Source, files: Sequence[Mapping[str, Any]]) -> None:
        size = sum(int(each.get("size", 0)) for each in files)
        value = {
            "schema": 1,
            "url": shown(source.url),
            "unpack": source.unpack,
            "size": size,
            "fetched": time.time(),
            "files": files,
        }
        path = self._manifest(source.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")  # one process has the lock of the source
        with part.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)

    # --- room ------------------------------------------------------------------------------------------------------------

    def _make_room(self, size: int, stopped: Callable[[], bool]) -> None:
        """Remove what was not used for longest, so that `size` more bytes stay within the limit and fit on the disk."""
        lacking = size - free_bytes(str(self.root))
        held = sum(each.size for each in self.entries())
        keep = min(self.limit - size, held - lacking) if lacking > 0 else self.limit - size
        if held > keep:
            self.prune(max(0, keep), stopped=stopped)

    def entries(self) -> list[CacheEntry]:
        """Return what is here, least recently used first."""
        found = []
        for path in (self.root / "manifests").glob("*.json"):
            manifest = _read(path)
            if manifest is not None:
                try:
                    used = path.stat().st_mtime
                except FileNotFoundError:
                    continue
                found.append(CacheEntry(path.stem, manifest["url"], manifest["size"], used, manifest["fetched"]))
        return sorted(found, key=lambda each: (each.used, each.key))

    def remove(self, keys: Collection[str], stopped: Callable[[], bool] = lambda: False) -> list[CacheEntry]:
        """Remove what is kept under these keys; tokens that use it keep it to their end. Returns what was removed."""
        there = {each.key: each for each in self.entries()}
        gone = [there[key] for key in keys if key in there]
        with local_errors(), locked(self.root / "lock", stopped=stopped):
            for each in gone:
                self._manifest(each.key).unlink(missing_ok=True)
            self._tidy()
        return gone

    def prune(
        self,
        limit_bytes: int | None = None,
        older_than: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[CacheEntry]:
        """Remove what was not used for `older_than` seconds, then the least recently used until `limit_bytes` are left.

        What a token uses just now stays. Returns what was removed.
        """
        gone = []
        with local_errors(), locked(self.root / "lock", stopped=stopped):
            entries = self.entries()
            held, now = sum(each.size for each in entries), time.time()
            for each in entries:
                old = older_than is not None and now - each.used > older_than
                if (old or (limit_bytes is not None and held > limit_bytes)) and not self._in_use(each.key):
                    self._manifest(each.key).unlink(missing_ok=True)
                    held -= each.size
                    gone.append(each)
            self._tidy()
        return gone

    def _in_use(self, key: str) -> bool:
        manifest = _read(self._manifest(key))
        for each in manifest["files"] if manifest else ():
            if "sha256" in each:
                try:
                    if os.lstat(self._object(each)).st_nlink > 1:
                        return True
                except OSError:
                    pass
        return False

    def _tidy(self) -> None:
        """Remove objects that no manifest names, and what was left by who was killed; nobody else is in the cache now."""
        manifests = {path.stem: _read(path) for path in (self.root / "manifests").glob("*.json")}
        wanted = {
            self._object(each).name
            for found in manifests.values()
            if found
            for each in found["files"]
            if "sha256" in each
        }
        for path in (self.root / "objects").glob("??/*"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)
        known = {path.name for folder in ("parts", "locks") for path in (self.root / folder).glob("*")}
        for key in known:
            try:
                with locked(self._lock_of(key), wait=False):
                    shutil.rmtree(self.root / "parts" / key, ignore_errors=True)
                    if not manifests.get(key):
                        self._lock_of(key).unlink(missing_ok=True)
            except Busy:
                pass  # it is being fetched

    def _manifest(self, key: str) -> Path:
        return self.root / "manifests" / f"{key}.json"

    def _lock_of(self, key: str) -> Path:
        return self.root / "locks" / key

    def _object(self, each: Mapping[str, Any]) -> Path:
        name = str(each["sha256"])
        return self.root / "objects" / name[:2] / (name + (".x" if each.get("executable") else ""))


def _read(path: Path) -> dict[str, Any] | None:
    """Return a manifest; None where there is none that makes sense."""
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["schema"] == 1 and isinstance(found["files"], list) and isinstance(found["fetched"], (int, float)):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _walk(folder: Path) -> Iterator[Path]:
    """Give every file and link below a folder, and the folders that hold nothing."""
    for place, folders, files in os.walk(folder):
        for name in files + [name for name in folders if os.path.islink(os.path.join(place, name))]:
            yield Path(place, name)
        if not folders and not files and place != str(folder):
            yield Path(place)


def _described(top: Path, path: Path, known: Mapping[str, str]) -> dict[str, Any]:
    name = path.relative_to(top).as_posix()
    there = os.lstat(path)
    if stat.S_ISLNK(there.st_mode):
        return {"path": name, "link": os.readlink(path)}
    if stat.S_ISDIR(there.st_mode):
        return {"path": name, "folder": True}
    described = {"path": name, "size": there.st_size, "sha256": known.get(name) or sums_of(str(path)).of("sha256")}
    return {**described, "executable": True} if there.st_mode & 0o100 else described

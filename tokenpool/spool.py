"""Keeps finished tokens that could not be delivered on this computer's disk, and delivers them when that is possible.

::

    <root>/<hash of the pool's URL>/<worker>/lock            held with flock for as long as the worker lives
                                             <claim>.json    one finished token, its logs inside
                                    /<claim>.json.damaged    what could not be read any more
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import spool_files as files
from .backends.base import Backend
from .commits import Outcome, commit
from .errors import AnswerLost, ServerAway
from .spool_files import DAMAGED, LOCK

log = logging.getLogger(__name__)

#: Outcomes delivered in one write: at most so many, of about so many bytes.
BATCH, BATCH_BYTES = 100, 4_000_000


@dataclass(frozen=True)
class SpoolInfo:
    """The spool of one worker: how many tokens wait in it, their size, the oldest as seconds since 1970."""

    pool_url: str
    folder: Path
    tokens: int
    bytes: int
    oldest: float | None
    alive: bool


@dataclass(frozen=True)
class Delivered:
    """What became of outcomes: recorded, kept as history because another outcome stands, or still to be delivered."""

    written: int = 0
    superseded: int = 0
    left: int = 0


def default_root(setting: str = "", environ: Mapping[str, str] | None = None) -> Path:
    """Return where spools are: as set, or below the user's own state."""
    env = os.environ if environ is None else environ
    if setting:
        return Path(setting).expanduser()
    base = env.get("XDG_STATE_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".local" / "state")
    return Path(base) / "tokenpool" / "spool"


class Spool:
    """The spool of one worker for one pool; its folder is made when there is something to keep. Thread-safe."""

    def __init__(self, root: Path, pool_url: str, worker: str) -> None:
        self.root, self.pool_url = root, files.without_password(pool_url)
        digest = hashlib.sha256(self.pool_url.encode("utf-8", "surrogatepass")).hexdigest()
        self._pool_folder = root / digest[:16]
        self.folder = self._pool_folder / files.file_name(worker)
        self._mutex = threading.RLock()
        self._held: int | None = None
        self._failing = False

    # --- keep and forget -------------------------------------------------------------------------------------------

    def keep(self, outcome: Outcome) -> bool:
        """Write an outcome to the disk so that it outlives this process and a power cut; once for each claim.

        False where it could not be written (a full disk for example; a warning says why): the caller has to keep it.
        """
        if not outcome.claim:
            log.warning("the outcome of %s belongs to no claim; it is not kept on the disk", outcome.doc.get("_id"))
            return False
        path = self.folder / f"{files.file_name(outcome.claim)}.json"
        try:
            with self._mutex:
                if self._held is None or not path.exists():
                    data = files.dump(outcome, self.pool_url)
                    self._hold()
                    files.write(path, data)
        except (OSError, TypeError, ValueError) as error:
            told = "the outcome of %s cannot be kept in %s: %s"
            # Once is enough: a disk that is full stays so for many tokens.
            level = logging.DEBUG if self._failing else logging.WARNING
            log.log(level, told, outcome.doc.get("_id"), self.folder, error)
            self._failing = True
            return False
        self._failing = False
        return True

    def forget(self, claim: str) -> None:
        """Delete what is kept of a claim: it was delivered."""
        try:
            (self.folder / f"{files.file_name(claim)}.json").unlink()
        except FileNotFoundError:
            pass
        except OSError as error:  # it will be delivered again, which changes nothing
            log.warning("%s cannot be deleted: %s", error.filename, error.strerror)

    # --- look ------------------------------------------------------------------------------------------------------

    def outcomes(self) -> list[Outcome]:
        """Return all that is kept, oldest first."""
        return list(self.stream())

    def stream(self) -> Iterator[Outcome]:
        """Yield all that is kept, oldest first, one at a time; what is damaged is set aside with a warning."""
        for path in files.oldest_first(files.kept(self.folder)):
            outcome = self._read(path)
            if outcome is not None:
                yield outcome

    def _read(self, path: Path) -> Outcome | None:
        try:
            return files.load(path)
        except FileNotFoundError:
            return None  # delivered meanwhile
        except OSError as error:
            log.warning("%s cannot be read: %s", path, error.strerror)
        except files.Newer:
            log.warning("%s was written by a newer tokenpool; it is left alone", path)
        except ValueError as error:
            aside = self._pool_folder / f"{path.name}{DAMAGED}"
            log.warning("%s is damaged (%s); it is set aside as %s", path, error, aside)
            with contextlib.suppress(OSError):
                path.rename(aside)
        return None

    @property
    def undelivered(self) -> int:
        """How many finished tokens are kept here."""
        return len(files.kept(self.folder))

    # --- take over ---------------------------------------------------------------------------------------------------

    def adopt(self) -> list[Outcome]:
        """Take over what workers left here that live no more, for the same pool; return what was not here before."""
        with self._mutex:
            before = {path.name for path in files.kept(self.folder)}
            self.take_over()
            fresh = [path for path in files.oldest_first(files.kept(self.folder)) if path.name not in before]
            return [outcome for outcome in map(self._read, fresh) if outcome is not None]

    def take_over(self) -> None:
        """Do the same without reading any of it.

        Every file is moved whole, so whoever dies over it leaves all of it to the next.
        """
        with self._mutex:
            for folder in files.folders(self._pool_folder):
                try:
                    if folder != self.folder:
                        self._empty(folder)
                except OSError as error:
                    log.warning("the spool %s cannot be taken over: %s", folder, error)

    def _empty(self, folder: Path) -> None:
        held = files.lock(folder / LOCK)
        if held is None:
            return
        try:
            for path in files.finished(folder):
                self._hold()
                path.rename(self.folder / path.name)
            if self._held is not None:
                files.sync(self.folder)
            files.sync(folder)
            files.remove(folder)
        finally:
            os.close(held)

    # --- come and go -------------------------------------------------------------------------------------------------

    def _hold(self) -> None:
        """Make our folder and lock it; another process may remove it as empty just before we have the lock."""
        for _ in range(10):
            if self._held is not None:
                break
            for each in (self.root, self._pool_folder, self.folder):
                with contextlib.suppress(FileExistsError):
                    each.mkdir(mode=0o700, parents=True)
            with contextlib.suppress(FileNotFoundError):
                self._held = files.lock(self.folder / LOCK, files.PATIENCE)
        if self._held is None:
            raise OSError(errno.EAGAIN, "another process holds it", str(self.folder))
        if os.fstat(self._held).st_size == 0:
            os.write(self._held, json.dumps({"pool": self.pool_url, "pid": os.getpid()}).encode("ascii"))

    def close(self) -> None:
        """Let go; an empty folder is removed, what is in it is there for the next one to adopt."""
        with self._mutex:
            if self._held is None:
                return
            try:
                if not self.undelivered:
                    files.remove(self.folder)
            except OSError as error:
                log.info("the spool %s stays: %s", self.folder, error)
            os.close(self._held)
            self._held = None


# --- deliver ---------------------------------------------------------------------------------------------------------


def deliver(backend: Backend, outcomes: Iterable[Outcome], forget: Callable[[str], None]) -> Delivered:
    """Record outcomes in the pool and `forget` the claim of each that needs no further delivery.

    A server that is away leaves the rest for another time. Raises what else the pool refuses (NotPermitted …).
    """
    total, away = Delivered(), False
    for batch in _batches(outcomes):
        parts = [batch]
        while parts:
            part = parts.pop()
            done = Delivered(left=len(part))
            try:
                if not away:
                    done = _commit(backend, part, forget)
            except AnswerLost:
                if len(part) > 1:  # one of them cannot be settled now; the others must not wait for it
                    parts = [[outcome] for outcome in reversed(part)]
                    continue
            except ServerAway as error:
                log.warning("the pool is away: %s", error)
                away = True
            total = _sum(total, done)
    return total


def _commit(backend: Backend, batch: list[Outcome], forget: Callable[[str], None]) -> Delivered:
    written = commit(backend, (), batch)
    for outcome in batch:
        forget(outcome.claim)
    return Delivered(len(batch) - len(written.superseded), len(written.superseded))


def _sum(one: Delivered, other: Delivered) -> Delivered:
    return Delivered(one.written + other.written, one.superseded + other.superseded, one.left + other.left)


def _batches(outcomes: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    """Yield outcomes in lists that are small enough for one write each."""
    batch: list[Outcome] = []
    size = 0
    for outcome in outcomes:
        own = _size(outcome)
        if batch and (len(batch) >= BATCH or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(outcome)
        size += own
    if batch:
        yield batch


def _size(outcome: Outcome) -> int:
    return sum(len(each.get("data", "")) for each in (outcome.doc.get("_attachments") or {}).values())


# --- all spools ------------------------------------------------------------------------------------------------------


def listing(root: Path) -> list[SpoolInfo]:
    """Return every spool below `root` that this user may see."""
    return [_info(folder) for pool in files.folders(root) for folder in files.folders(pool)]


def damaged(root: Path) -> list[Path]:
    """Return the files that were set aside because they could not be read."""
    return [path for pool in files.folders(root) for path in sorted(pool.glob(f"*{DAMAGED}"))]


def _info(folder: Path) -> SpoolInfo:
    sizes, times = [], []
    for path in files.kept(folder):
        with contextlib.suppress(OSError):
            found = path.stat()
            sizes.append(found.st_size)
            times.append(found.st_mtime)
    try:
        url = str(json.loads((folder / LOCK).read_text("ascii"))["pool"])
    except (OSError, ValueError, KeyError, TypeError):
        url = ""
    return SpoolInfo(url, folder, len(sizes), sum(sizes), min(times, default=None), files.is_locked(folder / LOCK))

"""What a worker process needs around it: a folder for attempts, its place among others, ears for signals that say leave."""

from __future__ import annotations

import glob
import logging
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .backends.base import Backend
from .bays import Bays, discard
from .fit import GB
from .lifecycle import Context
from .membership import Membership
from .worker_options import WorkerOptions, cpu_count

if TYPE_CHECKING:
    from .staging.stager import Stager


log = logging.getLogger(__name__)

#: Seconds between two looks at how full the scratch disk is.
LOOK = 3.0
#: How the folder of an attempt ends that is kept to be looked at: with a part of its claim.
_KEPT = re.compile(r"/worker_[0-9a-f]{8}/[^/]+\.[0-9a-f]{8}$")


@contextmanager
def scratch(workdir: Path | None, name: str) -> Iterator[Bays]:
    """Give the folders of all attempts of one worker; what holds nothing is removed at the end."""
    base = workdir or Path(tempfile.gettempdir()) / f"tokenpool-{os.getuid()}"
    root = base / name[:15]
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    bays = Bays(str(root))
    try:
        yield bays
    finally:
        bays.close()
        for folder in (root, base):
            try:
                folder.rmdir()
            except OSError:
                break


class HighWater:
    """Watches how full the scratch disk is, and removes what finished attempts left there, the oldest first."""

    def __init__(self, root: str, percent: float) -> None:
        self._root, self._percent = root, percent
        self._looked = 0.0
        #: Why nothing may be claimed now, "" where it may.
        self.note = ""

    def ok(self) -> bool:
        """Tell whether there is room for one more token; looks at the disk every few seconds only."""
        now = time.monotonic()
        if now - self._looked > LOOK:
            self._looked = now
            if self._used() > self._percent:
                for kept in _kept(os.path.dirname(self._root)):
                    log.warning("the scratch disk is nearly full: %s is removed", kept)
                    for path in (kept, f"{kept}.out", f"{kept}.err"):
                        discard(path)
                    if self._used() <= self._percent:
                        break
            used = self._used()
            self.note = f"the disk of {self._root} is {used:.0f}% full" if used > self._percent else ""
        return not self.note

    def told(self, note: str) -> dict[str, Any]:
        """Return what the worker's document says of memory and scratch disk, in GB, with `note` or ours."""
        free: dict[str, Any] = {}
        try:
            disk = os.statvfs(self._root)
            free.update(disk_gb=disk.f_bavail * disk.f_frsize / GB, disk_total_gb=disk.f_blocks * disk.f_frsize / GB)
            with open("/proc/meminfo", encoding="ascii") as file:
                memory = {line.partition(":")[0]: float(line.split()[1]) * 1024 / GB for line in file}
            free.update(ram_gb=memory["MemAvailable"], ram_total_gb=memory["MemTotal"])
        except (OSError, ValueError, LookupError, AttributeError):  # gone meanwhile; or not Linux
            pass
        return {"note": note or self.note, "free": {name: round(value, 2) for name, value in free.items()}}

    def _used(self) -> float:
        try:
            disk = os.statvfs(self._root)
        except FileNotFoundError:
            return 0.0
        return 100.0 * (1 - disk.f_bavail / max(1, disk.f_blocks))


def _kept(base: str) -> list[str]:
    """Return the folders that attempts of this machine's workers left under the names of their tokens, oldest first."""
    found = [path for path in glob.glob(f"{glob.escape(base)}/worker_*/*.*") if _KEPT.search(path)]
    # Nobody else's folder has the logs of an attempt beside it.
    found = [path for path in found if os.path.isdir(path) and os.path.exists(f"{path}.out")]
    return sorted(found, key=os.path.getmtime)


class MovesData:
    """Makes what moves the data of a worker's tokens when the first of them has some. Safe from several threads."""

    def __init__(self, options: WorkerOptions, backend: Backend, bays: Bays) -> None:
        self._options, self._backend, self._scratch = options, backend, os.path.dirname(bays.root)
        self._made: Stager | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Stager:
        with self._lock:
            if self._made is None:
                self._made = self._make()
                self._made.begin()
            return self._made

    def _make(self) -> Stager:
        from .staging.cache_place import cache_of
        from .staging.stager import Stager
        from .staging.transfers import Transfers
        from .storage import Storages

        options = self._options
        storages = Storages(options.storage, options.policy.secrets)
        transfers = Transfers(storages, options.transfers)
        cache = cache_of(options.cache, options.cache_limit)
        return Stager(transfers, cache, self._backend, self._scratch, options.policy.attach_limit)

    def close(self) -> None:
        """Let go of what was made."""
        if self._made is not None:
            self._made.close()


def context_of(options: WorkerOptions, **parts: Any) -> Context:
    """Return what the runs of a worker need, of its options and its parts."""
    return Context(
        policy=options.policy,
        cwd=options.cwd,
        cpus=max(1, cpu_count() // options.slots),
        grace=options.grace,
        log_limit=options.log_limit,
        cleanup=options.cleanup,
        **parts,
    )


def member_of(
    options: WorkerOptions, backend: Backend, tell: Callable[[], Mapping[str, Any]], wake: Callable[[], None]
) -> Membership:
    """Return the place among the others of a worker with these options."""
    return Membership(backend, options.lease, options.slots, tell, wake, options.adopt_picas_after, options.prefetch)


@contextmanager
def signals(
    leave: Callable[[], None], hurry: Callable[[], None], warned: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Call `leave` on the first SIGTERM or SIGINT and `hurry` on each further one; only in the main thread.

    `warned` is called on SIGUSR1, which batch systems can send some time before a job ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def handle(signum: int, frame: Any) -> None:
        nonlocal told
        if told:
            hurry()
        told = True
        leave()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda signum, frame: warned())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Keeps running tokens within the memory that they asked for: by a control group where one is ours, else by watching.

A control group is used where it is ours to use: named by TOKENPOOL_CGROUP, handed over by the service manager, owned by
this user, or the highest that can be seen. What the superuser merely could write to is somebody else's.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import cgroups, memory
from .cgroups import Group
from .children import Child, Finished
from .fit import GB

log = logging.getLogger(__name__)

#: Seconds between two looks at all that runs; longer, up to `SELDOM`, where looking takes a twentieth of the time.
INTERVAL, SELDOM = 0.25, 2.0
#: Enters the group before anything else, so that all is counted there; the pid stays the same.
ENTER = 'echo $$ > "$0" && exec "$@"'


class MemoryLimit:
    """The memory of one run; made by `Limits.around`."""

    def __init__(
        self, around: Path | None, size: int, folder: Path | None, watched: Callable[[MemoryLimit], None]
    ) -> None:
        self.bytes = size
        #: Its control group while it has one; without, it is watched.
        self.folder = folder
        self.child: Child | None = None
        #: When it may be measured exactly again (monotonic): that takes long where there is much.
        self.measure_at = 0.0
        self._watched, self._exceeded = watched, False
        self._counter = None if folder is None else cgroups.oom_counter(folder)
        self._counter_around = around
        self._kills_around = cgroups.oom_kills(around) if around else 0

    @property
    def exceeded(self) -> bool:
        """Tell whether the run, or a process of it, was ended because all of it together used more than it may."""
        counter = self._counter  # another thread may see the group go
        self._exceeded = self._exceeded or (counter is not None and cgroups.oom_kills(counter) > 0)
        return self._exceeded

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` within the limit from its first moment on."""
        return [*argv] if self.folder is None else ["/bin/sh", "-c", ENTER, str(self.folder / "cgroup.procs"), *argv]

    def watch(self, child: Child) -> None:
        """Look after a run that was started with the wrapped command; returns at once."""
        self.child = child
        if self.bytes:
            self._watched(self)

    def out_of_memory(self, finished: Finished) -> bool:
        """Tell whether a run failed for want of memory, be it this limit, the batch job's or the machine's."""
        if finished.returncode == 0:
            return False
        killed = finished.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL) and not finished.killed
        return self.exceeded or (
            killed and self._counter_around is not None and cgroups.oom_kills(self._counter_around) > self._kills_around
        )

    def leave(self) -> None:
        """Take the last word of the control group, which goes now."""
        _ = self.exceeded
        self.folder = self._counter = None

    def end(self) -> None:
        """The run used too much: end all of it."""
        self._exceeded = True
        if self.child is not None:
            self.child.kill(0)


class Limits:
    """The memory limits of one worker's runs. Thread-safe; one thread of its own looks after all of them."""

    def __init__(
        self,
        worker: str,
        environ: Mapping[str, str] = os.environ,
        root: Path = cgroups.ROOT,
        interval: float = INTERVAL,
    ) -> None:
        self.worker = worker
        self._environ, self._root, self._interval = environ, root, interval
        self._counter = _counter(root)
        self._home: Group | None = None
        self._home_known = False
        self._made = 0
        self._watched: dict[MemoryLimit, None] = {}
        self._left: set[Path] = set()  # groups that could not be removed yet
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._closed = False

    def __enter__(self) -> Limits:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def home(self) -> Group | None:
        """The control group below which each run gets its own, found at the first need; None: runs are watched."""
        with self._lock:
            if not self._home_known:
                self._home_known = True
                self._home = cgroups.home(self._environ, self._root)
                self._counter = _counter(self._root)  # this process may have been moved
                if self._home:
                    cgroups.sweep(self._home.path)
            return self._home

    @contextmanager
    def around(self, claim: str, ram_gb: float) -> Iterator[MemoryLimit]:
        """Give the limit of one run, in GB of 2**30 bytes, 0 = none; to be left when the run is over."""
        size = int(ram_gb * GB)
        folder = self._make_group(claim, size) if size else None
        limit = MemoryLimit(self._counter, size, folder, self._look_after)
        try:
            yield limit
        finally:
            with self._lock:
                self._watched.pop(limit, None)
            if folder is not None:
                limit.leave()
                self._remove(folder)

    def close(self) -> None:
        """Look no more, and remove what groups are left."""
        with self._lock:
            self._closed = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join()
        for folder in list(self._left):
            self._remove(folder)

    def _make_group(self, claim: str, size: int) -> Path | None:
        home = self.home
        if home is None:
            return None
        with self._lock:
            self._made += 1
            folder = home.path / cgroups.name_for(f"{self._made}-{claim[:8]}")
        try:
            folder.mkdir()
            cgroups.set_memory(folder, size, home.version)
        except OSError as error:
            log.warning("memory is watched, as there can be no control group for it: %s", error)
            self._remove(folder)
            return None
        return folder

    def _remove(self, folder: Path) -> None:
        if cgroups.remove(folder):
            self._left.discard(folder)
        else:
            self._left.add(folder)

    # --- looking -----------------------------------------------------------------------------------------------------

    def _look_after(self, limit: MemoryLimit) -> None:
        with self._lock:
            self._watched[limit] = None
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._serve, name="tokenpool-memory", daemon=True)
                self._thread.start()
            self._news.notify()

    def _serve(self) -> None:
        pause = 0.0
        while True:
            with self._lock:
                self._news.wait_for(lambda: self._closed, pause)
                self._news.wait_for(lambda: self._closed or self._watched)
                if self._closed:
                    return
                watched = list(self._watched)
            began = time.monotonic()
            try:
                self._look(watched)
            except Exception:  # one odd process must not end the watch over all others
                log.exception("the memory of running tokens could not be looked at")
            pause = min(SELDOM, max(self._interval, 20 * (time.monotonic() - began)))

    def _look(self, watched: list[MemoryLimit]) -> None:
        """End what is above its limit."""
        for folder in list(self._left):
            self._remove(folder)
        to_measure = {limit.child: limit for limit in watched if limit.folder is None and limit.child is not None}
        for limit in watched:
            # The kernel may have killed one process only, and the rest would go on without it.
            if limit.folder is not None and limit.exceeded:
                limit.end()
        for child, pids in memory.trees(to_measure).items():
            limit = to_measure[child]
            if memory.at_most(pids) <= limit.bytes or time.monotonic() < limit.measure_at:
                continue
            began = time.monotonic()
            size = memory.exact(pids)
            limit.measure_at = time.monotonic() + 10 * (time.monotonic() - began)
            if size > limit.bytes:
                limit.end()


def _counter(root: Path) -> Path | None:
    """Return where the kernel counts its kills in this process's own group: by the limits of a batch job, say."""
    own = cgroups.own("memory", root)
    return cgroups.oom_counter(own.path) if own else None

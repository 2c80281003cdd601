"""Looks at the pool once for all who watch: counts, batches, workers, rates; nothing is asked while nobody does."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import batch_rules, steering, transitions
from ..backends.slices import slice_of
from ..batch_rules import BatchRule
from ..errors import TokenpoolError
from ..pool import Pool
from ..steering import WorkerInfo
from .bars import Bar, Bars
from .series import Point, Series

log = logging.getLogger(__name__)

#: Seconds between two looks while nobody watches, for the series; and between two words to those who do.
IDLE, HEARTBEAT = 30.0, 5.0
#: Seconds that a page waits for a look: where what is known is not old; and before it says that the pool does not answer.
SOON, PATIENCE = 0.1, 8.0
#: Seconds after which what is known is old.
OLD = 10.0
#: Seconds after which the series is written to its file.
SAVE = 60.0
#: A look takes at most one part in so many of the time; seconds that one is good for, and between two, at most: a look
#: at a pool that is away takes long, and it may come back.
SHARE, FRESH, LONGEST = 4, 2.0, 5.0
#: Ended tokens that are read at the first look, to draw what was before.
REMEMBERED = 1_000
WAITING = (transitions.TODO, transitions.HELD, transitions.LOCKED)


@dataclass(frozen=True)
class Snapshot:
    """What was seen at one look; `away` says why the pool was not seen, then the rest is what was known before."""

    when: float = 0.0
    away: str = ""
    #: Tokens by (state, batch), as the backend counts them.
    raw: Mapping[tuple[str, str], int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(transitions.STATES, 0))
    batches: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rules: Mapping[str, BatchRule] = field(default_factory=dict)
    workers: tuple[WorkerInfo, ...] = ()
    #: Tokens that are done, and that fail, in a minute.
    rate: float = 0.0
    failing: float = 0.0
    #: Seconds until all is finished, if it goes on like this.
    eta: float | None = None

    @property
    def total(self) -> int:
        """All tokens."""
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """Tokens that wait or run."""
        return sum(self.counts[state] for state in WAITING)

    @property
    def shown(self) -> tuple[Any, ...]:
        """What somebody who watches would see change."""
        workers = [
            (each.id, each.state, each.held, each.slots, each.prefetch, each.load, each.note) for each in self.workers
        ]
        return self.away, dict(self.raw), dict(self.rules), workers, round(self.rate, 1), round(self.failing, 1)


class Hub:
    """One look at a time, by one thread, for any number of pages and event streams."""

    def __init__(self, pool: Pool, every: float = 1.0, idle: float = IDLE, folder: Path | None = None) -> None:
        self._pool, self._every, self._idle = pool, every, idle
        self._changed = threading.Condition()
        self._latest = Snapshot(away="the pool has not answered yet")
        #: When the last look began and ended.
        self._began = self._looked = -float("inf")
        self._cost = 0.0
        self._wanted = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._watchers: dict[int, Callable[[], None]] = {}
        self._told: tuple[tuple[Any, ...], float] = ((), 0.0)
        self._series, self._bars = Series(), Bars()
        self._remembers = False
        #: Where the series is kept over a restart, and the bars.
        self._file = folder / "series.json" if folder else None
        self._bars_file = folder / "bars.json" if folder else None
        self._saved = time.monotonic()

    # --- what is known -------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return what is known now; looks again first where that is quick, or what is known is old."""
        with self._changed:
            asked = time.monotonic()
            if self._closed or asked - self._began <= min(SHARE * self._cost, FRESH):
                return self._latest
            self._wanted = True
            self._begin()
            self._changed.notify_all()
            known = asked - self._looked <= OLD or bool(self._latest.away and self._latest.when)
            seen = self._changed.wait_for(lambda: self._closed or self._began >= asked, SOON if known else PATIENCE)
            return (
                self._latest if seen or known or self._latest.away else _away(self._latest, "the pool does not answer")
            )

    def stir(self) -> None:
        """Say that somebody has just changed something: the next page is to show it."""
        with self._changed:
            self._began = self._looked = -float("inf")

    def series(self, seconds: float) -> list[Point]:
        """Return what ended in the last `seconds`: (when, done, failed), oldest first."""
        return self._series.points(time.time(), seconds)

    def bars(self, seconds: float) -> list[Bar]:
        """Return the runs of the last `seconds`, by their beginning."""
        return self._bars.since(time.time() - seconds)

    @property
    def watchers(self) -> int:
        """How many event streams are open."""
        return len(self._watchers)

    # --- who watches -----------------------------------------------------------------------------------------------------

    async def changes(self) -> AsyncGenerator[Snapshot, None]:
        """Yield what is known now, then each change, and a sign of life from time to time; a slow reader skips some."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        key = id(news)

        def tell() -> None:
            loop.call_soon_threadsafe(news.set)

        with self._changed:
            self._watchers[key] = tell
            self._begin()
            self._changed.notify_all()
        try:
            if self._latest.when:
                yield self._latest
            while not self._closed:
                await news.wait()
                news.clear()
                yield self._latest
        finally:
            with self._changed:
                self._watchers.pop(key, None)

    # --- looking -----------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="tokenpool-hub", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Look no more; who watches is told so."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            watchers = list(self._watchers.values())
        for tell in watchers:
            _call(tell)
        self._save()

    def _run(self) -> None:
        while self._wait():
            started = time.monotonic()
            snapshot = self._look()
            with self._changed:
                self._latest, self._began, self._looked = snapshot, started, time.monotonic()
                self._cost = self._looked - started
                self._changed.notify_all()
                watchers = list(self._watchers.items())
            shown, now = snapshot.shown, time.monotonic()
            if shown != self._told[0] or now - self._told[1] >= HEARTBEAT:
                self._told = shown, now
                for key, tell in watchers:
                    if not _call(tell):
                        self._watchers.pop(key, None)
            if now - self._saved >= SAVE:
                self._save()

    def _wait(self) -> bool:
        """Wait until the next look is due; False: there is to be none."""
        with self._changed:
            while not self._closed:
                pause = max(self._every, min(SHARE * self._cost, LONGEST)) if self._watchers else self._idle
                left = self._looked + pause - time.monotonic()
                if self._wanted or left <= 0:
                    self._wanted = False  # who asks from here on asks for the next look
                    return True
                self._changed.wait(left)
        return False

    def _look(self) -> Snapshot:
        try:
            return self._seen()
        except TokenpoolError as error:
            return _away(self._latest, str(error))
        except Exception as error:  # whatever it was: pages have to go on, and say so
            log.exception("the hub cannot look at %s", self._pool.url)
            return _away(self._latest, f"it cannot be looked at: {error}")

    def _seen(self) -> Snapshot:
        backend = self._pool.backend
        raw = backend.counts()
        workers, rules = tuple(steering.workers(backend)), batch_rules.batch_rules(backend)
        now = time.time()
        counts, batches = sums(raw, rules)
        if not self._remembers:
            self._remember(counts, now)
        self._bars.see(backend, now)
        self._series.see(now, counts[transitions.DONE], counts[transitions.ERROR])
        rate, failing = self._series.rate(now)
        waiting = sum(counts[state] for state in WAITING)
        eta = waiting / (rate + failing) * 60 if waiting and rate + failing > 0 else None
        return Snapshot(now, "", raw, counts, batches, rules, workers, rate, failing, eta)

    def _save(self) -> None:
        """Keep the series and the bars; a disk that is full is no reason to stop."""
        self._saved = time.monotonic()
        if not self._remembers:
            return
        for file, kept in ((self._file, self._series), (self._bars_file, self._bars)):
            if file is not None:
                _write(file, kept.as_json())

    def _remember(self, counts: Mapping[str, int], now: float) -> None:
        """Learn at the first look what ended before it, where that is little enough to be read whole."""
        self._remembers = True
        restored = self._file is not None and self._series.restore(_read(self._file), now)
        if sum(counts[state] for state in transitions.FINAL) > REMEMBERED:
            if self._bars_file is not None:
                self._bars.restore(_read(self._bars_file))
            return
        backend = self._pool.backend
        docs = [
            doc for state in transitions.FINAL for doc in slice_of(backend, state, None, None, REMEMBERED, True).docs
        ]
        # The bars are read anew: so those that ended meanwhile are among them.
        ended = [bar for bar in self._bars.remember(docs, now) if bar.state in ("done", "error")]
        if not restored:
            # One that was repeated is one token: only its last run counts, as it will from now on.
            last = sorted({bar.token: bar for bar in ended}.values(), key=lambda bar: bar.end or now)
            self._series.remember((bar.end or now, bar.state == "done") for bar in last)


def sums(
    raw: Mapping[tuple[str, str], int], rules: Mapping[str, BatchRule]
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Return the tokens by state, and by batch and state; a batch that has only a rule has none."""
    counts = dict.fromkeys(transitions.STATES, 0)
    batches: dict[str, dict[str, int]] = {name: dict.fromkeys(transitions.STATES, 0) for name in rules}
    for (state, batch), number in sorted(raw.items(), key=lambda item: item[0][1]):
        counts[state] += number
        batches.setdefault(batch, dict.fromkeys(transitions.STATES, 0))[state] += number
    return counts, dict(sorted(batches.items()))


def _away(before: Snapshot, why: str) -> Snapshot:
    known = {name: getattr(before, name) for name in ("raw", "counts", "batches", "rules", "workers")}
    return Snapshot(time.time(), why, **known)


def _write(file: Path, value: Any) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(value), "utf-8")
        partial.replace(file)
    except OSError as error:
        log.warning("%s cannot be written: %s", file, error)


def _read(file: Path) -> Any:
    """Return what a file of JSON says; None where it says nothing."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _call(tell: Callable[[], None]) -> bool:
    """Wake a watcher; False: its loop has ended."""
    try:
        tell()
    except RuntimeError:
        return False
    return True

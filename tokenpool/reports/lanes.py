"""Who ran what when: each run as a bar while there are few, how busy each worker was when there are many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .bins import Clock, Series
from .runs import RUNNING, Run

#: Runs that are drawn one by one.
MOST_BARS = 1500
#: Rows that are kept while counting.
MOST_ROWS = 256


@dataclass(frozen=True)
class Bar:
    """One run as it is drawn; `lane` is its place among those of the same worker at that time."""

    start: float
    end: float
    kind: str
    token: str
    batch: str
    lane: int = 0


@dataclass
class Row:
    """A worker, a host, or several hosts: when they ran anything."""

    name: str
    host: str
    busy: Series
    runs: int = 0
    failed: int = 0
    seconds: float = 0.0
    first: float = float("inf")
    last: float = 0.0
    workers: int = 1
    bars: list[Bar] = field(default_factory=list)

    def take(self, other: Row) -> None:
        """Add what another row counted, but for its series."""
        self.runs, self.failed, self.seconds = (
            self.runs + other.runs, self.failed + other.failed, self.seconds + other.seconds,
        )  # fmt: skip
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.workers += other.workers


class Lanes:
    """A row for each worker; for each host where workers are too many; then for hosts whose names begin alike."""

    def __init__(self, clock: Clock, most_rows: int = MOST_ROWS, most_bars: int = MOST_BARS) -> None:
        self._clock, self._most_rows, self._most_bars = clock, most_rows, most_bars
        self._rows: dict[str, Row] = {}
        self._bars = 0
        #: Letters of a host's name that tell rows apart; None: workers are told apart.
        self.letters: int | None = None

    def add(self, run: Run, batch: str) -> None:
        """Count a run whose times are known."""
        if run.start is None or run.end is None:
            return
        row = self._row(run)
        row.runs += 1
        row.failed += run.kind == "failed"
        row.seconds += run.end - run.start
        row.first, row.last = min(row.first, run.start), max(row.last, run.end)
        self._clock.spread(row.busy, run.start, run.end)
        self._bars += 1
        if self.exact:
            row.bars.append(Bar(run.start, run.end, run.kind, run.token, batch))
        elif self._bars == self._most_bars + 1:
            self._forget_bars()

    def _row(self, run: Run) -> Row:
        host = run.host or "unknown host"
        name = self._name(run.worker or host, host)
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = Row(name, host, self._clock.series())
            if len(self._rows) > self._most_rows:
                self.shrink(self._most_rows)
                return self._rows[self._name(run.worker or host, host)]
        return row

    def _name(self, worker: str, host: str) -> str:
        if self.letters is None:
            return worker
        return host if len(host) <= self.letters else host[: self.letters] + "*"

    @property
    def exact(self) -> bool:
        """Every run is kept as a bar."""
        return self._bars <= self._most_bars and self.letters is None

    def shrink(self, most: int) -> None:
        """Put rows together until there are no more than so many."""
        if len(self._rows) > most:
            self._forget_bars()
        while len(self._rows) > most and self.letters != 0:
            longest = max(len(row.host) for row in self._rows.values())
            self.letters = longest if self.letters is None else min(self.letters, longest) - 1
            before, self._rows = self._rows, {}
            for row in before.values():
                row.name = self._name("", row.host)
                kept = self._rows.setdefault(row.name, row)
                if kept is not row:
                    kept.take(row)
                    self._clock.merge(kept.busy, row.busy)

    def _forget_bars(self) -> None:
        self._bars = max(self._bars, self._most_bars + 1)
        for row in self._rows.values():
            row.bars.clear()

    @property
    def rows(self) -> list[Row]:
        """All rows, by host and start."""
        return sorted(self._rows.values(), key=lambda row: (row.host, row.first, row.name))


def stacked(bars: Iterable[Bar]) -> list[Bar]:
    """Return bars by their start, each in the lowest lane that is free: a worker's slots have no numbers."""
    placed: list[Bar] = []
    free_at: list[float] = []
    for bar in sorted(bars, key=lambda each: (each.start, each.end)):
        lane = next((place for place, free in enumerate(free_at) if free <= bar.start + 0.001), len(free_at))
        if lane == len(free_at):
            free_at.append(bar.end)
        free_at[lane] = bar.end if bar.kind != RUNNING else float("inf")
        placed.append(Bar(bar.start, bar.end, bar.kind, bar.token, bar.batch, lane))
    return placed

"""Counts any number of things in little memory: over time, by size, by share, by name, and the largest of them."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: The name under which `Groups` keeps what has no room of its own.
OTHERS = "(others)"
#: Pieces into which `Amounts` cuts a factor of two: 9 % wide each.
FINE = 8

Series = dict[int, float]


class Clock:
    """Cuts time into equal pieces, and makes them twice as long whenever they become too many."""

    def __init__(self, most: int = 240, width: float = 0.25) -> None:
        self.most, self.width = most, width
        self._series: list[Series] = []
        self._first: int | None = None
        self._last = 0

    def series(self) -> Series:
        """Return a new series of this clock: an amount for each piece in which there was any."""
        made: Series = {}
        self._series.append(made)
        return made

    def merge(self, into: Series, other: Series) -> None:
        """Add one series to another, and forget it."""
        for at, amount in other.items():
            into[at] = into.get(at, 0.0) + amount
        self._series = [each for each in self._series if each is not other]

    def add(self, series: Series, when: float, amount: float = 1.0) -> None:
        """Count something at a time."""
        at = self._piece(when)
        series[at] = series.get(at, 0.0) + amount

    def spread(self, series: Series, start: float, end: float) -> None:
        """Count each second between two times in its piece."""
        if end <= start:
            return
        self._piece(start)
        last = self._piece(end)
        # Only now: the second one may have made the pieces longer.
        for at in range(self._piece(start), last + 1):
            seconds = min(end, (at + 1) * self.width) - max(start, at * self.width)
            if seconds > 0:
                series[at] = series.get(at, 0.0) + seconds

    def _piece(self, when: float) -> int:
        at = math.floor(when / self.width)
        first = at if self._first is None else min(self._first, at)
        last = at if self._first is None else max(self._last, at)
        while last - first >= self.most:
            self._halve()
            at, first, last = at >> 1, first >> 1, last >> 1
        self._first, self._last = first, last
        return at

    def _halve(self) -> None:
        self.width *= 2
        for series in self._series:
            old = dict(series)
            series.clear()
            for at, amount in old.items():
                series[at >> 1] = series.get(at >> 1, 0.0) + amount

    @property
    def pieces(self) -> range:
        """The numbers of all pieces from the first to the last time that was counted."""
        return range(0) if self._first is None else range(self._first, self._last + 1)

    def start_of(self, piece: int) -> float:
        """Return when a piece begins."""
        return piece * self.width


@dataclass
class Amounts:
    """How large many numbers are: exact in count, sum and ends; in between to 9 %."""

    count: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = 0.0
    fine: Counter[int] = field(default_factory=Counter)
    zeros: int = 0

    def add(self, value: float) -> None:
        """Count one; it is not negative."""
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)
        if value < 1e-6:
            self.zeros += 1
        else:
            self.fine[math.floor(math.log2(value) * FINE)] += 1

    @property
    def mean(self) -> float:
        """The average; 0 of none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Return the number below which this share of them lies."""
        wanted, seen = share * self.count, float(self.zeros)
        if not self.count or seen >= wanted:
            return self.least if self.count else 0.0
        for place, number in sorted(self.fine.items()):
            seen += number
            if seen >= wanted:
                return min(self.most, max(self.least, math.pow(2.0, (place + 0.5) / FINE)))
        return self.most

    def octaves(self) -> dict[int, int]:
        """Return the counts by powers of two: n from 2**n up to 2**(n+1); zeros are in the lowest."""
        found: Counter[int] = Counter()
        for place, number in self.fine.items():
            found[place // FINE] += number
        if self.zeros:
            found[min(found, default=0)] += self.zeros
        return dict(found)


@dataclass
class Shares:
    """How many shares lie in each tenth; the last piece is for what is above 100 %."""

    tenths: list[int] = field(default_factory=lambda: [0] * 11)

    def add(self, share: float) -> None:
        """Count one."""
        # What is measured is never exact: 1.004 of a CPU is one.
        self.tenths[10 if share > 1.05 else min(9, int(share * 10))] += 1

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.tenths)


class Groups(Generic[Value]):
    """A value for each name; when there are too many names, new ones share one value."""

    def __init__(self, make: Callable[[], Value], most: int) -> None:
        self._make, self._most = make, most
        self._found: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name not in self._found and len(self._found) >= self._most:
            name = OTHERS
        if name not in self._found:
            self._found[name] = self._make()
        return self._found[name]

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return iter(self._found.items())

    def __len__(self) -> int:
        return len(self._found)

    def largest(self, size: Callable[[Value], float], most: int) -> list[tuple[str, Value]]:
        """Return the largest ones first."""
        return heapq.nsmallest(most, self._found.items(), key=lambda pair: (-size(pair[1]), pair[0]))


class Top(Generic[Value]):
    """The largest of many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, int, Value]] = []
        self._seen = 0

    def add(self, size: float, value: Value) -> None:
        """Keep it if it is among the largest so far."""
        self._seen += 1
        entry = (size, -self._seen, value)  # of equal ones the first stays; values are never compared
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def takes(self, size: float) -> bool:
        """Tell whether something of this size would be kept: making it may cost more than asking."""
        return len(self._heap) < self._most or size > self._heap[0][0]

    def __iter__(self) -> Iterator[Value]:
        return (value for _, _, value in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))

    def __len__(self) -> int:
        return len(self._heap)

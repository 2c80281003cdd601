"""Remembers how many tokens ended when: sums in short steps for a day, whatever the number of tokens."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

#: Seconds of one step, and those that are remembered.
STEP, KEPT = 5.0, 24 * 3600.0
#: Seconds over which a rate is taken: the shortest in which so many ended.
WINDOWS, ENOUGH = (60.0, 300.0, 1800.0, 3 * 3600.0), 10


@dataclass(frozen=True)
class Point:
    """What ended from `when` on until the next point: done and failed tokens."""

    when: float
    done: float
    failed: float


class Series:
    """Sums of what ended; fed with the counts of a pool as they are seen from time to time."""

    def __init__(self) -> None:
        #: (number of the step, done, failed), oldest first; steps in which nothing ended are left out.
        self._steps: deque[tuple[int, float, float]] = deque()
        self._last: tuple[float, int, int] | None = None
        self._since = math.inf

    def see(self, now: float, done: int, failed: int) -> None:
        """Take the counts of now; where fewer are done than before, some were put back or deleted, and none ended."""
        if self._last is not None and now > self._last[0]:
            before, old_done, old_failed = self._last
            self._spread(before, now, max(0, done - old_done), max(0, failed - old_failed))
        self._since = min(self._since, now)
        self._last = (now, done, failed)
        while self._steps and self._steps[0][0] * STEP < now - KEPT:
            self._steps.popleft()

    def remember(self, ended: Iterable[tuple[float, bool]]) -> None:
        """Take what had ended before the first look: when, and whether well; the oldest first."""
        for when, well in ended:
            self._since = min(self._since, when)
            self._add(int(when // STEP), float(well), float(not well))

    def _spread(self, start: float, end: float, done: int, failed: int) -> None:
        """Share what ended between two looks evenly among the steps between them."""
        if not done and not failed:
            return
        start = max(start, end - KEPT)
        for number in range(int(start // STEP), int(end // STEP) + 1):
            share = (min(end, (number + 1) * STEP) - max(start, number * STEP)) / (end - start)
            if share > 0:
                self._add(number, done * share, failed * share)

    def _add(self, number: int, done: float, failed: float) -> None:
        if self._steps and self._steps[-1][0] == number:
            _, before, failed_before = self._steps.pop()
            done, failed = done + before, failed + failed_before
        self._steps.append((number, done, failed))

    def as_json(self) -> dict[str, Any]:
        """Return all of it, to be kept over a restart."""
        steps = [[number, round(done, 3), round(failed, 3)] for number, done, failed in list(self._steps)]
        return {"step": STEP, "since": self._since, "last": self._last, "steps": steps}

    def restore(self, told: Any, now: float) -> bool:
        """Take what was kept; what ended meanwhile is shared among the time since. False: it is none of ours, or old."""
        try:
            last, steps = told["last"], told["steps"]
            since, before = float(told["since"]), (float(last[0]), int(last[1]), int(last[2]))
            known = [(int(number), float(done), float(failed)) for number, done, failed in steps]
        except (LookupError, TypeError, ValueError):
            return False
        if told.get("step") != STEP or not now - KEPT < before[0] <= now:
            return False
        self._since, self._last = since, before
        self._steps.extend(sorted(known))
        return True

    def points(self, now: float, seconds: float, most: int = 120) -> list[Point]:
        """Return what ended in the last `seconds`, in at most so many points of equal length, oldest first."""
        width = max(1, math.ceil(seconds / STEP / most))
        last = int(now // STEP) // width
        first = last - math.ceil(seconds / STEP / width) + 1
        sums = {number: [0.0, 0.0] for number in range(first, last + 1)}
        for step, done, failed in list(self._steps):  # another thread adds to them
            found = sums.get(step // width)
            if found is not None:
                found[0] += done
                found[1] += failed
        return [Point(number * width * STEP, done, failed) for number, (done, failed) in sums.items()]

    def rate(self, now: float) -> tuple[float, float]:
        """Return how many are done, and fail, in a minute: of late, or over longer where few end."""
        done = failed = 0.0
        for window in WINDOWS:
            seen = min(window, now - self._since)
            if seen <= 0:
                return 0.0, 0.0
            chosen = [step for step in list(self._steps) if (step[0] + 1) * STEP > now - window]
            done, failed = sum(step[1] for step in chosen), sum(step[2] for step in chosen)
            if done + failed >= ENOUGH or seen < window:
                break
        return done / seen * 60, failed / seen * 60

"""When a worker talks to the pool: how far ahead it claims, how long outcomes wait for company, how often it looks."""

from __future__ import annotations

import time

from . import chance

#: Tokens are claimed ahead for at most this many seconds of work, so that slots need not wait for a round trip.
AHEAD, AHEAD_MOST = 0.2, 128
#: Seconds that an outcome may wait for others to share its write, while no slot waits for work.
LINGER = 0.1


class Pace:
    """How long tokens take here, and what follows from it; one that is not `eager` never claims ahead by itself.

    `prefetch` tokens are claimed ahead in any case.
    """

    def __init__(self, prefetch: int = 0, eager: bool = True) -> None:
        self.prefetch, self._eager = prefetch, eager
        self._took: float | None = None

    def learn(self, seconds: float) -> None:
        """Take note of how long a token took."""
        self._took = seconds if self._took is None else 0.8 * self._took + 0.2 * seconds

    def ahead(self, slots: int) -> int:
        """Return how many tokens may wait here for a slot: none unless tokens are so short that slots would wait."""
        if not self._eager or self._took is None or self._took >= AHEAD:
            return self.prefetch
        return max(self.prefetch, min(AHEAD_MOST, int(slots * AHEAD / max(self._took, 1e-3))))

    def time_to_write(self, waiting: int, slots: int, room: int, outcomes: bool, age: float) -> bool:
        """Tell whether to talk to the pool now: a slot has or will soon have nothing to do, or an outcome waited."""
        if waiting <= self.ahead(slots) // 2:
            return outcomes or room > 0
        return outcomes and age >= LINGER


class Look:
    """When to look for tokens again: at once while there are some, then ever less often up to the poll interval."""

    def __init__(self) -> None:
        self._delay = self._at = 0.0

    def due(self) -> bool:
        """It is time."""
        return time.monotonic() >= self._at

    def remaining(self) -> float:
        """Return the seconds until it is time."""
        return max(0.0, self._at - time.monotonic())

    def now(self) -> None:
        """There is something to find."""
        self._delay = self._at = 0.0

    def soon(self, within: float) -> None:
        """There may be something to find, for everybody: not all should come at the same moment."""
        self._delay = 0.0
        self._at = time.monotonic() + chance.uniform(0, within)

    def later(self, longest: float, listens: bool = False) -> None:
        """Nothing was found; the pause grows up to `longest` seconds, at once where the worker is told what comes."""
        self._delay = longest if listens else min(longest, max(0.05, 1.5 * self._delay))
        # Jitter keeps workers that ran dry together from asking together.
        self._at = time.monotonic() + self._delay * chance.uniform(0.75, 1.0)

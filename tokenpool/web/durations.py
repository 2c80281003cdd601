"""How long tokens of a batch take: average, least and most, of those that ended last."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from .. import listing, transitions
from ..backends.base import Backend
from ..backends.slices import slice_of

#: Done tokens that are looked at, and seconds for which that holds.
LOOKED_AT, HOLDS = 100, 5.0


@dataclass(frozen=True)
class Took:
    """Seconds that runs took, and how many were looked at."""

    average: float
    least: float
    most: float
    count: int


class Durations:
    """What is known of batches; each is looked at again only after a while."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int, Took | None]] = {}
        self._lock = threading.Lock()

    def of(self, backend: Backend, batches: Mapping[str, Mapping[str, int]]) -> dict[str, Took]:
        """Return how long the tokens of these batches took, of those in which some are done."""
        found: dict[str, Took] = {}
        with self._lock:
            for name, counts in batches.items():
                took = self._of(backend, name, counts.get(transitions.DONE, 0))
                if took is not None:
                    found[name] = took
        return found

    def _of(self, backend: Backend, name: str, done: int) -> Took | None:
        known = self._known.get(name)
        if known is not None and (known[1] == done or time.monotonic() - known[0] < (HOLDS if known[2] else 1.0)):
            return known[2]
        took = _look(backend, name) if done else None
        self._known[name] = (time.monotonic(), done, took)
        return took


def _look(backend: Backend, batch: str) -> Took | None:
    docs = slice_of(backend, transitions.DONE, batch, None, LOOKED_AT, True).docs
    spans = [listing.span(doc) for doc in docs]
    took = [end - start for start, end in spans if start is not None and end is not None and end >= start]
    return Took(sum(took) / len(took), min(took), max(took), len(took)) if took else None

"""Small helpers that picas users import: a timer, whole seconds, merged dictionaries."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any


class Timer:
    """Counts the seconds since it was made or last reset, by a clock that nobody can turn back."""

    def __init__(self) -> None:
        self.t = time.monotonic()

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.t

    def reset(self) -> None:
        """Start again from zero."""
        self.t = time.monotonic()


def seconds() -> int:
    """Return the time in whole seconds since 1970, as `lock` and `done` hold it."""
    return int(time.time())


def timestamp(at: float | None = None) -> str:
    """Return a time (seconds since 1970, default now) to the millisecond as RFC 3339 writes it, in UTC."""
    at = time.time() if at is None else at
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"


def time_elapsed(timer: Timer, max: float = 30.0) -> bool:
    """Tell whether `timer` has run for more than `max` seconds; made to be a stop function."""
    return timer.elapsed() > max


def merge_dicts(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a deep copy of `first` updated with `second`.

    >>> merge_dicts({"a": 1, "b": 1}, {"b": 2})
    {'a': 1, 'b': 2}
    """
    merged = dict(copy.deepcopy(first))
    merged.update(second)
    return merged

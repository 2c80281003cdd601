"""How a worker is told to behave, what it tells, and when it looks for tokens again."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .backends.base import Json


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker behaves; times in seconds, sizes in bytes."""

    slots: int = 1
    batches: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    design: str = ""
    view: str = ""
    quit: bool = False
    idle_timeout: float | None = None
    poll: float = 5.0
    max_tasks: int | None = None
    max_total_time: float | None = None
    grace: float = 10.0
    log_limit: int = 1_000_000
    workdir: Path | None = None
    cleanup: str = "success"
    #: Run every command in this folder instead of one of its own.
    cwd: Path | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a token: started, finished, returned, superseded; or idle."""

    kind: str
    token: Json
    state: str = ""
    workdir: str = ""


@dataclass
class Summary:
    """What a worker did in its life."""

    done: int = 0
    failed: int = 0
    returned: int = 0
    superseded: int = 0
    undelivered: int = 0


class Look:
    """When to look for tokens again: at once while there are some, then ever less often up to the poll interval."""

    def __init__(self, longest: float) -> None:
        self._longest, self._delay, self._at = longest, 0.0, 0.0

    def due(self) -> bool:
        """It is time."""
        return time.monotonic() >= self._at

    def remaining(self) -> float:
        """Return the seconds until it is time."""
        return max(0.0, self._at - time.monotonic())

    def now(self) -> None:
        """There is something to find."""
        self._delay = self._at = 0.0

    def later(self) -> None:
        """Nothing was found."""
        self._delay = min(self._longest, max(0.05, 1.5 * self._delay))
        # Jitter keeps workers that ran dry together from asking together.
        self._at = time.monotonic() + self._delay * random.uniform(0.75, 1.0)


def cpu_count() -> int:
    """Return the CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1

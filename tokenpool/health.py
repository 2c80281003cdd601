"""Notices that tokens fail here one after another at once: a machine that eats the whole queue must stop itself."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from . import chance

#: A failure is fast if the attempt took at most so many seconds.
FAST = 5.0
#: Seconds between two runs of the check, at first and at most.
FIRST_CHECK, LAST_CHECK = 30.0, 600.0
#: Seconds that a check may take.
CHECK_TIMEOUT = 60.0


class Health:
    """Counts fast failures in a row; from `most` on, `note` says why nothing is claimed, until the check succeeds."""

    def __init__(
        self, most: int | None, check: str = "", run: Callable[[str], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._most, self._check, self._clock = most, check, clock
        self._run = run or run_check
        self._row = 0
        self._pause = FIRST_CHECK
        self._next = 0.0
        self.note = ""

    def attempt(self, failed: bool, seconds: float) -> bool:
        """Take note of an attempt that ended; tell whether this one was too much."""
        if self._most is None:
            return False
        self._row = self._row + 1 if failed and seconds <= FAST else 0
        if self._row >= self._most and not self.note:
            self.note = f"{self._row} tokens in a row failed within {FAST:g} s"
            self._next = self._clock()
            return True
        return False

    def ok(self) -> bool:
        """Tell whether tokens may be claimed; runs the check where one is due."""
        if not self.note:
            return True
        if self._check and self._clock() >= self._next:
            told = self._run(self._check)
            if not told:
                self.forgive()
                return True
            self.note = f"{self._row} tokens in a row failed within {FAST:g} s; the check says: {told}"
            self._next = self._clock() + self._pause * chance.uniform(0.8, 1.0)
            self._pause = min(LAST_CHECK, 2 * self._pause)
        return False

    def forgive(self) -> None:
        """Begin anew: the check succeeded, or a person says so."""
        self._row, self.note, self._pause = 0, "", FIRST_CHECK


def run_check(command: str) -> str:
    """Run the check; return "" where it succeeds, else the end of what it wrote."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=CHECK_TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return done.stdout.decode("utf-8", "replace").strip()[-200:] or f"exit code {done.returncode}"

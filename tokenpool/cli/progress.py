"""Shows how far something is: a bar on a terminal, a line every ten seconds in a log, nothing when asked to be quiet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from .output import duration
from .session import session_of

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Seconds between two lines in a log.
LOG_EVERY = 10.0


def live_terminal() -> bool:
    """Tell whether stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Meter:
    """A context manager; `advance` may be called very often."""

    def __init__(self, what: str, total: int) -> None:
        session = session_of()
        self.what, self.total, self.done = what, total, 0
        self.quiet = session.quiet or session.json
        self._note = ""
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Meter:
        if not self.quiet and live_terminal():
            self._progress = _bar()
            self._task = self._progress.add_task(self.what, total=self.total, note="", rate="")
            self._progress.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._progress is not None:
            self._show()
            self._progress.stop()

    def advance(self, by: int = 1, note: str | None = None) -> None:
        """Count what is finished; `note` says more."""
        self.set(self.done + by, note)

    def set(self, done: int, note: str | None = None, total: int | None = None) -> None:
        """Set what is finished; a `total` that changed is taken over."""
        self.done = done
        self.total = self.total if total is None else total
        self._note = self._note if note is None else note
        now = time.monotonic()
        # A million tokens must not be a million updates; a note tells of an event, after which nothing may come for long.
        if now - self._told >= (0.1 if self._progress is not None else LOG_EVERY) or (
            note and self._progress is not None
        ):
            self._told = now
            self._show()

    @property
    def rate(self) -> float:
        """Tokens finished in a second, so far."""
        return self.done / max(1e-6, time.monotonic() - self._began)

    def _show(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, completed=self.done, total=self.total, note=self._note, rate=f"{self.rate:.1f}/s"
            )
        elif not self.quiet:
            click.echo(self.line(), err=True)

    def line(self) -> str:
        """Return where it stands, as a line for a log."""
        left = self.total - self.done
        eta = f", about {duration(left / self.rate)} left" if self.rate > 0 and left > 0 else ""
        note = f" ({self._note})" if self._note else ""
        return f"{self.what}: {self.done} of {self.total}{note}, {self.rate:.1f}/s{eta}"


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        console=Console(stderr=True), refresh_per_second=8,
    )  # fmt: skip


def counts_note(counts: Mapping[str, int]) -> str:
    """Return the states that hold tokens, as words."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)

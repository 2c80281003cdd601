"""The verb `watch`: states, rate, what is left to do, who works, and what failed, again and again."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import click

from ..errors import ServerAway
from ..pool import Pool
from ..steering import WorkerInfo
from ..transitions import STATES
from .output import duration, number
from .progress import LOG_EVERY
from .session import Session, verb
from .types import DURATION
from .watched import History

OPEN = ("todo", "held", "locked")
#: Seconds over which the rate is taken.
RATE_OVER = 60.0
#: Failures that are told in JSON.
TOLD = 10


@verb("watch", "tokenpool watch", "tokenpool watch --batch night --interval 10s", "tokenpool watch --once")
@click.option("-b", "--batch", metavar="NAME", help="Only this batch.")
@click.option(
    "--interval", type=DURATION, default=2.0, show_default="2s", metavar="TIME", help="Time between two looks."
)
@click.option("--once", is_flag=True, help="Print one frame and leave.")
@click.pass_obj
def watch(session: Session, batch: str | None, interval: float, once: bool) -> None:
    """Watch the pool live.

    Leaves with Ctrl-C. It shows the states, what ended in the last five minutes, how busy each worker was, what it runs, and
    the last failures. Where standard output is no terminal, a line is printed every ten seconds; with --json, an object a
    line. The rate is that of the last minute.
    """
    with session.open() as pool:
        look = Look(pool, batch)
        if once:
            look.take()
            click.echo(json.dumps(look.as_json()) if session.json else look.line())
        elif session.json or not sys.stdout.isatty():
            while True:
                look.take()
                click.echo(json.dumps(look.as_json()) if session.json else look.line())
                sys.stdout.flush()
                time.sleep(interval if session.json else max(interval, LOG_EVERY))
        else:
            _live(look, interval)


class Look:
    """The counts and workers of a pool, how they change, and what failed."""

    def __init__(self, pool: Pool, batch: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.pool, self.batch = pool, batch
        self.counts: dict[str, int] = dict.fromkeys(STATES, 0)
        self.workers: list[WorkerInfo] = []
        self.rate = 0.0
        self.away = False
        self.history = History(pool.backend, batch)
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def take(self) -> None:
        """Look again; raises ServerAway at the first time only, later the last look stands."""
        now = self._clock()
        try:
            self.counts, self.workers = self.pool.counts(self.batch), self.pool.workers()
            self.history.take(now, self.counts, self.workers)
        except ServerAway:
            if not self._samples:
                raise
            self.away = True
            return
        self.away = False
        finished = self.counts["done"] + self.counts["error"]
        if self._samples and finished < self._samples[-1][1]:
            self._samples.clear()  # some were put back or deleted: no rate can be told of that
        self._samples.append((now, finished))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_OVER:
            self._samples.popleft()
        since, before = self._samples[0]
        self.rate = (finished - before) / (now - since) if now > since else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until all is finished, if it goes on like this."""
        waiting = sum(self.counts[state] for state in OPEN)
        return waiting / self.rate if self.rate > 0 and waiting else None

    @property
    def slots(self) -> tuple[int, int]:
        """Slots that run something, and all slots, of the workers that live."""
        alive = [worker for worker in self.workers if worker.alive]
        return sum(worker.slots - worker.free for worker in alive), sum(worker.slots for worker in alive)

    @property
    def eta(self) -> str:
        """What is left, in words, with a comma before."""
        return f", about {duration(self.left)} left" if self.left is not None else ""

    def line(self) -> str:
        """Return all of it as one line."""
        told = ", ".join(f"{self.counts[state]} {state}" for state in STATES)
        busy, slots = self.slots
        who = f"; {number(len(self.workers), 'worker')}, {busy} of {number(slots, 'slot')} busy" if self.workers else ""
        away = "; the pool is away" if self.away else ""
        return f"{time.strftime('%H:%M:%S')} {told}; {self.rate:.1f}/s{self.eta}{who}{away}"

    def as_json(self) -> dict[str, Any]:
        """Return all of it as an object."""
        return {
            "schema": 1,
            "pool": self.pool.url,
            "states": self.counts,
            "rate": round(self.rate, 3),
            "seconds_left": self.left,
            "away": self.away,
            "workers": [worker.as_json() for worker in self.workers],
            "failures": [failure.as_json() for failure in self.history.failures[:TOLD]],
        }


# --- on a terminal -------------------------------------------------------------------------------------------------------


def _live(look: Look, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from .frames import frame

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            look.take()
            live.update(frame(look, *console.size), refresh=True)
            time.sleep(interval)

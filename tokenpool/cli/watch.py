"""The verb `watch`: states, rate, what is left to do, and who works, again and again."""

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
from ..selectors import parse_time
from ..steering import WorkerInfo, doing
from ..transitions import STATES
from .output import COLORS, age, duration, number, one_line
from .progress import LOG_EVERY
from .session import Session, verb
from .types import DURATION
from .worker import COLORS as WORKER_COLORS

OPEN = ("todo", "held", "locked")
#: Seconds over which the rate is taken.
RATE_OVER = 60.0
#: Lines of a terminal that are not for workers, and the running tokens that are named of each.
OTHER_LINES, NAMED = 12, 3


@verb("watch", "tokenpool watch", "tokenpool watch --batch night --interval 10s", "tokenpool watch --once")
@click.option("-b", "--batch", metavar="NAME", help="Only this batch.")
@click.option(
    "--interval", type=DURATION, default=2.0, show_default="2s", metavar="TIME", help="Time between two looks."
)
@click.option("--once", is_flag=True, help="Print one frame and leave.")
@click.pass_obj
def watch(session: Session, batch: str | None, interval: float, once: bool) -> None:
    """Watch the pool live.

    Leaves with Ctrl-C. Where standard output is no terminal, a line is printed every ten seconds; with --json, an object a
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
    """The counts and workers of a pool, and how they change."""

    def __init__(self, pool: Pool, batch: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.pool, self.batch = pool, batch
        self.counts: dict[str, int] = dict.fromkeys(STATES, 0)
        self.workers: list[WorkerInfo] = []
        self.rate = 0.0
        self.away = False
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def take(self) -> None:
        """Look again; raises ServerAway at the first time only, later the last look stands."""
        try:
            self.counts, self.workers = self.pool.counts(self.batch), self.pool.workers()
        except ServerAway:
            if not self._samples:
                raise
            self.away = True
            return
        self.away = False
        now, finished = self._clock(), self.counts["done"] + self.counts["error"]
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
        }


# --- on a terminal -------------------------------------------------------------------------------------------------------


def _live(look: Look, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            look.take()
            live.update(_frame(look, max(1, console.size.height - OTHER_LINES)), refresh=True)
            time.sleep(interval)


def _frame(look: Look, rows: int) -> Any:
    """Return one frame, with at most so many workers."""
    from rich.console import Group

    where = look.pool.url + (f"  batch {look.batch}" if look.batch else "")
    parts = [_line(where, "italic"), _states(look)]
    told = f"{number(sum(look.counts.values()))}, {look.rate:.1f}/s{look.eta}"
    parts += [_line(f"{told}{'; THE POOL IS AWAY' if look.away else ''}; Ctrl-C leaves", "dim")]
    if look.workers:
        busy, slots = look.slots
        told = f"{number(len(look.workers), 'worker')}, {busy} of {number(slots, 'slot')} busy"
        parts += [_line(told, "italic"), _workers(look, rows)]
    return Group(*parts)


def _line(text: str, style: str) -> Any:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _states(look: Look) -> Any:
    """Return a bar for each state."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    total = max(1, sum(look.counts.values()))
    table = Table(box=None, show_header=False)
    for state in STATES:
        bar = ProgressBar(total=total, completed=look.counts[state], width=40, complete_style=COLORS[state])
        table.add_row(Text(state, style=COLORS[state]), Text(str(look.counts[state]), justify="right"), bar)
    return table


def _workers(look: Look, rows: int) -> Any:
    """Return a line for each worker, as far as there is room: where it is, how full, what it runs."""
    from rich.table import Table
    from rich.text import Text

    lines = [
        (worker.id[:15], one_line(worker.hostname), worker.state, f"{worker.held}/{worker.slots}", runs(worker))
        for worker in look.workers[:rows]
    ]
    table = Table(box=None)
    for place, title in enumerate(("worker", "host", "state", "slots", "runs")):
        # On a narrow terminal only what runs is cut.
        width = None if title == "runs" else max(len(line[place]) for line in [(title,) * 5, *lines])
        table.add_column(title, no_wrap=True, overflow="ellipsis", min_width=width)
    for line in lines:
        state = Text(line[2], style=WORKER_COLORS[line[2]])
        table.add_row(*map(Text, line[:2]), state, *map(Text, line[3:]))
    if len(look.workers) > rows:
        table.add_row(Text(f"and {len(look.workers) - rows} more"))
    return table


def runs(worker: WorkerInfo) -> str:
    """Return for how long a worker runs what, or why it runs nothing."""
    entries = [
        f"{age(parse_time(entry.get('since')))} {one_line(entry.get('command') or entry.get('token') or '?')}".lstrip()
        + (f" ({one_line(doing(entry))})" if doing(entry) else "")
        for entry in worker.running[:NAMED]
    ]
    more = [f"{worker.held - NAMED} more"] if worker.held > NAMED and len(worker.running) >= NAMED else []
    return "; ".join([*entries, *more]) or one_line(worker.note)

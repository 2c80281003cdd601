"""The verbs that look on: `wait` and `watch`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from ..errors import NotFound, OutOfSpace, TokenpoolError
from ..pool import Pool
from ..selectors import Selector, parse
from ..transitions import STATES
from .output import COLORS, duration, number, print_json, say
from .progress import LOG_EVERY, Meter, counts_note
from .session import Session, verb
from .types import DURATION, selectors

SOME_FAILED = 3
OPEN = ("todo", "held", "locked")
FAILED = ("error", "invalid")


class NotYet(TokenpoolError):
    """Tokens still wait or run after the time that was given."""

    exit_code = OutOfSpace.exit_code


@verb("wait", "tokenpool wait batch:night && make report", "tokenpool wait batch:night --timeout 2h")
@selectors()
@click.option("--timeout", type=DURATION, metavar="TIME", help="Give up after 90s, 2h; exit code 75.")
@click.pass_obj
def wait(session: Session, selector: tuple[str, ...], timeout: float | None) -> int:
    """Wait until tokens are finished.

    Ends when none of them waits or runs: exit code 0, or 3 if some failed.
    """
    chosen = parse(selector)
    with session.open() as pool:
        _refuse_unknown(pool, chosen)
        with Meter("waiting", 0) as meter:
            try:
                counts = pool.wait(chosen, timeout, progress=lambda counts: _show(meter, counts))
            except TimeoutError as error:
                raise NotYet(str(error), f"look at them: {session.command('list', *selector)}") from None
    if session.json:
        print_json({"schema": 1, "states": counts})
    else:
        say(f"finished: {counts_note(counts) or 'no token'}")
    return SOME_FAILED if any(counts[state] for state in FAILED) else 0


def _refuse_unknown(pool: Pool, selector: Selector) -> None:
    """A script that waits for a mistyped batch must not go on as if it were finished."""
    if selector.batches:
        known = pool.batches()
        for name in selector.batches:
            if name not in known:
                raise NotFound(f"there is no batch {name!r} in {pool.url}", "tokenpool status --batches")


def _show(meter: Meter, counts: Mapping[str, int]) -> None:
    total = sum(counts.values())
    meter.set(total - sum(counts[state] for state in OPEN), counts_note(counts), total)


# --- watch -------------------------------------------------------------------------------------------------------------


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
    line.
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
    """The counts of a pool, and how they change."""

    def __init__(self, pool: Pool, batch: str | None) -> None:
        self.pool, self.batch = pool, batch
        self.counts: dict[str, int] = dict.fromkeys(STATES, 0)
        self._first: tuple[float, int] | None = None
        self.rate = 0.0

    def take(self) -> None:
        """Look again."""
        self.counts = self.pool.counts(self.batch)
        now, finished = time.monotonic(), self.counts["done"] + self.counts["error"]
        if self._first is None or finished < self._first[1]:
            self._first = (now, finished)
        since, before = self._first
        self.rate = (finished - before) / (now - since) if now > since else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until all is finished, if it goes on like this."""
        waiting = sum(self.counts[state] for state in OPEN)
        return waiting / self.rate if self.rate > 0 and waiting else None

    def line(self) -> str:
        """Return all of it as one line."""
        told = ", ".join(f"{self.counts[state]} {state}" for state in STATES)
        eta = f", about {duration(self.left)} left" if self.left is not None else ""
        return f"{time.strftime('%H:%M:%S')} {told}; {self.rate:.1f}/s{eta}"

    def as_json(self) -> dict[str, Any]:
        """Return all of it as an object."""
        return {
            "schema": 1,
            "pool": self.pool.url,
            "states": self.counts,
            "rate": round(self.rate, 3),
            "seconds_left": self.left,
        }


def _live(look: Look, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            look.take()
            live.update(_frame(look), refresh=True)
            time.sleep(interval)


def _frame(look: Look) -> Any:
    """Return one frame: a bar for each state."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    total = max(1, sum(look.counts.values()))
    where = look.pool.url + (f"  batch {look.batch}" if look.batch else "")
    eta = f", about {duration(look.left)} left" if look.left is not None else ""
    frame = Table(
        title=where,
        title_justify="left",
        caption=f"{number(total)}, {look.rate:.1f}/s{eta}; Ctrl-C leaves",
        box=None,
        show_header=False,
    )
    for state in STATES:
        bar = ProgressBar(total=total, completed=look.counts[state], width=40, complete_style=COLORS[state])
        frame.add_row(Text(state, style=COLORS[state]), Text(str(look.counts[state]), justify="right"), bar)
    return frame

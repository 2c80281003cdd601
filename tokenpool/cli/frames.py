"""Draws what `watch` shows on a terminal: states, what ended lately, workers over time, and the last failures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..selectors import parse_time
from ..steering import WorkerInfo, doing
from ..transitions import STATES
from .output import COLORS, age, duration, number, one_line
from .watched import SPAN, Fell
from .worker import COLORS as WORKER_COLORS

if TYPE_CHECKING:
    from rich.text import Text

    from .watch import Look

#: Lines of a terminal that are not for workers, and the running tokens that are named of each.
OTHER_LINES, NAMED = 12, 3
#: Lines for failures, and the lines that a terminal must have for them.
FAILURES, TALL = 5, 24
#: Columns that a terminal must have for charts, and those of a chart.
WIDE, COLUMNS = 100, 30
BLOCKS = " ▁▂▃▄▅▆▇█"


def frame(look: Look, width: int, height: int) -> Any:
    """Return one frame for a terminal of this size."""
    from rich.console import Group

    failures = look.history.failures[: FAILURES if height >= TALL else 0]
    rows = max(1, height - OTHER_LINES - (len(failures) + 1 if failures else 0))
    where = look.pool.url + (f"  batch {look.batch}" if look.batch else "")
    parts = [_line(where, "italic"), _top(look, width)]
    told = f"{number(sum(look.counts.values()))}, {look.rate:.1f}/s{look.eta}"
    parts += [_line(f"{told}{'; THE POOL IS AWAY' if look.away else ''}; Ctrl-C leaves", "dim")]
    if look.workers:
        busy, slots = look.slots
        told = f"{number(len(look.workers), 'worker')}, {busy} of {number(slots, 'slot')} busy"
        parts += [_line(told, "italic"), _workers(look, rows, width)]
    if failures:
        parts += [_line("last failures", "italic"), _failures(failures)]
    return Group(*parts)


def _line(text: str, style: str) -> Any:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _top(look: Look, width: int) -> Any:
    """Return the states, and beside them what ended in the last minutes where there is room."""
    from rich.table import Table

    if width < WIDE:
        return _states(look, 40)
    both = Table.grid(padding=(0, 2))
    both.add_row(_states(look, min(40, width - 70)), _ended(look))
    return both


def _states(look: Look, width: int) -> Any:
    """Return a bar for each state."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    total = max(1, sum(look.counts.values()))
    table = Table(box=None, show_header=False)
    for state in STATES:
        bar = ProgressBar(total=total, completed=look.counts[state], width=width, complete_style=COLORS[state])
        table.add_row(Text(state, style=COLORS[state]), Text(str(look.counts[state]), justify="right"), bar)
    return table


def _ended(look: Look) -> Any:
    """Return columns of what ended in the last minutes: failed ones at their foot, done ones above."""
    from rich.text import Text

    lines = len(STATES) - 1
    columns = look.history.ended(COLUMNS)
    most = max([done + failed for done, failed in columns] + [1.0])
    shown = Text(no_wrap=True)
    for line in range(lines - 1, -1, -1):
        cells = []
        for done, failed in columns:
            level, red = (done + failed) / most * lines, failed / most * lines
            block = BLOCKS[max(0, min(8, round((level - line) * 8)))]
            cells.append((block, COLORS["error"] if red > line + 0.25 else COLORS["done"]))
        _append(shown, cells)
        shown.append(f" {round(most)}\n" if line == lines - 1 else "\n")
    shown.append(f"done and failed, last {duration(SPAN)}", style="dim")
    return shown


def _workers(look: Look, rows: int, width: int) -> Any:
    """Return a line for each worker, as far as there is room: where it is, how full it is and was, what it runs."""
    from rich.table import Table
    from rich.text import Text

    lines = [
        (worker.id[:15], one_line(worker.hostname), worker.state, f"{worker.held}/{worker.slots}", runs(worker))
        for worker in look.workers[:rows]
    ]
    chart = width >= WIDE
    table = Table(box=None)
    for place, title in enumerate(("worker", "host", "state", "slots", "runs")):
        if chart and title == "runs":
            table.add_column(f"last {duration(SPAN)}", no_wrap=True, min_width=COLUMNS)
        # On a narrow terminal only what runs is cut.
        widest = None if title == "runs" else max(len(line[place]) for line in [(title,) * 5, *lines])
        table.add_column(title, no_wrap=True, overflow="ellipsis", min_width=widest)
    for worker, line in zip(look.workers, lines):
        state = Text(line[2], style=WORKER_COLORS[line[2]])
        busy = [_busy(look, worker)] if chart else []
        table.add_row(*map(Text, line[:2]), state, Text(line[3]), *busy, Text(line[4]))
    if len(look.workers) > rows:
        table.add_row(Text(f"and {len(look.workers) - rows} more"))
    return table


def _busy(look: Look, worker: WorkerInfo) -> Any:
    """Return how busy a worker was: a block for each piece of time, a dot where it was idle."""
    from rich.text import Text

    cells = []
    for share in look.history.busy(worker.id, COLUMNS):
        # Idle is drawn, so that one sees since when the worker is there.
        block = " " if share is None else "·" if share == 0 else BLOCKS[max(1, round(share * 8))]
        cells.append((block, "dim" if block == "·" else COLORS["locked"]))
    shown = Text(no_wrap=True)
    _append(shown, cells)
    return shown


def _append(shown: Text, cells: Sequence[tuple[str, str]]) -> None:
    """Append characters with their styles, neighbours of one style together: a slow line is soon full of styles."""
    for style, some in groupby(cells, key=lambda cell: "" if cell[0] == " " else cell[1]):
        shown.append("".join(block for block, _ in some), style=style or None)


def _failures(failures: Sequence[Fell]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for title in ("age", "token", "host", "why"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for each in failures:
        why = Text(each.why, style=COLORS["error"])
        table.add_row(
            Text(age(each.when or None), style="dim"), Text(one_line(each.token)), Text(one_line(each.host)), why
        )
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

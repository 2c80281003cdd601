"""Draws what happened when: runs that ended, runs at a time, and who ran them, one above the other on the same axis."""

from __future__ import annotations

from collections.abc import Sequence

from . import words
from .bins import Clock, Series
from .charts import NAMES, grid, legend, svg
from .facts import Facts
from .lanes import Row, stacked
from .markup import Html, figure, join, table, tag
from .runs import KINDS

WIDTH, LEFT, RIGHT = 980, 132, 12
#: Rows of the chart of workers, and of its table.
MOST_ROWS, MOST_TABLE = 60, 100
#: Lanes that are drawn one by one; with more, a row is one line.
MOST_LANES = 160
#: Shades of a row that tells only how busy it was.
SHADES = 5


class Axis:
    """Time from left to right."""

    def __init__(self, clock: Clock) -> None:
        self.pieces = clock.pieces
        self.first = clock.start_of(self.pieces.start)
        self.last = clock.start_of(self.pieces.stop)
        self.width = clock.width

    def x(self, when: float) -> float:
        """Return where a time is."""
        share = (when - self.first) / max(1e-9, self.last - self.first)
        return LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT)

    def marks(self, top: float, bottom: float, labels: bool) -> Html:
        """Return lines down a chart, with times below if asked for."""
        drawn = []
        for when, label in words.ticks(self.first, self.last):
            x = self.x(when)
            drawn.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, cls="grid"))
            if labels:
                drawn.append(tag("text", label, x=x, y=bottom + 16, text_anchor="middle"))
        return tag("g", drawn, aria_hidden="true")

    def merged(self, series: Series, most: int) -> tuple[float, list[float]]:
        """Return a series in at most so many pieces, and the seconds of one."""
        together = max(1, -(-len(self.pieces) // most))
        sums = [0.0] * -(-len(self.pieces) // together)
        for at, amount in series.items():
            sums[(at - self.pieces.start) // together] += amount
        return self.width * together, sums


def throughput(facts: Facts) -> Html:
    """Return how many runs ended in each piece of time, by how they ended."""
    axis, kinds = Axis(facts.clock), [kind for kind in KINDS if facts.ended[kind]]
    # Few runs in many pieces would show only chance.
    pieces = int(min(120, max(30, sum(sum(facts.ended[kind].values()) for kind in kinds) / 6)))
    merged = {kind: axis.merged(facts.ended[kind], pieces) for kind in kinds}
    width = next((each[0] for each in merged.values()), 1.0)
    unit, per = _unit(max((sum(each) for each in zip(*(m[1] for m in merged.values()))), default=0.0) / width)
    columns = list(zip(*(merged[kind][1] for kind in kinds)))
    most = words.round_up(max((sum(column) for column in columns), default=1.0) / width * per)
    top, high = 12, 150
    step = (axis.x(axis.first + width) - LEFT) if columns else 0.0
    paths = _stacks(columns, kinds, step, top, high, most * width / per)
    drawn = [axis.marks(top, top + high, True), grid(most, LEFT, WIDTH - RIGHT, top, high), paths]
    drawn.append(tag("text", f"runs / {unit}", x=8, y=top + 8, cls="axis"))
    drawing = svg(drawn, WIDTH, top + high + 24, "Runs that ended, over time")
    data = _table_of_times(facts, axis, kinds)
    best = max(merged["done"][1]) / width if "done" in merged else 0.0
    mean = facts.all.runs["done"] / facts.wall if facts.wall else 0.0
    note = f"Done: {words.rate(mean)} on average, {words.rate(best)} at best."
    return figure("Runs that ended.", tag("div", legend(kinds), drawing), data, note)


def _stacks(
    columns: Sequence[Sequence[float]], kinds: Sequence[str], step: float, top: float, high: float, most: float
) -> Html:
    """Return stacked bars, one path for each kind: a million tokens make as long a page as a hundred."""
    paths = dict.fromkeys(kinds, "")
    for place, column in enumerate(columns):
        x, y = LEFT + place * step, top + high
        for kind, amount in zip(kinds, column):
            tall = amount / most * high
            if amount:
                y -= tall
                right = min(step * 0.9, WIDTH - RIGHT - x)
                paths[kind] += f"M{x:.1f} {y:.1f}h{right:.1f}v{tall:.1f}h-{right:.1f}z"
    return tag("g", [tag("path", d=path, cls=kind) for kind, path in paths.items() if path])


def _unit(per_second: float) -> tuple[str, float]:
    return next(
        ((unit, per) for unit, per in (("s", 1.0), ("min", 60.0), ("h", 3600.0)) if per_second * per >= 5),
        ("h", 3600.0),
    )


def _table_of_times(facts: Facts, axis: Axis, kinds: Sequence[str]) -> Html:
    merged = {kind: axis.merged(facts.ended[kind], 40)[1] for kind in kinds}
    width, busy = axis.merged(facts.busy, 40)
    rows = [
        [words.moment(axis.first + place * width), *(words.count(merged[kind][place]) for kind in kinds),
         words.figure(round(seconds / width, 2))]
        for place, seconds in enumerate(busy)
    ]  # fmt: skip
    return table("Runs over time", ["from (UTC)", *(NAMES[kind] for kind in kinds), "running on average"], rows)


def at_a_time(facts: Facts) -> Html:
    """Return how many ran at a time."""
    axis = Axis(facts.clock)
    width, sums = axis.merged(facts.busy, 240)
    levels = [seconds / width for seconds in sums]
    most, top, high = words.round_up(max(levels, default=1.0)), 12, 80
    step = axis.x(axis.first + width) - LEFT
    path = f"M{LEFT} {top + high}"
    for place, level in enumerate(levels):
        path += f"V{top + high - level / most * high:.1f}H{min(LEFT + (place + 1) * step, WIDTH - RIGHT):.1f}"
    drawn = [axis.marks(top, top + high, True), grid(most, LEFT, WIDTH - RIGHT, top, high)]
    drawn.append(tag("path", d=f"{path}V{top + high}z", cls="running"))
    drawn.append(tag("text", "runs", x=8, y=top + 8, cls="axis"))
    mean = facts.all.used / facts.wall if facts.wall else 0.0
    rows = [[words.moment(axis.first + place * wide), words.figure(round(seconds / wide, 2))]
            for wide, found in [axis.merged(facts.busy, 40)] for place, seconds in enumerate(found)]  # fmt: skip
    data = table("Runs at a time", ["from (UTC)", "runs at a time"], rows)
    note = f"{words.figure(round(mean, 1))} on average, {words.figure(round(max(levels, default=0.0), 1))} at most."
    return figure("Runs at a time.", svg(drawn, WIDTH, top + high + 24, "Runs at a time, over time"), data, note)


# --- who ran what --------------------------------------------------------------------------------------------------


def workers(facts: Facts) -> Html:
    """Return the chart of workers over time: a bar for each run, or how busy each row was."""
    axis, lanes = Axis(facts.clock), facts.lanes
    exact = lanes.exact and len(lanes.rows) <= MOST_ROWS
    lanes.shrink(MOST_ROWS)
    rows = lanes.rows
    drawn, bottom = (_bars if exact and lanes.exact else _shades)(rows, axis)
    drawing = svg([axis.marks(8, bottom, True), *drawn], WIDTH, bottom + 24, "Which worker ran what, over time")
    who = "worker" if lanes.letters is None else "host" if all(row.host == row.name for row in rows) else "hosts"
    kinds = [kind for kind in KINDS if any(bar.kind == kind for row in rows for bar in row.bars)]
    note = "A bar is a run." if kinds else "The darker, the more runs at a time."
    if lanes.letters is not None:
        note += f" There are too many workers to draw each: a row is {'a host' if who == 'host' else 'hosts whose names begin alike'}."
    shown = tag("div", legend(kinds) if kinds else None, drawing)
    return figure("Who ran what, when.", shown, _table_of_rows(rows, who), note)


def _label(row: Row, x: float, y: float) -> Html:
    name = row.name[7:13] if row.name.startswith("worker_") else ""
    told = f"{row.host} {name}".strip() if row.name == row.host or name else row.name
    shown = told if len(told) <= 18 else f"{told[:17]}…"
    return tag("text", tag("title", f"{row.name} on {row.host}"), shown, x=x, y=y, text_anchor="end")


def _bars(rows: Sequence[Row], axis: Axis) -> tuple[list[Html], float]:
    """Return every run as a bar, in lanes by worker."""
    placed = [stacked(row.bars) for row in rows]
    lanes = [max((bar.lane for bar in bars), default=0) + 1 for bars in placed]
    if sum(lanes) > MOST_LANES:
        return _shades(rows, axis)
    tall = min(14.0, max(4.0, 420 / max(1, sum(lanes))))
    drawn, y = [], 8.0
    for row, bars, number in zip(rows, placed, lanes):
        block = max(number * tall, 12.0)
        drawn.append(tag("rect", x=LEFT, y=y, width=WIDTH - LEFT - RIGHT, height=block, cls="lane"))
        drawn.append(_label(row, LEFT - 8, y + block / 2 + 4))
        for bar in bars:
            x, end = axis.x(bar.start), axis.x(bar.end)
            told = f"{bar.token}: {NAMES[bar.kind]}, {words.span(bar.end - bar.start)}, from {words.moment(bar.start)[11:]}"
            drawn.append(
                tag("rect", tag("title", told), x=x, y=y + bar.lane * tall + 0.5, width=max(0.8, end - x - 0.3),
                    height=tall - 1, cls=bar.kind)
            )  # fmt: skip
        y += block + 5
    return drawn, y


def _shades(rows: Sequence[Row], axis: Axis) -> tuple[list[Html], float]:
    """Return how busy each row was in each piece of time, in few shades, neighbours drawn as one."""
    most = max((seconds for row in rows for seconds in row.busy.values()), default=1.0)
    tall = 16.0 if len(rows) <= 30 else 11.0
    paths = [""] * SHADES
    drawn, y = [], 8.0
    for row in rows:
        drawn.append(
            tag("rect", tag("title", _told(row)), x=LEFT, y=y, width=WIDTH - LEFT - RIGHT, height=tall, cls="lane")
        )
        drawn.append(_label(row, LEFT - 8, y + tall - 4))
        shade, since = -1, axis.pieces.start
        for at in [*axis.pieces, axis.pieces.stop]:
            seconds = row.busy.get(at, 0.0)
            now = min(SHADES - 1, int(seconds / most * SHADES)) if seconds else -1
            if now != shade or at == axis.pieces.stop:
                if shade >= 0:
                    x, end = axis.x(since * axis.width), axis.x(at * axis.width)
                    paths[shade] += f"M{x:.1f} {y + 0.5:.1f}h{max(0.8, end - x):.1f}v{tall - 1:.1f}H{x:.1f}z"
                shade, since = now, at
        y += tall + 3
    drawn += [
        tag("path", d=path, cls="busy", opacity=f"{0.25 + 0.75 * place / (SHADES - 1):.2f}", pointer_events="none")
        for place, path in enumerate(paths) if path
    ]  # fmt: skip
    return drawn, y


def _told(row: Row) -> str:
    return f"{row.name}: {words.count(row.runs)} runs, {words.count(row.failed)} failed, {words.hours(row.seconds)}"


def _table_of_rows(rows: Sequence[Row], who: str) -> Html:
    most = sorted(rows, key=lambda row: -row.seconds)[:MOST_TABLE]
    cells = [
        [row.name, row.host, words.count(row.runs), words.count(row.failed), words.hours(row.seconds),
         words.figure(round(row.seconds / max(1.0, row.last - row.first), 2)), words.moment(row.first), words.moment(row.last)]
        for row in most
    ]  # fmt: skip
    titles = [who, "host", "runs", "failed", "run time", "at a time", "from (UTC)", "to (UTC)"]
    return table("Who ran what", titles, cells, words=(0, 1))


def section(facts: Facts) -> Html:
    """Return all charts over time."""
    if not facts.all.last:
        return tag("p", "Nothing has run yet, as far as these tokens tell.")
    return join([throughput(facts), at_a_time(facts), workers(facts)])

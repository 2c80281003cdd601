"""Draws the charts of the pages as SVG, here on the server: colours are classes, so that the style sheet has them all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from markupsafe import Markup, escape

from .. import transitions
from .bars import Bar
from .filters import duration, number, part
from .series import Point

WIDTH = 1000
#: How high the worker chart may be, the least height of a worker's row, which has its name, and of lanes: as high as fit.
TALL, ROW, LANES = 800, 15, (16, 12, 9, 6, 4)
#: Bars narrower than this are drawn together, without a title of their own.
NARROW = 4
#: Letters of a host's name beside its row.
LETTERS = 13
#: Bars that have a title and a link; what is above is drawn without.
TITLED = 400
#: Lines of a time axis, at most, and the seconds between two of them.
LINES = 8
TICKS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 3 * 3600, 6 * 3600, 12 * 3600)


def share_bar(counts: Mapping[str, int], label: str) -> Markup:
    """Return one bar that shows which share of tokens is in which state."""
    total = sum(counts.values())
    told = ", ".join(f"{number(counts[state])} {state}" for state in transitions.STATES if counts.get(state))
    parts: list[Markup] = []
    at = 0.0
    order = ("done", "error", "invalid", "locked", "todo", "held")
    for state in order:
        count = counts.get(state, 0)
        if count:
            # What is there is seen, however few.
            width = max(count / total * WIDTH, 6)
            parts.append(Markup('<rect class="s-{}" x="{:.1f}" width="{:.1f}" height="10"/>').format(state, at, width))
            at += width
    return Markup(
        '<svg class="share" viewBox="0 0 {:.0f} 10" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(max(at, WIDTH), f"{label}: {told or 'no tokens'}", Markup("").join(parts))


# --- what ended when -----------------------------------------------------------------------------------------------


def throughput(points: Sequence[Point], seconds: float) -> Markup:
    """Return columns of what was done and what failed over time."""
    height, top = 140, max((point.done + point.failed for point in points), default=0.0)
    step = points[1].when - points[0].when if len(points) > 1 else 1.0
    most = _round_up(top)
    width = WIDTH / max(1, len(points))
    shapes: list[Markup] = []
    for i, point in enumerate(points):
        base = float(height)
        for count, name in ((point.done, "done"), (point.failed, "error")):
            tall = count / most * height if most else 0
            if count > 0.005:
                base -= tall
                shapes.append(
                    Markup('<rect class="s-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                        name, i * width, base, max(1.0, width - 1), max(1.0, tall)
                    )
                )
    done, failed = sum(point.done for point in points), sum(point.failed for point in points)
    label = f"In the last {duration(seconds)}: {number(done)} done, {number(failed)} failed"
    start = points[0].when if points else 0.0
    span = step * len(points) if points else seconds
    grid = _grid(start, span, height) + Markup("").join(
        Markup('<line class="grid" x1="0" x2="{0}" y1="{1:.1f}" y2="{1:.1f}"/>').format(WIDTH, height * share)
        for share in (0.005, 0.5, 0.995)
    )
    svg = Markup(
        '<svg class="columns" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>'
    )
    drawn = svg.format(WIDTH, height, label, grid, Markup("").join(shapes))
    top_label = f"{most:g} in {duration(step)}" if most else ""
    caption = Markup(
        'In the last {}: <span class="swatch s-done"></span> {} done, <span class="swatch s-error"></span> {} failed'
    ).format(duration(seconds), number(done), number(failed))
    return Markup(
        '<figure class="chart"><div class="axis-y" aria-hidden="true"><span>{}</span><span>0</span></div>{}'
        "<div></div>{}<figcaption>{}</figcaption></figure>"
    ).format(top_label, drawn, _times(start, span) if points else "", caption)


def _round_up(value: float) -> float:
    """Return the next number that reads well.

    >>> [_round_up(value) for value in (0, 0.3, 3, 17, 230)]
    [0, 1, 5, 20, 500]
    """
    if value <= 0:
        return 0
    power: float = 10 ** math.floor(math.log10(value))
    return max(1, next(power * step for step in (1, 2, 5, 10) if power * step >= value))


def _times(start: float, seconds: float) -> Markup:
    """Return a time axis: whole minutes or hours, each below its line."""
    # What would hang over the edge is left out.
    shown = [(x, moment) for x, moment in _ticks(start, seconds) if 0.01 * WIDTH <= x <= 0.97 * WIDTH]
    return Markup('<svg class="axis-x" height="18" aria-hidden="true">{}</svg>').format(
        Markup("").join(
            Markup('<text class="hour" x="{:.2f}%" y="13" datetime="{}">{}</text>').format(
                x / WIDTH * 100, _utc(each, "%Y-%m-%dT%H:%M:%SZ"), _utc(each, "%H:%M:%S" if seconds < 300 else "%H:%M")
            )
            for x, each in shown
        )
    )


def _ticks(start: float, seconds: float) -> list[tuple[float, float]]:
    """Return where the lines of a time axis stand, and which moments they are."""
    step = next((each for each in TICKS if seconds / each <= LINES), 86400)
    first = math.ceil(start / step) * step
    moments = [float(first + i * step) for i in range(int(seconds // step) + 1)]
    return [((each - start) / seconds * WIDTH, each) for each in moments if each <= start + seconds]


def _utc(moment: float, spelling: str) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime(spelling)


# --- what ran where --------------------------------------------------------------------------------------------------


def gantt(bars: Sequence[Bar], now: float, seconds: float, root: str, start: float | None = None) -> Markup:
    """Return the chart of workers and time: a lane for each slot, a bar for each run, coloured by kind and outcome."""
    start = now - seconds if start is None else start
    rows = _rows(bars, now)
    lane = _lane_height(rows)
    body: list[Markup] = []
    labels: list[Markup] = []
    titled, height, drawn_rows = TITLED, 0, 0
    for name, lanes in rows:
        tall = max(ROW, min(len(lanes) * lane, TALL))
        if height + tall > TALL and drawn_rows:
            break
        drawn_rows += 1
        labels.append(
            Markup('<text x="0" y="{}">{}<title>{}</title></text>').format(
                height + 12, _shortened(name), " · ".join(name)
            )
        )
        if height:
            body.append(Markup('<line class="row" x1="0" x2="{0}" y1="{1}" y2="{1}"/>').format(WIDTH, height))
        deep = max(lane, ROW // len(lanes))
        for i, runs in enumerate(lanes[: TALL // deep]):
            drawn, used = _lane(runs, height + i * deep, deep, start, now, seconds, root, titled)
            body.append(drawn)
            titled -= used
        height += tall
    height = max(height, ROW)
    left = len(rows) - drawn_rows
    label = f"{_count(len(bars), 'run')} by {_count(len(rows), 'worker')} in the last {duration(seconds)}"
    more = f"; {_count(left, 'more worker')} not drawn" if left else ""
    return Markup(
        '<figure class="gantt"><div class="scroll" tabindex="0" role="group" aria-label="Chart: {}">'
        '<div class="gantt-in"><svg class="lanes" height="{}" aria-hidden="true">{}</svg>'
        '<svg viewBox="0 0 {} {}" height="{}" preserveAspectRatio="none" role="group" aria-label="{}">{}</svg>'
        '<div class="lanes"></div>{}</div></div><figcaption>{}</figcaption></figure>'
    ).format(
        label,
        height,
        Markup("").join(labels),
        WIDTH,
        height,
        height,
        label,
        _grid(start, seconds, height) + Markup("").join(body),
        _times(start, seconds),
        label + more,
    )


def _lane_height(rows: Sequence[tuple[tuple[str, str], list[list[Bar]]]]) -> int:
    """Return how high a lane may be so that all workers are seen, if that can be."""
    return next((each for each in LANES if sum(max(ROW, len(lanes) * each) for _, lanes in rows) <= TALL), LANES[-1])


def _shortened(name: tuple[str, str]) -> str:
    """Return the name of a worker as it stands beside its row: the host without its domain, its middle left out.

    >>> _shortened(("node1.example.org", "ab12cd")), _shortened(("compute-large-0017", "ab12cd")), _shortened(("n1", ""))
    ('node1 · ab12cd', 'comput…e-0017 · ab12cd', 'n1')
    """
    host, mark = name
    word = host if host.replace(".", "").isdigit() else host.partition(".")[0]
    if len(word) > LETTERS:
        word = f"{word[: LETTERS // 2]}…{word[-(LETTERS // 2) :]}"
    return f"{word} · {mark}" if mark else word


def _count(value: int, what: str) -> str:
    return f"{number(value)} {what}{'' if value == 1 else 's'}"


def _rows(bars: Sequence[Bar], now: float) -> list[tuple[tuple[str, str], list[list[Bar]]]]:
    """Return the host, the mark and the lanes of each worker: a run is put into the first one that is free when it begins."""
    by_worker: dict[tuple[str, str], list[Bar]] = defaultdict(list)
    for bar in bars:
        by_worker[bar.host or "unknown host", bar.worker].append(bar)
    rows = []
    for (host, worker), runs in sorted(by_worker.items()):
        lanes: list[list[Bar]] = []
        for bar in sorted(runs, key=lambda each: each.start):
            # Times are whole seconds: one that begins in the second in which another ends is not beside it.
            free = next(
                (lane for lane in lanes if (lane[-1].end or now) <= bar.start + 1.0 and lane[-1].end is not None), None
            )
            if free is None:
                lanes.append([bar])
            else:
                free.append(bar)
        rows.append(((host, worker[len("worker_") :][:6]), lanes))
    return rows


def _lane(
    runs: Sequence[Bar], top: int, lane: int, start: float, now: float, seconds: float, root: str, titled: int
) -> tuple[Markup, int]:
    """Return the bars of one lane, and how many of them have a title."""
    shapes: list[Markup] = []
    narrow: dict[str, list[str]] = defaultdict(list)
    used = 0
    y, tall = top + lane / 8, lane * 0.75
    for bar in runs:
        x = (max(bar.start, start) - start) / seconds * WIDTH
        width = max(1.5, ((bar.end or now) - max(bar.start, start)) / seconds * WIDTH)
        look = f"k-{bar.kind} r-{bar.state}"
        if width < NARROW or used >= titled:
            narrow[look].append(f"M{x:.1f} {y:g}h{width:.1f}v{tall:g}h-{width:.1f}z")
            continue
        used += 1
        told = f"{bar.name} · {bar.batch or 'no batch'} · {bar.state} · {duration((bar.end or now) - bar.start)}"
        shapes.append(
            Markup(
                '<a href="{}/tokens/{}" tabindex="-1"><title>{}</title>'
                '<rect class="{}" x="{:.1f}" y="{:g}" width="{:.1f}" height="{:g}" rx="2"/></a>'
            ).format(root, part(bar.token), told, look, x, y, width, tall)
        )
    paths = [Markup('<path class="{}" d="{}"/>').format(look, "".join(shape)) for look, shape in narrow.items()]
    return Markup("").join([*paths, *shapes]), used


def _grid(start: float, seconds: float, height: int) -> Markup:
    """Return the lines of a time axis."""
    return Markup("").join(
        Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>').format(x, height)
        for x, _ in _ticks(start, seconds)
    )


def attempts_line(spans: Sequence[tuple[float, float, str]], label: str) -> Markup:
    """Return the attempts of one token on a line: (start, end, outcome) each."""
    if not spans:
        return Markup("")
    start, end = min(each[0] for each in spans), max(each[1] for each in spans)
    whole = end - start
    shapes = [
        Markup('<rect class="r-{}" x="{:.1f}" y="2" width="{:.1f}" height="16" rx="2"><title>{}</title></rect>').format(
            state,
            (first - start) / whole * WIDTH if whole else 0,
            # What began and ended in one moment is as wide as the line.
            max(3.0, (last - first) / whole * WIDTH) if whole else WIDTH,
            f"{state}, {duration(last - first)}",
        )
        for first, last, state in spans
    ]
    return Markup(
        '<svg class="attempts" viewBox="0 0 {} 20" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, escape(label), Markup("").join(shapes))

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
#: Lanes of the worker chart, and their height; bars narrower than this are drawn together, without a title of their own.
LANES, LANE, NARROW = 48, 16, 4
#: Bars that have a title and a link; what is above is drawn without.
TITLED = 400
#: Seconds between two lines of a time axis.
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
    grid = Markup("").join(
        Markup('<line class="grid" x1="0" x2="{0}" y1="{1:.1f}" y2="{1:.1f}"/>').format(WIDTH, height * share)
        for share in (0.005, 0.5, 0.995)
    )
    svg = Markup(
        '<svg class="columns" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>'
    )
    drawn = svg.format(WIDTH, height, label, grid, Markup("").join(shapes))
    top_label = f"{most:g} in {duration(step)}" if most else ""
    return Markup(
        '<figure class="chart"><div class="axis-y" aria-hidden="true"><span>{}</span><span>0</span></div>{}'
        '<div class="axis-x" aria-hidden="true">{}</div><figcaption>{}</figcaption></figure>'
    ).format(top_label, drawn, _times(points[0].when, seconds) if points else "", label)


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
    """Return five moments of a time axis."""
    moments = [start + seconds * share for share in (0, 0.25, 0.5, 0.75, 1)]
    return Markup("").join(
        Markup('<time class="hour" datetime="{}">{}</time>').format(
            _utc(each, "%Y-%m-%dT%H:%M:%SZ"), _utc(each, "%H:%M:%S" if seconds < 900 else "%H:%M")
        )
        for each in moments
    )


def _utc(moment: float, spelling: str) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime(spelling)


# --- what ran where --------------------------------------------------------------------------------------------------


def gantt(bars: Sequence[Bar], now: float, seconds: float, root: str) -> Markup:
    """Return the chart of workers and time: a lane for each slot, a bar for each run, coloured by kind and outcome."""
    start = now - seconds
    rows = _rows(bars, start, now)
    shown: list[tuple[str, list[list[Bar]]]] = []
    count = 0
    for name, lanes in rows:
        if count + len(lanes) > LANES and shown:
            break
        shown.append((name, lanes[:LANES]))
        count += min(len(lanes), LANES)
    left = len(rows) - len(shown)
    height = max(1, count) * LANE
    body: list[Markup] = [_grid(start, seconds, height)]
    labels: list[Markup] = []
    titled, lane = TITLED, 0
    for name, lanes in shown:
        labels.append(Markup('<span class="lane-{}" title="{}">{}</span>').format(min(len(lanes), LANES), name, name))
        if lane:
            body.append(
                Markup('<line class="row" x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDTH, lane * LANE, lane * LANE)
            )
        for runs in lanes:
            drawn, used = _lane(runs, lane * LANE, start, now, seconds, root, titled)
            body.append(drawn)
            titled -= used
            lane += 1
    label = f"{_count(len(bars), 'run')} by {_count(len(rows), 'worker')} in the last {duration(seconds)}"
    more = f"; {_count(left, 'more worker')} not drawn" if left else ""
    return Markup(
        '<figure class="gantt"><div class="scroll" tabindex="0" role="group" aria-label="Chart: {}">'
        '<div class="gantt-in"><div class="lanes" aria-hidden="true">{}</div>'
        '<svg viewBox="0 0 {} {}" height="{}" preserveAspectRatio="none" role="group" aria-label="{}">{}</svg>'
        '<div></div><div class="axis-x" aria-hidden="true">{}</div></div></div><figcaption>{}</figcaption></figure>'
    ).format(
        label,
        Markup("").join(labels),
        WIDTH,
        height,
        height,
        label,
        Markup("").join(body),
        _times(start, seconds),
        label + more,
    )


def _count(value: int, what: str) -> str:
    return f"{number(value)} {what}{'' if value == 1 else 's'}"


def _rows(bars: Sequence[Bar], start: float, now: float) -> list[tuple[str, list[list[Bar]]]]:
    """Return the lanes of each worker: a run is put into the first one that is free when it begins."""
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
        mark = worker[len("worker_") :][:6]
        rows.append((f"{host} · {mark}" if mark else host, lanes))
    return rows


def _lane(
    runs: Sequence[Bar], y: int, start: float, now: float, seconds: float, root: str, titled: int
) -> tuple[Markup, int]:
    """Return the bars of one lane, and how many of them have a title."""
    shapes: list[Markup] = []
    narrow: dict[str, list[str]] = defaultdict(list)
    used = 0
    for bar in runs:
        x = (max(bar.start, start) - start) / seconds * WIDTH
        width = max(1.5, ((bar.end or now) - max(bar.start, start)) / seconds * WIDTH)
        look = f"k-{bar.kind} r-{bar.state}"
        if width < NARROW or used >= titled:
            narrow[look].append(f"M{x:.1f} {y + 2}h{width:.1f}v{LANE - 4}h-{width:.1f}z")
            continue
        used += 1
        told = f"{bar.name} · {bar.batch or 'no batch'} · {bar.state} · {duration((bar.end or now) - bar.start)}"
        shapes.append(
            Markup(
                '<a href="{}/tokens/{}" tabindex="-1"><title>{}</title>'
                '<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}" rx="2"/></a>'
            ).format(root, part(bar.token), told, look, x, y + 2, width, LANE - 4)
        )
    paths = [Markup('<path class="{}" d="{}"/>').format(look, "".join(shape)) for look, shape in narrow.items()]
    return Markup("").join([*paths, *shapes]), used


def _grid(start: float, seconds: float, height: int) -> Markup:
    """Return the lines of a time axis: at whole minutes or hours, not more than ten."""
    step = next((each for each in TICKS if seconds / each <= 10), 86400)
    first = math.ceil(start / step) * step
    places = [(first + i * step - start) / seconds * WIDTH for i in range(int(seconds // step) + 1)]
    return Markup("").join(
        Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>').format(x, height)
        for x in places
        if 0 <= x <= WIDTH
    )


def attempts_line(spans: Sequence[tuple[float, float, str]], label: str) -> Markup:
    """Return the attempts of one token on a line: (start, end, outcome) each."""
    if not spans:
        return Markup("")
    start, end = min(each[0] for each in spans), max(each[1] for each in spans)
    whole = max(1.0, end - start)
    shapes = [
        Markup('<rect class="r-{}" x="{:.1f}" y="2" width="{:.1f}" height="16" rx="2"><title>{}</title></rect>').format(
            state,
            (first - start) / whole * WIDTH,
            max(3.0, (last - first) / whole * WIDTH),
            f"{state}, {duration(last - first)}",
        )
        for first, last, state in spans
    ]
    return Markup(
        '<svg class="attempts" viewBox="0 0 {} 20" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, escape(label), Markup("").join(shapes))

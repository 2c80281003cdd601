"""Draws histograms as SVG: bars above sizes or shares, stacked by how runs ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from . import words
from .bins import Amounts, Shares
from .markup import Html, figure, table, tag
from .runs import KINDS

#: What the kinds of runs are called on the page.
NAMES = {"done": "done", "failed": "failed", "returned": "given back", "running": "running"}

WIDTH, HEIGHT = 480, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 14, 34


@dataclass(frozen=True)
class Column:
    """One bar of a histogram: where it stands, and how many of each kind there are."""

    label: str
    told: str
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """How high it is."""
        return sum(self.parts.values())


def histogram(columns: Sequence[Column], label: str, axis: str) -> Html:
    """Return the drawing; every second label is left out where they would touch."""
    most = words.round_up(max((column.total for column in columns), default=1))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    # Two or three columns are drawn no wider than ten: a histogram is not read by its area.
    step = min(wide / max(1, len(columns)), 64.0)
    every = max(1, -(-44 // int(step)))
    drawn = [grid(most, LEFT, WIDTH - RIGHT, TOP, high)]
    for place, column in enumerate(columns):
        x, y = LEFT + place * step, float(TOP + high)
        pieces = []
        for kind, amount in column.parts.items():
            tall = amount / most * high
            y -= tall
            if amount:
                pieces.append(tag("rect", x=x + step * 0.08, y=y, width=step * 0.84, height=tall, cls=kind))
        drawn.append(tag("g", tag("title", column.told), pieces))
        if place % every == 0:
            drawn.append(tag("text", column.label, x=x + step / 2, y=HEIGHT - BOTTOM + 14, text_anchor="middle"))
    drawn.append(tag("text", axis, x=WIDTH - RIGHT, y=HEIGHT - 3, text_anchor="end", cls="axis"))
    return svg(drawn, WIDTH, HEIGHT, label)


def grid(most: float, left: float, right: float, top: float, high: float, steps: int = 2) -> Html:
    """Return lines across a chart with their numbers."""
    lines = []
    for step in range(steps + 1):
        y = top + high * (1 - step / steps)
        lines.append(tag("line", x1=left, x2=right, y1=y, y2=y, cls="base" if step == 0 else "grid"))
        lines.append(tag("text", words.figure(most * step / steps), x=left - 6, y=y + 4, text_anchor="end"))
    return tag("g", lines, aria_hidden="true")


def svg(drawn: Sequence[str], width: float, height: float, label: str) -> Html:
    """Return a drawing that grows with the page and is told by its label."""
    return tag("svg", drawn, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label)


def legend(kinds: Sequence[str]) -> Html:
    """Return what the colours mean."""
    return tag("p", [tag("span", tag("i", cls=f"fill {kind}"), NAMES.get(kind, kind)) for kind in kinds], cls="legend")


# --- the histograms of a report ------------------------------------------------------------------------------------


def durations(found: Mapping[str, Amounts]) -> Html:
    """Return how long runs took, by powers of two, stacked by how they ended."""
    kinds = [kind for kind in KINDS if found[kind].count]
    octaves = {kind: found[kind].octaves() for kind in kinds}
    places = [place for each in octaves.values() for place in each]
    columns = [
        _octave(place, {kind: octaves[kind].get(place, 0) for kind in kinds}, words.span)
        for place in range(min(places, default=0), max(places, default=-1) + 1)
    ]
    rows = [[column.told, *(words.count(column.parts[kind]) for kind in kinds)] for column in columns]
    data = table("Durations of runs", ["run took", *(NAMES[kind] for kind in kinds)], rows)
    done = found["done"]
    note = f"Half of the good ones took less than {words.span(done.quantile(0.5))}, 95 % less than {words.span(done.quantile(0.95))}."
    drawing = histogram(columns, "Histogram of the durations of runs", "duration, from")
    return figure("How long runs took.", tag("div", legend(kinds), drawing), data, note if done.count else "")


def memory(found: Amounts, asked: Amounts) -> Html:
    """Return how much memory runs used at most."""
    octaves = found.octaves()
    columns = [
        _octave(place, {"plain": octaves.get(place, 0)}, words.megabytes)
        for place in range(min(octaves, default=0), max(octaves, default=-1) + 1)
    ]
    data = table(
        "Peak memory of runs", ["peak memory", "runs"], [[each.told, words.count(each.total)] for each in columns]
    )
    note = f"95 % used less than {words.megabytes(found.quantile(0.95))}, the largest {words.megabytes(found.most)}"
    note += (
        f"; asked for: {words.megabytes(asked.mean)} on average." if asked.count else "; nobody asked for an amount."
    )
    drawing = histogram(columns, "Histogram of the peak memory of runs", "peak memory, from")
    return figure("Memory at the peak.", drawing, data, note)


def shares(found: Shares, title: str, note: str, axis: str) -> Html:
    """Return which shares of what was asked for were used."""
    columns = []
    for place, number in enumerate(found.tenths):
        told = f"{place * 10}–{place * 10 + 10} %" if place < 10 else "more than 100 %"
        # What goes beyond stands out: it took from its neighbours.
        columns.append(
            Column(f"{place * 10} %" if place < 10 else ">100", told, {"over" if place == 10 else "plain": number})
        )
    rows = [[each.told, words.count(each.total)] for each in columns]
    return figure(title, histogram(columns, f"Histogram: {axis}", axis), table(title, [axis, "runs"], rows), note)


def _octave(place: int, parts: Mapping[str, float], shown: Callable[[float], str]) -> Column:
    low, high = shown(2.0**place), shown(2.0 ** (place + 1))
    return Column(low, f"{low} to {high}", parts)

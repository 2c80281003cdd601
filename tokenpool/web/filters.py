"""Spells figures, times and names for people; the filters of all templates."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from .. import listing, transitions
from ..runners.equivalent import command_of as inner_command
from ..selectors import parse_time
from .bars import kind_of

_SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")


def number(value: float) -> str:
    """Return a number with a thin space between thousands.

    >>> number(1234567).replace("\\u202f", " ")
    '1 234 567'
    """
    return f"{value:,.0f}".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """Return a time span in at most two units.

    >>> [duration(value) for value in (0.25, 42, 61, 7200, 90061, None)]
    ['0.2 s', '42 s', '1 min 1 s', '2 h', '1 d 1 h', '–']
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s".replace(".0 s", " s")
    told: list[str] = []
    left = round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or told:
            told.append(f"{count} {unit}" if count else "")
        if len(told) == 2:
            break
    return " ".join(part for part in told if part)


def size(count: float | None) -> str:
    """Return a number of bytes in a unit that reads well.

    >>> size(999), size(1_234_567)
    ('999 bytes', '1.2 MB')
    """
    if count is None:
        return "–"
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_SIZES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_SIZES[unit]}" if unit == 0 else f"{value:.1f} {_SIZES[unit]}"


def rate(per_minute: float) -> str:
    """Return how many a minute, or a second where they are many.

    >>> rate(0), rate(0.4), rate(90), rate(6000)
    ('0/min', '0.4/min', '90/min', '100/s')
    """
    if per_minute >= 600:
        return f"{number(per_minute / 60)}/s"
    return f"{per_minute:.1f}/min".replace(".0/", "/") if per_minute < 10 else f"{per_minute:.0f}/min"


def clock(moment: Any) -> Markup:
    """Return a moment as an element: in UTC here, which a script turns into the reader's own time."""
    seconds = parse_time(moment) if isinstance(moment, str) else moment
    if seconds is None or not 0 < seconds < 253_370_000_000:
        return Markup("–")
    told = datetime.fromtimestamp(seconds, timezone.utc)
    return Markup('<time datetime="{}">{}</time>').format(
        told.strftime("%Y-%m-%dT%H:%M:%SZ"), told.strftime("%Y-%m-%d %H:%M:%S UTC")
    )


def ago(moment: float | None) -> str:
    """Return how long ago a moment was."""
    return "–" if moment is None else f"{duration(max(0.0, time.time() - moment))} ago"


def state(word: str) -> Markup:
    """Return a state as a badge: a word and a shape beside the colour."""
    known = word if word in transitions.STATES else "invalid"
    return Markup('<span class="state s-{}">{}</span>').format(known, word)


def part(id_or_name: str) -> str:
    """Return an id or a name as one part of a path."""
    return quote(str(id_or_name), safe="")


def short(token_id: str) -> str:
    """Return the beginning of a long id.

    >>> short("task_0123456789abcdef0123456789abcdef")
    'task_01234567…'
    """
    return token_id if len(token_id) <= 24 else f"{token_id[:13]}…"


def title(doc: Mapping[str, Any]) -> str:
    """Return what a token is called: its name, or what it runs."""
    return str(doc.get("name") or "") or command(doc) or short(str(doc.get("_id", "")))


def command(doc: Mapping[str, Any]) -> str:
    """Return what a token runs, in one line."""
    workflow, function = doc.get("workflow"), doc.get("function")
    if isinstance(workflow, Mapping):
        return str(workflow.get("path") or workflow.get("repo") or workflow.get("url") or "workflow")
    if isinstance(function, Mapping):
        return f"{function.get('name', 'function')}()"
    if doc.get("executors") or doc.get("image"):
        # The `input` of such a token is a line for workers that know nothing but shells.
        given = _inner(doc) or "(what the image runs)"
    else:
        given = doc.get("command") or doc.get("input") or ""
    return " ".join(map(str, given)) if isinstance(given, list) else given if isinstance(given, str) else pretty(given)


def _inner(doc: Mapping[str, Any]) -> Any:
    executors = doc.get("executors")
    if isinstance(executors, list) and executors:
        return "; ".join(command(each) for each in executors if isinstance(each, Mapping))
    try:
        return inner_command(doc)
    except (TypeError, ValueError, LookupError, AttributeError):  # written by hand
        return doc.get("command")


def pretty(value: Any) -> str:
    """Return a value as JSON that people read."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def link(url: Any) -> Markup:
    """Return an address as a link where a browser may follow it, else as text."""
    text = str(url)
    if text.startswith(("https://", "http://")):
        return Markup('<a href="{0}" rel="noopener noreferrer">{0}</a>').format(text)
    return escape(text)


def took(entry: Mapping[str, Any]) -> float | None:
    """Return how long an attempt took, in seconds."""
    start, end = parse_time(entry.get("start_time")), parse_time(entry.get("end_time"))
    return None if start is None or end is None else max(0.0, end - start)


def outcome(entry: Mapping[str, Any]) -> str:
    """Return how an attempt ended, in words.

    >>> outcome({"exit_code": 137, "failure_class": "oom"}), outcome({"exit_code": 0})
    ('exit code 137, oom', 'well')
    """
    code, failure = entry.get("exit_code"), entry.get("failure_class")
    if transitions.means_success(code) and not failure:
        return "well"
    return ", ".join(
        part for part in (f"exit code {code}" if code not in (None, "") else "", str(failure or "")) if part
    )


FILTERS: Mapping[str, Callable[..., Any]] = {
    "number": number, "duration": duration, "size": size, "rate": rate, "clock": clock, "ago": ago, "state": state,
    "part": part, "short": short, "title_of": title, "command_of": command, "pretty": pretty, "link": link,
    "kind_of": kind_of, "state_of": transitions.state_of, "span_of": listing.span,
    "attempts_of": transitions.attempts_of, "took": took, "outcome": outcome,
}  # fmt: skip

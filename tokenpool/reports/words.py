"""Writes numbers, times and amounts as people read them on a page."""

from __future__ import annotations

import math
import time

#: A space that does not break and is no full one: between thousands, and before units.
THIN = "\u202f"


def count(number: float) -> str:
    """Return a whole number, thousands apart.

    >>> count(1234567).replace(THIN, "_")
    '1_234_567'
    """
    return f"{round(number):,}".replace(",", THIN)


def things(number: float, thing: str) -> str:
    """Return a count with its noun.

    >>> things(1, "run"), things(2, "run")
    ('1 run', '2 runs')
    """
    return f"{count(number)} {thing}{'' if number == 1 else 's'}"


def figure(number: float) -> str:
    """Return a number with three digits that count, without needless zeros.

    >>> figure(0.0123), figure(12.345), figure(5.0), figure(0)
    ('0.0123', '12.3', '5', '0')
    """
    if number == 0:
        return "0"
    if abs(number) >= 999.5:
        return count(number)
    digits = max(0, 2 - math.floor(math.log10(abs(number))))
    text = f"{number:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def span(seconds: float) -> str:
    """Return a duration in one or two units.

    >>> [span(s).replace(THIN, " ") for s in (0, 0.0021, 0.25, 42, 90, 7260, 200000)]
    ['0 s', '2 ms', '0.25 s', '42 s', '1 min 30 s', '2 h 1 min', '2 d 7 h']
    """
    if 0.0005 <= seconds < 0.1:
        return f"{round(seconds * 1000)}{THIN}ms"
    if seconds < 59.5:
        return f"{figure(seconds)}{THIN}s"
    whole = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    at = next(place for place, (_, size) in enumerate(units) if whole >= size)
    (unit, size), (smaller, less) = units[at], units[at + 1]
    rest = whole % size // less
    return f"{whole // size}{THIN}{unit}" + (f" {rest}{THIN}{smaller}" if rest else "")


def hours(seconds: float) -> str:
    """Return an amount of work: in hours once it is one."""
    return f"{figure(seconds / 3600)}{THIN}h" if seconds >= 3600 else span(seconds)


def size(number: float) -> str:
    """Return bytes in a unit that fits.

    >>> size(999).replace(THIN, " "), size(1_500_000).replace(THIN, " ")
    ('999 B', '1.5 MB')
    """
    for unit, many in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= many:
            return f"{figure(number / many)}{THIN}{unit}"
    return f"{count(number)}{THIN}B"


def megabytes(number: float) -> str:
    """Return memory in a unit that fits; a GB is 1024 MB, as it is for `resources.ram_gb`."""
    for unit, many in (("TB", 1 << 20), ("GB", 1 << 10)):
        if number >= many:
            return f"{figure(number / many)}{THIN}{unit}"
    return f"{figure(number)}{THIN}MB"


def percent(share: float | None) -> str:
    """Return a share in per cent; what is not quite none or all is not written as such.

    >>> percent(0.999), percent(0.0001), percent(None), percent(1)
    ('99.9\u202f%', '<0.1\u202f%', '–', '100\u202f%')
    """
    if share is None:
        return "–"
    value = 100 * share
    if 0 < value < 0.1:
        return f"<0.1{THIN}%"
    text = f"{value:.1f}" if value < 10 or 99 <= value < 100 else f"{value:.0f}"
    return f"{'99.9' if text == '100.0' and value < 100 else text.replace('.0', '') if text.endswith('.0') else text}{THIN}%"


def rate(per_second: float) -> str:
    """Return how many in a second, a minute, an hour or a day, whichever makes a number that can be read."""
    for unit, many in (("s", 1.0), ("min", 60.0), ("h", 3600.0)):
        if per_second * many >= 1:
            return f"{figure(per_second * many)}{THIN}/{THIN}{unit}"
    return f"{figure(per_second * 86400)}{THIN}/{THIN}day" if per_second > 0 else "–"


def moment(seconds: float) -> str:
    """Return a time in UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def ticks(first: float, last: float, most: int = 8) -> list[tuple[float, str]]:
    """Return times at which to mark an axis, each with its label: round ones, in UTC."""
    ladder = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
    length = max(1e-9, last - first)
    step = next((step for step in ladder if length / step <= most), 0)
    if not step:
        days = next(n for n in (2, 5, 7, 14, 30, 60, 90, 180, *range(365, 100_000, 365)) if length / n / 86400 <= most)
        step = days * 86400
    shape = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%d %b" if length < 300 * 86400 else "%b %Y"
    at = math.ceil(first / step) * step
    found = []
    while at <= last:
        # The day is named where it begins, else a run over midnight cannot be read.
        text = "%d %b" if step < 86400 and at % 86400 == 0 else shape
        found.append((float(at), time.strftime(text, time.gmtime(at))))
        at += step
    return found


def round_up(value: float) -> float:
    """Return the next number that an axis may end at: one or two digits, whose half is short too."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if power * step >= value * (1 - 1e-9))

"""Fills the templates of job scripts: ``{{field}}``; a line whose field is empty is left out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from importlib import resources

from ..errors import BadInput
from .base import Order

_FIELD = re.compile(r"\{\{ *(\w+) *\}\}")
_BROKEN = re.compile(r"[\x00\r\n]")


def shipped(name: str) -> str:
    """Return a template of this package; it may lie in an archive."""
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Return the template with its fields filled; raises BadInput for one that nobody fills.

    >>> fill("queue {{queue}}\\nname {{ name }}\\n", {"queue": "", "name": "a"})
    'name a\\n'
    """
    lines = []
    for number, line in enumerate(template.splitlines(), 1):
        names = _FIELD.findall(line)
        for name in names:
            if name not in fields:
                raise BadInput(
                    f"line {number} of the template has a field that nobody fills: {{{{{name}}}}}",
                    f"known: {', '.join(sorted(fields))}",
                )
        if all(fields[name] for name in names):
            lines.append(_FIELD.sub(lambda found: fields[found.group(1)], line))
    return "\n".join(lines) + "\n"


def script_of(order: Order, template: str, more: Mapping[str, str]) -> str:
    """Return the job script of an order: its own template or the shipped one, filled; raises BadInput."""
    check(order)
    return fill(order.template or shipped(template), {**common(order), **more})


def check(order: Order) -> None:
    """Raise BadInput for an order that makes no sense in any batch system."""
    for what, value in (("jobs", order.jobs), ("slots", order.slots), ("cpus", order.cpus)):
        if value < 1:
            raise BadInput(f"{value} {what} make no sense", "1 or more")
    if order.walltime is not None and order.walltime < 1:
        raise BadInput(f"a walltime of {order.walltime:g} s makes no sense", "for example 2h")
    texts = [order.name, order.pool, order.logs, order.password_file, *order.extra, *order.work]
    for text in [*texts, *(value for _, value in order.env)]:
        if _BROKEN.search(text):
            raise BadInput(f"{text!r} has a line break in it", "a job script takes one line of it")


def common(order: Order) -> dict[str, str]:
    """Return the fields that all templates know; empty where the order says nothing."""
    seconds = 0 if order.walltime is None else int(order.walltime)
    return {
        "name": order.name,
        "jobs": str(order.jobs),
        "cpus": str(order.cpus),
        "slots": str(order.slots),
        "ram_mb": "" if order.ram_gb is None else str(max(1, round(order.ram_gb * 1024))),
        "gpus": str(order.gpus or ""),
        "walltime": clock(seconds) if seconds else "",
        "walltime_seconds": str(seconds or ""),
        "logs": shlex.quote(order.logs) if order.logs else "",
        "extra": shlex.join(order.extra),
        "setup": "\n".join(order.setup),
        "environment": "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment(order)),
        "worker": worker_line(order),
    }


def environment(order: Order) -> list[tuple[str, str]]:
    """Return the variables of the worker: none is a secret, the password is in a file."""
    found = [*order.env, ("TOKENPOOL_POOL", order.pool), ("TOKENPOOL_LAUNCH", order.name)]
    if order.password_file:
        found.append(("TOKENPOOL_PASSWORD_FILE", order.password_file))
    return found


def worker_line(order: Order, *more: str) -> str:
    """Return the command line of the worker; the program may be several words of shell."""
    return f"{order.program} {shlex.join(['work', '--slots', str(order.slots), *more, *order.work])}"


def clock(seconds: int) -> str:
    """Return a time as batch systems read it.

    >>> clock(7200), clock(180061)
    ('02:00:00', '50:01:01')
    """
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"

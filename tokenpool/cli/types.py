"""Words of the command line that are more than text: durations, sizes, KEY=VALUE, views."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import BadInput
from ..selectors import parse_duration
from .fields import numbers, when

if TYPE_CHECKING:
    Kind = click.ParamType[Any]
else:  # click before 8.4 cannot be subscripted
    Kind = click.ParamType

Function = TypeVar("Function", bound=Callable[..., Any])

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]?)B?$", re.IGNORECASE)
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}


class Duration(Kind):
    """Seconds, or ``5m``, ``1h 30m``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return parse_duration(value)
        except BadInput as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


class Size(Kind):
    """Bytes, or ``500k``, ``2MB``."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        found = _SIZE.match(value)
        if found is None:
            self.fail(f"{value!r} is not a size; write 500000, 500k or 2MB", param, ctx)
        return int(float(found.group(1)) * _UNITS[found.group(2).lower()])


class Pair(Kind):
    """``KEY=VALUE``."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return the two halves."""
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"{value!r} has no value; write KEY=VALUE", param, ctx)
        return key, text


class View(Kind):
    """``DESIGN/VIEW``."""

    name = "design/view"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return the two names."""
        if isinstance(value, tuple):
            return value
        design, slash, view = value.partition("/")
        if not design or not slash or not view:
            self.fail(f"{value!r} names no view; write DESIGN/VIEW, for example Monitor/todo", param, ctx)
        return design, view


class Moment(Kind):
    """A time, or a duration from now on."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds since 1970."""
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return when(value)
        except BadInput as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


class Amounts(Kind):
    """A number, or ``1,2,4``: one after the other, as attempts run out of it."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | list[float]:
        """Return the number or the list."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        try:
            return numbers(value)
        except ValueError:
            self.fail(f"{value!r} is not a number; write 4, or 1,2,4 for one after the other", param, ctx)


DURATION, SIZE, PAIR, VIEW, MOMENT, AMOUNTS = Duration(), Size(), Pair(), View(), Moment(), Amounts()


def selector_words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the words that choose tokens, for completion in the shell."""
    from ..transitions import STATES

    words: Iterable[str] = ["all", "batch:", "tag:", "host:", "age>", *(f"state:{state}" for state in STATES)]
    return [word for word in words if word.startswith(incomplete)]


def selectors(required: bool = True) -> Callable[[Function], Function]:
    """Return the argument that chooses tokens."""
    return click.argument("selector", nargs=-1, required=required, shell_complete=selector_words)

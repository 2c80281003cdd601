"""Data on stdout, talk on stderr: tables, JSON, messages, errors of two lines."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import click

from ..errors import NotFound, NotPermitted, OutOfSpace, TokenpoolError
from .session import session_of, without_password

#: Rows that are read before a table's columns get their widths; the rest is streamed into them.
LOOK_AHEAD = 100
COLORS = {"todo": "cyan", "held": "yellow", "locked": "blue", "done": "green", "error": "red", "invalid": "magenta"}


# --- talk --------------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Tell the user something on stderr, unless told to be quiet."""
    if not session_of().quiet:
        click.echo(text, err=True)


def warn(text: str) -> None:
    """Tell the user of something that may be wrong, quiet or not."""
    click.echo(f"{click.style('warning:', fg='yellow')} {text}", err=True)


def on_terminal() -> bool:
    """Tell whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def number(count: int, thing: str = "token") -> str:
    """Return a count with its noun: ``1 token``, ``12 tokens``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


# --- data --------------------------------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_array(values: Iterable[Any]) -> None:
    """Print a JSON array as it comes, one value a line."""
    click.echo("[", nl=False)
    for place, value in enumerate(values):
        click.echo((",\n " if place else "\n ") + json.dumps(value, ensure_ascii=False, default=str), nl=False)
    click.echo("\n]")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], color: Mapping[str, str] = COLORS) -> None:
    """Print rows in columns, streaming; the last column is cut at the edge of a terminal."""
    iterator = iter(rows)
    head = list(islice(iterator, LOOK_AHEAD))
    widths = [max(map(len, column)) for column in zip(titles, *head)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(click.style(_line(titles, widths, room), bold=True))
    for row in chain(head, iterator):
        line = _line(row, widths, room)
        state = next((cell for cell in row if cell in color), None)
        # The word is coloured in its column only: the first one of the line that stands alone.
        click.echo(_painted(line, state, color[state]) if state else line)


def _line(cells: Sequence[str], widths: Sequence[int], room: int | None) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths)]
    line = "  ".join([*padded, cells[-1]]).rstrip()
    return line if room is None or len(line) <= room else line[: max(1, room - 1)] + "…"


def _painted(line: str, word: str, color: str) -> str:
    return re.sub(rf"(?<=  ){word}(?=  |$)", lambda found: click.style(found.group(), fg=color), line, count=1)


def one_line(value: Any) -> str:
    """Return a value as one printable line: no control characters of somebody's token reach the terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def command_of(token: Mapping[str, Any]) -> str:
    """Return what a token runs, as one line."""
    if token.get("image") and "command" not in token:  # its input is a line for picas' workers
        return one_line(f"image {token['image']}")
    if isinstance(token.get("executors"), list):
        return one_line(f"{len(token['executors'])} executors")
    function, workflow = token.get("function"), token.get("workflow")
    if isinstance(function, Mapping):
        return one_line(f"function {function.get('name')}")
    if isinstance(workflow, Mapping):
        return one_line(f"workflow {workflow.get('url') or workflow.get('repo')}")
    command = token.get("command", token.get("input", ""))
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        import shlex

        return one_line(shlex.join(command))
    return one_line(command)


def age(seconds: float | None) -> str:
    """Return the time since then in one unit: ``5m``."""
    if seconds is None:
        return ""
    return duration(max(0.0, time.time() - seconds))


def duration(seconds: float) -> str:
    """Return a duration in its largest unit, whole: ``45s``, ``3h``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def size(count: int | None) -> str:
    """Return bytes in a unit that fits.

    >>> size(999), size(1_500_000), size(None)
    ('999 B', '1.5 MB', '?')
    """
    if count is None:
        return "?"
    for unit, many in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= many:
            return f"{count / many:.1f} {unit}"
    return f"{count} B"


def tail(data: bytes, lines: int) -> Iterator[str]:
    """Yield the last lines of a log, printable."""
    for line in data[-20_000:].decode("utf-8", "replace").splitlines()[-lines:]:
        yield "".join(letter if letter.isprintable() or letter == "\t" else " " for letter in line)


# --- errors ------------------------------------------------------------------------------------------------------------


def of_os_error(error: OSError) -> TokenpoolError:
    """Return what an error of the operating system means here."""
    import errno

    told = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(told, "make room, then try again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotPermitted(told, "check the permissions: ls -ld")
    if error.errno == errno.ENOENT:
        return NotFound(told, "check the name")
    return TokenpoolError(told, "look at the path and its file system")


def code_of(error: TokenpoolError) -> str:
    """Return the stable name of an error in JSON: ``not_found``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def complain(code: str, message: str, hint: str, as_json: bool) -> None:
    """Tell the user of an error: what, and what to do."""
    message, hint = (" ".join(without_password(text).split()) for text in (message, hint))
    if as_json:
        told = {"error": {"code": code, "message": message, "hint": hint}}
        click.echo(json.dumps(told, ensure_ascii=False), err=True)
        return
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {hint}", err=True)

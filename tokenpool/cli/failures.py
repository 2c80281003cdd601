"""Turns whatever a verb raised into two lines on stderr and an exit code."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Sequence

import click

from ..errors import BadInput, NotFound, TokenpoolError
from .output import code_of, complain, of_os_error


def report(error: Exception, args: Sequence[str]) -> int:
    """Tell the user of an error; return the exit code."""
    # The options themselves may be what could not be read, so they are looked for in the words.
    given = args[: list(args).index("--")] if "--" in args else args
    as_json = "--json" in given
    if isinstance(error, click.ClickException):
        message, hint = _of_click(error)
        complain("usage", message, hint, as_json)
        return BadInput.exit_code
    if isinstance(error, OSError) and not isinstance(error, TokenpoolError):
        error = of_os_error(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("tokenpool."):
        error = NotFound(
            f"{error.name} is not in the file for worker nodes", "pip install tokenpool, and call that one"
        )
    if isinstance(error, TokenpoolError):
        complain(code_of(error), error.message, error.hint, as_json)
        return error.exit_code
    if "-v" in given or "--verbose" in given:
        click.echo("".join(traceback.format_exception(type(error), error, error.__traceback__)), err=True, nl=False)
    complain("bug", f"{type(error).__name__}: {error} (a bug)", "run again with -v for the traceback", as_json)
    return 1


def _of_click(error: click.ClickException) -> tuple[str, str]:
    """Return click's complaint as what and what to do."""
    ctx = getattr(error, "ctx", None)
    hint = f"{ctx.command_path if ctx else 'tokenpool'} --help"
    if isinstance(error, click.NoSuchOption):
        close = difflib.get_close_matches(error.option_name, error.possibilities or (), 1)
        return f"there is no option {error.option_name}", f"did you mean {close[0]}?" if close else hint
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:], hint

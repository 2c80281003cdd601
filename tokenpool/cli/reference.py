"""Writes ``docs/reference/cli.md`` from the commands themselves: ``python -m tokenpool.cli.reference > docs/reference/cli.md``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from . import root, verbs
from .session import global_options, is_global

HEAD = """# The command line

Made from the commands themselves by `python -m tokenpool.cli.reference`; a test fails when it is stale. `tokenpool VERB --help` says
the same. Data goes to standard output, talk to standard error.

Tokens are chosen by selectors: ids, or conditions that all hold: `state:error`, `batch:x`, `tag:k=v`, `host:n1`, `'age>2h'`; `all` is
all of them. Exit codes: 0 ok, 1 our failure, 2 usage, 3 some tokens failed (`run`, `wait`), 4 not found, 69 server away, 75 try
again, 77 not permitted, 130 interrupted.

Errors are two lines, `error:` what happened and `hint:` what to do; with `--json` they are
`{"error": {"code": …, "message": …, "hint": …}}` on standard error.
"""


def reference() -> str:
    """Return the whole page as Markdown."""
    parts = [HEAD, "## Global options, before or behind the verb\n", *_options(global_options()), ""]
    for name, command in verbs().items():
        parts += _command(f"tokenpool {name}", command)
    return "\n".join(parts).rstrip() + "\n"


def _command(path: str, command: click.Command) -> Iterator[str]:
    """Yield the section of one command, and of those inside it."""
    arguments = [_argument(param) for param in command.params if isinstance(param, click.Argument)]
    words = [path, "[OPTIONS]", *arguments, *(["[-- CMD ARGS...]"] if getattr(command, "takes_command", False) else [])]
    group = isinstance(command, click.Group)
    yield f"## `{' '.join([path, 'VERB'] if group else words)}`\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    own = [param for param in command.params if isinstance(param, click.Option) and not is_global(param)]
    if own:
        yield from _options(own)
        yield ""
    yield "```console"
    yield from (f"$ {example}" for example in getattr(command, "examples", ()))
    yield "```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(root)):
            yield from _command(f"{path} {name}", command.get_command(click.Context(root), name) or command)


def _argument(param: click.Argument) -> str:
    choices = getattr(param.type, "choices", None)
    name = "|".join(choices) if choices else param.metavar or (param.name or "").upper()
    name += "..." if param.nargs == -1 else ""
    return name if param.required else f"[{name}]"


def _options(options: list[click.Option]) -> Iterator[str]:
    yield "| option | meaning |"
    yield "|---|---|"
    for option in options:
        choices = getattr(option.type, "choices", None)
        value = "" if option.is_flag else f" {option.metavar or '|'.join(choices or [option.type.name.upper()])}"
        names = ", ".join(f"`{name}`" for name in option.opts)
        value = value.replace("|", "\\|")
        yield f"| {names}{f' `{value.strip()}`' if value else ''} | {(option.help or '').replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    click.echo(reference(), nl=False)

"""What every verb shares: the global options, how a command with examples is made, how the pool is opened."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..config import Settings
    from ..pool import Pool

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Session:
    """The global options of this call."""

    pool: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def settings(self, **flags: Any) -> Settings:
        """Return the settings of this call; `flags` that are None count as not given."""
        from ..config import load

        return load(pool=self.pool, **flags)

    @contextmanager
    def open(self, create: bool = False, make_file: bool = False) -> Iterator[Pool]:
        """Open the pool; `create` makes it where it is missing, `make_file` only if it is a SQLite file."""
        from ..pool import connect

        url = self.settings().pool
        with connect(url, create=create or (make_file and is_file(url))) as pool:
            yield pool

    def command(self, *words: str) -> str:
        """Return a command line to type next, with the pool where this call named it."""
        named = () if self.pool is None else ("-p", without_password(self.pool))
        return shlex.join(("tokenpool", *words, *named))


def is_file(url: str) -> bool:
    """Tell whether a pool is a SQLite file, which is made without being asked for."""
    return url.startswith("sqlite:")


def without_password(url: str) -> str:
    """Return a URL, or a text that holds some, with every password taken out.

    >>> without_password("couchdb+https://me:secret@host/db")
    'couchdb+https://me@host/db'
    """
    import re

    # Without a scheme in front too: a URL that was mistyped must not show it either.
    return re.sub(r"""(^|[\s'"/])([^\s/@:'"]*):[^\s/'"]+@""", r"\1\2@", url)


# --- global options ----------------------------------------------------------------------------------------------------


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep a global option wherever it stood; one that was not given must not undo one that was."""
    if value and param.name:
        setattr(ctx.ensure_object(Session), param.name, value)


def _no_color(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.color = ctx.find_root().color = False


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from ..metadata import __getattr__ as told

        click.echo(f"tokenpool {told('version')}")
        ctx.exit()


def global_options() -> list[click.Option]:
    """Return fresh copies of the options that every verb takes, before and behind its name."""
    common: dict[str, Any] = {"expose_value": False, "is_eager": True, "callback": _remember}
    flag: dict[str, Any] = {**common, "is_flag": True}
    return [
        click.Option(
            ["-p", "-S", "--pool"], metavar="URL", help="The pool; else TOKENPOOL_POOL or the settings.", **common
        ),
        click.Option(["--json"], help="Print results, and errors, as JSON.", **flag),
        click.Option(["-q", "--quiet"], help="Say less; `list` prints only ids.", **flag),
        click.Option(["-v", "--verbose"], help="Say more; a bug shows its traceback.", **flag),
        click.Option(["--no-color"], help="No colours; NO_COLOR=1 does the same.", **{**flag, "callback": _no_color}),
        click.Option(["--version"], help="Print the version and leave.", **{**flag, "callback": _version}),
    ]


GLOBAL_NAMES = frozenset({"pool", "json", "quiet", "verbose", "no_color", "version"})


def is_global(param: click.Parameter) -> bool:
    """Tell a global option from one that is a verb's own."""
    return param.name in GLOBAL_NAMES and not param.expose_value


# --- commands ----------------------------------------------------------------------------------------------------------


class Verb(click.Command):
    """A command that takes the global options, shows examples, and may take a command line behind ``--``."""

    examples: Sequence[str] = ()
    #: What stands behind ``--`` is kept as it is, in ``ctx.meta``.
    takes_command = False

    def __init__(self, *args: Any, examples: Sequence[str] = (), takes_command: bool = False, **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples, self.takes_command = examples, takes_command
        self.params += global_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self.takes_command and "--" in args:
            at = args.index("--")
            ctx.meta["tokenpool.command"] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), *(["[-- CMD ARGS...]"] if self.takes_command else [])]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self.get_params(ctx), ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


def write_options(params: Sequence[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write a verb's own options, then those that every verb takes."""
    own: list[tuple[str, str]] = []
    common: list[tuple[str, str]] = []
    for param in params:
        # Arguments stand in the usage line; not every version of click gives them a record.
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None:
            (common if is_global(param) else own).append(record)
    for title, records in (("Options", own), ("Global options", common)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    """Write examples as they are: a line that is wrapped cannot be copied."""
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def verb(name: str, *examples: str, takes_command: bool = False) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function the verb `name`; its docstring is the help."""
    return click.command(name, cls=Verb, examples=examples, takes_command=takes_command)


class Nouns(click.Group):
    """A group whose every command takes the global options too; a mistyped one is answered with the nearest."""

    examples: Sequence[str] = ()

    def __init__(self, *args: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **{**more, "invoke_without_command": True, "no_args_is_help": False})
        self.examples = examples
        self.params += global_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self.get_params(ctx), ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            import difflib

            from ..errors import BadInput

            close = difflib.get_close_matches(args[0], known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"{ctx.command_path} --help lists them"
            raise BadInput(f"there is no verb {args[0]!r}", hint)
        return super().resolve_command(ctx, args)


def help_if_bare(ctx: click.Context) -> int:
    """Show the help of a group that was called without a verb; the exit code is that of wrong usage."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        return 2
    return 0


def session_of() -> Session:
    """Return the session of the running verb."""
    return click.get_current_context().ensure_object(Session)


def flags(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Put several options on a function, shown in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate

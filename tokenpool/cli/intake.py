"""Reads what a user wants pushed: a file, standard input or a command line, with the options of `push`; checked whole first."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import BadInput, TokenpoolError
from ..generators import FORMATS, read_file
from ..pushes import make_token
from .data_options import data_fields, data_options
from .fields import RESOURCES, dashed, typed, whole
from .session import flags
from .types import AMOUNTS, DURATION, MOMENT, PAIR

Json = dict[str, Any]
Function = TypeVar("Function", bound=Callable[..., Any])

#: Options that set the field of their name.
PLAIN = (
    "batch", "name", "description", "priority", "timeout", "max_retries", "retry_delay", "retry_backoff", "not_before",
    "image", "registry_secret",
)  # fmt: skip
LISTS, SWITCHES = ("depends_on", "checkpoint", "secrets"), ("accept_failure", "paused")
#: Options that are put together with a token's own instead of being replaced by them.
MERGED = ("tags", "env", "resources")


def push_options(function: Function) -> Function:
    """Give a verb the options that describe tokens; a token's own fields go before them."""
    text: Json = {"metavar": "TEXT"}
    return flags(
        click.option(
            "--format",
            type=click.Choice(sorted(set(FORMATS.values()) | {"lines"})),
            help="By default, what the file's name says; else lines.",
        ),
        click.option("-b", "--batch", metavar="NAME", help="Their batch."),
        click.option("-n", "--name", help="A name for people.", **text),
        click.option("--description", help="A description for people.", **text),
        click.option("--tag", "tags", type=PAIR, multiple=True, metavar="K=V", help="A tag; may be repeated."),
        click.option("--priority", type=float, metavar="N", help="Higher goes first, across batches."),
        click.option(
            "--env", type=PAIR, multiple=True, metavar="K=V", help="A variable for the command; may be repeated."
        ),
        _run_options,
        data_options,
        click.option("--timeout", type=DURATION, metavar="TIME", help="End an attempt that runs longer: 90s, 2h."),
        click.option("--max-retries", type=click.IntRange(0), metavar="N", help="Repeat a failed attempt so often."),
        click.option("--retry-delay", type=DURATION, metavar="TIME", help="Wait so long before each repetition."),
        click.option("--retry-backoff", type=float, metavar="X", help="Each pause is X times the one before."),
        click.option(
            "--checkpoint",
            multiple=True,
            metavar="GLOB",
            help="Keep these files for the next attempt when this one is interrupted; may be repeated.",
        ),
        click.option("--cpu-cores", type=AMOUNTS, metavar="N", help="CPUs it uses; it finds them in $CPU."),
        click.option(
            "--ram-gb",
            type=AMOUNTS,
            metavar="X",
            help="Memory; 4,8,16: the next one after each attempt that ran out of it.",
        ),
        click.option("--disk-gb", type=AMOUNTS, metavar="X", help="Disk that it needs in its folder."),
        click.option("--gpus", type=AMOUNTS, metavar="N", help="GPUs it needs."),
        click.option("--not-before", type=MOMENT, metavar="TIME", help="Do not run before: 10m, 2030-01-31T08:00:00Z."),
        click.option(
            "--after",
            "--depends-on",
            "depends_on",
            multiple=True,
            metavar="ID",
            help="Run when this token is done; may be repeated.",
        ),
        click.option("--accept-failure", is_flag=True, help="With --after: also when it has failed."),
        click.option("--id", "token_id", metavar="ID", help="The id of a single token."),
        click.option("--dedupe", is_flag=True, help="Make ids of the content: the same work is not pushed twice."),
        click.option("--create", is_flag=True, help="Make the pool where it is missing (a SQLite file always is)."),
        click.option("--dry-run", is_flag=True, help="Print the tokens as JSON lines; push nothing."),
    )(function)


def _run_options(function: Function) -> Function:
    """Give a verb the options that say what is run other than a command, and what it is run with."""
    return flags(
        click.option(
            "-d", "--image", "--docker", "image", metavar="IMAGE", help="Run it in a container of this image."
        ),
        click.option(
            "--container-option",
            "container_option",
            multiple=True,
            metavar="NAME=VALUE",
            help="An option of `docker run` that the worker allows: shm-size=1g; may be repeated.",
        ),
        click.option(
            "--secret",
            "secrets",
            multiple=True,
            metavar="NAME",
            help="A secret of the worker that it needs; may be repeated.",
        ),
        click.option("--registry-secret", metavar="NAME", help="The worker's secret for the image's registry."),
        click.option("--function", metavar="NAME", help="Call this Python function: module:name."),
        click.option("--args", metavar="JSON", help="Its arguments, a JSON list."),
        click.option("--kwargs", metavar="JSON", help="Its named arguments, a JSON object."),
    )(function)


def fields_of(given: Mapping[str, Any]) -> Json:
    """Return the fields that the options of `push_options` name."""
    fields: Json = {name: given[name] for name in PLAIN if given[name] is not None}
    fields.update({name: dict(given[name]) for name in ("tags", "env") if given[name]})
    fields.update({name: list(given[name]) for name in LISTS if given[name]})
    fields.update({name: True for name in SWITCHES if given.get(name)})
    if given["container_option"]:
        fields["container_options"] = dashed(given["container_option"])
    resources = {name: given[name] for name in RESOURCES if given[name] is not None}
    if resources:
        fields["resources"] = resources
    for name in ("priority", "retry_backoff", "timeout", "retry_delay"):
        if name in fields:
            fields[name] = whole(fields[name])
    return {**fields, **data_fields(given)}


def call_of(given: Mapping[str, Any]) -> Json:
    """Return the function that the options name, with its arguments."""
    call: Json = {"name": given["function"]}
    for name, kind, example in (("args", list, "[1, 2]"), ("kwargs", dict, '{"x": 1}')):
        if given[name] is None:
            continue
        try:
            call[name] = json.loads(given[name])
        except ValueError as error:
            raise BadInput(f"--{name} is not JSON: {error}", f"for example --{name} '{example}'") from None
        if not isinstance(call[name], kind):
            raise BadInput(f"--{name} {given[name]} is of the wrong kind", f"for example --{name} '{example}'")
    return call


# --- sources -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Tokens to push, readable twice: once to check them all, once to send them."""

    read: Callable[[], Iterator[Json]]
    name: str
    fields: Mapping[str, Any]
    dedupe: bool = False
    token_id: str | None = None
    #: Goes before a token's own field too: `run` works its own batch only.
    batch: str | None = None

    def check(self) -> int:
        """Return how many tokens there are; raises BadInput for the first that makes no sense."""
        count = sum(1 for _ in self.tokens())
        if self.token_id and count != 1:
            raise BadInput(f"--id names one token and {self.name} holds {count}", "give each an _id field instead")
        return count

    def tokens(self) -> Iterator[Json]:
        """Yield whole documents, made of each item and the options."""
        for number, item in enumerate(self.read(), 1):
            try:
                yield self._document(item)
            except (BadInput, TypeError) as error:
                hint = error.hint if isinstance(error, BadInput) else "look at its fields"
                raise BadInput(f"{self.name}: token {number}: {error}", hint) from None

    def _document(self, item: Json) -> Json:
        own = typed(item)
        token = {**self.fields, **own}
        for name in MERGED:
            if isinstance(own.get(name), dict) and name in self.fields:
                token[name] = {**self.fields[name], **own[name]}
        if isinstance(own.get("depends_on"), list) and "depends_on" in self.fields:
            # Whoever says --after means all of them.
            token["depends_on"] = list(dict.fromkeys([*self.fields["depends_on"], *own["depends_on"]]))
        if isinstance(own.get("inputs"), list) and "inputs" in self.fields:
            # What all tokens need, and what this one does.
            token["inputs"] = [*self.fields["inputs"], *own["inputs"]]
        if self.batch is not None:
            token["batch"] = self.batch
        if self.token_id:
            token["_id"] = self.token_id
        return make_token(token, {}, self.dedupe)


@contextlib.contextmanager
def source_of(words: tuple[str, ...], command: list[str] | None, given: Mapping[str, Any]) -> Iterator[Source]:
    """Give the tokens that a file, ``-`` or the words behind ``--`` stand for."""
    more: Json = {"fields": fields_of(given), **{name: given[name] for name in ("dedupe", "token_id")}}
    more["batch"] = given.get("own_batch")
    if command is not None:
        if words or not command:
            raise BadInput(
                "a file and a command cannot both be pushed" if words else "there is no command behind --",
                "tokenpool push FILE, or tokenpool push -- CMD ARGS",
            )
        item: Json = {"input": command[0]} if len(command) == 1 and " " in command[0].strip() else {"command": command}
        yield Source(lambda: iter([item]), "the command", **more)
        return
    if given.get("function"):
        if words:
            raise BadInput("a file and a function cannot both be pushed", "leave one of them out")
        call = {"function": call_of(given)}
        yield Source(lambda: iter([call]), "the function", **more)
        return
    if given.get("args") or given.get("kwargs"):
        raise BadInput("--args and --kwargs are the arguments of a function", "name it: --function module:name")
    if len(words) != 1:
        meant = (
            f"to push a command: tokenpool push -- {shlex.join(words)}"
            if words
            else "tokenpool push FILE, or - for standard input"
        )
        raise BadInput(f"{len(words)} files were named, not one", meant)
    with spooled(words[0]) as path:
        name = "standard input" if words[0] == "-" else words[0]
        yield Source(lambda: _read(path, name, words[0], given["format"] or ""), name, **more)


def _read(path: str, name: str, word: str, format: str) -> Iterator[Json]:
    try:
        yield from read_file(path, format or ("lines" if path != name else ""))
    except TokenpoolError as error:
        # The name of a spooled copy means nothing to the user.
        error.message = error.message.replace(path, name)
        if isinstance(error, LookupError) and (" " in word or shutil.which(word)):
            error.hint = f"to push a command: tokenpool push -- {shlex.quote(word)}"
        raise


@contextlib.contextmanager
def spooled(word: str) -> Iterator[str]:
    """Give a path that can be read twice: what is no plain file is copied into a temporary one."""
    if word != "-" and not _is_stream(word):
        yield word
        return
    if word == "-" and sys.stdin.isatty():
        click.echo("reading tokens from the terminal, one command a line; end with Ctrl-D", err=True)
    with tempfile.NamedTemporaryFile(prefix="tokenpool-", suffix=Path(word).suffix) as spool:
        with open(sys.stdin.fileno() if word == "-" else word, "rb", closefd=word != "-") as stream:
            shutil.copyfileobj(stream, spool, 1 << 20)
        spool.flush()
        yield spool.name


def _is_stream(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


# --- words ---------------------------------------------------------------------------------------------------------------


def print_tokens(source: Source) -> None:
    """Print what would be pushed, as JSON lines."""
    for token in source.tokens():
        click.echo(json.dumps(token, ensure_ascii=False))


def described(count: int, batch: Any, others: Iterable[str] = ()) -> str:
    """Return what a push did, in words."""
    where = f" into batch {batch}" if batch else ""
    return ", ".join([f"pushed {count} token{'' if count == 1 else 's'}{where}", *others])

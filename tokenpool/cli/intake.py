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
from ..selectors import parse_duration
from .session import flags
from .types import DURATION, PAIR

Json = dict[str, Any]
Function = TypeVar("Function", bound=Callable[..., Any])

#: Fields whose texts (all that CSV knows) are numbers.
NUMBERS: Mapping[str, Callable[[str], float]] = {"priority": float, "timeout": parse_duration, "max_retries": int}
RESOURCES: Mapping[str, Callable[[str], float]] = {"cpu_cores": float, "ram_gb": float, "gpus": int}
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
        click.option("--timeout", type=DURATION, metavar="TIME", help="End an attempt that runs longer: 90s, 2h."),
        click.option("--max-retries", type=click.IntRange(0), metavar="N", help="Repeat a failed attempt so often."),
        click.option("--cpu-cores", type=click.IntRange(1), metavar="N", help="CPUs it uses; it finds them in $CPU."),
        click.option("--ram-gb", type=click.FloatRange(0, min_open=True), metavar="X", help="Memory it needs."),
        click.option("--gpus", type=click.IntRange(0), metavar="N", help="GPUs it needs."),
        click.option("--id", "token_id", metavar="ID", help="The id of a single token."),
        click.option("--dedupe", is_flag=True, help="Make ids of the content: the same work is not pushed twice."),
        click.option("--create", is_flag=True, help="Make the pool where it is missing (a SQLite file always is)."),
        click.option("--dry-run", is_flag=True, help="Print the tokens as JSON lines; push nothing."),
    )(function)


def fields_of(given: Mapping[str, Any]) -> Json:
    """Return the fields that the options of `push_options` name."""
    plain = ("batch", "name", "description", "priority", "timeout", "max_retries")
    fields: Json = {name: given[name] for name in plain if given[name] is not None}
    fields.update({name: dict(given[name]) for name in ("tags", "env") if given[name]})
    resources = {name: given[name] for name in RESOURCES if given[name] is not None}
    if resources:
        fields["resources"] = resources
    if "priority" in fields:
        fields["priority"] = _whole(fields["priority"])
    return fields


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
        token = {**self.fields, **_typed(item)}
        for name in MERGED:
            if isinstance(item.get(name), dict) and name in self.fields:
                token[name] = {**self.fields[name], **item[name]}
        if self.batch is not None:
            token["batch"] = self.batch
        if self.token_id:
            token["_id"] = self.token_id
        _check_numbers(token)
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
            error.hint = f"to push a command: tokenpool push -- {word}"
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


# --- fields --------------------------------------------------------------------------------------------------------------


def _typed(item: Json) -> Json:
    """Return the fields with texts made numbers where a number is meant, and resources in their place."""
    fields = dict(item)
    if "id" in fields and "_id" not in fields:
        fields["_id"] = fields.pop("id")
    for name, convert in NUMBERS.items():
        if isinstance(fields.get(name), str):
            fields[name] = _number(name, fields[name], convert)
    loose = {name: fields.pop(name) for name in RESOURCES if name in fields}
    if loose:
        typed = {n: _number(n, v, RESOURCES[n]) if isinstance(v, str) else v for n, v in loose.items()}
        own = fields.get("resources")
        fields["resources"] = {**typed, **(own if isinstance(own, dict) else {})}
    return fields


def _number(name: str, text: str, convert: Callable[[str], float]) -> float:
    try:
        return _whole(convert(text))
    except ValueError:
        raise BadInput(f"{name} {text!r} is not a number", "look at this column") from None


def _check_numbers(fields: Mapping[str, Any]) -> None:
    """Refuse what the worker could only fail on."""
    for name in NUMBERS:
        value = fields.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise BadInput(f"{name} {value!r} is not a number", f"for example {name}: 1")
    if fields.get("timeout") is not None and not fields["timeout"] > 0:
        raise BadInput(f"timeout {fields['timeout']} is not above 0", "write seconds, or 2h")


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def print_tokens(source: Source) -> None:
    """Print what would be pushed, as JSON lines."""
    for token in source.tokens():
        click.echo(json.dumps(token, ensure_ascii=False))


def described(count: int, batch: Any, others: Iterable[str] = ()) -> str:
    """Return what a push did, in words."""
    where = f" into batch {batch}" if batch else ""
    return ", ".join([f"pushed {count} token{'' if count == 1 else 's'}{where}", *others])

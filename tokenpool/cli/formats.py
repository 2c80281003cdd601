"""Pushes what other systems' files describe: a table of readers, one for each format that `import` knows by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadInput, NotFound, NotPermitted
from .intake import Source, described, print_tokens, spooled
from .output import number, print_json, say
from .push import send
from .session import Session

if TYPE_CHECKING:
    from ..cwl.lando_config import Server

Json = dict[str, Any]

#: The format's name and its reader, "module:function" below `tokenpool`: ``function(path: str) -> Iterator[Json]`` yields
#: the fields of each token, as `push` takes them. It raises BadInput, with the place in the file, for what makes no
#: sense; it is run to its end once before the first token is pushed, and a second time to push.
READERS: Mapping[str, str] = {
    "lando": "cwl.lando:read",
    "ptq": "functions.formats:read_ptq",
    "pytq": "pytq:read",
    "simpletasks": "functions.formats:read_simpletasks",
}
#: Readers that are given the names of `--secret` too: ``function(path, secrets=("NAME", ...))``.
TAKES_SECRETS = frozenset({"lando"})
#: Formats that are command lines, one of which may stand behind ``--``: ``function(words) -> fields``.
COMMANDS: Mapping[str, str] = {"pytq": "pytq:token_of"}


def import_command(session: Session, format: str, words: list[str], given: Mapping[str, Any]) -> int:
    """Push the token that another system's command line describes."""
    if format not in COMMANDS:
        raise BadInput(
            f"{format} is no format of command lines", f"known: {', '.join(sorted(COMMANDS))}; else name a file"
        )
    if given["secrets"]:
        raise BadInput(f"--secret says nothing about a file of {format}", "leave it out")
    fields = {"batch": given["batch"]} if given["batch"] else {}
    item = _reader(COMMANDS[format])(words)
    return _push(session, Source(lambda: iter([item]), "the command", fields), given)


def import_as(session: Session, format: str, file: str, given: Mapping[str, Any]) -> int:
    """Push the tokens that a file of a format describes; all of it is read before the first one is pushed."""
    fields = {"batch": given["batch"]} if given["batch"] else {}
    server = _server(format, given) if given["config"] else None
    with spooled(file) as path:
        name = "standard input" if file == "-" else file
        secrets = tuple(each for each in given["secrets"] if server is None or each not in server.needed)
        code = _push(session, Source(lambda: _read(format, path, name, secrets), name, fields), given)
    if server is not None and not session.json:
        say(f"machines for it: {server.command}")
    return code


def import_config(session: Session, format: str, given: Mapping[str, Any]) -> int:
    """Print what stands in for another system's server, as its configuration describes it."""
    server = _server(format, given)
    unknown = [name for name in given["secrets"] if name not in server.needed]
    if unknown:
        raise BadInput(f"{given['config']} needs no {unknown[0]}", "secrets of jobs go with a job file")
    if session.json:
        told = {"words": server.words, "environment": server.environment, "needed": server.needed}
        print_json({"schema": 1, **told, "needless": server.needless})
        return 0
    click.echo(server.script, nl=False)
    if server.needless:
        say(f"not needed here: {', '.join(server.needless)}")
    return 0


def _server(format: str, given: Mapping[str, Any]) -> Server:
    from ..cwl.lando_config import read

    if format != "lando":
        raise BadInput(f"--config says nothing about a file of {format}", "it goes with lando")
    return read(given["config"], given["secrets"])


def _push(session: Session, source: Source, given: Mapping[str, Any]) -> int:
    """Push the tokens of a source; return the exit code."""
    count = source.check()
    if not count:
        raise BadInput(f"{source.name} describes no token", "nothing was pushed")
    if given["dry_run"]:
        print_tokens(source)
        return 0
    with session.open(create=given["create"], make_file=True) as pool:
        sent = send(pool, source, count, show_ids=session.verbose and not session.json)
    if session.json:
        print_json({"schema": 1, "imported": sent.pushed, "refused": sent.refused})
    else:
        if count == 1 and sent.last and not session.verbose:
            click.echo(sent.last)
        notes = [f"{number(len(sent.refused))} refused"] if sent.refused else []
        say(described(sent.pushed, given["batch"], notes))
    return 1 if sent.refused else 0


def _reader(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"tokenpool.{module}"), name)


def _read(format: str, path: str, file: str, secrets: tuple[str, ...]) -> Iterator[Json]:
    if format not in READERS:
        raise BadInput(f"there is no format {format!r} to import", f"known: {', '.join(sorted(READERS))}")
    if secrets and format not in TAKES_SECRETS:
        raise BadInput(f"--secret says nothing about a file of {format}", "leave it out")
    read = _reader(READERS[format])
    try:
        yield from read(path, secrets=secrets) if format in TAKES_SECRETS else read(path)
    except BadInput as error:
        # The name of a spooled copy means nothing to the user.
        error.message = error.message.replace(path, file)
        raise
    except FileNotFoundError:
        raise NotFound(f"there is no file {file}", "check the name") from None
    except IsADirectoryError:
        raise BadInput(f"{file} is a folder", "name a file") from None
    except PermissionError:
        raise NotPermitted(f"{file} may not be read", "check its permissions: ls -l") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not text in UTF-8: {error.reason}", "is it the right file?") from None

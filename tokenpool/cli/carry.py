"""The verbs that carry whole tokens: `export`, `import`, `move`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import click

from ..changes import Changed
from ..errors import BadInput, TokenpoolError
from ..pool import Pool, connect
from ..pushes import make_token
from ..selectors import parse
from ..transitions import state_of
from .bulk import confirmed, tell
from .formats import READERS, import_as, import_command, import_config
from .intake import spooled
from .output import number, print_json, say
from .progress import Meter
from .session import Session, is_file, verb
from .types import selectors

Json = dict[str, Any]

#: Tokens moved between two writes.
CHUNK = 100


@verb("export", "tokenpool export state:done batch:night -o night.jsonl", "tokenpool export all | gzip > pool.jsonl.gz")
@selectors()
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write to FILE, whole or not at all."
)
@click.pass_obj
def export(session: Session, selector: tuple[str, ...], output: str | None) -> None:
    """Write tokens with their logs as JSON lines.

    Attachments are inside; `tokenpool import` reads them back as they were.
    """
    count = 0
    with session.open() as pool, _target(output) as file:
        if parse(selector).ids:
            pool.count(selector)
        for doc in pool.export(selector):
            click.echo(json.dumps(doc, ensure_ascii=False), file=file)
            count += 1
    say(f"exported {number(count)}" + (f" to {output}" if output else ""))


@contextmanager
def _target(path: str | None) -> Iterator[TextIO | None]:
    """Give the open file; it gets its name only when it is whole. None is standard output."""
    if path is None:
        yield None
        return
    folder, name = os.path.split(os.path.abspath(path))
    handle, partial = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


# --- import --------------------------------------------------------------------------------------------------------------


@verb(
    "import",
    "tokenpool import night.jsonl",
    "zcat pool.jsonl.gz | tokenpool import -",
    "tokenpool import picas-dump.json",
    "tokenpool import lando job.yml --secret dds_user_key",
    "tokenpool import lando --config landoconfig.yml --secret OS_PASSWORD > server.sh",
    "tokenpool import pytq -- pytq-launch -b test -i s3://b/x.fq -o s3://b/results/ sh -c 'wc -l $INPUT/x.fq'",
    takes_command=True,
)
@click.argument("words", nargs=-1, required=True, metavar="[FORMAT] FILE")
@click.option("-b", "--batch", metavar="NAME", help="With a format: their batch.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help="With lando: this input is a secret that the worker knows; may be repeated.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="With lando: its server's settings; without a job file, print the server that does the same here.",
)
@click.option("--create", is_flag=True, help="Make the pool where it is missing (a SQLite file always is).")
@click.option("--dry-run", is_flag=True, help="With a format: print the tokens as JSON lines; push nothing.")
@click.pass_obj
def import_tokens(session: Session, /, words: tuple[str, ...], create: bool, **given: Any) -> int:
    """Read exported tokens, or another system's files.

    FILE is what `export` wrote, or documents of a picas database: one a line, or CouchDB's answer to
    _all_docs?include_docs=true. States, histories and logs are kept; ids that are taken are refused. All of it is checked
    before the first token is written.

    With a FORMAT (FORMATS) FILE is that system's own, and new tokens are made of it. A command line of pytq-launch may stand
    behind -- too.
    """
    command = click.get_current_context().meta.get("tokenpool.command")
    if command is not None:
        if len(words) != 1:
            raise BadInput(
                "a command line goes with a format, and with no file", "tokenpool import pytq -- pytq-launch ..."
            )
        return import_command(session, words[0], command, {**given, "create": create})
    if len(words) > 2:
        raise BadInput(f"{len(words)} words were given", "tokenpool import FILE, or tokenpool import FORMAT FILE")
    if given["config"] and len(words) == 1:
        return import_config(session, words[0], given)
    if len(words) == 2:
        return import_as(session, words[0], words[1], {**given, "create": create})
    strange = [f"--{name.replace('_', '-').rstrip('s')}" for name, value in given.items() if value]
    if strange:
        raise BadInput(f"{strange[0]} goes with a format", "exported tokens are written as they are")
    file = words[0]
    with spooled(file) as path:
        count = sum(1 for _ in _documents(path, file))
        if not count:
            raise BadInput(f"{file} holds no token", "tokenpool export all -o FILE writes such a file")
        refused = []
        with session.open(create=create, make_file=True) as pool, Meter("importing", count) as meter:
            for answer in pool.restore(_documents(path, file)):
                meter.advance()
                if answer.reason:
                    refused.append({"id": answer.id, "reason": answer.reason})
                    click.echo(f"not imported: {answer.id}: {answer.reason}", err=True)
    if session.json:
        print_json({"schema": 1, "imported": count - len(refused), "refused": refused})
    else:
        say(f"imported {number(count - len(refused))}" + (f", {len(refused)} refused" if refused else ""))
    return 1 if refused else 0


import_tokens.help = (import_tokens.help or "").replace("FORMATS", ", ".join(sorted(READERS)))


def _documents(path: str, name: str) -> Iterator[Json]:
    """Yield the tokens of a file, checked; raises BadInput with the place of what is none."""
    for where, value in _values(path, name):
        if not isinstance(value, dict) or not isinstance(value.get("_id"), str):
            raise BadInput(f"{where}: not a token: an object with an _id was expected", "nothing was imported")
        if value["_id"].startswith("_"):
            continue  # designs are the pool's own
        doc = {key: field for key, field in value.items() if not key.startswith("_") or key in ("_id", "_attachments")}
        attachments = doc.get("_attachments")
        if isinstance(attachments, dict):
            # A stub names what only the old database holds.
            doc["_attachments"] = {k: v for k, v in attachments.items() if isinstance(v, dict) and "data" in v}
        try:
            make_token(doc, {})
        except TokenpoolError as error:
            raise BadInput(f"{where}: {error}", error.hint) from None
        yield doc


def _values(path: str, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each JSON value with its place: one a line, or the items of one document that fills the file."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line_number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{name}:{line_number}"
                try:
                    value = json.loads(line)
                except ValueError as error:
                    if line_number > 1:
                        raise BadInput(f"{where}: not JSON: {error}", "nothing was imported") from None
                    yield from _whole(path, name)
                    return
                if line_number == 1 and (isinstance(value, list) or "_id" not in value):
                    yield from _whole(path, name)
                    return
                yield where, value
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{name} is not text in UTF-8: {error.reason}", "is it compressed? zcat FILE | tokenpool import -"
        ) from None


def _whole(path: str, name: str) -> Iterator[tuple[str, Any]]:
    try:
        value = json.loads(Path(path).read_text("utf-8-sig"))
    except ValueError as error:
        raise BadInput(f"{name}:{getattr(error, 'lineno', 1)}: not JSON: {error}", "nothing was imported") from None
    items = value
    if isinstance(value, dict):
        rows = value.get("rows")
        items = (
            [row.get("doc") for row in rows if isinstance(row, dict)]
            if isinstance(rows, list)
            else value.get("docs", [value])
        )
    for place, item in enumerate(items if isinstance(items, list) else [items], 1):
        yield f"{name}: item {place}", item


# --- move ----------------------------------------------------------------------------------------------------------------


@verb(
    "move",
    "tokenpool move state:todo batch:night couchdb+https://me@host:6984/night --yes",
    "tokenpool move state:done 'age>30d' sqlite:///archive.db --dry-run",
)
@selectors()
@click.argument("target", metavar="TARGET_URL")
@click.option("--create", is_flag=True, help="Make the target where it is missing (a SQLite file always is).")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only tell how many tokens it would move.")
@click.pass_obj
def move(session: Session, selector: tuple[str, ...], target: str, create: bool, yes: bool, dry_run: bool) -> int:
    """Move tokens into another pool, with their logs and history.

    A token is deleted here only after the other pool has it, and only if nobody changed it meanwhile. Running tokens stay.
    """
    chosen = parse(selector)
    with session.open() as source:
        if chosen.ids:
            source.count(chosen)

        def plan() -> Changed:
            return source.rm(chosen, dry_run=True)

        if dry_run:
            return tell(session, "move", plan(), True)
        with connect(target, create=create or is_file(target)) as other:
            if other.url == source.url:
                raise BadInput("both pools are the same", "name another pool as TARGET_URL")
            if not confirmed(session, source, "move", chosen, yes, plan):
                return 1
            done = Move(source, other).run(source.export(chosen))
    return tell(session, "move", done, False)


class Move:
    """Carries tokens from one pool to another, chunk by chunk; at every moment each is in one of them, or in both."""

    def __init__(self, source: Pool, target: Pool) -> None:
        self.source, self.target = source, target
        self.matched = self.moved = self.skipped = 0
        self.failed: list[str] = []

    def run(self, docs: Iterable[Json]) -> Changed:
        """Move all of `docs`."""
        iterator = iter(docs)
        with Meter("moving", 0) as meter:
            while chunk := list(islice(iterator, CHUNK)):
                self.matched += len(chunk)
                idle = [doc for doc in chunk if state_of(doc) != "locked" and self._sound(doc)]
                self._move({doc["_id"]: doc for doc in idle})
                meter.set(self.matched, total=self.matched)
        self.skipped = self.matched - self.moved - len(self.failed)
        return Changed(self.matched, self.moved, self.skipped, tuple(self.failed))

    def _sound(self, doc: Json) -> bool:
        try:
            make_token(doc, {})
        except TokenpoolError as error:
            self._fail(doc["_id"], str(error))
            return False
        return True

    def _move(self, docs: dict[str, Json]) -> None:
        saved = self._restored(docs)
        gone = set(self.source.delete_unchanged([docs[doc_id] for doc_id in saved]))
        self.moved += len(gone)
        for doc_id in saved:
            if doc_id not in gone:
                self._take_back(doc_id, docs[doc_id])

    def _restored(self, docs: dict[str, Json]) -> set[str]:
        saved = set()
        for answer in self.target.restore(docs.values()):
            if answer.reason:
                self._fail(answer.id, answer.reason)
            else:
                saved.add(answer.id)
        return saved

    def _take_back(self, doc_id: str, doc: Json) -> None:
        """Delete the copy of a token that somebody changed here meanwhile, unless it is in use there already."""
        why = "it changed while it was moved, and stays here"
        try:
            copy = self.target.get(doc_id).doc
            same = all(copy.get(name) == value for name, value in doc.items() if name not in ("_rev", "_attachments"))
            if not (same and self.target.delete_unchanged([copy])):
                why = "it changed in both pools while it was moved; look at both"
        except TokenpoolError as error:
            why = f"it changed while it was moved, and a copy may be in the target: {error}"
        self._fail(doc_id, why)

    def _fail(self, doc_id: str, reason: str) -> None:
        self.failed.append(doc_id)
        click.echo(f"not moved: {doc_id}: {reason}", err=True)

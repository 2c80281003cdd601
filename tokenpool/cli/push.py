"""The verb `push`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from ..pool import Pool
from .intake import Source, described, print_tokens, push_options, source_of
from .output import number, print_json, say
from .progress import Meter
from .session import Session, verb


@dataclass
class Sent:
    """What became of a push."""

    pushed: int = 0
    known: int = 0
    last: str = ""
    refused: list[dict[str, str]] = field(default_factory=list)


@verb(
    "push",
    "tokenpool push jobs.txt --batch night --timeout 2h --max-retries 2",
    "tokenpool push -b night -- python simulate.py --seed 7",
    "tokenpool push --after task_1f0c --not-before 10m -- python collect.py",
    "generate-jobs | tokenpool push - --format jsonl --dedupe",
    "tokenpool push table.csv --tag project=amber --dry-run | head -2",
    takes_command=True,
)
@click.argument("file", nargs=-1)
@push_options
@click.option("--paused", is_flag=True, help="Hold them until somebody resumes them.")
@click.pass_context
def push(ctx: click.Context, /, file: tuple[str, ...], **given: Any) -> int:
    """Put tokens into the pool.

    FILE holds one shell command a line, or CSV, JSON, JSONL or YAML by its name; - is standard input. Words behind -- are
    one command, executed without a shell; a single word with spaces is a shell line. All of it is checked before the first
    token is pushed.
    """
    session = ctx.ensure_object(Session)
    with source_of(file, ctx.meta.get("tokenpool.command"), given) as source:
        count = source.check()
        if given["dry_run"]:
            print_tokens(source)
            return 0
        with session.open(create=given["create"], make_file=True) as pool:
            sent = send(pool, source, count, show_ids=session.verbose and not session.json)
    _tell(session, sent, count, given["batch"])
    return 1 if sent.refused else 0


def send(pool: Pool, source: Source, count: int, show_ids: bool = False) -> Sent:
    """Push all tokens of a source, with a progress bar; each one that is refused is told on stderr."""
    sent = Sent()
    with Meter("pushing", count) as meter:
        for answer in pool.push_stream(_counted(source, meter), source.dedupe):
            if answer.reason:
                sent.refused.append({"id": answer.id, "reason": answer.reason})
                click.echo(f"not saved: {answer.id}: {answer.reason}", err=True)
                continue
            sent.last = answer.id
            sent.pushed += answer.saved
            sent.known += answer.known
            if show_ids:
                click.echo(answer.id)
    return sent


def _counted(source: Source, meter: Meter) -> Iterator[dict[str, Any]]:
    for token in source.tokens():
        yield token
        meter.advance()


def _tell(session: Session, sent: Sent, count: int, batch: str | None) -> None:
    if session.json:
        print_json({"schema": 1, "pushed": sent.pushed, "known": sent.known, "refused": sent.refused})
        return
    if count == 1 and sent.last and not session.verbose:
        click.echo(sent.last)
    notes = [f"{number(sent.known)} known already"] if sent.known else []
    notes += [f"{number(len(sent.refused))} refused"] if sent.refused else []
    say(described(sent.pushed, batch, notes))

"""The verb `push`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from ..errors import BadInput
from ..pool import Pool
from .intake import Source, described, print_tokens, push_options, source_of
from .output import complain, number, print_json, say
from .progress import Meter
from .session import Session, verb
from .workflows import cwl_options, workflow_of


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
    "tokenpool push --cwl user/repo:v1/tool.cwl params.yaml --param threads=4",
    takes_command=True,
)
@click.argument("file", nargs=-1)
@push_options
@click.option("--paused", is_flag=True, help="Hold them until somebody resumes them.")
@click.option(
    "--cwl", metavar="SOURCE", help="A CWL workflow: user/repo[:ref][/path.cwl], a URL, a file; FILE holds its inputs."
)
@cwl_options
@click.pass_context
def push(ctx: click.Context, /, file: tuple[str, ...], **given: Any) -> int:
    """Put tokens into the pool.

    FILE holds one shell command a line, or CSV, JSON, JSONL or YAML by its name; - is standard input. Words behind -- are
    one command, executed without a shell; a single word with spaces is a shell line. All of it is checked before the first
    token is pushed.

    With --cwl the token is a workflow, and FILE its parameters, as YAML or JSON. A local workflow travels with all files
    that it names; files that the parameters name by a path do too, URLs stay.
    """
    session = ctx.ensure_object(Session)
    command = ctx.meta.get("tokenpool.command")
    if given["cwl"]:
        if command is not None:
            raise BadInput(
                "a workflow and a command cannot both be pushed", "give its inputs as FILE, or --param name=value"
            )
        return push_source(session, workflow_of(session, given["cwl"], file, given), given)
    if given["pairs"] or given["provenance"] or given["carry_limit"]:
        raise BadInput("--param, --provenance and --carry-limit are for workflows", "name the workflow with --cwl")
    with source_of(file, command, given) as source:
        return push_source(session, source, given)


def push_source(session: Session, source: Source, given: Mapping[str, Any]) -> int:
    """Check all tokens of a source, push them, tell what became of them; return the exit code."""
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
    if sent.refused:
        complain("refused", f"{number(len(sent.refused))} refused", _cure(sent), as_json=False)


def _cure(sent: Sent) -> str:
    if any("conflict" in each["reason"] or "there" in each["reason"] for each in sent.refused):
        return "a token of that id is in the pool: give another id, or push the same work with --dedupe"
    return "the reasons stand above; what was saved is in the pool"

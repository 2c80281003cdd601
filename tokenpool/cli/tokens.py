"""The verbs that look at tokens: `status`, `list`, `show`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any

import click

from ..batch_rules import batch_rules
from ..selectors import last_change
from ..storage.urls import shown
from ..transitions import STATES, state_of
from . import output
from .output import age, command_of, one_line, print_array, print_json, print_table, say
from .session import Session, verb
from .types import selectors

Json = Mapping[str, Any]

#: Output files that are named one by one.
MOST_FILES = 20
#: Later times than this, in seconds since 1970, are no times.
YEAR_9999 = 253_370_000_000


@verb("status", "tokenpool status", "tokenpool status --batches", "tokenpool status --json | jq .states.error")
@click.option("--batches", is_flag=True, help="A line for each batch.")
@click.pass_obj
def status(session: Session, batches: bool) -> None:
    """Show how many tokens are in every state."""
    with session.open() as pool:
        told = pool.status()
        paused = [] if session.json else [rule.name for rule in batch_rules(pool.backend).values() if rule.paused]
        loose = pool.batches().get("") if batches and not session.json else None
    if session.json:
        print_json(told)
        return
    say(f"pool {told['pool']}")
    _say_who(told["workers"], paused)
    if not batches:
        print_table(("state", "tokens"), ((state, str(told["states"][state])) for state in STATES))
        return
    rows = [*told["batches"].items(), *([("(none)", loose)] if loose else []), ("all", told["states"])]
    print_table(
        ("batch", *STATES), ([one_line(name), *(str(counts[state]) for state in STATES)] for name, counts in rows)
    )


def _say_who(workers: Sequence[Json], paused: Sequence[str]) -> None:
    """Tell of the workers, and of what keeps them from working."""
    silent = [worker for worker in workers if worker["state"] in ("silent", "fenced")]
    alive = [worker for worker in workers if worker not in silent]
    if workers:
        busy = sum(min(worker["running"], worker["slots"]) for worker in alive)
        slots = output.number(sum(worker["slots"] for worker in alive), "slot")
        gone = f"; {len(silent)} silent" if silent else ""
        say(f"{output.number(len(alive), 'worker')}, {busy} of {slots} busy{gone}")
    if paused:
        say(f"paused: {', '.join(map(one_line, sorted(paused)))}")


# --- list --------------------------------------------------------------------------------------------------------------


@verb(
    "list",
    "tokenpool list state:error batch:night",
    "tokenpool list --limit 20 --json | jq '.[].input'",
    "tokenpool list -q state:todo tag:project=amber",
)
@selectors(required=False)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many.")
@click.pass_obj
def list_tokens(session: Session, selector: tuple[str, ...], limit: int | None) -> None:
    """List tokens.

    SELECTOR: ids, or conditions that all hold: state:error, batch:x, tag:k=v, host:n1, 'age>2h'; nothing means all.
    """
    with session.open() as pool:
        chosen = (token.doc for token in pool.tokens(selector or "all"))
        tokens = islice(chosen, limit)
        if session.json:
            print_array(tokens)
        elif session.quiet:
            for token in tokens:
                click.echo(str(token.get("_id")))
        else:
            _print_tokens(tokens)


def _print_tokens(tokens: Iterator[Json]) -> None:
    titles = ("id", "state", "exit", "batch", "host", "age", "command")
    first = next(tokens, None)
    if first is None:
        say("no token matches")
    else:
        print_table(titles, map(_row, chain([first], tokens)))


def _row(token: Json) -> list[str]:
    """Return the cells of one token, whatever its fields hold."""
    words = [
        token.get("_id"),
        state_of(token),
        token.get("exit_code", ""),
        token.get("batch") or "",
        token.get("hostname") or "",
    ]
    return [*map(one_line, words), age(last_change(token)), command_of(token)]


# --- show --------------------------------------------------------------------------------------------------------------


@verb("show", "tokenpool show task_1f0c", "tokenpool show task_1f0c --json | jq .attempts")
@click.argument("token_id", metavar="ID")
@click.pass_obj
def show(session: Session, token_id: str) -> None:
    """Show one token."""
    with session.open() as pool:
        token = pool.get(token_id).doc
    if session.json:
        print_json(token)
        return
    state = state_of(token)
    click.echo(f"{one_line(token['_id'])}  {click.style(state, fg=output.COLORS[state])}")
    hidden = {"_id", "attempts", "_attachments", "error"}
    files = _output_files(token)
    for name, value in token.items():
        if name == "output" and files and isinstance(value, dict):
            value = {key: each for key, each in value.items() if key != "files"}
        if name not in hidden and value not in ("", {}, [], None):
            click.echo(f"  {one_line(name):<14} {_readable(name, value)}")
    for each in files[:MOST_FILES]:
        where = f" in {one_line(shown(str(each['url'])))}" if each.get("url") else ""
        told = output.size(each["size"]) if isinstance(each.get("size"), int) else "?"
        click.echo(f"  {'output file':<14} {one_line(str(each.get('path')))} ({told}){where}")
    if len(files) > MOST_FILES:
        click.echo(f"  {'output file':<14} and {len(files) - MOST_FILES} more: --json shows all")
    _show_history(token)


def _output_files(token: Json) -> list[Json]:
    """Return the files that the token made, as far as they are told in a way that makes sense."""
    told = token.get("output")
    files = told.get("files") if isinstance(told, dict) else None
    return [each for each in files if isinstance(each, dict)] if isinstance(files, list) else []


def _readable(name: str, value: Any) -> str:
    # 99 is picas' mark of an error, not a time.
    if name in ("lock", "done", "not_before") and isinstance(value, (int, float)) and 99 < value < YEAR_9999:
        return f"{value} ({datetime.fromtimestamp(value).astimezone().isoformat()})"
    return one_line(value)


def _show_history(token: Json) -> None:
    attempts = token.get("attempts")
    for place, attempt in enumerate(attempts if isinstance(attempts, list) else [], 1):
        told = attempt if isinstance(attempt, dict) else {}
        ended = f"exit {told.get('exit_code')} {told.get('failure_class') or ''}".rstrip()
        click.echo(
            f"  attempt {place:<6} {told.get('start_time', '?')} on {told.get('hostname', '?')}: {one_line(ended)}"
        )
    errors = token.get("error")
    for entry in errors if isinstance(errors, list) else []:
        lines = entry.get("message") or entry.get("exception") if isinstance(entry, dict) else entry
        click.echo(f"  {'error':<14} {one_line(str(lines).strip().splitlines()[-1] if lines else '')}")
    attachments = token.get("_attachments")
    for name, stub in attachments.items() if isinstance(attachments, dict) else ():
        size = stub.get("length", "?") if isinstance(stub, dict) else "?"
        click.echo(f"  {'attachment':<14} {one_line(name)} ({size} bytes)")

"""The verb `batch`: how groups of tokens are treated; one small document each, no token is written."""

from __future__ import annotations

from typing import Any

import click

from ..batch_rules import BatchInfo, BatchRule, batches
from ..errors import BadInput
from ..transitions import STATES
from .output import one_line, print_json, print_table, say
from .session import Nouns, Session, help_if_bare, verb
from .types import Kind


@click.group(
    "batch",
    cls=Nouns,
    examples=("tokenpool batch pause night", "tokenpool batch set night --priority 5 --max-running 10"),
)
@click.pass_context
def batch(ctx: click.Context) -> int:
    """Show the batches and steer them.

    An order holds for all tokens of a batch, those pushed later too. It is one write, whatever their number.
    """
    return help_if_bare(ctx)


class Limit(Kind):
    """A number above 0, or ``none``."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the limit; 0 is none."""
        if value == "none":
            return 0
        number = int(value) if str(value).isascii() and str(value).isdigit() else 0
        if number < 1:
            self.fail(f"{value!r} is no limit; write a number above 0, or none", param, ctx)
        return number


@batch.add_command
@verb("list", "tokenpool batch list", "tokenpool batch list --json | jq '.batches[] | select(.paused) | .name'")
@click.pass_obj
def list_batches(session: Session) -> None:
    """List the batches with their rules and their tokens."""
    with session.open() as pool:
        found = batches(pool.backend)
    if session.json:
        print_json({"schema": 1, "batches": [each.as_json() for each in found]})
    elif session.quiet:
        for each in found:
            click.echo(each.rule.name)
    elif found:
        print_table(("batch", "paused", "priority", "limit", *STATES), map(_row, found), {"yes": "yellow"})
    else:
        say("no token has a batch")


def _row(each: BatchInfo) -> list[str]:
    rule = each.rule
    limit = "" if rule.max_running is None else str(rule.max_running)
    cells = [one_line(rule.name), "yes" if rule.paused else "", f"{rule.priority:g}", limit]
    return [*cells, *(str(each.states[state]) for state in STATES)]


@batch.add_command
@verb(
    "set",
    "tokenpool batch set night --priority 5 --max-running 10",
    "tokenpool batch set night --max-running none",
    "tokenpool batch set tomorrow --paused --create",
)
@click.argument("name")
@click.option("--priority", type=float, metavar="N", help="Its tokens go before those of batches that have less.")
@click.option("--max-running", type=Limit(), metavar="N|none", help="So many of its tokens run at a time.")
@click.option("--paused/--running", "paused", default=None, help="Whether its tokens are held back.")
@click.option("--create", is_flag=True, help="Also where there is no such batch yet.")
@click.pass_obj
def set_batch(
    session: Session, name: str, priority: float | None, max_running: int | None, paused: bool | None, create: bool
) -> None:
    """Set how a batch is treated.

    What is not named stays as it is. Its priority goes before that of its tokens. A token that runs goes on.
    """
    fields: dict[str, Any] = {}
    if priority is not None:
        fields["priority"] = int(priority) if priority.is_integer() else priority
    if max_running is not None:
        fields["max_running"] = max_running or None
    if paused is not None:
        fields["paused"] = paused
    if not (fields or create):
        raise BadInput("nothing was named to be set", session.command("batch", "set", name, "--priority", "5"))
    _set(session, (name,), create, **fields)


@batch.add_command
@verb("pause", "tokenpool batch pause night")
@click.argument("names", metavar="NAME", nargs=-1, required=True)
@click.pass_obj
def pause(session: Session, names: tuple[str, ...]) -> None:
    """Hold back all tokens of a batch.

    What runs goes on.
    """
    _set(session, names, paused=True)


@batch.add_command
@verb("resume", "tokenpool batch resume night")
@click.argument("names", metavar="NAME", nargs=-1, required=True)
@click.pass_obj
def resume(session: Session, names: tuple[str, ...]) -> None:
    """Let the tokens of a batch run."""
    _set(session, names, paused=False)


def _set(session: Session, names: tuple[str, ...], create: bool = False, **fields: Any) -> None:
    with session.open() as pool:
        rules = [pool.set_batch(name, create, **fields) for name in names]
    if session.json:
        print_json({"schema": 1, "batches": [vars(rule) for rule in rules]})
        return
    for rule in rules:
        say(f"batch {one_line(rule.name)}: {_told(rule)}")


def _told(rule: BatchRule) -> str:
    limit = "no limit" if rule.max_running is None else f"at most {rule.max_running} at a time"
    return f"{'paused' if rule.paused else 'not paused'}, priority {rule.priority:g}, {limit}"

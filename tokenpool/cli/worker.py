"""The verb `worker`: who works, and orders to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ..selectors import parse_time
from ..steering import WorkerInfo, choose, steer_many
from .bulk import agreed
from .output import age, duration, number, one_line, print_json, print_table, say
from .session import Nouns, Session, flags, help_if_bare, verb

Function = TypeVar("Function", bound=Callable[..., Any])

COLORS = {
    "working": "green", "idle": "cyan", "draining": "yellow", "stopping": "yellow", "silent": "red", "fenced": "red",
}  # fmt: skip


@click.group(
    "worker",
    cls=Nouns,
    examples=("tokenpool worker list", "tokenpool worker slots 8 host:n1", "tokenpool worker drain 3f9a"),
)
@click.pass_context
def worker(ctx: click.Context) -> int:
    """Show the workers and steer them.

    WORKER is the beginning of a worker's id, host:NAME, or all. Each order is one write; a worker obeys within a second or
    two.
    """
    return help_if_bare(ctx)


# --- list ----------------------------------------------------------------------------------------------------------------


@worker.add_command
@verb("list", "tokenpool worker list", "tokenpool worker list --json | jq '.workers[].tokens[].command'")
@click.pass_obj
def list_workers(session: Session) -> None:
    """List the workers.

    `silent` is one that did not renew its lease: others take its tokens back, nothing is to be done.
    """
    with session.open() as pool:
        found = pool.workers()
    if session.json:
        print_json({"schema": 1, "workers": [each.as_json() for each in found]})
    elif session.quiet:
        for each in found:
            click.echo(each.id)
    elif found:
        titles = ("worker", "host", "state", "slots", "running", "since", "renewed", "note")
        print_table(titles, map(_row, found), COLORS)
    else:
        say("no worker is known: one shows itself with its first token, or after a second without any")


def _row(each: WorkerInfo) -> list[str]:
    renewed = duration(each.age) if math.isfinite(each.age) else "?"
    cells = [each.id[:15], one_line(each.hostname), each.state, str(each.slots), str(each.held)]
    return [*cells, age(parse_time(each.started)), renewed, one_line(each.note)]


# --- orders --------------------------------------------------------------------------------------------------------------


def order_options(function: Function) -> Function:
    """Give a verb what all orders take."""
    return flags(
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Only tell which workers it would be."),
        click.argument("workers", metavar="WORKER", nargs=-1, required=True),
    )(function)


@worker.add_command
@verb("slots", "tokenpool worker slots 8 worker_3f9a", "tokenpool worker slots 2 host:n1 --yes")
@click.argument("count", metavar="N", type=click.IntRange(1))
@order_options
@click.pass_obj
def slots(session: Session, count: int, workers: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Let workers run N tokens at a time.

    What runs goes on; with fewer slots nothing new is started until enough has ended.
    """
    return _order(session, workers, f"set to {number(count, 'slot')}", {"slots": count}, yes, dry_run)


@worker.add_command
@verb("prefetch", "tokenpool worker prefetch 1 worker_3f9a", "tokenpool worker prefetch 0 all --yes")
@click.argument("count", metavar="N", type=click.IntRange(0))
@order_options
@click.pass_obj
def prefetch(session: Session, count: int, workers: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Let workers claim N tokens more than slots are free.

    Their inputs are fetched while the slots are busy. What was claimed already stays; 0 claims only what can run.
    """
    return _order(session, workers, f"told to claim {number(count, 'token')} ahead", {"prefetch": count}, yes, dry_run)


@worker.add_command
@verb("drain", "tokenpool worker drain worker_3f9a", "tokenpool worker drain host:n1 --dry-run")
@order_options
@click.pass_obj
def drain(session: Session, workers: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Let workers leave when what they run has ended.

    They claim nothing more. To hold all work back for a while, pause the batches instead.
    """
    return _order(session, workers, "told to drain", {"drain": True}, yes, dry_run)


@worker.add_command
@verb("stop", "tokenpool worker stop worker_3f9a", "tokenpool worker stop host:n1 --yes")
@order_options
@click.pass_obj
def stop(session: Session, workers: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Let workers leave now.

    What runs is ended, as after SIGTERM, and given back uncounted.
    """
    return _order(session, workers, "told to leave", {"stop": True}, yes, dry_run)


def _order(
    session: Session, words: tuple[str, ...], done: str, orders: Mapping[str, Any], yes: bool, dry_run: bool
) -> int:
    """Give the chosen workers an order, after asking where they are many; return the exit code."""
    with session.open() as pool:
        chosen = choose(pool.workers(), words)
        if not dry_run and not agreed(
            yes or len(chosen) < 2, f"{len(chosen)} workers would be {done}", f"{number(len(chosen), 'worker')} {done}?"
        ):
            return 1
        if not dry_run:
            there = {doc["_id"] for doc in steer_many(pool.backend, [each.id for each in chosen], **orders)}
            chosen = [each for each in chosen if each.id in there]
    if session.json:
        told = {"dry_run": True} if dry_run else {}
        print_json({"schema": 1, **told, "orders": dict(orders), "workers": [each.id for each in chosen]})
        return 0
    for each in chosen:
        say(f"{one_line(each.name)} {'would be ' if dry_run else ''}{done}")
    if not chosen:
        say("no worker is known")
    return 0

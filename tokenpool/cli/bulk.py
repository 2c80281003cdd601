"""The verbs that change many tokens at once: `retry`, `reset`, `cancel`, `rm`, `scrub`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..changes import Changed
from ..errors import BadInput
from ..pool import Pool
from ..selectors import Selector, parse
from .output import number, on_terminal, print_json, say, warn
from .progress import Meter
from .session import Session, flags, verb
from .types import selectors

Function = TypeVar("Function", bound=Callable[..., Any])

#: What was done to a token, said of many.
DONE = {
    "retry": "put back to todo",
    "reset": "put back to todo, results forgotten",
    "cancel": "cancelled",
    "rm": "deleted",
    "scrub": "put back to todo",
    "move": "moved",
    "pause": "paused",
    "resume": "resumed",
    "edit": "changed",
}
#: Why a token is left alone.
ONLY = {
    "retry": "only failed tokens can be retried",
    "reset": "they are todo already",
    "cancel": "they are finished",
    "rm": "running tokens are deleted with --running only",
    "scrub": "only locked and failed tokens can be scrubbed",
    "move": "they run, or are in the target already",
    "pause": "only waiting tokens can be paused",
    "resume": "they are not paused",
    "edit": "running tokens cannot be edited; cancel or reset them first",
}


def bulk_options(function: Function) -> Function:
    """Give a verb the options of a change to many tokens."""
    return flags(
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Only tell how many tokens it would change."),
        selectors(),
    )(function)


@verb("retry", "tokenpool retry state:error batch:night", "tokenpool retry task_1f0c")
@bulk_options
@click.pass_obj
def retry(session: Session, selector: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Put failed tokens back to todo.

    Their logs and history stay.
    """
    return change(session, "retry", selector, yes, dry_run)


@verb("reset", "tokenpool reset batch:night --yes", "tokenpool reset state:locked 'age>2h' --dry-run")
@bulk_options
@click.pass_obj
def reset(session: Session, selector: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Put tokens back to todo, their results forgotten.

    Logs go, the history stays. A running token is taken from its worker, which then ends it.
    """
    return change(session, "reset", selector, yes, dry_run)


@verb("cancel", "tokenpool cancel task_1f0c", "tokenpool cancel batch:night --yes")
@bulk_options
@click.pass_obj
def cancel(session: Session, selector: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """End waiting tokens and stop running ones.

    A waiting token ends in error at once; a running one as soon as its worker sees the request.
    """
    return change(session, "cancel", selector, yes, dry_run)


@verb("rm", "tokenpool rm state:done 'age>30d' --yes", "tokenpool rm batch:test --running")
@bulk_options
@click.option("--running", is_flag=True, help="Running tokens too; their workers stop them.")
@click.pass_obj
def rm(session: Session, selector: tuple[str, ...], yes: bool, dry_run: bool, running: bool) -> int:
    """Delete tokens."""
    return change(session, "rm", selector, yes, dry_run, running)


@verb("scrub", "tokenpool scrub state:locked 'age>2h' --yes", "tokenpool scrub task_1f0c")
@bulk_options
@click.pass_obj
def scrub(session: Session, selector: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Put locked or failed tokens back to todo, counted.

    For tokens of workers that died: scrub_count tells how often it happened.
    """
    return change(session, "scrub", selector, yes, dry_run)


# --- what they share -----------------------------------------------------------------------------------------------------


def change(session: Session, name: str, words: tuple[str, ...], yes: bool, dry_run: bool, running: bool = False) -> int:
    """Apply a verb to the chosen tokens after asking; return the exit code."""
    selector = parse(words)
    with session.open() as pool:
        if selector.ids:
            pool.count(selector)  # an id that is not there is an error, not nothing to do
        if not dry_run and not confirmed(
            session, pool, name, selector, yes, lambda: pool.change(name, selector, dry_run=True, running=running)
        ):
            return 1
        with Meter(name, 0) as meter:
            done = pool.change(
                name, selector, dry_run, running, lambda n: meter.set(meter.done + n, total=meter.done + n)
            )
    return tell(session, name, done, dry_run)


def confirmed(
    session: Session, pool: Pool, name: str, selector: Selector, yes: bool, count: Callable[[], Changed]
) -> bool:
    """Ask whether many tokens may be changed; without anybody to ask, --yes is needed."""
    if yes or len(set(selector.ids)) == 1:
        return True
    planned = count().changed
    if planned < 1 or (planned == 1 and not on_terminal()):
        return True
    return agreed(
        False, f"{name} would change {number(planned)} of {pool.url}", f"{name} {number(planned)} of {pool.url}?"
    )


def agreed(yes: bool, would: str, question: str) -> bool:
    """Ask whether something may be done to many; `would` says it where there is nobody to ask, and --yes is needed."""
    if yes:
        return True
    if not on_terminal():
        raise BadInput(f"{would} and there is nobody to ask", "add --yes, or look first with --dry-run")
    answer = click.confirm(question, err=True)
    if not answer:
        say("nothing was changed")
    return answer


def tell(session: Session, name: str, done: Changed, dry_run: bool) -> int:
    """Report a bulk change; return the exit code."""
    if session.json:
        counts = {
            "matched": done.matched,
            "changed": done.changed,
            "skipped": done.skipped,
            "failed": list(done.failed),
            **({"reopened": done.reopened} if done.reopened else {}),
        }
        print_json({"schema": 1, "verb": name, **({"dry_run": True} if dry_run else {}), **counts})
        return 1 if done.failed else 0
    if not done.matched:
        say("no token matches; nothing was changed")
    else:
        would = "would be " if dry_run else ""
        say(f"{number(done.changed)} {would}{DONE[name]}")
    if done.reopened:
        say(f"{number(done.reopened)} closed because of them: {'would be ' if dry_run else ''}held again")
    if done.skipped:
        say(f"{number(done.skipped)} left alone: {ONLY[name]}")
    if name != "move":  # which has told why
        for token_id in done.failed:
            warn(f"not changed: {token_id}: others write to it all the time")
    return 1 if done.failed else 0

"""The verbs `pause` and `resume`: tokens that are to wait until somebody says so."""

from __future__ import annotations

import click

from ..selectors import parse
from .bulk import bulk_options, change
from .output import say
from .session import Session, verb


@verb("pause", "tokenpool pause task_1f0c", "tokenpool pause batch:night tag:size=big --yes")
@bulk_options
@click.pass_obj
def pause(session: Session, selector: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Hold waiting tokens until they are resumed.

    Each token is written. A whole batch, with what is pushed into it later, is paused in one write by
    `tokenpool batch pause`.
    """
    code = change(session, "pause", selector, yes, dry_run)
    chosen = parse(selector)
    if len(chosen.batches) == 1 and selector == (f"batch:{chosen.batches[0]}",):
        say(f"a whole batch is paused in one write by: {session.command('batch', 'pause', chosen.batches[0])}")
    return code


@verb("resume", "tokenpool resume task_1f0c", "tokenpool resume state:held batch:night --yes")
@bulk_options
@click.pass_obj
def resume(session: Session, selector: tuple[str, ...], yes: bool, dry_run: bool) -> int:
    """Let paused tokens run.

    What waits for other tokens, or for a time, goes on to wait for that. A batch that was paused as a whole is resumed by
    `tokenpool batch resume`.
    """
    return change(session, "resume", selector, yes, dry_run)

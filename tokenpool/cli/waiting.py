"""The verb `wait`: until tokens are finished."""

from __future__ import annotations

from collections.abc import Mapping

import click

from ..errors import NotFound, OutOfSpace, TokenpoolError
from ..pool import Pool
from ..selectors import Selector, parse
from .output import print_json, say
from .progress import Meter, counts_note
from .session import Session, verb
from .types import DURATION, selectors

SOME_FAILED = 3
OPEN = ("todo", "held", "locked")
FAILED = ("error", "invalid")


class NotYet(TokenpoolError):
    """Tokens still wait or run after the time that was given."""

    exit_code = OutOfSpace.exit_code


@verb("wait", "tokenpool wait batch:night && make report", "tokenpool wait batch:night --timeout 2h")
@selectors()
@click.option("--timeout", type=DURATION, metavar="TIME", help="Give up after 90s, 2h; exit code 75.")
@click.pass_obj
def wait(session: Session, selector: tuple[str, ...], timeout: float | None) -> int:
    """Wait until tokens are finished.

    Ends when none of them waits or runs: exit code 0, or 3 if some failed.
    """
    chosen = parse(selector)
    with session.open() as pool:
        _refuse_unknown(pool, chosen)
        with Meter("waiting", 0) as meter:
            try:
                counts = pool.wait(chosen, timeout, progress=lambda counts: _show(meter, counts))
            except TimeoutError as error:
                raise NotYet(str(error), f"look at them: {session.command('list', *selector)}") from None
    if session.json:
        print_json({"schema": 1, "states": counts})
    else:
        say(f"finished: {counts_note(counts) or 'no token'}")
    return SOME_FAILED if any(counts[state] for state in FAILED) else 0


def _refuse_unknown(pool: Pool, selector: Selector) -> None:
    """A script that waits for a mistyped batch must not go on as if it were finished."""
    if selector.batches:
        known = pool.batches()
        for name in selector.batches:
            if name not in known:
                raise NotFound(f"there is no batch {name!r} in {pool.url}", "tokenpool status --batches")


def _show(meter: Meter, counts: Mapping[str, int]) -> None:
    total = sum(counts.values())
    meter.set(total - sum(counts[state] for state in OPEN), counts_note(counts), total)

"""The verb `spool`: finished tokens that wait on this computer because their pool could not be reached."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import click

from ..backends import open_backend
from ..config import load
from ..errors import ServerAway, TokenpoolError
from ..pool import Pool, connect
from ..spool import Delivered, Spool, SpoolInfo, damaged, default_root, deliver, listing
from .output import age, number, one_line, print_json, print_table, say, warn
from .progress import Meter
from .session import Nouns, Session, help_if_bare, verb, without_password

TRY_AGAIN = 75
COLORS = {"works": "green", "gone": "yellow"}

folder_option = click.option(
    "--spool", "folder", type=click.Path(file_okay=False), metavar="DIR", help="Where it is, if not as in the settings."
)


@click.group("spool", cls=Nouns, examples=("tokenpool spool list", "tokenpool spool deliver"))
@click.pass_context
def spool(ctx: click.Context) -> int:
    """Show and deliver finished tokens that wait on this computer.

    A worker keeps them here while its pool is away and delivers them later, or leaves them to the next worker here. This
    does the same without a worker.
    """
    return help_if_bare(ctx)


@spool.add_command
@verb("list", "tokenpool spool list", "tokenpool spool list --json | jq '.spools[].tokens'")
@folder_option
@click.pass_obj
def list_spools(session: Session, folder: str | None) -> None:
    """List the spools on this computer, of all pools."""
    root = _root(session, folder)
    found = [each for each in listing(root) if each.tokens or each.alive]
    if session.json:
        print_json({"schema": 1, "spool": str(root), "spools": list(map(_as_json, found))})
        return
    if found:
        print_table(("pool", "worker", "is", "tokens", "size", "oldest", "folder"), map(_row, found), COLORS)
    else:
        say(f"nothing waits in {root}")
    for path in damaged(root):
        warn(f"{path} could not be read, and was set aside")


def _as_json(each: SpoolInfo) -> dict[str, object]:
    return {
        "pool": each.pool_url, "worker": each.folder.name, "alive": each.alive, "tokens": each.tokens,
        "bytes": each.bytes, "oldest": each.oldest, "folder": str(each.folder),
    }  # fmt: skip


def _row(each: SpoolInfo) -> list[str]:
    words = [one_line(each.pool_url) or "?", each.folder.name[:15], "works" if each.alive else "gone"]
    return [*words, str(each.tokens), f"{each.bytes / 1e6:.1f} MB", age(each.oldest), str(each.folder)]


# --- deliver -------------------------------------------------------------------------------------------------------------


@spool.add_command
@verb(
    "deliver", "tokenpool spool deliver", "tokenpool spool deliver --all", "tokenpool spool deliver --json | jq .left"
)
@click.option("--all", "every", is_flag=True, help="To every pool, not only to the one of this call.")
@folder_option
@click.pass_obj
def deliver_spools(session: Session, every: bool, folder: str | None) -> int:
    """Deliver what waits, of workers that are gone.

    A worker that still runs delivers its own. With --all, a pool that wants a password which is not known here is left
    out; the password of the pool in the settings is told to no other server. The exit code is 75 if something is left.
    """
    root = _root(session, folder)
    waiting = [each for each in listing(root) if each.tokens]
    if every:
        urls = sorted({each.pool_url for each in waiting if not each.alive})
        done = [_deliver(partial(_connect, session, url), root, waiting, url, TokenpoolError) for url in urls]
    else:
        own = session.settings().pool
        done = [_deliver(partial(connect, own), root, waiting, _plain(own), ServerAway)]
    total = Delivered(*(sum(counts) for counts in zip(*map(astuple, done)))) if done else Delivered()
    if session.json:
        print_json({"schema": 1, **asdict(total)})
    else:
        _tell(total)
    return TRY_AGAIN if total.left else 0


def _deliver(
    opened: Callable[[], Pool], root: Path, waiting: Sequence[SpoolInfo], url: str, expected: type[TokenpoolError]
) -> Delivered:
    """Deliver to one pool; an `expected` error is a warning, if something is left by it."""
    try:
        with opened() as pool:
            here = [each for each in waiting if each.pool_url == pool.url]
            for each in here:
                if each.alive:
                    say(f"{number(each.tokens)} in {each.folder} left alone: that worker runs, and delivers by itself")
            return _empty(pool, root, sum(each.tokens for each in here if not each.alive))
    except expected as error:
        left = sum(each.tokens for each in waiting if not each.alive and each.pool_url == url)
        if not left:
            raise
        warn(f"not delivered to {url}: {error}; {error.hint}")
        return Delivered(left=left)


def _empty(pool: Pool, root: Path, expected: int) -> Delivered:
    """Take over what the dead left for this pool and deliver it; the rest stays in a spool that the next one finds."""
    ours = Spool(root, pool.url, f"deliver_{uuid4().hex}")
    try:
        ours.take_over()
        with Meter("deliver", expected) as meter:

            def forget(claim: str) -> None:
                ours.forget(claim)
                meter.advance()

            return deliver(pool.backend, ours.stream(), forget)
    finally:
        ours.close()


def _tell(total: Delivered) -> None:
    if total.written or not (total.superseded or total.left):
        say(f"{number(total.written)} delivered" if total.written else "nothing waits to be delivered")
    if total.superseded:
        say(f"{number(total.superseded)} kept as history: another outcome stands, or the token is gone")
    if total.left:
        warn(f"{number(total.left)} could not be delivered and still wait: tokenpool spool list")


# --- pools ---------------------------------------------------------------------------------------------------------------


def _root(session: Session, folder: str | None) -> Path:
    return default_root(folder or str(session.settings()["spool"])).absolute()


def _connect(session: Session, url: str) -> Pool:
    """Open a pool that a spool names; its URL there holds neither a password nor options."""
    own = session.settings()
    if _plain(own.pool) == url:
        return Pool(open_backend(own.pool, own.password()))
    settings = load(pool=url)
    if urlsplit(_plain(own.pool)).netloc != urlsplit(url).netloc:
        # Another server or user: what was given for the pool of the settings is not their password.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TOKENPOOL_PASSWORD")}
        settings = load(environ, pool=url, password_file="")
    return Pool(open_backend(url, settings.password()))


def _plain(url: str) -> str:
    return without_password(url).partition("?")[0]

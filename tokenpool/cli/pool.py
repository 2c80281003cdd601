"""The verb `init`."""

from __future__ import annotations

from dataclasses import replace

import click

from ..designs import DEFAULT_DESIGNS
from ..pool import connect
from .output import print_json, say
from .session import Session, verb, without_password


@verb(
    "init",
    "tokenpool init",
    "tokenpool init sqlite:///night.db",
    "TOKENPOOL_PASSWORD_FILE=~/.pw tokenpool init couchdb+https://me@host:6984/night",
)
@click.argument("url", required=False)
@click.option(
    "--design",
    "designs",
    multiple=True,
    metavar="NAME",
    help="Write this design too, for example SingleCore; may be repeated.",
)
@click.pass_obj
def init(session: Session, url: str | None, designs: tuple[str, ...]) -> None:
    """Make the pool and its views where they are missing.

    What is there already stays as it is, so it can be called again, and brings old views up to date.
    """
    chosen = session if url is None else replace(session, pool=url)
    with connect(chosen.settings().pool, create=True) as pool:
        pool.init([*DEFAULT_DESIGNS, *designs])
        if session.json:
            print_json({"schema": 1, "pool": pool.url, "designs": [*DEFAULT_DESIGNS, *designs]})
            return
        say(f"the pool {pool.url} is ready")
        if chosen.pool is not None:
            say(f"to use it from now on: export TOKENPOOL_POOL={without_password(chosen.pool)}")

"""The verb `report`: a campaign as one page, as an RO-Crate, or as figures in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import BadInput, NotFound
from ..selectors import Selector, parse
from .output import number, print_json, say
from .progress import Meter
from .session import Session, verb
from .types import selectors

if TYPE_CHECKING:
    from ..pool import Pool
    from ..reports.facts import Facts
    from ..reports.page import About


@verb(
    "report",
    "tokenpool report -o run.html",
    "tokenpool report batch:night -o night.html --title 'The night of 12 May'",
    "tokenpool report batch:night --crate night.zip",
    "tokenpool report --json | jq .cpu_efficiency",
)
@selectors(required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the page here; - prints it."
)
@click.option(
    "--crate", type=click.Path(path_type=Path), metavar="DIR|FILE.zip", help="Write an RO-Crate here (extra [crate])."
)
@click.option("--title", metavar="TEXT", help="What the campaign is called.")
@click.option("--server", metavar="URL", help="A server of this pool: ids lead to its pages.")
@click.option("--license", metavar="URL", help="With --crate: the licence of the data.")
@click.pass_obj
def report(
    session: Session,
    selector: tuple[str, ...],
    output: Path | None,
    crate: Path | None,
    title: str | None,
    server: str | None,
    license: str | None,
) -> None:
    """Write a report of a campaign.

    Of all tokens, or of those chosen, it tells the counts, what happened when, what was used of what was asked for, the
    failures by class and message, the slowest tokens, the hosts and the outputs, as one HTML page that needs nothing else. A
    pool of a million tokens makes no longer a page. With --json the same figures are printed.

    An RO-Crate says for machines what ran: each run with its software, inputs, outputs, who pushed it, start and end, as
    the profile Process Run Crate has it; files that are attached to tokens are in it, others are named by their URLs.
    """
    if output is None and crate is None and not session.json:
        raise BadInput("there is nowhere to write the report", "add -o run.html, --crate DIR, or --json")
    if server is not None and not server.startswith(("http://", "https://")):
        raise BadInput(f"{server!r} is no address of a server", "write --server https://HOST")
    _check_page(output)
    _check_crate(crate)
    words = selector or ("all",)
    chosen = parse(words)
    with session.open() as pool:
        facts = _gather(pool, chosen)
        about = _about(pool, chosen, words, title, server)
        if output is not None:
            _write_page(facts, about, output)
        if crate is not None:
            _write_crate(pool, chosen, facts, about, crate, license)
    if session.json:
        print_json(facts.as_json())


def _check_page(output: Path | None) -> None:
    """Say before anything is read that a page cannot be written."""
    if output is None or str(output) == "-":
        return
    if not output.parent.is_dir():
        raise NotFound(f"there is no folder {output.parent}", "make it, or write somewhere else")
    if output.is_dir():
        raise BadInput(f"{output} is a folder", f"name a file: -o {output / 'report.html'}")


def _check_crate(crate: Path | None) -> None:
    """Say before anything is read that a crate cannot be written."""
    if crate is None:
        return
    from ..reports.crate import check_place

    check_place(crate)


def _gather(pool: Pool, chosen: Selector) -> Facts:
    from ..reports.gather import gather

    total = sum(pool.count(chosen).values()) if chosen.ids else _about_so_many(pool, chosen)
    with Meter("reading", total) as meter:
        facts = gather(pool.backend, chosen, pool.backend.now(), meter.advance)
        meter.set(facts.tokens, total=facts.tokens)
    if not facts.tokens:
        raise NotFound(f"there are no such tokens in {pool.url}", "see what is there: tokenpool status --batches")
    return facts


def _about_so_many(pool: Pool, chosen: Selector) -> int:
    """Return the number of tokens that are read, from an index; hosts, tags and ages are not in it."""
    indexed = Selector(states=chosen.states, batches=chosen.batches)
    return sum(pool.count(indexed).values())


def _about(pool: Pool, chosen: Selector, words: Sequence[str], title: str | None, server: str | None) -> About:
    from ..metadata import __getattr__ as told
    from ..reports.page import About
    from .session import without_password

    url = without_password(pool.url)
    name = title or (f"Batch {', '.join(chosen.batches)}" if chosen.batches else url.rstrip("/").rpartition("/")[2])
    return About(name, url, " ".join(words), server or "", str(told("version")))


def _write_page(facts: Facts, about: About, output: Path) -> None:
    from ..reports.page import page

    made = page(facts, about)
    if str(output) == "-":
        click.echo(made, nl=False)
        return
    # It gets its name only when it is whole.
    partial = output.with_name(f".{output.name}.part")
    try:
        partial.write_text(made, "utf-8")
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    say(f"wrote {output}: {number(facts.tokens)}, {len(made.encode()) / 1000:.0f} kB")


def _write_crate(pool: Pool, chosen: Selector, facts: Facts, about: About, crate: Path, license: str | None) -> None:
    from ..reports.crate import write

    with Meter("writing the crate", facts.tokens) as meter:
        written = write(pool.backend, chosen, facts, about, crate, license or "", meter.advance)
    say(f"wrote {crate}: {number(written.actions, 'action')}, {number(written.files, 'file')} inside")

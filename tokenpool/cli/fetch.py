"""The verb `fetch`: brings the outputs and logs of tokens home, each token into a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import BadInput, TokenpoolError
from ..selectors import parse
from .output import complain, number, one_line, print_json, print_table, say, size
from .progress import Meter
from .session import Session, verb
from .types import selectors

if TYPE_CHECKING:
    from ..config import Settings
    from ..pool import Pool
    from ..storage import Storages
    from .bringing import Brought, Wanted


@verb(
    "fetch",
    "tokenpool fetch batch:night results/",
    "tokenpool fetch task_1f0c . --flat --no-logs",
    "tokenpool fetch state:done batch:night results/ --dry-run --json | jq '.files | length'",
)
@selectors()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--logs/--no-logs", default=True, help="Their logs too (yes).")
@click.option("--flat", is_flag=True, help="All into DIR itself, not a folder for each token.")
@click.option("--transfers", type=click.IntRange(1), metavar="N", help="Streams at a time (8).")
@click.option("--dry-run", is_flag=True, help="Only tell which files would come.")
@click.pass_obj
def fetch(
    session: Session,
    selector: tuple[str, ...],
    folder: Path,
    logs: bool,
    flat: bool,
    transfers: int | None,
    dry_run: bool,
) -> int:
    """Bring the outputs and logs of tokens home.

    Files come to DIR/ID/ by the names that they had below $OUTPUT; what is attached to the token comes too. A file that is
    there with the right size and checksum is not fetched again, so a call that was interrupted is simply repeated. What
    cannot be had is told, the rest comes; the exit code is then that of the error (4: it is not there any more).
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file", "name a folder: tokenpool fetch SELECTOR DIR")
    settings = session.settings(transfers=transfers)
    with session.open() as pool:
        if parse(selector).ids:
            pool.count(selector)
        from ..storage import Storages

        storages = Storages(settings.storage, str(settings["secrets"]))
        those = _wanted(pool, selector, folder, storages, logs, flat)
        if dry_run:
            return _tell_plan(session, list(those))
        result = _bring(session, pool, settings, storages, those)
    return _tell(session, result, folder)


def _wanted(
    pool: Pool, selector: tuple[str, ...], folder: Path, storages: Storages, logs: bool, flat: bool
) -> Iterator[Wanted | tuple[Wanted, TokenpoolError]]:
    """Yield all files of the chosen tokens, and those whose names are refused with the reason."""
    from .bringing import folder_of, wanted_of

    def usable(name: str) -> bool:
        try:
            storages.hidden(name)
        except TokenpoolError:
            return False
        return True

    for token in pool.tokens(selector):
        place = folder if flat else folder_of(folder, str(token.doc["_id"]))
        yield from wanted_of(token.doc, place, logs, usable)


def _bring(
    session: Session, pool: Pool, settings: Settings, storages: Storages,
    those: Iterator[Wanted | tuple[Wanted, TokenpoolError]],
) -> Brought:  # fmt: skip
    from ..staging.transfers import Transfers
    from .bringing import Bringer

    transfers = Transfers(storages, int(settings["transfers"]))
    try:
        with Meter("fetching", 0) as meter:

            def told(failed: Wanted | None) -> None:
                progress, result = bringer.progress, bringer.result
                done = result.fetched + result.present + len(result.failed)
                meter.set(done, f"{progress.bytes_done / 1e6:.1f} MB", total=bringer.seen)
                if failed is not None:
                    error = result.failed[-1][1]
                    click.echo(f"not fetched: {one_line(failed.name)} of {failed.token}: {error}", err=True)

            bringer = Bringer(transfers, pool.backend, told)
            bringer.bring(those)
    finally:
        transfers.close()
    return bringer.result


def _tell_plan(session: Session, those: list[Wanted | tuple[Wanted, TokenpoolError]]) -> int:
    files = [each for each in those if not isinstance(each, tuple)]
    for wanted, error in (each for each in those if isinstance(each, tuple)):
        click.echo(f"would not be fetched: {one_line(wanted.name)} of {wanted.token}: {error}", err=True)
    if session.json:
        told = [
            {"id": f.token, "path": f.name, "url": f.source if f.url else "", "size": f.size, "to": str(f.path)}
            for f in files
        ]
        print_json({"schema": 1, "files": told})
        return 0
    if files:
        print_table(("size", "from", "to"), ([size(f.size), f.source, str(f.path)] for f in files), color={})
    say(f"{number(len(files), 'file')}, {size(sum(f.size or 0 for f in files))}; nothing was fetched")
    return 0


def _tell(session: Session, result: Brought, folder: Path) -> int:
    if session.json:
        failed = [
            {"id": f.token, "path": f.name, "url": f.source if f.url else "", "error": error.message}
            for f, error in result.failed
        ]
        print_json(
            {"schema": 1, "fetched": result.fetched, "present": result.present, "bytes": result.bytes, "failed": failed}
        )
        return result.exit_code
    notes = [f"{result.present} there already"] if result.present else []
    notes += [f"{len(result.failed)} not fetched"] if result.failed else []
    told = ", ".join([f"{number(result.fetched, 'file')}, {size(result.bytes)}, fetched into {folder}", *notes])
    say(told if result.fetched or notes else "these tokens have no files")
    if result.failed:
        hints = {error.hint for _, error in result.failed if error.hint}
        hint = (
            hints.pop() if len(hints) == 1 else "the reasons stand above; what came stays, call it again for the rest"
        )
        complain("not_fetched", f"{number(len(result.failed), 'file')} could not be had", hint, as_json=False)
    return result.exit_code

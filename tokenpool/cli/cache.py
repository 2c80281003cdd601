"""The verb `cache`: what tokens share on this computer, and how it is cleared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..config import bytes_of
from ..errors import BadInput, NotFound
from .output import age, one_line, print_json, print_table, say, size
from .session import Nouns, Session, help_if_bare, verb
from .types import DURATION

if TYPE_CHECKING:
    from ..staging.cache import Cache, CacheEntry

#: Letters of a key that are shown, and that are enough to name it where no other begins so.
SHOWN = 12

folder_option = click.option(
    "--cache", "folder", type=click.Path(file_okay=False), metavar="DIR", help="Where it is, if not as in the settings."
)


@click.group("cache", cls=Nouns, examples=("tokenpool cache ls", "tokenpool cache prune --older-than 30d"))
@click.pass_context
def cache(ctx: click.Context) -> int:
    """Show and clear what tokens share on this computer.

    What tokens name as shared (`push --resource`) is fetched once and kept here, until room is needed: then what was not used
    for longest goes first. Clearing it harms nothing: tokens that run keep what they have, later ones fetch it again.
    """
    return help_if_bare(ctx)


@cache.add_command
@verb("ls", "tokenpool cache ls", "tokenpool cache ls --json | jq '[.entries[].size] | add'")
@folder_option
@click.pass_obj
def ls(session: Session, folder: str | None) -> None:
    """List what is kept, the least recently used first."""
    here = _cache(session, folder)
    entries = here.entries()
    held = sum(each.size for each in entries)
    if session.json:
        print_json(
            {"schema": 1, "cache": str(here.root), "limit": here.limit, "size": held, "entries": _as_json(entries)}
        )
        return
    if session.quiet:
        for each in entries:
            click.echo(each.key)
        return
    if entries:
        rows = (
            [each.key[:SHOWN], size(each.size), age(each.used), age(each.fetched), one_line(each.url)]
            for each in entries
        )
        print_table(("key", "size", "used", "fetched", "url"), rows, color={})
    say(f"{_counted(entries)}, {size(held)} of {size(here.limit)} in {here.root}")


@cache.add_command
@verb("rm", "tokenpool cache rm 3f2a9c", "tokenpool cache rm --all")
@click.argument("keys", nargs=-1, metavar="KEY...")
@click.option("--all", "every", is_flag=True, help="All that is kept.")
@folder_option
@click.pass_obj
def rm(session: Session, keys: tuple[str, ...], every: bool, folder: str | None) -> None:
    """Remove entries, named by the beginning of their keys."""
    if bool(keys) == every:
        raise BadInput(
            "keys and --all cannot both be given" if keys else "no key was given",
            "tokenpool cache ls shows the keys; tokenpool cache rm KEY, or --all",
        )
    here = _cache(session, folder)
    entries = here.entries()
    named = entries if every else [_found(entries, key) for key in keys]
    _tell(session, here, here.remove([each.key for each in named]))


@cache.add_command
@verb("prune", "tokenpool cache prune", "tokenpool cache prune --older-than 30d", "tokenpool cache prune --limit 10GB")
@click.option("--older-than", type=DURATION, metavar="TIME", help="What was not used for so long.")
@click.option(
    "--limit", metavar="SIZE", help="The least recently used, until so much is left: 10GB, or 5% of the disk."
)
@folder_option
@click.pass_obj
def prune(session: Session, older_than: float | None, limit: str | None, folder: str | None) -> None:
    """Remove what was not used for long; nothing that a running token uses.

    Without an option, what is beyond the limit of the settings (cache_limit).
    """
    here = _cache(session, folder)
    keep: int | None = None
    if limit is not None or older_than is None:
        keep = here.limit if limit is None else _bytes(limit, here)
    _tell(session, here, here.prune(keep, older_than) if here.root.is_dir() else [])


def _cache(session: Session, folder: str | None) -> Cache:
    from ..staging.cache_place import cache_of

    settings = session.settings(cache=folder)
    return cache_of(str(settings["cache"]), str(settings["cache_limit"]))


def _found(entries: Sequence[CacheEntry], key: str) -> CacheEntry:
    """Return the entry whose key begins so; raises NotFound, and BadInput where several do."""
    fitting = [each for each in entries if key and each.key.startswith(key)]
    if not fitting:
        raise NotFound(f"the cache has no key {key!r}", "tokenpool cache ls shows them")
    if len(fitting) > 1:
        raise BadInput(f"{len(fitting)} keys begin with {key!r}", "write more of its letters: tokenpool cache ls -q")
    return fitting[0]


def _bytes(text: str, here: Cache) -> int:
    from ..staging.cache_place import disk_bytes

    try:
        return bytes_of(text, disk_bytes(here.root))
    except ValueError:
        raise BadInput(f"--limit {text!r} is no size", "bytes, 10GB, or a part of its disk: 5%") from None


def _tell(session: Session, here: Cache, gone: Sequence[CacheEntry]) -> None:
    if session.json:
        print_json({"schema": 1, "cache": str(here.root), "removed": _as_json(gone)})
        return
    say(f"removed {_counted(gone)}, {size(sum(each.size for each in gone))}")


def _counted(entries: Sequence[CacheEntry]) -> str:
    return "1 entry" if len(entries) == 1 else f"{len(entries)} entries"


def _as_json(entries: Sequence[CacheEntry]) -> list[dict[str, object]]:
    return [
        {"key": each.key, "url": each.url, "size": each.size, "used": each.used, "fetched": each.fetched}
        for each in entries
    ]

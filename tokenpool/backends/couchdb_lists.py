"""Lists what a CouchDB pool holds, from views: tokens by state, by holder, and by what they wait for; page by page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import NotFound
from ..transitions import LOCKED, holder_of, state_of
from .base import Json, Row
from .batches import batch_of

if TYPE_CHECKING:
    from .couchdb import CouchDBBackend

#: Documents asked for at once while a whole state is read, and keys named in one request.
PAGE = 500


def scan(
    backend: CouchDBBackend, state: str | None, batch: str | None, with_docs: bool, holder: str | None
) -> Iterator[Json]:
    """Yield tokens from the view of all states; see `Queue.scan`."""
    if holder is not None:
        if state in (None, LOCKED):
            yield from _held_by(backend, batch, with_docs, holder)
        return
    if state is None and batch is not None:
        for each in sorted({found for found, of in backend.counts() if of == batch}):
            yield from scan(backend, each, batch, with_docs, None)
        return
    params: dict[str, Any] = {"reduce": False, "include_docs": with_docs}
    if state is not None:
        params["startkey"] = [state] if batch is None else [state, batch]
        params["endkey"] = [*params["startkey"], {}]
    for row in all_rows(backend, "tokenpool", "states", params):
        if row.doc is not None:
            yield row.doc
        elif not with_docs:
            yield {"_id": row.id}


def scan_monitor(
    backend: CouchDBBackend, state: str | None, batch: str | None, holder: str | None = None
) -> Iterator[Json]:
    """Yield tokens from picas' monitor, where the pool's own views were never written."""
    for view in ("todo", "locked", "done", "error") if state is None else (state,):
        if view in ("held", "invalid"):
            return
        for row in all_rows(backend, "Monitor", view, {"include_docs": True}):
            if row.doc is not None and batch in (None, batch_of(row.doc)) and _is_of(row.doc, holder):
                yield row.doc


def _is_of(doc: Json, holder: str | None) -> bool:
    return holder is None or (state_of(doc) == LOCKED and holder_of(doc) == holder)


# --- who holds what ------------------------------------------------------------------------------------------------


def holders(backend: CouchDBBackend) -> dict[tuple[str, str], int]:
    """Count the locked tokens by (batch, worker); see `Queue.holders`."""
    rows = _locked_rows(backend)
    if rows is None:
        return dict(Counter((batch_of(doc), holder_of(doc)) for doc in backend.scan(LOCKED)))
    return {(str(row.key[1]), str(row.key[2])): int(row.value) for row in rows}


def _locked_rows(backend: CouchDBBackend) -> tuple[Row, ...] | None:
    """Return the groups of locked tokens, None where the pool's view is missing or older than leases in it."""
    try:
        rows = backend.view("tokenpool", "states", {"group": True, "startkey": [LOCKED], "endkey": [LOCKED, {}]}).rows
    except NotFound:
        return None
    return rows if all(len(row.key) == 3 for row in rows) else None


def _held_by(backend: CouchDBBackend, batch: str | None, with_docs: bool, holder: str) -> Iterator[Json]:
    """Yield the locked tokens of one worker: the view is sorted by batch first, so it is asked batch by batch."""
    rows = _locked_rows(backend)
    if rows is None:
        yield from (doc for doc in backend.scan(LOCKED, batch) if _is_of(doc, holder))
        return
    for of in (row.key[1] for row in rows if row.key[2] == holder and batch in (None, row.key[1])):
        key = [LOCKED, of, holder]
        params = {"reduce": False, "include_docs": with_docs, "startkey": key, "endkey": key}
        for row in all_rows(backend, "tokenpool", "states", params):
            # A document is newer than the index at times: by now it may be somebody else's.
            if row.doc is not None and _is_of(row.doc, holder):
                yield row.doc
            elif not with_docs:
                yield {"_id": row.id}


def locked_in(backend: CouchDBBackend) -> dict[str, int]:
    """Count the locked tokens by batch."""
    try:
        params = {"group_level": 2, "startkey": [LOCKED], "endkey": [LOCKED, {}]}
        return {str(row.key[1]): int(row.value) for row in backend.view("tokenpool", "states", params).rows}
    except NotFound:
        return dict(Counter(batch_of(doc) for doc in backend.scan(LOCKED)))


# --- what waits ----------------------------------------------------------------------------------------------------


def waiting(
    backend: CouchDBBackend, kind: str, keys: Collection[Any] | None, until: float | None, limit: int, after: Any
) -> list[tuple[Any, str]]:
    """Return (key, token id) from the view of what waits; see `Queue.waiting`."""
    try:
        if keys is None:
            # One more element sorts behind every row of that very key.
            first: list[Any] = [kind] if after is None else [kind, after, 0]
            last: list[Any] = [kind, {} if until is None or kind != "due" else until]
            rows = backend.view("tokenpool", "waits", {"startkey": first, "endkey": last, "limit": limit}).rows
            return [(row.key[1], str(row.id)) for row in rows]
        found: list[tuple[Any, str]] = []
        wanted = [[kind, key] for key in sorted(set(keys))]
        for at in range(0, len(wanted), PAGE):
            if len(found) < limit:
                some = {"keys": wanted[at : at + PAGE], "limit": limit - len(found)}
                found += [(row.key[1], str(row.id)) for row in backend.view("tokenpool", "waits", some).rows]
        return found
    except NotFound:
        # Nobody wrote the view: then nothing is known to wait, as in a database that only picas uses.
        return []


# --- pages ---------------------------------------------------------------------------------------------------------


def all_rows(
    backend: CouchDBBackend, design: str, view: str, params: dict[str, Any], page: int = PAGE
) -> Iterator[Row]:
    """Yield every row of a view, page by page; pages after the first are long.

    A page begins with the last row of the one before: skipping it unseen would lose a token when that row has gone
    in between.
    """
    asked, size = dict(params), page
    before: tuple[Row, ...] = ()
    while True:
        rows = backend.view(design, view, {**asked, "limit": size}).rows
        if len(before) > 1 and rows and rows[0].id == before[0].id:
            yield from _rows_at_once(backend, design, view, params, {row.id for row in before})
            return
        yield from (row for row in rows if not before or (row.key, row.id) != (before[-1].key, before[-1].id))
        if len(rows) < size:
            return
        before, size = rows, max(PAGE, size)
        asked.update(startkey=rows[-1].key, startkey_docid=rows[-1].id)


def _rows_at_once(
    backend: CouchDBBackend, design: str, view: str, params: dict[str, Any], seen: set[str | None]
) -> Iterator[Row]:
    """Yield the rows that were not seen yet from a server that ignores `startkey_docid` (PouchDB's does)."""
    rows = backend.view(design, view, {**params, "include_docs": False}).rows
    rest = [row for row in rows if row.id not in seen]
    for at in range(0, len(rest), PAGE):
        part = rest[at : at + PAGE]
        docs = backend.get_many([str(row.id) for row in part]) if params.get("include_docs") else [None] * len(part)
        yield from (Row(row.id, row.key, row.value, doc) for row, doc in zip(part, docs))

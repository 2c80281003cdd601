"""Reads the queue of a CouchDB pool: the view `tokenpool/ready`, or a view of picas', from a place of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import NotFound
from .base import Json, Row, Want

if TYPE_CHECKING:
    from .couchdb import CouchDBBackend

#: Rows of a user's view read at once: many, so that many workers find different tokens in it.
VIEW_WINDOW = 500
#: Documents read at most to find those that carry the wanted tags.
TAG_SEARCH = 5000
#: Documents asked for at once while a whole state is read.
PAGE = 500


def candidates(backend: CouchDBBackend, want: Want, limit: int, start: float | None) -> list[Json]:
    """Return up to `limit` documents that could be claimed; see `Backend.candidates`."""
    if want.view:
        return _from_view(backend, want, limit, start)
    try:
        groups = _groups(backend, want)
    except NotFound:
        # A picas database whose owner never ran `init`: its own monitor lists the same tokens.
        return _from_view(backend, Want(want.batches, want.tags, "Monitor", "todo"), limit, start)
    found: list[Json] = []
    seen = 0
    for batch, rank in _ordered(groups, start):
        for doc in _range(backend, batch, rank, limit, start):
            seen += 1
            if _fits(doc, want):
                found.append(doc)
            if len(found) >= limit or seen >= TAG_SEARCH:
                return found
    return found


def _groups(backend: CouchDBBackend, want: Want) -> list[tuple[str, float]]:
    """Return the (batch, -priority) that have something to claim."""
    params: dict[str, Any] = {"group_level": 2}
    if len(want.batches) == 1:
        params.update(startkey=[want.batches[0]], endkey=[want.batches[0], {}])
    rows = backend.view("tokenpool", "ready", params).rows
    groups = [(str(row.key[0]), float(row.key[1])) for row in rows]
    return [group for group in groups if not want.batches or group[0] in want.batches]


def _ordered(groups: list[tuple[str, float]], start: float | None) -> list[tuple[str, float]]:
    """Sort by priority; batches of equal priority in a different order for each worker that spreads."""
    if start is not None:
        random.shuffle(groups)
    return sorted(groups, key=lambda group: group[1])


def _range(backend: CouchDBBackend, batch: str, rank: float, limit: int, start: float | None) -> Iterator[Json]:
    """Yield the documents of one batch and priority from `start` on, then those before it."""
    begin = start or 0.0
    yield from _pages(backend, [batch, rank, begin], [batch, rank, 2], limit)
    if begin:
        yield from _pages(backend, [batch, rank, 0], [batch, rank, begin], limit)


def _pages(backend: CouchDBBackend, startkey: list[Any], endkey: list[Any], limit: int) -> Iterator[Json]:
    params = {"startkey": startkey, "endkey": endkey, "reduce": False, "include_docs": True}
    for row in _all_rows(backend, "tokenpool", "ready", params, limit):
        if row.doc is not None:
            yield row.doc


def scan(backend: CouchDBBackend, state: str | None, batch: str | None, with_docs: bool) -> Iterator[Json]:
    """Yield tokens from the view of all states; see `Backend.scan`."""
    if state is None and batch is not None:
        for each in sorted({found for found, of in backend.counts() if of == batch}):
            yield from scan(backend, each, batch, with_docs)
        return
    params: dict[str, Any] = {"reduce": False, "include_docs": with_docs}
    if state is not None:
        params["startkey"] = [state, batch or ""]
        params["endkey"] = [state, {} if batch is None else batch]
    for row in _all_rows(backend, "tokenpool", "states", params):
        if row.doc is not None:
            yield row.doc
        elif not with_docs:
            yield {"_id": row.id}


def scan_monitor(backend: CouchDBBackend, state: str | None, batch: str | None) -> Iterator[Json]:
    """Yield tokens from picas' monitor, where the pool's own views were never written."""
    for view in ("todo", "locked", "done", "error") if state is None else (state,):
        if view in ("held", "invalid"):
            return
        for row in _all_rows(backend, "Monitor", view, {"include_docs": True}):
            if row.doc is not None and (batch is None or str(row.doc.get("batch") or "") == batch):
                yield row.doc


def _all_rows(
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


def _from_view(backend: CouchDBBackend, want: Want, limit: int, start: float | None) -> list[Json]:
    """Read a user's view: its rows without documents, then the documents of some of them."""
    params = {"limit": VIEW_WINDOW, "reduce": False, **want.view_params}
    try:
        rows = backend.view(want.design, want.view, params).rows
    except NotFound as error:
        raise NotFound(error.message, f"write the views first: tokenpool init {backend.url}") from None
    ids = [row.id for row in rows if row.id]
    if start is not None and ids:
        first = int(start * len(ids))
        ids = ids[first:] + ids[:first]
    found: list[Json] = []
    # Several short reads rather than one of the whole window: most of the time the first one is enough.
    for at in range(0, len(ids), max(limit, 10)):
        docs = backend.get_many(ids[at : at + max(limit, 10)])
        found += [doc for doc in docs if doc is not None and _fits(doc, want)]
        if len(found) >= limit:
            break
    return found


def _fits(doc: Json, want: Want) -> bool:
    if want.batches and str(doc.get("batch") or "") not in want.batches:
        return False
    tags = doc.get("tags") or {}
    return all(str(tags.get(name)) == value for name, value in want.tags.items())

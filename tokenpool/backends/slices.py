"""Reads a few tokens at some place of a long list: by an index on either store, so the next page costs as the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import NotFound
from ..transitions import is_token
from .base import ALL_DOCS, Backend, Json, Row
from .sqlite_rows import from_row

if TYPE_CHECKING:
    from .couchdb import CouchDBBackend
    from .sqlite import SQLiteBackend

#: Behind every id that begins with the letters before it.
LAST = "\ufff0"


@dataclass(frozen=True)
class Slice:
    """Some tokens, the place behind each, and the one behind what was read; `over` says that no more follow."""

    docs: list[Json]
    places: list[Any]
    over: bool
    end: Any = None


def slice_of(backend: Backend, state: str | None, batch: str | None, after: Any, limit: int, back: bool) -> Slice:
    """Return up to `limit` tokens of a state and batch behind the place `after`, in the store's order or `back` in it.

    SQLite's order is that of submission, CouchDB's that of state, batch, worker and id.
    """
    from .couchdb import CouchDBBackend
    from .sqlite import SQLiteBackend

    backend = _itself(backend)
    if isinstance(backend, SQLiteBackend):
        return _of_sqlite(backend, state, batch, after, limit, back)
    if isinstance(backend, CouchDBBackend):
        try:
            return _of_couchdb(backend, state, batch, after, limit, back)
        except NotFound:  # a database that only picas uses has none of our views
            return _of_any(backend, state, batch, after, limit)
    return _of_any(backend, state, batch, after, limit)


def lists_batches(backend: Backend) -> bool:
    """Tell whether a batch is listed in one go, whatever the states: CouchDB's index is sorted by state first."""
    from .couchdb import CouchDBBackend

    return not isinstance(_itself(backend), CouchDBBackend)


def _itself(backend: Backend) -> Backend:
    """Return the store behind one that only passes on what it is asked."""
    inner = getattr(backend, "inner", None)
    return _itself(inner()) if callable(inner) else backend


def ids_from(backend: Backend, prefix: str, after: Any, limit: int) -> Slice:
    """Return up to `limit` tokens whose id begins with `prefix`, behind the id `after`, by id."""
    from .sqlite import SQLiteBackend

    backend = _itself(backend)
    start = after if isinstance(after, str) else prefix
    if isinstance(backend, SQLiteBackend):
        sign = ">" if isinstance(after, str) else ">="
        rows = backend.run(
            f"SELECT id, rev, body, stubs FROM documents WHERE id {sign} ? AND id < ? AND state IS NOT NULL "
            "ORDER BY id LIMIT ?",
            (start, prefix + LAST, limit),
        )
        docs = [from_row(*row) for row in rows]
        return _slice(docs, [doc["_id"] for doc in docs], len(docs) < limit)
    params = {"startkey": start, "endkey": prefix + LAST, "include_docs": True, "limit": limit + 1}
    found = [row for row in backend.view(ALL_DOCS, "", params).rows if row.key != after]
    tokens = [row.doc for row in found[:limit] if row.doc is not None and is_token(row.doc)]
    end = found[:limit][-1].key if found else None
    return Slice(tokens, [doc["_id"] for doc in tokens], len(found) < limit, end)


def _slice(docs: list[Json], places: list[Any], over: bool) -> Slice:
    return Slice(docs, places, over, places[-1] if places else None)


def documents_named(backend: Backend, prefix: str) -> list[Json]:
    """Return all documents whose id begins so, by id, without counting the others."""
    from .sqlite import SQLiteBackend

    backend = _itself(backend)
    if isinstance(backend, SQLiteBackend):
        rows = backend.run(
            "SELECT id, rev, body, stubs FROM documents WHERE id >= ? AND id < ? ORDER BY id", (prefix, prefix + LAST)
        )
        return [from_row(*row) for row in rows]
    params = {"startkey": prefix, "endkey": prefix + LAST, "include_docs": True}
    return [row.doc for row in backend.view(ALL_DOCS, "", params).rows if row.doc is not None]


# --- the stores ----------------------------------------------------------------------------------------------------


def _of_sqlite(
    backend: SQLiteBackend, state: str | None, batch: str | None, after: Any, limit: int, back: bool
) -> Slice:
    where, values = ["state IS NOT NULL"], []
    for column, value in (("state", state), ("batch", batch)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if isinstance(after, int):
        where.append("seq < ?" if back else "seq > ?")
        values.append(after)  # type: ignore[arg-type]
    rows = backend.run(
        f"SELECT seq, id, rev, body, stubs FROM documents WHERE {' AND '.join(where)} "
        f"ORDER BY seq {'DESC' if back else 'ASC'} LIMIT {int(limit)}",
        values,
    )
    return _slice([from_row(*row[1:]) for row in rows], [row[0] for row in rows], len(rows) < limit)


def _of_couchdb(
    backend: CouchDBBackend, state: str | None, batch: str | None, after: Any, limit: int, back: bool
) -> Slice:
    first: list[Any] = [] if state is None else [state] if batch is None else [state, batch]
    bounds: list[Any] = [first, [*first, {}]]
    if back:
        bounds.reverse()
    params = {"reduce": False, "descending": back, "startkey": bounds[0], "endkey": bounds[1]}
    place = after if isinstance(after, list) and len(after) == 2 else None
    if place is None:
        rows = backend.view("tokenpool", "states", {**params, "include_docs": True, "limit": limit}).rows
        return _rows_of(rows, len(rows) < limit)
    params.update(startkey=place[0], startkey_docid=place[1])
    rows = backend.view("tokenpool", "states", {**params, "include_docs": True, "limit": limit + 1}).rows
    if rows and rows[0].key == place[0] and _before(rows[0].id, place[1], back):
        return _without_docid(backend, params, place, limit)
    rest = [row for row in rows if (row.key, row.id) != (place[0], place[1])]
    return _rows_of(rest[:limit], len(rows) <= limit)


def _before(one: str | None, other: str, back: bool) -> bool:
    return str(one) > other if back else str(one) < other


def _without_docid(backend: CouchDBBackend, params: Json, place: list[Any], limit: int) -> Slice:
    """Go on where a server ignores `startkey_docid` (PouchDB's does): ids only, from the first of that key."""
    rows = backend.view("tokenpool", "states", {**params, "include_docs": False}).rows
    back = bool(params["descending"])
    rest = [row for row in rows if row.key != place[0] or _before(place[1], str(row.id), back)]
    docs = backend.get_many([str(row.id) for row in rest[:limit]])
    return _rows_of([Row(row.id, row.key, None, doc) for row, doc in zip(rest, docs)], len(rest) <= limit)


def _rows_of(rows: list[Row] | tuple[Row, ...], over: bool) -> Slice:
    kept = [row for row in rows if row.doc is not None]  # the index may be behind the documents
    places = [[row.key, row.id] for row in kept]
    return Slice([row.doc or {} for row in kept], places, over, [rows[-1].key, rows[-1].id] if rows else None)


def _of_any(backend: Backend, state: str | None, batch: str | None, after: Any, limit: int) -> Slice:
    """Read from the beginning and leave out: all that can be done with a store whose indexes are not known here."""
    start = after if isinstance(after, int) else 0
    stream: Iterator[Json] = backend.scan(state, batch)
    docs = list(islice(stream, start, start + limit))
    return _slice(docs, list(range(start + 1, start + len(docs) + 1)), len(docs) < limit)

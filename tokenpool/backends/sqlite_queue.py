"""Reads the queue of a pool's file: by priority, then in the order of submission, from any place on."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .base import Json, Want
from .sqlite_rows import from_row, to_json

if TYPE_CHECKING:
    from .sqlite import SQLiteBackend

#: Rows of a user's view read at once, at first and at most; and documents of them.
VIEW_WINDOW, LARGEST_WINDOW, VIEW_PAGE = 500, 16000, 50
#: Python's spelling of what JSON spells differently.
_SPELLED = {"True": "true", "False": "false", "None": "null"}


def from_queue(backend: SQLiteBackend, want: Want, limit: int, start: float | None) -> list[Json]:
    """Return up to `limit` documents, those of the highest priority first; all of it comes out of one index.

    With `start` the group of the highest priority is read from that place on, then from its head, then the rest.
    """
    if start is None:
        return _documents(_merged(backend, want, limit, "1", ()))
    heads = _merged(backend, Want(want.batches), 1, "1", ())
    if not heads:
        return []
    priority = -heads[0][0]
    first = heads[0][1]
    last = max(row[0] for batch in _lanes(want) for row in _last(backend, batch, priority))
    place = first + int(start * (last - first + 1))
    rows: list[tuple[Any, ...]] = []
    for where, values in (
        ("priority = ? AND seq >= ?", (priority, place)),
        ("priority = ? AND seq < ?", (priority, place)),
        ("priority < ?", (priority,)),
    ):
        if len(rows) < limit:
            rows += _merged(backend, want, limit - len(rows), where, values)
    # A token that changed between the statements may have been read twice.
    return _documents(list({row[1]: row for row in rows}.values()))


def _documents(rows: list[tuple[Any, ...]]) -> list[Json]:
    return [from_row(*row[2:]) for row in rows]


def _lanes(want: Want) -> tuple[str | None, ...]:
    return tuple(dict.fromkeys(want.batches)) or (None,)


def _merged(
    backend: SQLiteBackend, want: Want, limit: int, where: str, values: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    """Return the first rows of all wanted batches in one order: (-priority, seq, id, rev, body, stubs)."""
    fits, wanted = _tags(want.tags)
    lanes = []
    for batch in _lanes(want):
        mine, name = ("1", ()) if batch is None else ("batch = ?", (batch,))
        lanes.append(
            backend.run(
                f"SELECT -priority, seq, id, rev, body, stubs FROM documents INDEXED BY {_index(batch)} "
                f"WHERE ready = 1 AND {mine} AND {where} AND {fits} ORDER BY priority DESC, seq LIMIT ?",
                (*name, *values, *wanted, limit),
            )
        )
    return lanes[0] if len(lanes) == 1 else list(heapq.merge(*lanes, key=lambda row: row[:2]))[:limit]


def _last(backend: SQLiteBackend, batch: str | None, priority: float) -> list[tuple[Any, ...]]:
    mine, name = ("1", ()) if batch is None else ("batch = ?", (batch,))
    return backend.run(
        f"SELECT seq FROM documents INDEXED BY {_index(batch)} "
        f"WHERE ready = 1 AND {mine} AND priority = ? ORDER BY seq DESC LIMIT 1",
        (*name, priority),
    )


def _index(batch: str | None) -> str:
    return "documents_ready" if batch is None else "documents_ready_batch"


def _tags(tags: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Return the SQL condition for tokens that carry these tags.

    `instr` throws out nearly all others without parsing; every body is spelled by `to_json`, so it misses none.
    """
    terms, values = [], []
    for name, value in tags.items():
        terms.append("(instr(body, ?) OR instr(body, ?))")
        values += [f"{to_json(name)}:{to_json(value)}", f"{to_json(name)}:{_SPELLED.get(value, value)}"]
    if tags:
        terms.append("has_tags(body, ?)")
        values.append(to_json(dict(tags)))
    return " AND ".join(terms) or "1", tuple(values)


def has_tags(body: str, wanted: str) -> bool:
    """Tell whether a stored document carries these tags; called by SQLite."""
    return _carries(json.loads(body), json.loads(wanted))


def _carries(doc: Json, wanted: Mapping[str, str]) -> bool:
    tags = doc.get("tags")
    return not wanted or (isinstance(tags, dict) and all(str(tags.get(name)) == wanted[name] for name in wanted))


def from_view(backend: SQLiteBackend, want: Want, start: float | None) -> Iterator[Json]:
    """Yield the documents that a view lists, each once, in its order; with `start` each window from that place on."""
    seen: set[str] = set()
    for ids in _windows(backend, want):
        place = int((start or 0.0) * len(ids))
        ids = [each for each in ids[place:] + ids[:place] if each not in seen]
        seen.update(ids)
        for at in range(0, len(ids), VIEW_PAGE):
            docs = backend.get_many(ids[at : at + VIEW_PAGE])
            yield from (doc for doc in docs if doc is not None and _fits(doc, want))


def _windows(backend: SQLiteBackend, want: Want) -> Iterator[list[str]]:
    """Yield the ids of a view window by window; each is larger, since each is counted off from the view's head."""
    params: dict[str, Any] = {**want.view_params, "reduce": False, "include_docs": False}
    size, at = VIEW_WINDOW, int(params.pop("skip", 0) or 0)
    while True:
        rows = backend.view_rows(want.design, want.view, {"limit": size, **params, "skip": at})
        if rows:
            yield [row.id for row in rows if row.id]
        if len(rows) < size or "limit" in params:
            return
        at += size
        size = min(2 * size, LARGEST_WINDOW)


def _fits(doc: Json, want: Want) -> bool:
    return (not want.batches or str(doc.get("batch") or "") in want.batches) and _carries(doc, want.tags)

"""Reads the queue of a pool's file: by priority, then in the order of submission, from any place on."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..transitions import claimable
from .base import Json, Want, Window
from .batches import PREFIX, Gate, Rank, Rules, batch_of, mixed, rules_of
from .sqlite_rows import from_row, to_json

if TYPE_CHECKING:
    from .sqlite import SQLiteBackend

#: Rows of a user's view read at once, at first and at most; and documents of them.
VIEW_WINDOW, LARGEST_WINDOW, VIEW_PAGE = 500, 16000, 50
#: Rows of a lane read at once, at most.
PAGE = 500
#: Documents read at most to find those that a worker wants.
SEARCH = 5000
#: Python's spelling of what JSON spells differently.
_SPELLED = {"True": "true", "False": "false", "None": "null"}
#: Every batch that has something to claim, each found by one step in the index, whatever it holds.
_BATCHES = """
    WITH RECURSIVE found (name) AS (
        SELECT (SELECT batch FROM documents INDEXED BY documents_ready_batch WHERE ready = 1 ORDER BY batch LIMIT 1)
        UNION ALL
        SELECT (
            SELECT batch FROM documents INDEXED BY documents_ready_batch
            WHERE ready = 1 AND batch > name ORDER BY batch LIMIT 1
        ) FROM found WHERE name IS NOT NULL
    )
    SELECT name FROM found WHERE name IS NOT NULL
"""

#: (-priority, seq, id, rev, body, stubs)
_Row = tuple[Any, ...]
#: Batches that are read as one queue; None alone is all of them.
_Lanes = Sequence["str | None"]


def from_queue(backend: SQLiteBackend, want: Want, limit: int, start: float | None) -> Window:
    """Return up to `limit` documents of the queue; see `Queue.candidates`."""
    rules = _rules(backend)
    gate = Gate(rules, lambda batch: _locked_in(backend, batch))
    found: dict[str, tuple[Rank, Json]] = {}
    seen = 0
    for importance, lanes in _lanes(backend, want, gate, bool(rules)):
        for row in _rows(backend, lanes, want.tags, gate, limit, start):
            seen += 1
            doc = from_row(*row[2:])
            # A token that changed between two statements may be read twice.
            if doc["_id"] not in found and claimable(doc) and want.fits(doc) and (not rules or gate.admit(doc)):
                found[doc["_id"]] = (importance, row[0]), doc
            if len(found) >= limit or seen >= SEARCH:
                return _window(found, gate, start)
    return _window(found, gate, start)


def _window(found: Mapping[str, tuple[Rank, Json]], gate: Gate, start: float | None) -> Window:
    ranked = list(found.values())
    return Window([doc for _, doc in (ranked if start is None else mixed(ranked))], gate.rooms)


# --- batches ---------------------------------------------------------------------------------------------------------


def _rules(backend: SQLiteBackend) -> dict[str, Rules]:
    """Return the rules of every batch that has some."""
    rows = backend.run("SELECT id, body FROM documents INDEXED BY documents_rules WHERE type = 'batch'")
    found = {name[len(PREFIX) :]: rules_of(json.loads(body)) for name, body in rows if name.startswith(PREFIX)}
    return {name: rules for name, rules in found.items() if rules != Rules()}


def _locked_in(backend: SQLiteBackend, batch: str) -> int:
    (row,) = backend.run("SELECT count(*) FROM documents WHERE state = 'locked' AND batch = ?", (batch,))
    return int(row[0])


def _lanes(backend: SQLiteBackend, want: Want, gate: Gate, ruled: bool) -> Iterator[tuple[float, _Lanes]]:
    """Yield the batches that are read side by side, the most important first: (-their priority, the batches)."""
    wanted: _Lanes = tuple(dict.fromkeys(want.batches))
    if not ruled:
        yield 0.0, wanted or (None,)
        return
    names = [str(name) for name in wanted or itertools.chain.from_iterable(backend.run(_BATCHES))]
    names = sorted((name for name in names if gate.is_open(name)), key=lambda name: -gate.priority(name))
    for importance, group in itertools.groupby(names, key=lambda name: -gate.priority(name)):
        yield importance, tuple(group)


# --- rows ------------------------------------------------------------------------------------------------------------


def _rows(
    backend: SQLiteBackend, lanes: _Lanes, tags: Mapping[str, str], gate: Gate, limit: int, start: float | None
) -> Iterator[_Row]:
    """Yield the rows of some batches as one queue; all of it comes out of one index.

    With `start` the group of the highest priority is read from that place on, then from its head, then the rest.
    """
    if start is None:
        yield from _merged(backend, lanes, tags, gate, limit, "1", ())
        return
    heads = [row for batch in lanes for row in _end(backend, batch, "priority DESC, seq")]
    if not heads:
        return
    priority = max(row[0] for row in heads)
    first = min(row[1] for row in heads if row[0] == priority)
    ends = [_end(backend, batch, "seq DESC", "priority = ?", (priority,)) for batch in lanes]
    last = max((row[1] for rows in ends for row in rows), default=first)
    place = first + int(start * (last - first + 1))
    for where, values in (
        ("priority = ? AND seq >= ?", (priority, place)),
        ("priority = ? AND seq < ?", (priority, place)),
        ("priority < ?", (priority,)),
    ):
        yield from _merged(backend, lanes, tags, gate, limit, where, values)


def _end(
    backend: SQLiteBackend, batch: str | None, order: str, where: str = "1", values: tuple[Any, ...] = ()
) -> list[tuple[float, int]]:
    """Return (priority, seq) of the first row of a lane in an order, or nothing."""
    mine, name = _mine(batch)
    rows = backend.run(
        f"SELECT priority, seq FROM documents {mine} AND {where} ORDER BY {order} LIMIT 1", (*name, *values)
    )
    return [(row[0], row[1]) for row in rows]


def _merged(
    backend: SQLiteBackend,
    lanes: _Lanes,
    tags: Mapping[str, str],
    gate: Gate,
    limit: int,
    where: str,
    values: tuple[Any, ...],
) -> Iterator[_Row]:
    """Yield the rows of all lanes in one order: by priority, then by submission."""
    fits, wanted = _tags(tags)
    # Of many lanes only the first few rows of each are likely to be used.
    page = max(2, 2 * limit // len(lanes)) if len(lanes) > 1 else limit
    streams = [_lane(backend, batch, gate, page, f"{where} AND {fits}", (*values, *wanted)) for batch in lanes]
    return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda row: row[:2])


def _lane(
    backend: SQLiteBackend, batch: str | None, gate: Gate, page: int, where: str, values: tuple[Any, ...]
) -> Iterator[_Row]:
    """Yield the rows of one batch, or of all, page by page, while the batch has room."""
    mine, name = _mine(batch)
    behind = ""
    last: tuple[float, ...] = ()
    while True:
        rows = backend.run(
            f"SELECT -priority, seq, id, rev, body, stubs FROM documents {mine} {behind} AND {where} "
            "ORDER BY priority DESC, seq LIMIT ?",
            (*name, *last, *values, page),
        )
        for row in rows:
            if batch is not None and not gate.is_open(batch):
                return
            yield row
        if len(rows) < page:
            return
        priority, seq = -rows[-1][0], rows[-1][1]
        behind, last = "AND priority <= ? AND (priority < ? OR seq > ?)", (priority, priority, seq)
        page = max(page, min(2 * page, PAGE))


def _mine(batch: str | None) -> tuple[str, tuple[str, ...]]:
    if batch is None:
        return "INDEXED BY documents_ready WHERE ready = 1", ()
    return "INDEXED BY documents_ready_batch WHERE ready = 1 AND batch = ?", (batch,)


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


# --- a user's view ---------------------------------------------------------------------------------------------------


def from_view(backend: SQLiteBackend, want: Want, limit: int, start: float | None) -> Window:
    """Return up to `limit` documents of those that a view lists, in its order; each window from the place `start` on."""
    gate = Gate({}, lambda batch: _locked_in(backend, batch))
    found: list[Json] = []
    for docs in _pages_of_view(backend, want, start):
        gate.learn(backend, {batch_of(doc) for doc in docs} - {""})
        for doc in docs:
            if len(found) < limit and gate.admit(doc):
                found.append(doc)
        if len(found) >= limit:
            break
    return Window(found, gate.rooms)


def _pages_of_view(backend: SQLiteBackend, want: Want, start: float | None) -> Iterator[list[Json]]:
    """Yield the wanted documents that a view lists, page by page, each document once."""
    seen: set[str] = set()
    for ids in _windows(backend, want):
        place = int((start or 0.0) * len(ids))
        ids = [each for each in ids[place:] + ids[:place] if each not in seen]
        seen.update(ids)
        for at in range(0, len(ids), VIEW_PAGE):
            docs = backend.get_many(ids[at : at + VIEW_PAGE])
            yield [doc for doc in docs if doc is not None and _fits(doc, want)]


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
    mine = not want.batches or batch_of(doc) in want.batches
    return mine and claimable(doc) and _carries(doc, want.tags) and want.fits(doc)

"""Reads the queue of a CouchDB pool: the view `tokenpool/ready`, or a view of picas', from a place of its own.

A queue that fits into the answer is read whole, in one request. A longer one takes two: one that counts what each
batch has at each priority, and one for the documents. The rules of the batches come along with either.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import chance
from ..errors import NotFound
from ..transitions import claimable
from .base import Json, Row, Want, Window
from .batches import Gate, Rank, Rules, batch_of, mixed
from .couchdb_lists import all_rows, locked_in

if TYPE_CHECKING:
    from .couchdb import CouchDBBackend

#: Rows of a user's view read at once: many, so that many workers find different tokens in it.
VIEW_WINDOW = 500
#: Documents read at most to find those that a worker wants.
SEARCH = 5000
#: Rows asked for beyond a window's size where the whole queue is hoped for: rules of batches, and who else claims.
SPARE = 16


def candidates(backend: CouchDBBackend, want: Want, limit: int, start: float | None) -> Window:
    """Return up to `limit` documents that could be claimed; see `Queue.candidates`."""
    if want.view:
        return _from_view(backend, want, want.design, want.view, limit, start)
    try:
        return _from_ready(backend, want, limit, start)
    except NotFound:
        # A picas database whose owner never ran `init`: its own monitor lists the same tokens.
        return _from_view(backend, want, "Monitor", "todo", limit, start)


def _from_ready(backend: CouchDBBackend, want: Want, limit: int, start: float | None) -> Window:
    size = limit + SPARE
    rows = _rows_of_all(backend, want, size) if backend.short_queues.get(want.batches, True) else None
    if rows is None:
        groups = _groups(backend, want)
        if sum(int(row.value) for row in groups) <= size:
            rows = _rows_of_all(backend, want, size)
    backend.short_queues[want.batches] = rows is not None
    if rows is not None:
        return _choose(backend, want, limit, start, rows)
    return _read_groups(backend, want, limit, start, groups)


def _range_of(want: Want) -> dict[str, Any]:
    # Several batches are picked out of all: they need not be neighbours.
    return {"startkey": [want.batches[0]], "endkey": [want.batches[0], {}]} if len(want.batches) == 1 else {}


def _rows_of_all(backend: CouchDBBackend, want: Want, size: int) -> Sequence[Row] | None:
    """Return every row that may be wanted, with its document; None where there are more than `size`."""
    params = {**_range_of(want), "reduce": False, "include_docs": True, "limit": size + 1}
    rows = backend.view("tokenpool", "ready", params).rows
    return rows if len(rows) <= size else None


def _groups(backend: CouchDBBackend, want: Want) -> Sequence[Row]:
    """Return a row for each batch and priority that has something to claim, and one for the rules of each batch."""
    return backend.view("tokenpool", "ready", {**_range_of(want), "group_level": 2}).rows


def _sorted_out(backend: CouchDBBackend, want: Want, rows: Sequence[Row]) -> tuple[Gate, list[tuple[Rank, Row]]]:
    """Part the rules of batches from the rows of tokens; return the wanted ones of open batches, ranked."""
    rules = {}
    tokens = []
    for row in rows:
        batch, second = str(row.key[0]), row.key[1]
        if isinstance(second, list):
            rules[batch] = Rules(bool(second[1]), float(second[2]), second[3])
        elif not want.batches or batch in want.batches:
            tokens.append((batch, row))
    gate = _gate(backend, rules)
    return gate, [((-gate.priority(of), float(row.key[1])), row) for of, row in tokens if gate.is_open(of)]


def _gate(backend: CouchDBBackend, rules: Mapping[str, Rules]) -> Gate:
    # One request for all batches, and only where one that has a limit has something to claim.
    totals = functools.cache(lambda: locked_in(backend))
    return Gate(rules, lambda batch: totals().get(batch, 0))


def _choose(backend: CouchDBBackend, want: Want, limit: int, start: float | None, rows: Sequence[Row]) -> Window:
    """Make a window of the rows of a whole queue."""
    gate, tokens = _sorted_out(backend, want, rows)
    if start is not None:
        chance.shuffle(tokens)
    tokens.sort(key=lambda entry: entry[0])
    found: list[Json] = []
    for _, row in tokens:
        if len(found) < limit and row.doc is not None and _fits(row.doc, want) and gate.admit(row.doc):
            found.append(row.doc)
    return Window(found, gate.rooms)


def _read_groups(backend: CouchDBBackend, want: Want, limit: int, start: float | None, rows: Sequence[Row]) -> Window:
    """Read the documents of one group after another, until there are enough."""
    gate, groups = _sorted_out(backend, want, rows)
    if start is not None:
        chance.shuffle(groups)
    found: list[tuple[Rank, Json]] = []
    seen = 0
    for rank, row in sorted(groups, key=lambda entry: entry[0]):
        batch = str(row.key[0])
        if not gate.is_open(batch):
            continue
        for doc in _range(backend, row, limit, start):
            seen += 1
            if _fits(doc, want) and gate.admit(doc):
                found.append((rank, doc))
            if len(found) >= limit or seen >= SEARCH:
                return _window(found, gate, start)
            if not gate.is_open(batch):
                break
    return _window(found, gate, start)


def _window(found: list[tuple[Rank, Json]], gate: Gate, start: float | None) -> Window:
    return Window([doc for _, doc in (found if start is None else mixed(found))], gate.rooms)


def _range(backend: CouchDBBackend, group: Row, limit: int, start: float | None) -> Iterator[Json]:
    """Yield the documents of one batch and priority from `start` on, then those before it."""
    begin = start or 0.0
    if int(group.value) <= limit:
        # One request for all of them, and a row more than there are: a full page is followed by another.
        begin, limit = 0.0, limit + 1
    yield from _pages(backend, [*group.key, begin], [*group.key, 2], limit)
    if begin:
        yield from _pages(backend, [*group.key, 0], [*group.key, begin], limit)


def _pages(backend: CouchDBBackend, startkey: list[Any], endkey: list[Any], limit: int) -> Iterator[Json]:
    params = {"startkey": startkey, "endkey": endkey, "reduce": False, "include_docs": True}
    for row in all_rows(backend, "tokenpool", "ready", params, limit):
        if row.doc is not None:
            yield row.doc


def _from_view(backend: CouchDBBackend, want: Want, design: str, view: str, limit: int, start: float | None) -> Window:
    """Read a user's view: its rows without documents, then the documents of some of them, in the view's order."""
    gate = _gate(backend, {})
    found: list[Json] = []
    for ids in _windows(backend, want, design, view):
        first = int((start or 0.0) * len(ids))
        ids = ids[first:] + ids[:first]
        # Several short reads rather than one of the whole window: most of the time the first one is enough.
        for at in range(0, len(ids), max(limit, 10)):
            docs = backend.get_many(ids[at : at + max(limit, 10)])
            fitting = [doc for doc in docs if doc is not None and _fits(doc, want)]
            # Tokens without a batch, as all of picas' are, have no rules that would cost a request.
            gate.learn(backend, {batch_of(doc) for doc in fitting} - {""})
            for doc in fitting:
                if len(found) < limit and gate.admit(doc):
                    found.append(doc)
            if len(found) >= limit:
                return Window(found, gate.rooms)
    return Window(found, gate.rooms)


def _windows(backend: CouchDBBackend, want: Want, design: str, view: str) -> Iterator[list[str]]:
    """Yield the ids of a view window by window, each id once, until there is no more or enough was looked through."""
    params: dict[str, Any] = {"limit": VIEW_WINDOW, "reduce": False, **want.view_params}
    skip, seen = int(params.pop("skip", 0) or 0), set[str]()
    for at in range(0, SEARCH, VIEW_WINDOW):
        try:
            rows = backend.view(design, view, {**params, **({"skip": skip + at} if skip + at else {})}).rows
        except NotFound as error:
            raise NotFound(error.message, f"write the views first: tokenpool init {backend.url}") from None
        ids = [each for each in dict.fromkeys(row.id for row in rows) if each and each not in seen]
        seen.update(ids)
        yield ids
        if len(rows) < VIEW_WINDOW or "limit" in want.view_params:
            return


def _fits(doc: Json, want: Want) -> bool:
    if not claimable(doc) or (want.batches and batch_of(doc) not in want.batches):
        return False
    tags = doc.get("tags")
    carried = tags if isinstance(tags, dict) else {}
    return all(str(carried.get(name)) == value for name, value in want.tags.items()) and want.fits(doc)

"""Lists what a pool's file holds, by indexes: tokens by state and by holder, what they wait for, and what changed."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from threading import Event
from typing import TYPE_CHECKING, Any

from ..errors import TokenpoolError
from ..transitions import LOCKED
from .base import Heard, Json
from .sqlite_rows import from_row, to_json

if TYPE_CHECKING:
    from .sqlite import SQLiteBackend

#: Documents read at once while all are read.
PAGE = 500
#: Seconds between two looks whether anybody wrote into the file.
LOOK = 0.02


def scan(backend: SQLiteBackend, state: str | None, batch: str | None, with_docs: bool) -> Iterator[Json]:
    """Yield tokens in the order of submission; see `Queue.scan`."""
    columns = "seq, id, rev, body, stubs" if with_docs else "seq, id"
    where, values = "state IS NOT NULL", []
    for column, value in (("state", state), ("batch", batch)):
        if value is not None:
            where += f" AND {column} = ?"
            values.append(value)
    last = 0
    while True:
        rows = backend.run(
            f"SELECT {columns} FROM documents WHERE {where} AND seq > ? ORDER BY seq LIMIT {PAGE}", (*values, last)
        )
        for row in rows:
            yield from_row(*row[1:]) if with_docs else {"_id": row[1]}
        if len(rows) < PAGE:
            return
        last = rows[-1][0]


def scan_held(
    backend: SQLiteBackend, holder: str, state: str | None, batch: str | None, with_docs: bool
) -> Iterator[Json]:
    """Yield the locked tokens of one worker, batch by batch; see `Queue.scan`."""
    if state not in (None, LOCKED):
        return
    columns = "batch, seq, id, rev, body, stubs" if with_docs else "batch, seq, id"
    behind = "(batch, seq) > (?, ?)" if batch is None else "batch = ? AND seq > ?"
    last: tuple[Any, ...] = (batch or "", 0)
    while True:
        rows = backend.run(
            f"SELECT {columns} FROM documents INDEXED BY documents_holder "
            f"WHERE holder = ? AND {behind} ORDER BY batch, seq LIMIT {PAGE}",
            (holder, *last),
        )
        for row in rows:
            yield from_row(*row[2:]) if with_docs else {"_id": row[2]}
        if len(rows) < PAGE:
            return
        last = rows[-1][:2]


def holders(backend: SQLiteBackend) -> dict[tuple[str, str], int]:
    """Count the locked tokens by (batch, worker); see `Queue.holders`."""
    rows = backend.run(
        "SELECT batch, holder, count(*) FROM documents INDEXED BY documents_holder "
        "WHERE holder IS NOT NULL GROUP BY holder, batch"
    )
    return {(batch, worker): number for batch, worker, number in rows}


def waiting(
    backend: SQLiteBackend, kind: str, keys: Collection[Any] | None, until: float | None, limit: int, after: Any
) -> list[tuple[Any, str]]:
    """Return (key, token id) of what waits; see `Queue.waiting`."""
    if keys is None:
        where = "kind = ?"
        values: list[Any] = [kind]
        for condition, value in (("key > ?", after), ("key <= ?", until if kind == "due" else None)):
            if value is not None:
                where += f" AND {condition}"
                values.append(value)
        return _waits(backend, where, values, limit)
    found: list[tuple[Any, str]] = []
    wanted = sorted(set(keys))
    for at in range(0, len(wanted), PAGE):
        if len(found) < limit:
            some = wanted[at : at + PAGE]
            where = f"kind = ? AND key IN ({','.join('?' * len(some))})"
            found += _waits(backend, where, [kind, *some], limit - len(found))
    return found


def _waits(backend: SQLiteBackend, where: str, values: list[Any], limit: int) -> list[tuple[Any, str]]:
    rows = backend.run(f"SELECT key, id FROM waits WHERE {where} ORDER BY key, id LIMIT ?", (*values, limit))
    return [(row[0], row[1]) for row in rows]


def listen(backend: SQLiteBackend, closed: Event, ids: Collection[str], since: str, timeout: float) -> Heard:
    """Wait until one of the documents has another revision than in the marker `since`; see `Queue.listen`."""
    ends = time.monotonic() + timeout
    known = json.loads(since) if since else None
    names = sorted(set(ids))
    while True:
        # In this order: what is written after the version was read makes it another one.
        version = backend.run("PRAGMA data_version")
        revs = backend.revisions(names)
        changed = frozenset(name for name in names if known is not None and revs.get(name) != known.get(name))
        if known is None or changed or time.monotonic() >= ends:
            return Heard(changed, to_json(revs))
        while backend.run("PRAGMA data_version") == version and time.monotonic() < ends:
            if closed.wait(min(LOOK, max(0.0, ends - time.monotonic()))):
                raise TokenpoolError(f"{backend.place.path} was closed by this process", "open the pool again")

"""A pool in one SQLite file, for one machine: any number of processes and threads, no server."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from .. import designs as views
from ..errors import BadInput, Conflict, NotFound
from ..transitions import ERROR, HELD
from . import sqlite_files as files
from . import sqlite_lists
from .base import ALL_DOCS, Backend, Heard, Json, Refused, Row, Rows, Saved, Want, Window, WriteResult, check_kind
from .sqlite_blobs import Stubs, blobs, drop, make_stub, merge, pieces, store
from .sqlite_queue import from_queue, from_view, has_tags
from .sqlite_rows import Incoming, from_row, incoming, next_rev, to_json
from .sqlite_views import all_docs, parse, read

#: Documents named in one statement.
CHUNK = 500

_INSERT = """
    INSERT INTO documents (rev, type, state, ready, batch, priority, holder, body, stubs, id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = """
    UPDATE documents
    SET rev = ?, type = ?, state = ?, ready = ?, batch = ?, priority = ?, holder = ?, body = ?, stubs = ?
    WHERE id = ?
"""
_EVERY_DOCUMENT = """
    SELECT id, id AS key, rev AS value FROM documents WHERE NOT (id >= '_local/' AND id < '_local0')
"""


class SQLiteBackend(Backend):
    """``sqlite:///relative.db``, ``sqlite:////absolute/path.db``; options: ?network=yes, ?synchronous=normal."""

    ordered = True

    def __init__(self, url: str, password: str | None = None, create: bool = False) -> None:
        # A file has no password; the parameter is there because every backend is opened in the same way.
        self.place = files.parse_url(url)
        self.url = self.place.url
        files.refuse_network(self.place)
        files.prepare(self.place, create)
        self._closed = threading.Event()
        self._connections = files.Connections(self.place, {"has_tags": has_tags})

    def close(self) -> None:
        self._closed.set()
        self._connections.close()

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a statement that only reads: no cursor stays open, so no reader holds the log."""
        with files.translated(self.place.path), self._connections.use() as connection:
            return connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that holds the write lock from its first statement: what is read in it stays true."""
        with files.translated(self.place.path), self._connections.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                files.rollback(connection)
                raise

    # --- documents -------------------------------------------------------------------------------------------------

    def create(self, designs: Sequence[Json] = ()) -> None:
        files.prepare(self.place, create=True)
        present = self.get_many([design["_id"] for design in designs])
        changed = []
        for design, there in zip(designs, present):
            wanted = {**design, "_rev": there["_rev"]} if there else dict(design)
            if wanted != there:
                changed.append(wanted)
        for result in self.put_many(changed):
            # A conflict: another process runs init at the same moment, with the same designs.
            if isinstance(result, Refused) and not result.conflict:
                raise BadInput(f"{result.id} cannot be stored: {result.reason}", "check the design document")

    def get_many(self, ids: Sequence[str], conflicts: bool = False) -> list[Json | None]:
        found = {row[0]: row for row in self._select_ids("id, rev, body, stubs", ids)}
        return [from_row(*found[each]) if each in found else None for each in ids]

    def _select_ids(self, columns: str, ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for at in range(0, len(ids), CHUNK):
            some = ids[at : at + CHUNK]
            yield from self.run(f"SELECT {columns} FROM documents WHERE id IN ({','.join('?' * len(some))})", some)

    def put_many(self, docs: Sequence[Json]) -> list[WriteResult]:
        checked = [incoming(doc) for doc in docs]
        sound = [doc for doc in checked if isinstance(doc, Incoming)]
        if not sound:
            return [doc for doc in checked if isinstance(doc, Refused)]
        with self._writing() as connection:
            written = iter(self._write(connection, sound))
        return [doc if isinstance(doc, Refused) else next(written) for doc in checked]

    def _write(self, connection: sqlite3.Connection, docs: list[Incoming]) -> list[WriteResult]:
        current = {row[0]: row[1:] for row in self._select_ids("id, rev, stubs, state", [doc.id for doc in docs])}
        results: list[WriteResult] = []
        inserts: list[tuple[Any, ...]] = []
        updates: list[tuple[Any, ...]] = []
        deletes: list[tuple[Any, ...]] = []
        new_blobs: list[tuple[int, bytes]] = []
        dropped: set[int] = set()
        waited: list[tuple[Any, ...]] = []
        waits: list[tuple[Any, ...]] = []
        for doc in docs:
            rev, old, state = current.get(doc.id, (None, None, None))
            if rev != doc.base or (doc.deleted and rev is None):
                results.append(Refused(doc.id, "conflict", "it was changed by somebody else, or exists already"))
                continue
            before: Stubs = json.loads(old) if old else {}
            missing = [] if doc.deleted else [name for name in doc.kept if name not in before]
            if missing:
                results.append(Refused(doc.id, "missing_stub", f"there is no attachment {missing[0]!r} to keep"))
                continue
            after = {} if doc.deleted else merge(before, doc.kept, doc.new, doc.base)
            results.append(Saved(doc.id, doc.rev))
            # A second write of the same document in this batch is compared with the first one, and loses.
            current[doc.id] = (doc.rev, None, None)
            if state in (HELD, ERROR):
                waited.append((doc.id,))
            waits += [(*each, doc.id) for each in doc.waits]
            new_blobs += [(after[name]["blob"], data) for name, (_, data) in doc.new.items() if not doc.deleted]
            dropped |= blobs(before) - blobs(after)
            if doc.deleted:
                deletes.append((doc.id,))
            else:
                row = (*doc.columns, to_json(after) if after else None, doc.id)
                (inserts if rev is None else updates).append(row)
        for statement, rows in (
            (_INSERT, inserts),
            (_UPDATE, updates),
            ("DELETE FROM documents WHERE id = ?", deletes),
            ("DELETE FROM waits WHERE id = ?", waited),
            ("INSERT INTO waits (kind, key, id) VALUES (?, ?, ?)", waits),
        ):
            if rows:
                connection.executemany(statement, rows)
        if dropped:
            drop(connection, dropped)
        for blob, data in new_blobs:
            store(connection, blob, io.BytesIO(data), len(data))
        return results

    # --- tokens ----------------------------------------------------------------------------------------------------

    def candidates(self, want: Want, limit: int, start: float | None = None) -> Window:
        return (from_view if want.view else from_queue)(self, want, limit, start)

    def scan(
        self, state: str | None = None, batch: str | None = None, with_docs: bool = True, holder: str | None = None
    ) -> Iterator[Json]:
        if holder is None:
            return sqlite_lists.scan(self, state, batch, with_docs)
        return sqlite_lists.scan_held(self, holder, state, batch, with_docs)

    def counts(self) -> dict[tuple[str, str], int]:
        rows = self.run("SELECT state, batch, count(*) FROM documents WHERE state IS NOT NULL GROUP BY state, batch")
        return {(state, batch): number for state, batch, number in rows}

    def holders(self) -> dict[tuple[str, str], int]:
        return sqlite_lists.holders(self)

    def waiting(
        self,
        kind: str,
        keys: Collection[str] | None = None,
        until: float | None = None,
        limit: int = 1000,
        after: Any = None,
    ) -> list[tuple[Any, str]]:
        check_kind(kind)
        return sqlite_lists.waiting(self, kind, keys, until, limit, after)

    def listen(self, ids: Collection[str], since: str = "", timeout: float = 60.0) -> Heard:
        return sqlite_lists.listen(self, self._closed, ids, since, timeout)

    def revisions(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the revision of each of these documents that is there."""
        return {str(row[0]): str(row[1]) for row in self._select_ids("id, rev", ids)}

    def view(self, design: str, view: str, params: Mapping[str, Any]) -> Rows:
        source, reducer = self._source(design, view)
        query = parse(params, bool(reducer))
        rows = read(self.run, source, reducer, query)
        total = len(rows) if query.reduce else self.run(f"SELECT count(*) FROM ({source})")[0][0]
        if design == ALL_DOCS:
            rows = all_docs(rows, query)
        if query.include_docs:
            docs = self.get_many([row.id or "" for row in rows])
            rows = [Row(row.id, row.key, row.value, doc) for row, doc in zip(rows, docs)]
        return Rows(tuple(rows), total)

    def view_rows(self, design: str, view: str, params: Mapping[str, Any]) -> list[Row]:
        """Return the rows of a view only: counting all of it costs more than reading some."""
        source, reducer = self._source(design, view)
        return read(self.run, source, reducer, parse(params, bool(reducer)))

    def _source(self, design: str, view: str) -> tuple[str, str]:
        """Return the SQL of a view of this pool, its SELECT and its reduce expression; raises NotFound."""
        if design == ALL_DOCS:
            return _EVERY_DOCUMENT, ""
        doc = self.get_many([f"_design/{design}"])[0]
        if doc is None or view not in (doc.get("views") or {}):
            raise NotFound(
                f"there is no view {design}/{view} in {self.url}", f"write it first: tokenpool init {self.url}"
            )
        sql = views.sql(design, view)
        if sql is None:
            raise NotFound(
                f"the view {design}/{view} has no SQL, and SQLite runs no JavaScript",
                "use a CouchDB pool for views of your own, or choose tokens by batch and tag",
            )
        return sql

    # --- attachments -----------------------------------------------------------------------------------------------

    def put_attachment(self, doc_id: str, rev: str, name: str, data: BinaryIO, size: int, content_type: str) -> str:
        with self._writing() as connection:
            rows = self.run("SELECT rev, stubs FROM documents WHERE id = ?", (doc_id,))
            if not rows:
                raise NotFound(f"there is no document {doc_id!r} in {self.url}", "it was deleted, or never there")
            if rows[0][0] != rev:
                raise Conflict(f"{doc_id} was changed by somebody else", "read it again")
            stubs: Stubs = json.loads(rows[0][1] or "{}")
            before = blobs(stubs)
            stub = stubs[name] = make_stub(content_type, rev, size)
            stub["digest"] = store(connection, stub["blob"], data, size)
            now = next_rev(rev, name, content_type, stub["digest"])
            connection.execute("UPDATE documents SET rev = ?, stubs = ? WHERE id = ?", (now, to_json(stubs), doc_id))
            drop(connection, before - blobs(stubs))
        return now

    def get_attachment(self, doc_id: str, name: str, rev: str = "") -> Iterator[bytes]:
        return self._pieces(doc_id, name, rev, 0)

    def attachment_from(self, doc_id: str, name: str, start: int) -> Iterator[bytes]:
        return self._pieces(doc_id, name, "", start)

    def _pieces(self, doc_id: str, name: str, rev: str, start: int) -> Iterator[bytes]:
        rows = self.run("SELECT stubs, rev FROM documents WHERE id = ?", (doc_id,))
        there = rows and rev in ("", rows[0][1])
        stub = json.loads(rows[0][0] or "{}").get(name) if there else None
        if stub is None:
            raise NotFound(
                f"there is no attachment {name!r} of {doc_id} in {self.url}", f"see: tokenpool show {doc_id}"
            )
        return pieces(self.run, stub["blob"], stub["length"], f"attachment {name!r} of {doc_id}", start)

"""A pool's file that an older tokenpool made is brought up to date when it is opened."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenpool.backends import sqlite_schema
from tokenpool.backends.base import Want
from tokenpool.backends.sqlite import SQLiteBackend
from tokenpool.backends.sqlite_rows import derived, to_json
from tokenpool.designs import DEFAULT_DESIGNS, design_document
from tokenpool.errors import BadInput
from tokenpool.testing.backend_parts import ids, offered, race, saved, token, tokens
from tokenpool.testing.backend_waits import closed, held, taken

#: The tables as they were in version 1.
VERSION_1 = """
CREATE TABLE documents (
    seq      INTEGER PRIMARY KEY,
    id       TEXT    NOT NULL UNIQUE,
    rev      TEXT    NOT NULL,
    type     TEXT,
    state    TEXT,
    ready    INTEGER NOT NULL DEFAULT 0,
    batch    TEXT    NOT NULL DEFAULT '',
    priority REAL    NOT NULL DEFAULT 0,
    body     TEXT    NOT NULL,
    stubs    TEXT
);
CREATE TABLE pieces (
    blob INTEGER NOT NULL,
    part INTEGER NOT NULL,
    data BLOB    NOT NULL,
    UNIQUE (blob, part)
);
CREATE INDEX documents_count ON documents (state, batch) WHERE state IS NOT NULL;
CREATE INDEX documents_state ON documents (state) WHERE state IS NOT NULL;
CREATE INDEX documents_batch ON documents (batch) WHERE state IS NOT NULL;
CREATE INDEX documents_ready ON documents (priority DESC) WHERE ready = 1;
CREATE INDEX documents_ready_batch ON documents (batch, priority DESC) WHERE ready = 1;
"""
INSERT = """
    INSERT INTO documents (id, rev, type, state, ready, batch, priority, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


def old_pool(path: Path, docs: list[dict[str, Any]]) -> None:
    """Make a file as version 1 did, and write documents as it did."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
        connection.execute(f"PRAGMA application_id = {sqlite_schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("BEGIN")
        for number, doc in enumerate(docs):
            body = to_json({name: value for name, value in doc.items() if name != "_id"})
            connection.execute(INSERT, (doc["_id"], f"1-{number:032x}", *derived(doc)[:5], body))
        connection.execute("COMMIT")


def tables(path: Path) -> list[tuple[str, str]]:
    """Return everything that is defined in a file, however it is spelled."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = [tuple(row[1:]) for row in connection.execute("PRAGMA table_info(documents)")]
        indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE name != 'documents' ORDER BY name")
        return sorted(map(str, columns)), [(name, " ".join((sql or "").split())) for name, sql in indexes]  # type: ignore[return-value]


def version(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


DOCS = [
    *taken(), *tokens(1500, "more", lock=5), held("h", depends_on=["p", "q"], not_before=5), closed("e", "p"),
    *tokens(3, "t", batch="b"), {"_id": "batch_b", "type": "batch", "max_running": 2}, {"_id": "plain"},
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokenpool.db"


@pytest.fixture
def upgraded(path: Path, sqlite_url: str) -> Iterator[SQLiteBackend]:
    """A pool of version 1 with tokens of every kind, opened."""
    old_pool(path, DOCS)
    with SQLiteBackend(sqlite_url) as pool:
        yield pool


def test_an_old_file_is_like_a_new_one(path: Path, tmp_path: Path, upgraded: SQLiteBackend) -> None:
    # Given a file of version 1 that was opened, and a new one with the same documents
    new = tmp_path / "new.db"
    with SQLiteBackend(f"sqlite:///{new}", create=True) as fresh:
        saved(fresh, *DOCS)
        # Then both have the same tables, and know the same
        assert tables(path) == tables(new)
        assert version(path) == version(new) == sqlite_schema.SCHEMA_VERSION
        assert upgraded.holders() == fresh.holders()
        assert upgraded.counts() == fresh.counts()
        for kind in ("due", "parent", "closed"):
            assert upgraded.waiting(kind) == fresh.waiting(kind) != []
        assert ids(list(upgraded.scan(holder="worker_1"))) == ids(list(fresh.scan(holder="worker_1"))) != []
        assert upgraded.candidates(Want(), 50).rooms == fresh.candidates(Want(), 50).rooms
        assert ids(offered(upgraded)) == ids(offered(fresh))


def test_an_upgraded_file_is_written_as_before(upgraded: SQLiteBackend) -> None:
    upgraded.create([design_document(name) for name in DEFAULT_DESIGNS])
    doc = upgraded.get("h")
    saved(
        upgraded,
        {**doc, "lock": 0},
        token("new", lock=9, hostname="n", lease={"worker": "w", "lock": 9, "hostname": "n"}),
    )
    assert upgraded.waiting("parent") == []
    assert upgraded.holders()["", "w"] == 1


def test_many_that_open_an_old_file_upgrade_it_once(path: Path, sqlite_url: str) -> None:
    old_pool(path, DOCS)

    def use(number: int) -> int:
        with SQLiteBackend(sqlite_url) as pool:
            return sum(pool.holders().values()) + len(pool.waiting("parent"))

    assert set(race(8, use)) == {1500 + 11 + 2}


def test_an_upgrade_that_fails_leaves_the_old_file(
    path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an upgrade that ends half-way
    old_pool(path, DOCS)
    before = tables(path)

    def fail(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(sqlite_schema, "waits_of", fail)
        with pytest.raises(KeyboardInterrupt):
            SQLiteBackend(sqlite_url)
    # Then the file is what it was, and the next one upgrades it
    assert (tables(path), version(path)) == (before, 1)
    with SQLiteBackend(sqlite_url) as pool:
        assert pool.waiting("due") == [(5, "h")]


def test_a_file_of_a_newer_tokenpool_is_left_alone(path: Path, sqlite_url: str) -> None:
    old_pool(path, [])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {sqlite_schema.SCHEMA_VERSION + 1}")
    with pytest.raises(BadInput, match="newer"):
        SQLiteBackend(sqlite_url)

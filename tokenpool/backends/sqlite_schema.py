"""Writes the tables of a pool into its file, and brings those of an older file up to date."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from importlib import resources

from ..transitions import ERROR, HELD, LOCKED
from .sqlite_rows import derived, from_row, waits_of

#: Tells our files from other programs' ("tkpl").
APPLICATION_ID = 0x746B706C
SCHEMA_VERSION = 2
#: Documents brought up to date at once.
PAGE = 1000


def make(connection: sqlite3.Connection) -> None:
    """Write the schema in one transaction, unless another process was faster."""
    connection.execute("PRAGMA journal_mode = WAL")
    _in_transaction(connection, _make)


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring an older file up to date in one transaction, unless another process was faster."""
    _in_transaction(connection, _upgrade)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of the schema in the file, 0 where there is none."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def rollback(connection: sqlite3.Connection) -> None:
    """Undo what is open; SQLite has often done it already, and then there is nothing to say."""
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _in_transaction(connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        change(connection)
        connection.execute("COMMIT")
    except BaseException:
        rollback(connection)
        raise


def _make(connection: sqlite3.Connection) -> None:
    if not version_of(connection):
        for statement in _statements():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _upgrade(connection: sqlite3.Connection) -> None:
    if version_of(connection) != 1:
        return
    connection.execute("ALTER TABLE documents ADD COLUMN holder TEXT")
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    for statement in _statements():
        # "CREATE TABLE name (…", "CREATE INDEX name ON …"
        if statement.split()[2] not in there:
            connection.execute(statement)
    last = 0
    while True:
        rows = connection.execute(
            "SELECT seq, id, rev, body, state FROM documents WHERE state IN (?, ?, ?) AND seq > ? ORDER BY seq LIMIT ?",
            (LOCKED, HELD, ERROR, last, PAGE),
        ).fetchall()
        for seq, doc_id, rev, body, state in rows:
            doc = from_row(doc_id, rev, body, None)
            if state == LOCKED:
                connection.execute("UPDATE documents SET holder = ? WHERE seq = ?", (derived(doc)[-1], seq))
            waits = [(kind, key, doc_id) for kind, key in waits_of(doc, state)]
            connection.executemany("INSERT INTO waits (kind, key, id) VALUES (?, ?, ?)", waits)
        if len(rows) < PAGE:
            break
        last = rows[-1][0]
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _statements() -> list[str]:
    # Read through the loader: a single-file tokenpool has no folder on the disk.
    text = resources.files(__package__).joinpath("sqlite.sql").read_text("utf-8")
    plain = "\n".join(line.partition("--")[0] for line in text.splitlines())
    return [statement for statement in plain.split(";") if statement.strip()]

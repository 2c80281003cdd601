"""Makes a pool remember every state that a token ever had, so that a test sees who wrote what, and in which order.

CouchDB keeps old revisions until somebody compacts the database; a SQLite pool gets a trigger that keeps them.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence

from couch_server import Couch, raw_couch

from tokenpool.backends.base import Json

#: Written into the file itself, so it acts in every process that writes there.
TRIGGERS = """
CREATE TABLE chaos_past (number INTEGER PRIMARY KEY, id TEXT, rev TEXT, body TEXT);
CREATE INDEX chaos_past_id ON chaos_past (id);
CREATE TRIGGER chaos_insert AFTER INSERT ON documents WHEN NEW.state IS NOT NULL
    BEGIN INSERT INTO chaos_past (id, rev, body) VALUES (NEW.id, NEW.rev, NEW.body); END;
CREATE TRIGGER chaos_update AFTER UPDATE ON documents WHEN NEW.state IS NOT NULL
    BEGIN INSERT INTO chaos_past (id, rev, body) VALUES (NEW.id, NEW.rev, NEW.body); END;
"""

Past = dict[str, list[Json]]

#: Revisions asked for at once.
CHUNK = 500


def remember(pool_url: str) -> None:
    """Make the pool keep what is written from now on; nothing to do for a CouchDB."""
    if pool_url.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(_path(pool_url), timeout=30)) as connection:
            connection.executescript(TRIGGERS)


def past(pool_url: str, ids: Collection[str]) -> Past:
    """Return all states of these tokens, oldest first, without their attachments."""
    if pool_url.startswith("sqlite:"):
        return _from_trigger(_path(pool_url), ids)
    server, name = raw_couch(pool_url)
    with Couch(server) as couch:
        return _from_revisions(couch, f"/{name}/_bulk_get", ids)


def _path(pool_url: str) -> str:
    return pool_url[len("sqlite:///") :].partition("?")[0]


def _from_trigger(path: str, ids: Collection[str]) -> Past:
    found: Past = {each: [] for each in ids}
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        for doc_id, rev, body in connection.execute("SELECT id, rev, body FROM chaos_past ORDER BY number"):
            if doc_id in found:
                found[doc_id].append({"_id": doc_id, "_rev": rev, **json.loads(body)})
    return found


def _from_revisions(couch: Couch, path: str, ids: Collection[str]) -> Past:
    found: Past = {each: [] for each in ids}
    wanted = []
    for doc in _bulk_get(couch, f"{path}?revs=true", [{"id": each} for each in ids]):
        start, hashes = doc["_revisions"]["start"], doc["_revisions"]["ids"]
        wanted += [{"id": doc["_id"], "rev": f"{start - back}-{hashes[back]}"} for back in range(len(hashes))]
    for doc in _bulk_get(couch, path, wanted):
        found[doc["_id"]].append(doc)
    for docs in found.values():  # answers come in any order
        docs.sort(key=lambda doc: int(doc["_rev"].partition("-")[0]))
    return found


def _bulk_get(couch: Couch, path: str, wanted: Sequence[Json]) -> Iterator[Json]:
    """Yield what is there of the wanted documents; a revision that was compacted away is not."""
    for at in range(0, len(wanted), CHUNK):
        status, answer = couch.call("POST", path, {"docs": wanted[at : at + CHUNK]})
        assert status == 200, answer
        for result in answer["results"]:
            yield from (each["ok"] for each in result["docs"] if "ok" in each)

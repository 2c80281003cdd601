"""What a look at the queue of a CouchDB pool costs, what a pool without our views can do, and conflicting revisions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from couch_server import Couch, raw_couch
from scripted_server import Scripted, answer, scripted_server

from tokenpool import designs
from tokenpool.backends import open_backend
from tokenpool.backends.base import Backend, Saved, Want
from tokenpool.backends.couchdb import CouchDBBackend
from tokenpool.errors import AnswerLost
from tokenpool.testing.backend_parts import ids, offered, race, saved, token, tokens
from tokenpool.testing.backend_rules import batch, lease
from tokenpool.testing.backend_waits import closed, held, taken


@pytest.fixture
def bare(couch_db: str) -> Iterator[Backend]:
    """A database in which nobody wrote views."""
    with open_backend(couch_db) as backend:
        yield backend


@pytest.fixture
def pool(bare: Backend) -> Backend:
    bare.create([designs.design_document(name) for name in designs.DEFAULT_DESIGNS])
    return bare


class Asked:
    """The requests of one pool, as its transport sends them."""

    def __init__(self, pool: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        assert isinstance(pool, CouchDBBackend)
        self.paths: list[str] = []
        once = pool.transport._once

        def counted(method: str, path: str, *rest: Any) -> Any:
            self.paths.append(path)
            return once(method, path, *rest)

        monkeypatch.setattr(pool.transport, "_once", counted)

    def since(self) -> int:
        """Return how many requests there were since the last question."""
        number = len(self.paths)
        self.paths.clear()
        return number


@pytest.fixture
def asked(pool: Backend, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(pool, monkeypatch)


# ── what a look costs ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("want", [Want(), Want(batches=("a",)), Want(batches=("a", "b"))])
def test_a_short_queue_is_read_in_one_request(pool: Backend, asked: Asked, want: Want) -> None:
    # Given a queue that fits into a window, and rules of its batches
    saved(
        pool, *tokens(20, "a", batch="a"), *tokens(5, "b", batch="b"), batch("a", priority=1), batch("b", paused=True)
    )
    asked.since()
    # Then every look takes one request, when it is empty too
    for start in (0.3, None):
        assert sorted(ids(offered(pool, want, 64, start))) == ids(tokens(20, "a"))
        assert asked.since() == 1
    saved(pool, *({**doc, "lock": 5} for doc in pool.get_many(ids(tokens(20, "a")))))
    asked.since()
    assert offered(pool, want, 64, 0.3) == []
    assert asked.since() == 1


def test_a_long_queue_is_read_in_two_requests(pool: Backend, asked: Asked) -> None:
    # Given a queue that fits into no window, of a batch with rules
    saved(pool, *tokens(200, "a", batch="a"), batch("a", priority=1), batch("b", max_running=1))
    # When it is looked at for the first time, then one request is lost on hoping that it is short
    offered(pool, limit=20, start=0.1)
    asked.since()
    # Then each look takes two: what is there, and some of it
    for _ in range(3):
        assert len(offered(pool, limit=20, start=0.1)) == 20
        assert asked.since() == 2


def test_a_queue_that_becomes_short_is_read_in_one_again(pool: Backend, asked: Asked) -> None:
    saved(pool, *tokens(100))
    offered(pool, limit=20)
    # When most of it was claimed, then the look that sees it is the last one of several requests
    saved(pool, *({**doc, "lock": 5} for doc in pool.get_many(ids(tokens(100))[5:]) if doc))
    asked.since()
    assert len(offered(pool, limit=20)) == 5
    assert asked.since() == 2
    assert len(offered(pool, limit=20)) == 5
    assert asked.since() == 1


def test_many_small_batches_take_no_request_each(pool: Backend, asked: Asked) -> None:
    saved(pool, *(token(f"t{number}", batch=f"b{number}") for number in range(60)))
    offered(pool, limit=10)
    asked.since()
    assert len(offered(pool, limit=60)) == 60
    assert asked.since() <= 2


@pytest.mark.parametrize("many", [5, 200])
def test_a_limit_takes_one_request_more_only_where_it_matters(pool: Backend, asked: Asked, many: int) -> None:
    # Given two batches with limits, of which nothing waits
    saved(pool, *tokens(many), token("x", batch="a", lock=5), batch("a", max_running=3), batch("b", max_running=2))
    offered(pool, limit=20)
    asked.since()
    offered(pool, limit=20)
    usual = asked.since()
    # When something of both waits
    saved(pool, *tokens(many, "a", batch="a"), *tokens(many, "b", batch="b"))
    offered(pool, limit=20)
    asked.since()
    found = offered(pool, limit=500)
    # Then who is locked is asked once for both
    assert [sum(doc.get("batch") == name for doc in found) for name in ("a", "b")] == [2, 2]
    assert sum("states" in path for path in asked.paths) == 1
    assert usual <= 2


def test_a_batch_without_room_is_not_looked_through(pool: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given far more tokens of a batch with room for one than a look goes through, before another's
    monkeypatch.setattr("tokenpool.backends.couchdb_queue.SEARCH", 50)
    saved(pool, *tokens(200, "a", batch="a", priority=9), *tokens(5, "b", batch="b"), batch("a", max_running=1))
    # Then the others are offered all the same
    for start in (None, 0.5):
        assert sorted(doc["batch"] for doc in offered(pool, limit=10, start=start)) == ["a", *["b"] * 5]


def test_workers_that_race_for_a_short_queue_look_once(pool: Backend, asked: Asked) -> None:
    saved(pool, *tokens(20))
    asked.since()
    race(16, lambda number: offered(pool, limit=64, start=number / 16))
    assert asked.since() == 16


# ── a database that only picas knows ─────────────────────────────────────────────────────────────────────────────────


def test_a_database_of_picas_has_holders_and_nothing_that_waits(bare: Backend) -> None:
    # Given picas' views only, and tokens of picas and ours
    bare.create([designs.design_document("Monitor")])
    saved(bare, *taken(), held("held", depends_on=["p"]), batch("b", paused=True))
    # Then who holds what is known from the tokens themselves
    assert bare.holders()["a", "worker_1"] == 2
    assert bare.holders()["a", ""] == 5
    assert sorted(ids(list(bare.scan(holder="worker_1")))) == ["a1", "a2", "b1"]
    assert ids(list(bare.scan(holder="worker_2", batch="b"))) == ["b2"]
    assert bare.waiting("parent") == bare.waiting("due", keys=[]) == bare.waiting("closed", keys=["p"]) == []
    # And batches have their rules
    saved(bare, *tokens(3, "b", batch="b"), *tokens(3, "c", batch="c"), batch("c", max_running=1))
    assert len(offered(bare, Want(batches=("b", "c")), 10, 0.5)) == 1


def test_views_that_are_older_than_leases_still_tell_who_holds_what(bare: Backend) -> None:
    # Given the view of states as it was before
    design = designs.design_document("tokenpool")
    del design["views"]["waits"]
    older = design["views"]["states"]["map"].replace('String(doc.batch || ""), worker]', 'String(doc.batch || "")]')
    assert older != design["views"]["states"]["map"]
    design["views"]["states"]["map"] = older
    bare.create([design, designs.design_document("Monitor")])
    saved(bare, *taken(), *tokens(2, "more", batch="b"))
    # Then nothing is lost
    assert bare.holders() == {
        ("a", "worker_1"): 2, ("b", "worker_1"): 1, ("b", "worker_2"): 1, ("", "worker_2"): 1, ("a", ""): 5, ("a", "worker_2"): 1,
    }  # fmt: skip
    assert sorted(ids(list(bare.scan(holder="worker_2")))) == ["b2", "no host", "none"]
    assert bare.counts()["todo", "b"] == 2
    assert sorted(ids(list(bare.scan("todo", "b")))) == ids(tokens(2, "more"))
    assert bare.waiting("due") == []


# ── conflicting revisions ────────────────────────────────────────────────────────────────────────────────────────────


def conflicting(couch_server: Couch, couch_db: str, doc: dict[str, Any], rev: str) -> None:
    """Store a revision beside the one that is there, as replication does."""
    body = {"docs": [{**doc, "_rev": rev}], "new_edits": False}
    status, _ = couch_server.call("POST", f"/{raw_couch(couch_db).name}/_bulk_docs", body)
    assert status == 201


def test_conflicts_are_listed_until_they_are_gone(couch_server: Couch, couch_db: str, pool: Backend) -> None:
    # Given tokens and a document that have two revisions each, after a partition
    saved(pool, token("x", n=1), closed("y", "p"), {"_id": "doc"}, token("fine"))
    loser = "1-00000000000000000000000000000000"
    for doc in (token("x", n=2), closed("y", "q"), {"_id": "doc"}):
        conflicting(couch_server, couch_db, doc, loser)
    # Then the tokens are listed
    assert pool.waiting("conflict") == [("x", "x"), ("y", "y")]
    assert pool.waiting("conflict", keys=["y", "fine"]) == [("y", "y")]
    # And both revisions can be read
    doc = pool.get("x", conflicts=True)
    assert doc["_conflicts"] == [loser]
    other = pool.revision("x", loser)
    assert other is not None
    assert (doc["n"], other["n"], other["_rev"]) == (1, 2, loser)
    # When one is deleted, then the conflict is gone
    saved(pool, {"_id": "x", "_rev": loser, "_deleted": True})
    assert pool.waiting("conflict") == [("y", "y")]
    assert pool.get("x")["n"] == 1


def test_a_worker_of_a_lost_revision_holds_nothing(couch_server: Couch, couch_db: str, pool: Backend) -> None:
    (rev,) = saved(pool, token("x", **lease("worker_1")))
    conflicting(couch_server, couch_db, token("x", **lease("worker_2")), "1-00000000000000000000000000000000")
    assert pool.get("x")["_rev"] == rev
    assert pool.holders() == {("", "worker_1"): 1}


# ── what a server answers to a bulk write ────────────────────────────────────────────────────────────────────────────


def opened(server: Scripted) -> CouchDBBackend:
    """Open a database of a scripted server."""
    server.script = [answer(200, {})]
    return CouchDBBackend(f"couchdb+{server.url}/db")


def test_answers_in_another_order_go_to_their_documents() -> None:
    # Given a server that answers two claims in its own order, and refuses one of them
    with scripted_server() as server:
        backend = opened(server)
        rows = [{"id": "b", "error": "conflict", "reason": ""}, {"ok": True, "id": "a", "rev": "2-a"}]
        server.script = [answer(201, rows)]
        # Then each document gets what was said of it
        first, second = backend.put_many([token("a"), token("b")])
    assert (first, second.id) == (Saved("a", "2-a"), "b")
    assert not isinstance(second, Saved)


def test_answers_about_other_documents_are_no_answer() -> None:
    with scripted_server() as server:
        backend = opened(server)
        server.script = [answer(201, [{"ok": True, "id": "a", "rev": "2-a"}, {"ok": True, "id": "c", "rev": "2-c"}])]
        with pytest.raises(AnswerLost):
            backend.put_many([token("a"), token("b")])

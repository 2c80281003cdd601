"""What a token costs, in counts that no machine changes: requests, index use, start-up."""

from __future__ import annotations

from pathlib import Path

import pytest
from couch_server import Couch

from tokenpool.backends.sqlite import SQLiteBackend
from tokenpool.pool import connect
from tokenpool.worker import Worker, WorkerOptions


def test_requests_per_token_at_one_slot(couch_server: Couch, couch_db: str, tmp_path: Path) -> None:
    # Given 100 tokens on a server that counts its requests
    if couch_server.real:
        pytest.skip("the protocol server of the tests counts requests")
    with connect(couch_db, create=True) as pool:
        pool.push(["true"] * 100)
        # When one slot drains them
        couch_server.reset_requests()
        summary = Worker(pool, WorkerOptions(slots=1, quit=True, workdir=tmp_path)).run()
        # Then it took at most 2.2 requests a token, the looks at the end included
        assert summary.done == 100
        assert len(couch_server.requests() or ()) <= 220


def test_a_picas_style_actor_takes_two_requests_a_token(couch_server: Couch, couch_db: str) -> None:
    from tokenpool.actors import RunActor
    from tokenpool.documents import Task

    class Closes(RunActor):
        def process_task(self, task: Task) -> None:
            task["exit_code"] = 0
            task.done()

    if couch_server.real:
        pytest.skip("the protocol server of the tests counts requests")
    with connect(couch_db, create=True) as pool:
        pool.push(["true"] * 100)

        class Client:
            """What an actor needs of a client of ours."""

        client = Client()
        client.pool = pool  # type: ignore[attr-defined]
        couch_server.reset_requests()
        Closes(client).run()
        assert pool.counts()["done"] == 100
        assert len(couch_server.requests() or ()) <= 220


def test_sqlite_counts_and_claims_from_indexes(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a pool of some thousand tokens, and every query that it is asked
    asked: list[tuple[str, tuple[object, ...]]] = []
    with connect(sqlite_url, create=True) as pool:
        pool.push(["true"] * 3000, batch="b")
        backend = pool.backend
        assert isinstance(backend, SQLiteBackend)
        run = backend.run

        def recorded(query: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
            asked.append((query, values))
            return run(query, values)

        monkeypatch.setattr(backend, "run", recorded)
        # When tokens are counted and claimed, from all batches and from one
        pool.counts()
        pool.claim(5)
        pool.claim(5, batch="b")
        # Then no query reads the table from end to end, or sorts what it read
        queries = [(query, values) for query, values in asked if query.lstrip().startswith("SELECT")]
        assert len(queries) >= 3
        for query, values in queries:
            plan = " ".join(str(row[3]) for row in run(f"EXPLAIN QUERY PLAN {query}", values))
            assert "SCAN documents" not in plan.replace("SCAN documents USING", ""), (query, plan)
            assert "TEMP B-TREE" not in plan, (query, plan)

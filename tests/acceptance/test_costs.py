"""What a token costs, in counts that no machine changes: requests, index use, start-up."""

from __future__ import annotations

import http.client
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from couch_server import Couch
from processes import LINUX

from tokenpool.backends import sqlite_files
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


class Requests:
    """Counts what this process, or one thread of it, sends: all of it goes through the standard library's connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, of_thread: int | None = None) -> None:
        self.sent = 0
        put = http.client.HTTPConnection.putrequest

        def counted(connection: http.client.HTTPConnection, *args: Any, **options: Any) -> None:
            self.sent += of_thread in (None, threading.get_ident())
            put(connection, *args, **options)

        monkeypatch.setattr(http.client.HTTPConnection, "putrequest", counted)


def test_a_picas_style_actor_takes_two_requests_a_token(couch_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenpool.actors import RunActor
    from tokenpool.documents import Task

    class Closes(RunActor):
        def process_task(self, task: Task) -> None:
            task["exit_code"] = 0
            task.done()

    with connect(couch_db, create=True) as pool:
        pool.push(["true"] * 100)

        class Client:
            """What an actor needs of a client of ours."""

        client = Client()
        client.pool = pool  # type: ignore[attr-defined]
        # When an actor runs 100 tokens; the janitor asks by the clock, not by the token
        requests = Requests(monkeypatch, of_thread=threading.get_ident())
        Closes(client).run()
        # Then claiming and closing took one request each, and coming and leaving a few
        assert 200 <= requests.sent <= 220
        assert pool.counts()["done"] == 100


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


def test_sixteen_slots_take_half_a_request_a_token(
    couch_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(couch_db, create=True) as pool:
        # Given tokens for twenty rounds of sixteen slots
        pool.push(["true"] * 320)
        # When one worker takes all of them, and leaves
        requests = Requests(monkeypatch)
        summary = Worker(pool, WorkerOptions(slots=16, quit=True, workdir=tmp_path)).run()
        # Then claims and closes went out together, many in one request; coming and leaving are included
        assert summary.done == 320
        assert requests.sent <= 160


def test_a_claim_costs_the_same_in_a_large_pool(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a pool that counts what SQLite's virtual machine does, in hundreds of instructions; the passes of the
    # janitor, in a thread of its own, are no part of a claim
    worked = 0
    claiming = threading.get_ident()

    def work() -> int:
        nonlocal worked
        worked += threading.get_ident() == claiming
        return 0

    def connected(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = opened(*args, **options)
        connection.set_progress_handler(work, 100)
        return connection

    opened = sqlite_files.connect
    monkeypatch.setattr(sqlite_files, "connect", connected)
    with connect(sqlite_url, create=True) as pool:

        def cost_of_claims() -> int:
            before = worked
            assert [len(pool.claim(1)) for _ in range(50)] == [1] * 50
            return worked - before

        # When tokens are claimed with some hundred of them there, and with thirty times as many
        pool.push(["true"] * 200)
        small = cost_of_claims()
        pool.push(["true"] * 6000)
        # Then that costs the same
        assert cost_of_claims() <= 1.5 * small
        assert small > 0


@LINUX
def test_sixty_four_slots_need_sixty_megabytes(sqlite_url: str, tmp_path: Path) -> None:
    # Given a worker process of 64 slots in which all of them have run tokens
    with connect(sqlite_url, create=True) as pool:
        pool.push(["true"] * 128)
    script = f"""
from pathlib import Path
from tokenpool.pool import connect
from tokenpool.worker import Worker, WorkerOptions
with connect({sqlite_url!r}) as pool:
    summary = Worker(pool, WorkerOptions(slots=64, quit=True, workdir=Path({str(tmp_path)!r}))).run()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(summary.done, status["VmHWM"].split()[0])
"""
    # When it is asked for the most memory that it had
    told = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True, timeout=100)
    done, kilobytes = map(int, told.stdout.split())
    # Then that is what many of them on one node can afford
    assert done == 128
    assert kilobytes <= 60 * 1024

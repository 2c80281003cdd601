"""What is SQLite's own: processes and threads on one file, and what only SQL does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenpool.backends.base import Refused, Saved, Want
from tokenpool.backends.sqlite import SQLiteBackend
from tokenpool.designs import design_document
from tokenpool.errors import BadInput, Conflict, NotFound, ServerAway, TokenpoolError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pool(sqlite_url: str) -> Iterator[SQLiteBackend]:
    """An empty pool."""
    with SQLiteBackend(sqlite_url, create=True) as pool:
        yield pool


def tokens(number: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"_id": f"token_{i:04d}", "type": "token", "lock": 0, "done": 0, **fields} for i in range(number)]


def child(program: str, *argv: str) -> subprocess.Popen[str]:
    """Start a Python process that can import the package."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", program, *argv], stdout=subprocess.PIPE, text=True, env=environment)


def in_fork(act: Callable[[], int]) -> int:
    """Return what `act` returns in a forked process; 99 where it raises."""
    with warnings.catch_warnings():
        # Newer Pythons warn of threads that a fork loses; other tests' threads are none of ours.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        code = 99
        with contextlib.suppress(BaseException):
            code = act()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────────

WRITE_FOR_EVER = """
import itertools, sys
from tokenpool.backends.sqlite import SQLiteBackend
pool = SQLiteBackend(sys.argv[1])
for i in itertools.count():
    (result,) = pool.put_many([{"_id": f"doc_{i}", "type": "token", "lock": 0, "done": 0}])
    print(result.id, result.rev, flush=True)
"""

CLAIM_ALL = """
import json, random, sys
from tokenpool.backends.base import Saved
from tokenpool.backends.sqlite import SQLiteBackend
with SQLiteBackend(sys.argv[1]) as pool:
    docs = pool.get_many([f"token_{i:04d}" for i in range(200)])
    print("read", flush=True)
    input()
    won = []
    for doc in docs:
        (result,) = pool.put_many([{**doc, "lock": 5, "hostname": sys.argv[2]}])
        won += [doc["_id"]] * isinstance(result, Saved)
    print(json.dumps(won), flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(pool: SQLiteBackend) -> None:
    # Given a process that writes one document after another
    process = child(WRITE_FOR_EVER, pool.url)
    assert process.stdout is not None
    said = [process.stdout.readline().split() for _ in range(100)]
    # When it is killed in the middle of it
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    said += [line.split() for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    # Then every write that it was told of is there
    found = pool.get_many([name for name, _ in said])
    assert [doc and doc["_rev"] for doc in found] == [rev for _, rev in said]
    # And the pool can be written, and is sound
    assert isinstance(pool.put_many([{"_id": "after"}])[0], Saved)
    assert pool.run("PRAGMA integrity_check") == [("ok",)]


def test_of_two_processes_each_token_has_one_claimer(pool: SQLiteBackend) -> None:
    # Given two processes that have both read all tokens
    pool.put_many(tokens(200))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, pool.url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for name in ("one", "two")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "read\n"
    # When both claim all of them
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = {name: json.loads(racer.communicate()[0]) for name, racer in zip(("one", "two"), racers)}
    # Then each went to exactly one, whose name it bears
    assert sorted(won["one"] + won["two"]) == [doc["_id"] for doc in tokens(200)]
    for name, claimed in won.items():
        assert {doc["hostname"] for doc in pool.get_many(claimed) if doc} <= {name}


def test_a_fork_has_a_connection_of_its_own(pool: SQLiteBackend) -> None:
    # Given a pool in use
    pool.put_many([{"_id": "before"}])

    # When a forked process uses it, closes it and leaves
    def act() -> int:
        wrote = isinstance(pool.put_many([{"_id": "child"}])[0], Saved)
        pool.close()
        return 0 if wrote else 1

    assert in_fork(act) == 0
    # Then both processes' writes are there, and the parent goes on
    assert isinstance(pool.put_many([{"_id": "after"}])[0], Saved)
    assert None not in pool.get_many(["before", "child", "after"])
    assert pool.run("PRAGMA integrity_check") == [("ok",)]


def test_many_processes_make_one_pool(sqlite_url: str) -> None:
    # When several processes make the same pool and write
    program = """
import sys
from tokenpool.backends.sqlite import SQLiteBackend
with SQLiteBackend(sys.argv[1], create=True) as pool:
    pool.create([{"_id": "_design/x", "views": {}}])
    pool.put_many([{"_id": sys.argv[2]}])
"""
    makers = [child(program, sqlite_url, f"doc_{i}") for i in range(6)]
    for maker in makers:
        maker.communicate()
    # Then all succeed, and all is there
    assert [maker.returncode for maker in makers] == [0] * 6
    with SQLiteBackend(sqlite_url) as pool:
        assert None not in pool.get_many(["_design/x", *(f"doc_{i}" for i in range(6))])


def test_a_thread_that_ends_leaves_no_connection(pool: SQLiteBackend) -> None:
    for _ in range(20):
        thread = threading.Thread(target=pool.counts)
        thread.start()
        thread.join()
    files = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert sum(pool.place.path == name for name in files) <= 2


def test_closing_closes_for_every_thread(sqlite_url: str) -> None:
    # Given a pool that another thread, still alive, has used
    pool = SQLiteBackend(sqlite_url, create=True)
    used, end = threading.Event(), threading.Event()

    def use() -> None:
        pool.counts()
        used.set()
        end.wait()

    thread = threading.Thread(target=use)
    thread.start()
    used.wait()
    # When it is closed here
    pool.close()
    # Then SQLite has put its log away, which it does with the last connection
    assert sorted(path.name for path in Path(pool.place.path).parent.iterdir()) == ["tokenpool.db"]
    with pytest.raises(TokenpoolError, match="closed"):
        pool.counts()
    end.set()
    thread.join()


def test_a_writer_that_never_ends_is_named(pool: SQLiteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given another program that holds the file
    monkeypatch.setattr("tokenpool.backends.sqlite_files.PATIENCE", 0.0)
    with contextlib.closing(sqlite3.connect(pool.place.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        # Then a write says so, and a read does not even notice
        with SQLiteBackend(pool.url) as late, pytest.raises(ServerAway, match="locked"):
            late.put_many([{"_id": "doc"}])
        assert pool.counts() == {}


# ── what only SQL does ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_view_without_sql_is_not_found(pool: SQLiteBackend) -> None:
    pool.create([design_document("tokenpool"), {"_id": "_design/mine", "views": {"v": {"map": "function(doc) {}"}}}])
    for design, view in (("mine", "v"), ("tokenpool", "states")):
        with pytest.raises(NotFound, match="no SQL"):
            pool.view(design, view, {})
        with pytest.raises(NotFound, match="no SQL"):
            pool.candidates(Want(design=design, view=view), 1)


@pytest.mark.parametrize(
    "params",
    [
        {"foo": 1},
        {"limit": -1},
        {"limit": "many"},
        {"descending": "perhaps"},
        {"keys": "token_0001"},
        {"group": True},
        {"reduce": True},
    ],
)
def test_view_options_that_make_no_sense(pool: SQLiteBackend, params: dict[str, Any]) -> None:
    pool.create([design_document("Monitor")])
    with pytest.raises(BadInput) as caught:
        pool.view("Monitor", "todo", params)
    assert caught.value.hint


def test_a_text_from_a_url_is_an_option_too(pool: SQLiteBackend) -> None:
    pool.create([design_document("Monitor")])
    pool.put_many(tokens(3))
    rows = pool.view("Monitor", "todo", {"limit": "2", "descending": "true", "start_key": "token_0001"}).rows
    assert [row.id for row in rows] == ["token_0001", "token_0000"]


def test_a_revision_that_never_was_is_a_conflict(pool: SQLiteBackend) -> None:
    (result,) = pool.put_many([{"_id": "doc", "_rev": "1-" + "0" * 32}])
    assert isinstance(result, Refused)
    assert result.conflict
    (result,) = pool.put_many([{"_id": "doc", "_rev": "one"}])
    assert isinstance(result, Refused)
    assert result.error == "bad_request"


@pytest.mark.parametrize("size", [2, 4])
def test_an_attachment_of_another_size_than_said_is_refused(pool: SQLiteBackend, size: int) -> None:
    (result,) = pool.put_many([{"_id": "doc"}])
    assert isinstance(result, Saved)
    with pytest.raises(BadInput):
        pool.put_attachment("doc", result.rev, "log", io.BytesIO(b"123"), size, "text/plain")
    assert pool.get("doc") == {"_id": "doc", "_rev": result.rev}
    assert pool.run("SELECT count(*) FROM pieces") == [(0,)]


def test_a_reader_of_a_replaced_attachment_is_told(pool: SQLiteBackend) -> None:
    # Given a reader that is in the middle of an attachment
    (result,) = pool.put_many([{"_id": "doc"}])
    assert isinstance(result, Saved)
    rev = pool.put_attachment("doc", result.rev, "log", io.BytesIO(bytes(10**6)), 10**6, "text/plain")
    reader = pool.get_attachment("doc", "log")
    next(reader)
    # When it is replaced, then the reader gets no mixture
    pool.put_attachment("doc", rev, "log", io.BytesIO(b"new"), 3, "text/plain")
    with pytest.raises(Conflict):
        list(reader)


def test_no_bytes_stay_behind(pool: SQLiteBackend) -> None:
    # When attachments are replaced, dropped and deleted with their documents
    pool.put_many([{"_id": "doc", "_attachments": {name: {"data": "YQ=="} for name in "abc"}}])
    doc = pool.get("doc")
    del doc["_attachments"]["b"]
    doc["_attachments"]["c"] = {"data": "Yg=="}
    pool.put_many([doc])
    assert pool.run("SELECT count(*) FROM pieces") == [(2,)]
    pool.put_many([{**pool.get("doc"), "_deleted": True}])
    # Then nothing of them is left
    assert pool.run("SELECT count(*) FROM pieces") == [(0,)]


def test_a_claim_reads_an_index_only(pool: SQLiteBackend) -> None:
    # The plans are what keeps a pool of a million as fast as one of a thousand.
    statements: list[str] = []
    run = pool.run

    def noted(statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
        statements.extend(row[3] for row in run(f"EXPLAIN QUERY PLAN {statement}", values))
        return run(statement, values)

    pool.put_many(tokens(20, batch="a"))
    pool.run = noted  # type: ignore[method-assign]
    for want in (Want(), Want(batches=("a",)), Want(batches=("a", "b"))):
        for start in (None, 0.5):
            assert len(pool.candidates(want, 16, start).tokens) == 16
    for query in ({"state": "todo"}, {"batch": "a"}, {"state": "todo", "batch": "a"}):
        assert len(list(pool.scan(**query))) == 20
    assert pool.counts() == {("todo", "a"): 20}
    # With rules of batches, and where tokens are held or locked, it is the same.
    pool.put_many(
        [
            {"_id": "batch_a", "type": "batch", "max_running": 4, "priority": 1},
            {**tokens(1)[0], "_id": "x", "lock": -1, "not_before": 1},
        ]
    )
    for want in (Want(), Want(batches=("a",)), Want(batches=("a", "b"))):
        for start in (None, 0.5):
            assert pool.candidates(want, 16, start).rooms == {"a": 4}
    assert pool.holders() == {}
    assert list(pool.scan(holder="worker_1")) == list(pool.scan(holder="worker_1", batch="a")) == []
    assert pool.waiting("due", until=5, limit=1, after=0) == [(1, "x")]
    assert pool.waiting("parent", keys=["p", "q"]) == pool.waiting("closed") == []
    assert statements
    # The names of batches are walked through in memory; of the tables only indexes are read.
    tables = [plan for plan in statements if plan not in ("SCAN found", "SCAN CONSTANT ROW")]
    assert not [plan for plan in tables if "TEMP B-TREE" in plan or ("SCAN" in plan and "INDEX" not in plan)]


def test_a_batch_without_room_is_not_looked_through(pool: SQLiteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given far more tokens of a batch with room for one than a look goes through, before another's
    monkeypatch.setattr("tokenpool.backends.sqlite_queue.SEARCH", 50)
    urgent = [{**doc, "_id": f"a{number}"} for number, doc in enumerate(tokens(200, batch="a", priority=9))]
    pool.put_many([*urgent, *tokens(5, batch="b"), {"_id": "batch_a", "type": "batch", "max_running": 1}])
    # Then the others are offered all the same
    for start in (None, 0.5):
        found = pool.candidates(Want(), 10, start).tokens
        assert sorted(doc["batch"] for doc in found) == ["a", *["b"] * 5]


def test_an_ordinary_token_pays_nothing_for_those_that_wait(pool: SQLiteBackend) -> None:
    # Given every statement that writes
    written: list[str] = []
    with pool._connections.use() as connection:
        connection.set_trace_callback(written.append)
    # When an ordinary token is pushed, claimed and closed, then what waits is not touched
    (doc,) = tokens(1, batch="a")
    (result,) = pool.put_many([doc])
    for fields in ({"lock": 5}, {"lock": 5, "done": 6, "exit_code": 0}):
        assert isinstance(result, Saved)
        (result,) = pool.put_many([{**doc, "_rev": result.rev, **fields}])
    assert len([statement for statement in written if "documents" in statement]) >= 6
    assert [statement for statement in written if "waits" in statement] == []

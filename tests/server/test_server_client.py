"""`tokenpool.Server`: a script that creates tasks and asks for them as it did with PYTQ, whether the server is there or not."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy
from server_parts import People, serving

import tokenpool
from tokenpool.errors import BadInput, NotFound, NotPermitted, ServerAway
from tokenpool.pool import Pool, connect
from tokenpool.server_client import pool_url
from tokenpool.worker import Worker, WorkerOptions

API_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


@pytest.fixture
def pool(sqlite_url: str) -> Iterator[Pool]:
    with connect(sqlite_url, create=True) as opened:
        yield opened


@pytest.fixture
def address(pool: Pool, sqlite_url: str) -> Iterator[str]:
    """Where a server of the pool listens, without ``http://``."""
    with serving(sqlite_url) as server:
        yield server.url.removeprefix("http://").rstrip("/")


def drain(pool: Pool) -> None:
    Worker(pool, WorkerOptions(slots=2, quit=True, workdir=Path("work"))).run()


def test_a_task_is_created_run_and_asked_for(address: str, pool: Pool) -> None:
    # Given a script of PYTQ's kind
    server = tokenpool.Server(address)
    began = datetime.now(timezone.utc)
    # When it creates a task, then it has it at once, and its times are times
    task = server.task_create("echo hi $((1+1)); echo oops >&2", name="first", batch="test")
    assert task.task_id.startswith("task_")
    assert (task.status, task.name, task["batch"]) == ("pending", "first", "test")
    assert abs((task.creation_date - began).total_seconds()) < 60
    # When a worker has run it
    drain(pool)
    (done,) = server.join([task], timeout=60)
    # Then it has succeeded, and all is told of it
    assert (done.status, done.exit_code) == ("succeeded", 0)
    assert done.modification_date >= done.creation_date
    assert server.task_output(task.task_id) == "hi 2\n"
    assert server.task_error(task.task_id) == "oops\n"
    (execution,) = server.executions(task.task_id)
    assert isinstance(execution.start_time, datetime)
    assert (execution.attempt, execution.return_code) == (1, 0)
    server.close()


def test_the_script_of_the_documentation_runs(address: str, pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    # Given the script that the page shows, with our server's address, and a worker that waits for its task
    (code,) = re.findall(r"^```python server\n(.*?)^```$", API_PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    options = WorkerOptions(slots=1, max_tasks=1, workdir=Path("work"))
    worker = threading.Thread(target=Worker(pool, options).run, daemon=True)
    worker.start()
    # When it runs, then it tells that its task has succeeded, and what that said
    exec(compile(code.replace('"127.0.0.1"', repr(address)), str(API_PAGE), "exec"), {"__name__": "docs"})
    worker.join(60)
    assert not worker.is_alive()
    assert "succeeded hi" in capfd.readouterr().out


def test_options_of_pytq_become_those_of_a_token(address: str, pool: Pool) -> None:
    with tokenpool.Server(address) as server:
        first = server.task_create("true")
        second = server.task_create(
            "sh -c 'do $CPU'", container="alpine:3", container_options="--cpus 2", input="s3://b/a s3://b/c.gz|gunzip",
            resource=["s3://b/db"], output="s3://b/out", retry=2, requirements=[first], run_timeout=60, priority=5,
        )  # fmt: skip
    doc = pool.get(second.task_id).doc
    assert (doc["image"], doc["command"]) == ("alpine:3", ["sh", "-c", "do $CPU"])
    assert doc["resources"] == {"cpu_cores": 2}
    assert [each["url"] for each in doc["inputs"]] == ["s3://b/a", "s3://b/c.gz", "s3://b/db"]
    assert doc["outputs"][0]["url"] == "s3://b/out/"
    assert (doc["max_retries"], doc["depends_on"], doc["timeout"], doc["priority"]) == (2, [first.task_id], 60, 5)


def test_a_mistake_is_told_where_it_is_made(address: str) -> None:
    with tokenpool.Server(address) as server:
        with pytest.raises(BadInput):
            server.task_create("echo", max_retries="many")
        with pytest.raises(NotFound):
            server.task_get("none")
        with pytest.raises(BadInput):
            tokenpool.Server(address, style="xml")
    # And what only the server knows, where the task is asked for, or at the end
    server = tokenpool.Server(address)
    task = server.task_create("echo", requirements=["nobody"])
    for act in (lambda: task.status, server.close):
        with pytest.raises(BadInput) as caught:
            act()
        assert "nobody" in caught.value.message


def test_a_server_that_is_away_is_waited_for(sqlite_url: str, pool: Pool) -> None:
    # Given a server that has stopped
    with serving(sqlite_url) as first:
        port = int(first.url.rstrip("/").rpartition(":")[2])
    server = tokenpool.Server(f"127.0.0.1:{port}")
    # When tasks are created, then that takes no time, and their ids are known
    ids = [server.task_create(f"echo {number}").task_id for number in range(20)]
    with pytest.raises(TimeoutError):
        server.flush(0.1)
    with pytest.raises(ServerAway):
        tokenpool.Server(f"127.0.0.1:{port}", get_timeout=0.1).status()
    asked: list[int] = []
    asking = threading.Thread(target=lambda: asked.append(len(server.tasks("pending"))))
    asking.start()
    # When it is back, then all is done that waited for it
    with serving(sqlite_url, port=port):
        server.flush(60)
        assert {task.id for task in pool.tokens()} == set(ids)
        asking.join(60)
        assert asked
        server.close()


def test_nothing_is_created_twice(sqlite_url: str, pool: Pool) -> None:
    # Given a line that loses the answers to what is sent
    with serving(sqlite_url) as running, FaultyProxy(running.url.rstrip("/")) as proxy:
        fault = proxy.drop_answer("POST", "/tokens", times=2)
        # When tasks are created, then each is there once, and none is refused
        with tokenpool.Server(proxy.url) as server:
            ids = [server.task_create(f"echo {number}").task_id for number in range(3)]
        assert fault.hits == 2
        assert sorted(task.id for task in pool.tokens()) == sorted(ids)


def test_a_task_that_failed_is_launched_again(address: str, pool: Pool) -> None:
    with tokenpool.Server(address) as server:
        task = server.task_create("test -e again || { touch again; exit 3; }")
        server.flush()
        drain(pool)
        assert server.task_get(task.task_id).status == "failed"
        assert (server.task_relaunch(task.task_id), server.task_relaunch(task.task_id)) == (1, 0)
        server.task_update(task.task_id, command=["true"], input=None)
        drain(pool)
        assert server.join([task])[0].status == "succeeded"
        assert [each.return_code for each in server.executions(task.task_id)] == [3, 0]


def test_joining_repeats_what_fails(address: str, pool: Pool) -> None:
    # Given a worker that goes on working, and a task that fails at first
    worker = Worker(pool, WorkerOptions(slots=1, idle_timeout=5, poll=0.2, workdir=Path("work")))
    running = threading.Thread(target=worker.run)
    running.start()
    with tokenpool.Server(address) as server:
        marks = Path.cwd() / "marks"
        task = server.task_create(f"echo x >> {marks}; test $(wc -l < {marks}) -ge 3")
        hopeless = server.task_create("exit 4")
        # When it is waited for, with three tries more
        done, failed = server.join([task, hopeless], retry=2, timeout=60)
    # Then it has succeeded at the third, and what never does has failed
    assert (done.status, failed.status) == ("succeeded", "failed")
    assert len(failed.attempts) == 3
    running.join(60)


def test_tasks_are_listed_cancelled_and_deleted(address: str, pool: Pool) -> None:
    with tokenpool.Server(address, style="dict") as server:
        for number in range(5):
            server.task_create(f"echo {number}", batch="a" if number % 2 else "b")
        server.flush()
        first, *_ = found = server.tasks(batch="a")
        assert [task["batch"] for task in found] == ["a", "a"]
        assert isinstance(first, dict)
        assert isinstance(first["creation_date"], datetime)
        assert server.task_cancel(first["task_id"]) == 1
        assert [task["task_id"] for task in server.tasks("failed")] == [first["task_id"]]
        server.task_delete(first["task_id"])
        server.task_delete(first["task_id"])
        assert pool.counts()["todo"] == 4


def test_workers_and_batches_are_steered(address: str, pool: Pool) -> None:
    with tokenpool.Server(address) as server:
        server.task_create("echo", batch="night")
        server.flush()
        assert server.batch_stop("night").paused is True
        assert pool.batch("night").paused
        assert server.batch_go("night").paused is False
        pool.claim()
        (worker,) = server.workers()
        assert isinstance(worker.started, datetime)
        assert server.worker_update(worker.worker_id, concurrency=7).concurrency == 7
        assert server.worker_update(worker.worker_id, prefetch=1).prefetch == 1
        assert [batch.name for batch in server.batches()] == ["night"]
        pool.leave()


def test_a_submitter_needs_no_more_than_their_role(sqlite_url: str, pool: Pool, people: People) -> None:
    with serving(sqlite_url, "--users", str(people.file)) as running:
        with tokenpool.Server(running.url, people.tokens["submitter"]) as server:
            task = server.task_create("echo")
            assert task.submitter == "submitter's machine"
            with pytest.raises(NotPermitted):
                server.batch_stop("night")
        server = tokenpool.Server(running.url, people.tokens["viewer"])
        server.task_create("echo")
        with pytest.raises(NotPermitted):
            server.flush(60)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1", "tokenpool+http://127.0.0.1:8080"),
        ("127.0.0.1:99", "tokenpool+http://127.0.0.1:99"),
        ("[::1]", "tokenpool+http://[::1]:8080"),
        ("me@localhost", "tokenpool+http://me@localhost:8080"),
        ("localhost/lab", "tokenpool+http://localhost:8080/lab"),
        ("https://host/lab", "tokenpool+https://host/lab"),
    ],
)
def test_a_server_is_named_in_any_way(given: str, url: str) -> None:
    assert pool_url(given) == url


def test_creating_a_task_takes_no_round_trip(address: str, pool: Pool) -> None:
    # Given a server behind a line that counts
    with FaultyProxy(f"http://{address}") as proxy, tokenpool.Server(proxy.url) as server:
        began = time.monotonic()
        for number in range(1000):
            server.task_create(f"echo {number}")
        created = time.monotonic() - began
        server.flush(120)
        assert created < time.monotonic() - began
        # Then a thousand tasks went along in a few requests
        assert len(proxy.requests) < 100
    assert pool.counts()["todo"] == 1000

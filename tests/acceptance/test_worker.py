"""What becomes of tokens in a worker, told on both backends with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from processes import alive, until

from tokenpool.claims import Claimer
from tokenpool.commits import Outcome, Written
from tokenpool.fit import Resources
from tokenpool.pool import Pool, connect
from tokenpool.worker import Event, Summary, Worker, WorkerOptions


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with connect(pool_url, create=True) as opened:
        yield opened


def work(pool: Pool, tmp_path: Path, **options: Any) -> Summary:
    """Drain the pool here."""
    return Worker(pool, WorkerOptions(**{"slots": 2, "quit": True, "workdir": tmp_path / "work", **options})).run()


def test_a_command_that_succeeds_is_done_with_both_logs(pool: Pool, tmp_path: Path) -> None:
    # Given a token that writes bytes which are no text
    (token,) = pool.push({"command": ["printf", r"\377\000out"], "name": "binary"})
    # When a worker runs it
    summary = work(pool, tmp_path)
    # Then it is done, its bytes are attached unchanged, and the empty log is attached as well
    doc = pool.get(token)
    assert (summary.done, doc.state, doc["exit_code"]) == (1, "done", 0)
    assert pool.logs(token).out == b"\xff\x00out"
    assert set(doc["_attachments"]) == {f"logs_{token}.out", f"logs_{token}.err"}
    # And its folder is gone
    assert list((tmp_path / "work").rglob("*")) == []


def test_history_tells_where_when_and_how(pool: Pool, tmp_path: Path) -> None:
    (token,) = pool.push("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    work(pool, tmp_path)
    (attempt,) = pool.get(token)["attempts"]
    assert attempt["counted"] is True
    assert attempt["failure_class"] is None
    assert attempt["cpu_seconds"] > 0
    assert attempt["max_rss_mb"] > 0
    assert attempt["start_time"] <= attempt["end_time"]
    assert "lease" not in pool.get(token)


def test_a_failed_command_keeps_its_folder_and_code(pool: Pool, tmp_path: Path) -> None:
    (token,) = pool.push("echo data > result.txt; echo oops >&2; exit 7")
    folders = []
    Worker(
        pool,
        WorkerOptions(quit=True, workdir=tmp_path / "work"),
        lambda event: folders.append(event.workdir) if event.kind == "finished" else None,
    ).run()
    doc = pool.get(token)
    assert (doc.state, doc["exit_code"]) == ("error", 7)
    assert doc["attempts"][0]["failure_class"] == "executor"
    assert pool.logs(token).err == b"oops\n"
    assert (Path(folders[0]) / "result.txt").read_text() == "data\n"


def test_a_signal_counts_as_in_a_shell(pool: Pool, tmp_path: Path) -> None:
    (token,) = pool.push({"command": ["sh", "-c", "kill -9 $$"]})
    work(pool, tmp_path)
    assert pool.get(token)["exit_code"] == 128 + signal.SIGKILL


def test_the_environment_of_a_token(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker that knows a password, and a token with a variable of its own
    monkeypatch.setenv("TOKENPOOL_PASSWORD", "s3cret")
    (token,) = pool.push({"command": ["env"], "env": {"MINE": 5}, "resources": {"cpu_cores": 3}})
    # When it runs
    work(pool, tmp_path, capacity=Resources(cpu_cores=4))
    # Then it finds what is promised, and not the password
    found = dict(line.split("=", 1) for line in pool.logs(token).out.decode().splitlines() if "=" in line)
    assert found["TOKENPOOL_TOKEN_ID"] == token
    assert found["TOKENPOOL_ATTEMPT"] == "1"
    assert (found["MINE"], found["CPU"]) == ("5", "3")
    assert {"TOKENPOOL_WORKDIR", "INPUT", "OUTPUT", "RESOURCE", "TEMP"} <= set(found)
    assert "TOKENPOOL_PASSWORD" not in found


def test_a_long_log_keeps_head_and_tail(pool: Pool, tmp_path: Path) -> None:
    (token,) = pool.push("echo first; seq 1 100000; echo last")
    work(pool, tmp_path, log_limit=2000)
    out = pool.logs(token).out
    assert out.startswith(b"first\n1\n")
    assert out.endswith(b"100000\nlast\n")
    assert b"bytes left out here" in out
    assert len(out) < 2200


def test_a_log_larger_than_a_message_is_streamed_whole(pool: Pool, tmp_path: Path) -> None:
    (token,) = pool.push("head -c 700000 /dev/zero | tr '\\0' x")
    work(pool, tmp_path)
    assert pool.logs(token).out == b"x" * 700000
    assert pool.get(token).state == "done"


def test_a_timeout_ends_the_whole_tree(pool: Pool, tmp_path: Path) -> None:
    # Given a token whose child ignores SIGTERM and would run for ten minutes
    pidfile = tmp_path / "pid"
    (token,) = pool.push(
        {"command": f"trap '' TERM; (trap '' TERM; sleep 600) & echo $! > {pidfile}; wait; wait", "timeout": 0.5}
    )
    # When it runs into its time-out
    work(pool, tmp_path, grace=0.2)
    # Then it is an error of class timeout, and no process is left
    doc = pool.get(token)
    assert doc.state == "error"
    assert doc["attempts"][0]["failure_class"] == "timeout"
    assert not alive(int(pidfile.read_text()))


def test_a_failed_token_is_tried_again_as_often_as_it_may(pool: Pool, tmp_path: Path) -> None:
    # Given a token that succeeds at its third attempt, and one that never does
    counter = tmp_path / "count"
    (lucky,) = pool.push({"input": f"echo x >> {counter}; test $(wc -l < {counter}) -ge 3", "max_retries": 5})
    (never,) = pool.push({"input": "echo attempt $TOKENPOOL_ATTEMPT; exit 1", "max_retries": 1})
    # When a worker drains the pool
    work(pool, tmp_path)
    # Then the first is done after three, the second an error after two, each attempt with its log
    assert [a["exit_code"] for a in pool.get(lucky)["attempts"]] == [1, 1, 0]
    assert pool.get(lucky).state == "done"
    assert pool.get(never).state == "error"
    assert pool.get(never)["scrub_count"] == 1
    assert pool.attachment(never, f"logs_{never}.1.out") == b"attempt 1\n"
    assert pool.logs(never).out == b"attempt 2\n"


@pytest.mark.parametrize("command", [[], 5, "", ["a", 3], {"no": 1}, ["x\0y"]])
def test_a_token_edited_into_nonsense_ends_in_error_with_the_reason(pool: Pool, tmp_path: Path, command: Any) -> None:
    # Given a token whose command somebody edited by hand, and a sound one
    (token, sound) = pool.push(["true", "true"])
    doc = pool.backend.get(token)
    pool.backend.put_many([{**doc, "command": command}])
    # When a worker meets it, then it is an error that says why, and the other is done
    work(pool, tmp_path)
    assert pool.get(token).state == "error"
    assert "command" in pool.get(token)["error"][-1]["message"]
    assert pool.get(sound).state == "done"


def test_priority_goes_first_across_batches(pool: Pool, tmp_path: Path) -> None:
    pool.push([{"_id": f"low{n}", "input": "true", "batch": "a"} for n in range(3)])
    pool.push([{"_id": f"high{n}", "input": "true", "batch": "z", "priority": 5} for n in range(3)])
    started: list[str] = []
    options = WorkerOptions(slots=1, quit=True, workdir=tmp_path / "work")
    Worker(pool, options, lambda e: started.append(e.token["_id"][:3]) if e.kind == "started" else None).run()
    assert started == ["hig"] * 3 + ["low"] * 3


def test_a_worker_of_one_batch_leaves_the_others(pool: Pool, tmp_path: Path) -> None:
    pool.push(["true"] * 3, batch="mine")
    pool.push(["true"] * 2, batch="theirs")
    assert work(pool, tmp_path, batches=("mine",)).done == 3
    assert pool.counts("theirs")["todo"] == 2


def test_max_tasks_is_kept(pool: Pool, tmp_path: Path) -> None:
    pool.push(["true"] * 6)
    assert work(pool, tmp_path, max_tasks=4).done == 4
    assert pool.counts()["todo"] == 2


def test_a_running_token_that_is_cancelled_stops(pool: Pool, tmp_path: Path) -> None:
    # Given a worker that runs a token which would take ten minutes
    (token,) = pool.push("sleep 600")
    started = threading.Event()

    def watch(event: Event) -> None:
        if event.kind == "started":
            started.set()

    worker = Worker(pool, WorkerOptions(quit=True, workdir=tmp_path / "work", grace=0.2), watch)
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert started.wait(30)
    # When somebody cancels it
    assert pool.cancel(token).changed == 1
    thread.join(30)
    # Then it ends in error as cancelled, and the worker goes on until the pool is empty
    assert not thread.is_alive()
    doc = pool.get(token)
    assert doc.state == "error"
    assert doc["attempts"][-1]["failure_class"] == "cancelled"
    assert doc["cancel"]["by"]


def test_a_worker_told_to_stop_gives_its_tokens_back_uncounted(pool: Pool, tmp_path: Path) -> None:
    # Given a worker amid two long tokens
    tokens = pool.push(["sleep 600", "sleep 600"])
    both = threading.Barrier(2, timeout=30)
    worker = Worker(
        pool,
        WorkerOptions(slots=2, workdir=tmp_path / "work", grace=0.2),
        lambda event: both.wait() if event.kind == "started" and event.token["_id"] == tokens[-1] else None,
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    both.wait()
    # When it is told to stop
    worker.stop()
    thread.join(30)
    # Then both are in todo again, no attempt is counted, nobody holds them
    assert not thread.is_alive()
    for token in tokens:
        doc = pool.get(token)
        assert doc.state == "todo"
        assert all(attempt["counted"] is False for attempt in doc.get("attempts", ()))
        assert "lease" not in doc


def test_an_edit_while_a_token_runs_survives_together_with_the_result(pool: Pool, tmp_path: Path) -> None:
    # Given a token that is edited by somebody while it runs
    (token,) = pool.push("echo result")

    def edit(event: Event) -> None:
        if event.kind == "started":
            doc = pool.backend.get(token)
            pool.backend.put_many([{**doc, "tags": {"seen": "yes"}}])

    Worker(pool, WorkerOptions(quit=True, workdir=tmp_path / "work"), edit).run()
    # Then the edit and the result are both there
    doc = pool.get(token)
    assert (doc.state, doc["tags"]) == ("done", {"seen": "yes"})
    assert pool.logs(token).out == b"result\n"


def test_a_token_deleted_while_it_runs_does_not_end_the_worker(pool: Pool, tmp_path: Path) -> None:
    (gone, stays) = pool.push(["true", "true"])

    def delete(event: Event) -> None:
        if event.kind == "started" and event.token["_id"] == gone:
            pool.rm(gone, running=True)

    summary = Worker(pool, WorkerOptions(quit=True, workdir=tmp_path / "work"), delete).run()
    assert (summary.done, summary.superseded) == (1, 1)
    assert pool.get(stays).state == "done"


def test_a_result_of_a_token_that_another_claim_holds_by_now_is_history_only(pool: Pool, tmp_path: Path) -> None:
    # Given a token that is reset and claimed by somebody else while it runs here
    (token,) = pool.push("exit 9")
    rival = []

    def steal(event: Event) -> None:
        if event.kind == "started":
            pool.reset(token)
            # Another face of the same pool is another worker: its claims are its own.
            rival.extend(Pool(pool.backend).claim(1))

    Worker(pool, WorkerOptions(quit=True, workdir=tmp_path / "work"), steal).run()
    # Then the rival still holds it, and our result is kept in its history, uncounted
    doc = pool.get(token)
    assert doc.state == "locked"
    assert doc["lease"]["claim"] == rival[0]["lease"]["claim"]
    assert [a.get("superseded") for a in doc["attempts"]] == [True]
    # And the rival's outcome is the one that counts
    assert pool.close(doc, exit_code=0).state == "done"


def test_no_process_outlives_a_worker_that_is_killed(sqlite_url: str, tmp_path: Path) -> None:
    # Given a worker process amid a token that has detached a child of its own
    pidfile = tmp_path / "pid"
    with connect(sqlite_url, create=True) as pool:
        pool.push(f"setsid sh -c 'echo $$ > {pidfile}.new; mv {pidfile}.new {pidfile}; sleep 600' & sleep 600")
    code = (
        "from tokenpool.pool import connect; from tokenpool.worker import *; import sys;"
        f"Worker(connect({sqlite_url!r}), WorkerOptions(), lambda e: print(e.kind, flush=True)).run()"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "started\n"
    until(pidfile.exists)
    pid = int(pidfile.read_text())
    # When the worker is killed with SIGKILL
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    # Then the child is gone as well
    until(lambda: not alive(pid))


def test_tokens_that_have_no_room_are_waited_for_without_asking(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a machine of one CPU, more slots than that, and tokens of which each wants it for a while
    asked: list[int] = []
    commit = Claimer.commit

    def counted(claimer: Claimer, n: int, outcomes: Sequence[Outcome] = ()) -> Written:
        asked.append(n)
        return commit(claimer, n, outcomes)

    monkeypatch.setattr(Claimer, "commit", counted)
    ids = pool.push([{"command": ["sleep", "0.5"], "resources": {"cpu_cores": 1}} for _ in range(3)])
    # When a worker runs them one after another
    work(pool, tmp_path, slots=4, capacity=Resources(cpu_cores=1))
    # Then all are done, and it asked a few times for each, not all the time
    assert {pool.get(each).state for each in ids} == {"done"}
    assert len(asked) <= 30 * len(ids)

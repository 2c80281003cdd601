"""Containers whose token is cancelled, whose worker is killed, or which nobody looks after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli_tools import call, command, environment, ok
from container_tools import failure, out, push, shown
from engines import IMAGE, EngineServer
from processes import until

Run = Callable[..., dict[str, Any]]
#: Goes on when there is a file named go in its folder; every beginning is written down.
WAITS = "echo begun >> /output/runs; echo one; while ! [ -e /work/go ]; do sleep 0.1; done; echo two; exit 4"


@contextmanager
def worker(*options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own; it is killed at the end."""
    words = command("work", "--slots", 1, "--workdir", "scratch", "--lease", "2s", *options)
    with open("worker.log", "ab") as log:
        process = subprocess.Popen(words, env=environment(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def containers(engine: EngineServer) -> list[Any]:
    """Return all containers of an engine, as its list tells them: one that is just being removed cannot be inspected."""
    client = engine.client()
    try:
        return list(client.containers.list(all=True, sparse=True))
    finally:
        client.close()


def running(engine: EngineServer) -> bool:
    """Tell whether there is a container that runs."""
    return any(each.status == "running" for each in containers(engine))


def begun(engine: EngineServer) -> Path:
    """Wait until the token's container has begun, and return its folder."""
    until(lambda: running(engine))
    folder = Path(containers(engine)[0].attrs["Labels"]["tokenpool.folder"])
    until(lambda: (folder / "output" / "runs").exists())
    return folder


def test_logs_are_seen_while_it_runs(engine: EngineServer) -> None:
    push(command=WAITS)
    with worker("--max-tasks", 1) as process:
        folder = begun(engine)
        until(lambda: "one" in Path(f"{folder}.out").read_text())
        assert out() == ""
        (folder / "go").touch()
        process.wait(60)
    assert out() == "one\ntwo\n"


def test_a_cancelled_container_is_gone_at_once(engine: EngineServer) -> None:
    push(command=WAITS)
    with worker("--max-tasks", 1) as process:
        begun(engine)
        ok("cancel", "t", "--yes")
        began = time.monotonic()
        until(lambda: not containers(engine), 60)
        seconds = time.monotonic() - began
        process.wait(60)
    assert shown("t")["attempts"][-1]["failure_class"] == "cancelled"
    assert seconds < 60


def test_a_container_that_hears_sigterm_may_tidy_up(engine: EngineServer) -> None:
    push(command="trap 'echo tidy; exit 9' TERM; echo x > /output/runs; while :; do sleep 0.1; done")
    with worker("--max-tasks", 1) as process:
        begun(engine)
        ok("cancel", "t", "--yes")
        process.wait(60)
    assert out() == "tidy\n"


def test_a_killed_worker_leaves_a_container_that_the_next_one_takes_over(engine: EngineServer) -> None:
    push(command=WAITS)
    with worker() as first:
        folder = begun(engine)
        first.kill()
        first.wait()
    assert running(engine)
    with worker("--max-tasks", 1) as second:
        until(lambda: b"goes on" in b"".join(each.read_bytes() for each in Path("scratch").glob("*/*.err")))
        assert [each.status for each in containers(engine)] == ["running"]
        (folder / "go").touch()
        second.wait(60)
    token = shown("t")
    assert failure(token) == (4, "executor")
    assert out() == "one\ntwo\n"
    (kept,) = (each for each in Path("scratch").glob("*/t.*") if each.is_dir())
    assert (kept / "output" / "runs").read_text() == "begun\n"


def test_one_that_ended_while_nobody_looked_is_not_run_again(engine: EngineServer) -> None:
    push(command=WAITS.replace("exit 4", "exit 0"))
    with worker() as first:
        folder = begun(engine)
        first.kill()
        first.wait()
    (folder / "go").touch()
    until(lambda: not running(engine))
    with worker("--max-tasks", 1) as second:
        second.wait(60)
    assert failure(shown("t")) == (0, None)
    assert out() == "one\ntwo\n"


def test_what_was_changed_since_is_run_anew(engine: EngineServer) -> None:
    push(command=WAITS)
    with worker() as first:
        folder = begun(engine)
        first.kill()
        first.wait()
    ok("reset", "t", "--yes")
    ok("edit", "t", "command=echo new", "--yes")
    with worker("--max-tasks", 1) as second:
        second.wait(60)
    assert out() == "new\n"
    assert not folder.exists()


def test_an_adopted_executor_is_followed_by_the_rest(engine: EngineServer) -> None:
    steps = ["echo first", WAITS.replace("exit 4", "exit 0"), "cat /output/runs"]
    push(executors=[{"image": IMAGE, "command": ["sh", "-c", each]} for each in steps])
    with worker() as first:
        folder = begun(engine)
        until(lambda: "one" in Path(f"{folder}.out").read_text())
        first.kill()
        first.wait()
    (folder / "go").touch()
    with worker("--max-tasks", 1) as second:
        second.wait(60)
    assert failure(shown("t")) == (0, None)
    assert out() == "first\none\ntwo\nbegun\n"


def test_a_container_of_a_living_client_is_left_alone(engine: EngineServer) -> None:
    push(command=WAITS.replace("exit 4", "exit 0"))
    with worker("--max-tasks", 1) as process:
        folder = begun(engine)
        # A token of another pool that has the same id and does the same.
        made = shown("t")["creation_time"]
        other = f"sqlite:///{Path('other.db').absolute()}"
        ok("-p", other, "init")
        fields = {"_id": "t", "creation_time": made, "image": IMAGE, "command": "echo mine"}
        ok("-p", other, "push", "-", "--format", "jsonl", stdin=json.dumps(fields))
        ok("-p", other, "work", "--quit", "--slots", 1, "--workdir", "scratch")
        assert running(engine)
        (folder / "go").touch()
        process.wait(60)
    assert out() == "one\ntwo\n"
    assert ok("-p", other, "logs", "t", "--out").out == "mine\n"


def test_what_nobody_takes_over_is_removed_in_time(engine: EngineServer) -> None:
    push(command=WAITS)
    with worker() as first:
        folder = begun(engine)
        first.kill()
        first.wait()
    (record,) = Path(os.environ["HOME"]).rglob("containers/*/*.json")
    os.utime(record, (1, 1))
    with worker("--batch", "none"):
        until(lambda: not containers(engine) and not record.exists(), 60)
    assert not folder.exists()


def test_a_client_that_is_killed_takes_its_container_along(engine: EngineServer) -> None:
    push(command=WAITS)
    with worker("--max-tasks", 1) as process:
        begun(engine)
        client = int(containers(engine)[0].attrs["Labels"]["tokenpool.client"].partition(":")[0])
        os.kill(client, signal.SIGKILL)
        process.wait(60)
    assert failure(shown("t"))[1] == "system"
    assert containers(engine) == []


def test_a_worker_that_is_told_twice_to_leave_takes_its_container_along(engine: EngineServer) -> None:
    push(command=WAITS)
    with worker() as process:
        begun(engine)
        for _ in range(2):
            process.terminate()
        process.wait(60)
    assert containers(engine) == []
    assert call("status", "--json").json["states"]["todo"] == 1

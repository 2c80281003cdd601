"""Stories of seeing: `explain`, `logs -f`, `watch`, and the workers in `status`."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cli_tools import call, command, environment, ids, ok, use
from worker_documents import busy, save, token, worker

import tokenpool
from tokenpool.backends.base import Backend
from tokenpool.cli.watch import Look
from tokenpool.errors import ServerAway


@pytest.fixture(autouse=True)
def pool(pool_url: str) -> str:
    return use(pool_url)


@pytest.fixture
def backend(pool: str) -> Iterator[Backend]:
    with tokenpool.connect(pool) as opened:
        yield opened.backend


# --- explain ---------------------------------------------------------------------------------------------------------------


def test_explain_says_why_and_what_can_be_done():
    ok("push", "-b", "night", "--id", "t", "--", "true")
    ok("batch", "pause", "night")
    lines = ok("explain", "t").out.splitlines()
    assert lines[:3] == ["t  todo", "  its batch night is paused", "      tokenpool batch resume night"]
    told = ok("explain", "t", "--json").json
    assert (told["schema"], told["id"], told["state"]) == (1, "t", "todo")
    assert [reason["code"] for reason in told["reasons"]] == ["batch_paused", "no_worker"]
    assert {name for reason in told["reasons"] for name in reason} == {"code", "text", "hint"}


def test_explain_follows_a_token_through_its_life():
    ok("push", "--id", "t", "--not-before", "1h", "--", "exit 3")
    assert "in 60 min" in ok("explain", "t").out
    ok("edit", "t", "not_before=")
    ok("work", "--quit")
    assert "attempt 1 failed with exit code 3 (executor)" in ok("explain", "t").out
    assert "tokenpool logs t" in ok("explain", "t").out


def test_explain_of_nobody_is_exit_code_4():
    assert call("explain", "nobody").code == 4


def test_no_control_character_of_a_token_reaches_the_terminal(backend):
    token(backend, "t", lock=5, done=9, exit_code="\x1b[31m1", error=[{"message": "\x07oh"}], hostname="\x1bhost")
    assert not {"\x1b", "\x07"} & set(ok("explain", "t").out)


# --- logs -f -----------------------------------------------------------------------------------------------------------------


@contextmanager
def working(*words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Let a worker work as long as the block lasts."""
    with subprocess.Popen(command("work", *words), env=environment(), stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def following(*words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Follow a token as long as the block lasts, at most a minute."""
    with subprocess.Popen(
        command("logs", "-f", *words), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        timer = threading.Timer(60, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def line_of(process: subprocess.Popen[bytes], stream: str = "stdout") -> bytes:
    """Return the next line that it prints."""
    found: bytes = getattr(process, stream).readline()
    return found


def test_what_a_running_token_writes_is_printed_while_it_runs(tmp_path):
    # Given a token that writes, and then waits for us
    go = tmp_path / "go"
    ok("push", "--id", "t", "--", f"echo one; echo oops >&2; while [ ! -e {go} ]; do sleep 0.1; done; echo two; exit 3")
    # When somebody follows it from before its start
    with following("t") as logs:
        assert line_of(logs, "stderr") == b"[... it waits (todo) ...]\n"
        with working("--slots", "1"):
            # Then its first lines come while it runs
            assert line_of(logs) == b"one\n"
            assert ids("state:locked") == ["t"]
            go.touch()
            # And the rest when it has ended, nothing twice
            out, err = logs.communicate(timeout=60)
            assert (out, logs.returncode) == (b"two\n", 0)
    assert [line for line in err.decode().splitlines() if not line.startswith("[")] == ["oops"]


def test_a_retry_is_followed_to_the_end():
    ok("push", "--id", "t", "--max-retries", "1", "--", "echo try $TOKENPOOL_ATTEMPT; exit 1")
    with following("t", "-q") as logs, working("--slots", "1"):
        out, err = logs.communicate(timeout=60)
    # The first one may be over before anybody looked.
    assert out in (b"try 1\ntry 2\n", b"try 2\n")
    assert err == b""


def test_following_what_is_finished_prints_it(backend):
    ok("push", "--id", "t", "--", "echo out; echo err >&2")
    ok("work", "--quit")
    for words, out in (([], b"out\n"), (["--err"], b"err\n"), (["--out"], b"out\n")):
        done = subprocess.run(command("logs", "-f", "t", *words), env=environment(), capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, out)
    pieces = [json.loads(line) for line in ok("logs", "-f", "t", "--json").out.splitlines()]
    assert pieces == [{"stream": "out", "text": "out\n"}, {"stream": "err", "text": "err\n"}]


def test_what_cannot_be_followed_is_told():
    assert call("logs", "-f", "nobody").code == 4
    ok("push", "--id", "t", "--", "true")
    answer = call("logs", "-f", "t", "--attempt", "1")
    assert (answer.code, "cannot be followed" in answer.error) == (2, True)


# --- watch -------------------------------------------------------------------------------------------------------------------


def test_watch_shows_the_workers_and_what_they_run(backend):
    busy(backend, "a", "t")
    worker(backend, "b", silent_for=900)
    assert "; 2 workers, 1 of 4 slots busy" in ok("watch", "--once").out
    told = ok("watch", "--once", "--json").json
    assert [(each["state"], each["slots"]) for each in told["workers"]] == [("working", 4), ("silent", 4)]
    assert told["workers"][0]["tokens"][0]["command"] == "run t"


def test_the_rate_is_that_of_the_last_minute(pool):
    # Given a pool in which a token is finished each second, and later one every ten seconds
    now = 0.0
    with tokenpool.connect(pool) as opened:
        look = Look(opened, None, lambda: now)
        counts = {"todo": 300, "held": 0, "locked": 0, "done": 0, "error": 0, "invalid": 0}
        opened.counts = lambda batch=None: dict(counts)  # type: ignore[method-assign]
        rates = []
        for second in range(200):
            now = float(second)
            counts["done" if second % 2 else "error"] += 1 if second < 100 or second % 10 == 0 else 0
            look.take()
            rates.append(round(look.rate, 2))
        # Then the rate follows within a minute
        assert (rates[0], rates[50], rates[99], rates[160], rates[199]) == (0.0, 1.0, 1.0, 0.1, 0.1)
        assert look.left == pytest.approx(300 / look.rate)
        # And tokens that are put back do not make it negative
        counts["done"] = 0
        look.take()
        assert (look.rate, look.left) == (0.0, None)


def test_a_watch_outlives_an_outage(pool):
    with tokenpool.connect(pool) as opened:
        look = Look(opened, None)
        look.take()

        def away(batch: object = None) -> dict[str, int]:
            raise ServerAway("no answer")

        before, opened.counts = opened.counts, away  # type: ignore[method-assign]
        look.take()
        assert look.line().endswith("; the pool is away")
        assert look.as_json()["away"]
        opened.counts = before  # type: ignore[method-assign]
        look.take()
        assert not look.away
        opened.counts = away  # type: ignore[method-assign]
        with pytest.raises(ServerAway):
            Look(opened, None).take()


def in_terminal(words: list[str], seen: Callable[[str], bool]) -> str:
    """Run a verb on a terminal until this is to be seen; return all that was shown."""
    import os
    import pty
    import select
    import time

    read, write = pty.openpty()
    env = {**environment(), "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(command(*words), env=env, stdin=write, stdout=write, stderr=write) as process:
        shown, deadline = b"", time.monotonic() + 30
        while not seen(shown.decode("utf-8", "replace")) and time.monotonic() < deadline:
            if select.select([read], [], [], 0.2)[0]:
                shown += os.read(read, 4096)
        process.send_signal(2)
        while process.poll() is None and time.monotonic() < deadline + 30:
            # What nobody reads fills the terminal, and then it could not even leave.
            if select.select([read], [], [], 0.2)[0]:
                os.read(read, 4096)
        process.wait(1)
    os.close(read)
    os.close(write)
    return shown.decode("utf-8", "replace")


def test_on_a_terminal_states_and_workers_are_drawn(backend):
    for number in range(40):
        busy(backend, f"{number:02d}", f"t{number}", slots=2)
    shown = in_terminal(["watch", "--interval", "0.2s"], lambda text: "more" in text)
    assert "40 workers, 40 of 80 slots busy" in shown
    assert "run t" in shown
    assert "and 12 more" in shown


# --- status ------------------------------------------------------------------------------------------------------------------


def test_status_tells_people_of_workers_and_of_paused_batches(backend):
    ok("push", "-b", "night", "--", "true")
    assert len(ok("status").err.splitlines()) == 1
    ok("batch", "pause", "night")
    busy(backend, "a", "t")
    worker(backend, silent_for=900)
    assert ok("status").err.splitlines()[1:] == ["1 worker, 1 of 4 slots busy; 1 silent", "paused: night"]


def test_a_worker_that_renews_is_seen_at_once(backend):
    me = worker(backend, silent_for=900)
    assert ok("status", "--json").json["workers"][0]["state"] == "silent"
    save(backend, {**backend.get(me), "renewed": tokenpool.util.timestamp()})
    assert ok("status", "--json").json["workers"][0]["state"] == "idle"

"""`tokenpool scale` on one machine: what it counts, what it starts, how it explains itself, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from cli_tools import call, command, environment, ok, states, use

from tokenpool.backends.base import Json
from tokenpool.demand import Size, read
from tokenpool.launchers.base import Order
from tokenpool.launchers.ledger import Ledger, folder_of
from tokenpool.pool import connect
from tokenpool.scaling import Notes

QUICK = ("--idle-timeout", "20s", "--patience", "0s")


def until(what: str, found: Callable[[], object], patience: float = 60.0) -> None:
    """Wait until `found()` is true."""
    end = time.monotonic() + patience
    while not found():
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.1)


def once(*words: object) -> Json:
    """Do one round; return what it decided."""
    return dict(ok("--json", "scale", "--once", *QUICK, *words).json)


# ── what it does ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_workers_of_this_machine_come_and_go(sqlite_url: str) -> None:
    # Given three tokens
    use(sqlite_url)
    ok("push", "--", "sleep", "0.2")
    ok("push", "--", "sleep", "0.2")
    # When a round is done, then there are two workers, and no more in the next
    assert once("--max", 2, "--backlog", 1)["start"] == 2
    assert once("--max", 2, "--backlog", 1)["start"] == 0
    # When all is done, then they are let go, and nobody is left
    until("the end of the tokens", lambda: states() == {"done": 2})
    until(
        "two idle workers", lambda: len(once("--max", 2, "--backlog", 1)["drain"]) == 2 or not once("--max", 2)["have"]
    )
    until("an empty list", lambda: not ok("--json", "launch", "list").json["jobs"])
    assert once("--max", 2)["have"] == 0


def test_it_runs_until_it_is_told_to_leave_and_a_second_one_is_refused(sqlite_url: str) -> None:
    use(sqlite_url)
    words = command("scale", "--every", "0.2s")
    with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("keeping 0 to 10 workers by local on sqlite:")
        assert (
            process.stderr.readline()
            == "keep 0 workers: 0 open tokens want 0 (one for each); 0 busy, 0 idle, 0 coming\n"
        )
        second = call("scale", "--once")
        assert second.code == 2
        assert second.error == "error: another `tokenpool scale` looks after these workers already"
        # One for other tokens is another one.
        assert ok("scale", "--once", "--batch", "night").code == 0
        process.terminate()
    assert process.returncode == 0


def test_a_dry_run_starts_nobody(sqlite_url: str) -> None:
    use(sqlite_url)
    ok("push", "--", "true")
    answer = ok("scale", "--dry-run", "--max", 3)
    assert answer.err == "start 1 worker: 1 open token want 1 (one for each); 0 busy, 0 idle, 0 coming\n"
    assert states() == {"todo": 1}
    assert not ok("--json", "launch", "list", "-a").json["jobs"]


def test_a_worker_for_each_token_leaves_after_it(sqlite_url: str) -> None:
    use(sqlite_url)
    for _ in range(3):
        ok("push", "--", "true")
    assert once("--per-token", "--max", 5)["start"] == 3
    until("the end of the tokens", lambda: states() == {"done": 3})
    until("the end of the workers", lambda: not ok("--json", "launch", "list").json["jobs"])
    with connect(sqlite_url) as pool:
        assert len({token["attempts"][0]["worker"] for token in pool.tokens()}) == 3


def test_an_order_that_was_never_handed_in_counts_for_a_limited_time(sqlite_url: str) -> None:
    # Given the note of an order that nobody took: somebody was killed before
    use(sqlite_url)
    ok("push", "--", "true")
    folder = folder_of(os.environ)
    notes = Notes(folder.with_name("scale"), sqlite_url, "local")
    Ledger(folder).intend("local", f"{notes.prefix}lost", sqlite_url, time.time())
    # Then it counts as a worker that may come
    assert once("--max", 1)["start"] == 0
    # But not for ever
    given_up = once("--max", 1, "--unknown", "0s")
    assert given_up["start"] == 1
    assert given_up["reasons"][0].startswith(f"{notes.prefix}lost is given up")
    until("the end of the token", lambda: states() == {"done": 1})


def test_workers_that_die_at_once_are_not_started_again_and_again(sqlite_url: str) -> None:
    use(sqlite_url)
    ok("push", "--", "true")
    assert once("--program", "false")["start"] == 1
    until("the end of the worker", lambda: not ok("--json", "launch", "list").json["jobs"])
    second = once("--program", "false")
    assert second["start"] == 0
    assert second["reasons"][0].startswith("1 order ended before a worker showed itself")


def test_the_simulated_mode_needs_no_pool() -> None:
    answer = ok("--json", "scale", "--simulate", 2000, "--max", 5, "--backlog", 50).json
    assert (answer["ended"], answer["most_jobs"], answer["harmed"]) == (2000, 5, 0)
    assert "2000 tokens ended in" in ok("scale", "--simulate", 2000, "--max", 5, "--backlog", 50).err.replace(
        " 000", "000"
    )


# ── what it counts ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_tokens_that_wait_for_such_workers_count(pool_url: str) -> None:
    with connect(pool_url, create=True) as pool:
        pool.init()
        pool.push([{"input": "true", "resources": {"cpu_cores": 2, "ram_gb": 1}} for _ in range(4)], batch="fits")
        pool.push([{"input": "true", "resources": {"ram_gb": 64}}], batch="large")
        pool.push([{"input": "true", "timeout": 7200}], batch="long")
        pool.push(["true"] * 5, batch="paused")
        pool.set_batch("paused", paused=True)
        pool.push(["true"] * 5, batch="narrow")
        pool.set_batch("narrow", max_running=2)
        size = Size.of(Order(pool_url, slots=8, cpus=8, ram_gb=2, walltime=3600))

        everything = read(pool.backend, size)
        assert everything.demand.waiting == 4 + 2
        assert everything.demand.unfit == 2
        # What runs side by side depends on what the tokens ask for: of these, two by memory.
        assert read(pool.backend, size, ("fits",)).side_by_side == 2
        large = read(pool.backend, size, ("large",)).demand
        assert (large.waiting, large.why_unfit) == (0, "64 GB of memory where there are 2")
        assert read(pool.backend, size, ("long",)).demand.why_unfit == "2 h where a worker has 60 min"


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--min", 3, "--max", 2), "error: --min 3 is more than --max 2"),
        (("--per-token", "--backlog", 5), "error: --per-token is a backlog of one"),
        (("--launcher", "slrum"), "slrum"),
    ],
)
def test_what_makes_no_sense_is_refused_in_two_lines(sqlite_url: str, words: tuple[object, ...], error: str) -> None:
    use(sqlite_url)
    answer = call("scale", "--once", *words)
    assert answer.code == 2
    assert error in answer.error


def test_a_batch_system_that_is_not_here_is_told_at_once(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(sqlite_url)
    ok("push", "--", "true")
    monkeypatch.setenv("PATH", "/nowhere")
    before = signal.getsignal(signal.SIGTERM)
    answer = call("-q", "scale", "--launcher", "slurm")
    assert signal.getsignal(signal.SIGTERM) is before
    assert answer.code == 4
    assert "is not on PATH: this machine cannot talk to Slurm" in answer.err

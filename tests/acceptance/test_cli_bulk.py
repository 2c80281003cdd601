"""Stories of changing many tokens: `retry`, `reset`, `cancel`, `rm`, `scrub`; asked first, told after."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time

import pytest
from cli_tools import call, command, environment, ids, ok, states, use

import tokenpool


@pytest.fixture(autouse=True)
def pool(pool_url: str) -> str:
    """One token done, two failed, one running elsewhere, one waiting."""
    use(pool_url)
    ok("push", "-", "-b", "a", stdin="true\nexit 1\nexit 2\n")
    ok("work", "--quit")
    ok("push", "--id", "running", "--", "true")
    with tokenpool.connect(pool_url) as opened:
        opened.claim(1)
    ok("push", "--id", "waiting", "--", "true")
    return pool_url


START = {"todo": 1, "locked": 1, "done": 1, "error": 2}


def result(**counts: object) -> dict[str, object]:
    return {"schema": 1, **counts}


@pytest.mark.parametrize(
    ("verb", "selector", "matched", "changed", "after"),
    [
        ("retry", "all", 5, 2, {"todo": 3, "locked": 1, "done": 1}),
        ("retry", "state:error", 2, 2, {"todo": 3, "locked": 1, "done": 1}),
        ("reset", "all", 5, 4, {"todo": 5}),
        ("reset", "state:done", 1, 1, {"todo": 2, "locked": 1, "error": 2}),
        ("scrub", "all", 5, 3, {"todo": 4, "done": 1}),
        ("scrub", "running", 1, 1, {"todo": 2, "done": 1, "error": 2}),
        ("cancel", "waiting", 1, 1, {"locked": 1, "done": 1, "error": 3}),
        ("cancel", "running", 1, 1, START),  # its worker ends it
        ("rm", "all", 5, 4, {"locked": 1}),
        ("rm", "batch:a", 3, 3, {"todo": 1, "locked": 1}),
        ("rm", "batch:nobody", 0, 0, START),
    ],
)
def test_each_verb_changes_what_it_may_and_tells_it(verb, selector, matched, changed, after):
    counts = {"matched": matched, "changed": changed, "skipped": matched - changed, "failed": []}
    planned = ok(verb, selector, "--dry-run", "--json")
    assert planned.json == result(verb=verb, dry_run=True, **counts)
    assert states() == START
    assert ok(verb, selector, "--yes", "--json").json == result(verb=verb, **counts)
    assert states() == after


def test_people_are_told_in_words():
    assert ok("retry", "all", "--dry-run").err == (
        "2 tokens would be put back to todo\n3 tokens left alone: only failed tokens can be retried\n"
    )
    assert ok("rm", "state:done", "-y").err == "1 token deleted\n"
    assert ok("rm", "batch:nobody", "-y").err == "no token matches; nothing was changed\n"


def test_running_tokens_are_deleted_only_by_name():
    assert "left alone" in ok("rm", "running").err
    ok("rm", "running", "--running")
    assert "running" not in ids()


def test_logs_stay_with_retry_and_go_with_reset():
    failed = ids("state:error")
    ok("retry", "state:error", "--yes")
    assert len(ok("show", failed[0], "--json").json["_attachments"]) == 2
    ok("work", "--quit")
    ok("reset", "state:error", "--yes")
    assert "_attachments" not in ok("show", failed[0], "--json").json


def test_cancel_marks_a_running_token_for_its_worker():
    ok("cancel", "running")
    assert ok("show", "running", "--json").json["cancel"]["by"]


def test_many_tokens_are_not_changed_unasked_in_a_script():
    answer = call("rm", "state:error")
    assert answer.code == 2
    assert "rm would change 2 tokens" in answer.error
    assert "--yes" in answer.err
    assert states() == START


def test_a_single_token_needs_no_question():
    ok("rm", "waiting")
    ok("rm", "state:done")
    assert states() == {"locked": 1, "error": 2}


def ask(answer: bytes) -> tuple[int, bytes]:
    """Delete the failed tokens on a terminal where somebody answers."""
    read, write = pty.openpty()
    with subprocess.Popen(
        command("rm", "state:error"), env=environment(), stdin=write, stdout=write, stderr=write
    ) as process:
        shown, deadline = b"", time.monotonic() + 20
        while b"[y/N]" not in shown and time.monotonic() < deadline:
            if select.select([read], [], [], 0.2)[0]:
                shown += os.read(read, 4096)
        os.write(read, answer)
        code = process.wait(20)
    os.close(read)
    os.close(write)
    return code, shown


def test_a_terminal_is_asked(pool):
    code, shown = ask(b"n\n")
    assert (code, states()) == (1, START)
    assert b"rm 2 tokens of" in shown
    code, _ = ask(b"y\n")
    assert (code, states()) == (0, {"todo": 1, "locked": 1, "done": 1})

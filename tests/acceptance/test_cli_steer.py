"""Stories of steering: `edit`, `pause`, `resume`, `exec`, `worker`, `batch`."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import Answer, call, command, environment, ids, ok, states, use
from worker_documents import busy, locked, running, token, worker

import tokenpool
from tokenpool.backends.base import Backend


@pytest.fixture(autouse=True)
def pool(pool_url: str) -> str:
    return use(pool_url)


@pytest.fixture
def backend(pool: str) -> Iterator[Backend]:
    with tokenpool.connect(pool) as opened:
        yield opened.backend


def show(token_id: str) -> dict[str, object]:
    found: dict[str, object] = ok("show", token_id, "--json").json
    return found


# --- edit ------------------------------------------------------------------------------------------------------------------


def test_fields_are_set_to_json_or_text_and_removed(backend):
    ok("push", "--id", "t", "--timeout", "5", "--tag", "a=b", "--", "true")
    words = ["priority=5", "name=my token", "timeout=", "tags.c=7", "resources.ram_gb=2.5", "gpus=1,2", "batch=7"]
    answer = ok("edit", "t", *words, "retry_delay=2m", 'command=["echo", "true"]')
    assert answer.err == "1 token changed\n"
    token = show("t")
    assert (token["priority"], token["name"], token["tags"]) == (5, "my token", {"a": "b", "c": 7})
    assert (token["resources"], token["retry_delay"], token["batch"]) == ({"ram_gb": 2.5, "gpus": [1, 2]}, 120, "7")
    assert (token["command"], token["input"]) == (["echo", "true"], "echo true")
    assert "timeout" not in token


def test_many_are_edited_only_when_somebody_agrees(backend):
    ok("push", "-", "-b", "night", stdin="true\nfalse\n")
    answer = call("edit", "batch:night", "priority=1")
    assert (answer.code, "edit would change 2 tokens" in answer.error) == (2, True)
    planned = ok("edit", "batch:night", "priority=1", "--dry-run", "--json").json
    assert planned == {
        "schema": 1,
        "verb": "edit",
        "dry_run": True,
        "matched": 2,
        "changed": 2,
        "skipped": 0,
        "failed": [],
    }
    ok("edit", "batch:night", "priority=1", "--yes")
    assert [each["priority"] for each in ok("list", "--json").json] == [1, 1]


def test_a_patch_comes_from_a_file_and_words_go_before_it():
    ok("push", "--id", "t", "--timeout", "5", "--", "true")
    ok("edit", "t", "priority=2", "--json-patch", "-", stdin='{"priority": 1, "timeout": null, "tags": {"a": "b"}}')
    assert {name: show("t").get(name) for name in ("priority", "timeout", "tags")} == {
        "priority": 2, "timeout": None, "tags": {"a": "b"},
    }  # fmt: skip
    for text in ("[1]", "{", ""):
        assert call("edit", "t", "--json-patch", "-", stdin=text).code == 2


def test_a_finished_token_can_be_edited_and_then_retried():
    ok("push", "--id", "t", "--", "false")
    ok("work", "--quit")
    assert "tokenpool retry t" in ok("edit", "t", "command=true").err
    ok("retry", "t")
    ok("work", "--quit")
    assert states() == {"done": 1}


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        (["t", "lock=0"], 2, "'lock' is not to be edited", "retry"),
        (["t", "_id=u"], 2, "'_id' is not to be edited", "the pool"),
        (["t", "timeout=0"], 2, "timeout 0 is not above 0", "seconds"),
        (["t"], 2, "no field is named", "FIELD=VALUE"),
        (["all"], 2, "no field is named", "FIELD=VALUE"),
        (["priority=5"], 2, "no tokens were chosen", "write an id"),
        (["nobody", "priority=5"], 4, "nobody", "list"),
        (["running", "priority=5"], 2, "token running runs", "tokenpool cancel running"),
        (["t", "tags=1", "tags.a=b"], 2, "is inside of what another word sets", "set tags once"),
    ],
)
def test_what_cannot_be_edited_is_told(backend, words, code, error, hint):
    ok("push", "--id", "t", "--", "true")
    locked(backend, "running", worker(backend))
    before = show("t")
    answer = call("edit", *words)
    assert (answer.code, error in answer.error) == (code, True), answer.err
    assert hint in answer.err
    assert show("t") == before


def in_terminal(words: list[str], answers: list[tuple[bytes, bytes]], **more: str) -> tuple[int, str]:
    """Run a verb on a terminal where each question is answered; return its exit code and all that was shown."""
    read, write = pty.openpty()
    env = {**environment(), "TERM": "dumb", **more}
    with subprocess.Popen(command(*words), env=env, stdin=write, stdout=write, stderr=write) as process:
        os.close(write)
        shown, deadline = b"", time.monotonic() + 30
        while time.monotonic() < deadline:
            if not select.select([read], [], [], 0.2)[0]:
                continue
            try:
                piece = os.read(read, 4096)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
            if answers and answers[0][0] in shown:
                os.write(read, answers.pop(0)[1])
        code = process.wait(30)
    os.close(read)
    return code, shown.decode()


def editor(tmp_path: Path, *lines: str) -> dict[str, str]:
    """Return the environment of somebody whose editor does this with the text."""
    script = tmp_path / "editor.py"
    script.write_text("\n".join(["import json, os, sys", "path = sys.argv[1]", "text = open(path).read()", *lines]))
    return {"EDITOR": f"{sys.executable} {script}", "VISUAL": ""}


def test_a_token_opens_in_the_editor(tmp_path):
    # Given a token and an editor in which somebody changes it; what only workers write is not shown
    ok("push", "--id", "t", "--timeout", "5", "--tag", "a=b", "--", "true")
    change = [
        "doc = json.loads(text)", "assert not {'_id', 'lock', 'done', 'attempts'} & set(doc)", "doc['priority'] = 3",
        "del doc['timeout']", "del doc['tags']['a']", "os.utime(path, (0, 0))", "open(path, 'w').write(json.dumps(doc))",
    ]  # fmt: skip
    code, shown = in_terminal(["edit", "t"], [], **editor(tmp_path, *change))
    assert (code, "1 token changed" in shown) == (0, True), shown
    assert [show("t").get(name) for name in ("priority", "timeout", "tags")] == [3, None, {}]


def test_what_is_no_json_can_be_edited_again_or_dropped(tmp_path):
    ok("push", "--id", "t", "--", "true")
    before = show("t")
    spoil = ["open(path, 'w').write('{')", "os.utime(path, (9, 9))"]
    code, shown = in_terminal(["edit", "t"], [(b"edit again?", b"n\n")], **editor(tmp_path, *spoil))
    assert (code, "nothing was changed" in shown) == (0, True), shown
    assert show("t") == before


# --- pause and resume --------------------------------------------------------------------------------------------------------


def test_tokens_are_paused_and_resumed(backend):
    ok("push", "-", "-b", "night", stdin="true\ntrue\n")
    ok("push", "--id", "other", "--", "true")
    answer = ok("pause", "batch:night", "--yes")
    assert "2 tokens paused" in answer.err
    assert "tokenpool batch pause night" in answer.err
    ok("work", "--quit")
    assert states() == {"held": 2, "done": 1}
    assert ok("resume", "all", "--dry-run").err.startswith("2 tokens would be resumed\n1 token left alone")
    ok("resume", "all", "--yes")
    ok("work", "--quit")
    assert states() == {"done": 3}


def test_only_what_waits_can_be_paused(backend):
    locked(backend, "t", worker(backend))
    assert "1 token left alone: only waiting tokens can be paused" in ok("pause", "t").err
    assert "they are not paused" in ok("resume", "t").err


# --- exec --------------------------------------------------------------------------------------------------------------------


def run_exec(*words: str, stdin: str = "") -> Answer:
    done = subprocess.run(
        command("exec", *words), env=environment(), input=stdin, capture_output=True, text=True, timeout=60
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def test_a_token_runs_here_without_being_changed():
    # Given a token that failed
    ok("push", "--id", "t", "--env", "WORD=7", "--", "echo $WORD $TOKENPOOL_TOKEN_ID $TOKENPOOL_ATTEMPT; exit 3")
    ok("work", "--quit")
    before = show("t")
    # When it is run here, then it does what it did, and nobody notices
    answer = run_exec("t")
    assert (answer.code, answer.out) == (3, "7 t 2\n")
    assert show("t") == before


def test_a_command_runs_in_its_place():
    ok("push", "--id", "t", "--env", "WORD=7", "--", "exit 3")
    answer = run_exec("t", "--", "sh", "-c", 'cat; echo "$WORD"; test "$PWD" = "$TOKENPOOL_WORKDIR"', stdin="given\n")
    assert (answer.code, answer.out) == (0, "given\n7\n")
    assert run_exec("t", "--", "sh", "-c", "kill -9 $$").code == 137
    missing = run_exec("t", "--", "no-such-program")
    assert (missing.code, "cannot start no-such-program" in missing.err) == (127, True)
    assert (run_exec("t", "--").code, run_exec("nobody").code) == (2, 4)


def test_the_folder_of_what_failed_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ok("push", "--id", "t", "--", "touch made; exit 1")
    answer = run_exec("t")
    folder = Path(answer.err.partition("kept: ")[2].strip())
    assert list(folder.rglob("made"))
    assert run_exec("t", "--", "true").err == ""
    assert "kept" in run_exec("t", "--keep", "--", "true").err
    assert len(list(tmp_path.glob("tokenpool-exec-*"))) == 2


def test_a_token_that_runs_too_long_is_ended_with_all_it_started():
    ok("push", "--id", "t", "--timeout", "1", "--", "sleep 77 & sleep 77")
    answer = run_exec("t")
    assert (answer.code, "longer than its timeout" in answer.err) == (137, True)


# --- worker ------------------------------------------------------------------------------------------------------------------


def test_workers_are_listed(backend):
    assert "no worker is known" in ok("worker", "list").err
    busy(backend, "3f9a", "t", note="resting")
    worker(backend, "c", hostname="n2", silent_for=900)
    lines = ok("worker", "list").out.splitlines()
    assert lines[0].split() == ["worker", "host", "state", "slots", "running", "since", "renewed", "note"]
    assert lines[1].split()[:6] == ["worker_3f9a0000", "n1", "working", "4", "1", "1h"]
    assert lines[1].endswith("resting")
    assert lines[2].split()[:3] == ["worker_c0000000", "n2", "silent"]
    told = ok("worker", "list", "--json").json
    assert [each["hostname"] for each in told["workers"]] == ["n1", "n2"]
    assert told["workers"][0]["tokens"][0]["token"] == "t"
    assert len(ok("worker", "list", "-q").out.split()) == 2
    assert [each["id"] for each in ok("status", "--json").json["workers"]] == ok("worker", "list", "-q").out.split()


@pytest.mark.parametrize(
    ("words", "field", "value", "told"),
    [
        (["slots", "8", "3f9"], "slots", 8, "set to 8 slots"),
        (["prefetch", "2", "3f9"], "prefetch", 2, "told to claim 2 tokens ahead"),
        (["drain", "worker_3f9"], "drain", True, "told to drain"),
        (["stop", "host:n1"], "stop", True, "told to leave"),
    ],
)
def test_a_worker_gets_orders(backend, words, field, value, told):
    me, other = worker(backend, "3f9a"), worker(backend, "c", hostname="n2")
    before = backend.get(other)
    assert "would be " + told in ok("worker", *words, "--dry-run").err
    assert backend.get(me).get(field) != value
    assert ok("worker", *words).err == f"worker_3f9a0000 on n1 {told}\n"
    assert backend.get(me)[field] == value
    assert backend.get(other) == before


def test_many_workers_get_orders_only_when_somebody_agrees(backend):
    both = [worker(backend, name) for name in "ab"]
    answer = call("worker", "stop", "all")
    assert (answer.code, "2 workers would be told to leave" in answer.error) == (2, True)
    assert ok("worker", "stop", "all", "--yes", "--json").json == {
        "schema": 1, "orders": {"stop": True}, "workers": both,
    }  # fmt: skip
    assert [doc and doc["stop"] for doc in backend.get_many(both)] == [True, True]


def test_a_worker_that_is_not_there_is_exit_code_4(backend):
    for words in (["drain", "nobody"], ["slots", "3", "host:n9"], ["stop", "worker_3f9a"]):
        assert call("worker", *words).code == 4
    assert call("worker", "slots", "0", "all").code == 2
    assert call("worker", "prefetch", "-1", "all").code == 2


# --- batch -------------------------------------------------------------------------------------------------------------------


def test_a_paused_batch_is_not_run_and_a_resumed_one_is():
    ok("push", "-b", "night", "--", "true")
    ok("push", "-b", "day", "--", "true")
    assert ok("batch", "pause", "night").err == "batch night: paused, priority 0, no limit\n"
    ok("work", "--quit")
    assert states() == {"todo": 1, "done": 1}
    assert ok("list", "-q", "state:todo").out == ok("list", "-q", "batch:night").out
    ok("batch", "resume", "night")
    ok("work", "--quit")
    assert states() == {"done": 2}


def test_rules_are_set_and_listed():
    ok("push", "-b", "night", "--", "true")
    assert ok("batch", "set", "night", "--priority", "5", "--max-running", "2", "--json").json == {
        "schema": 1, "batches": [{"name": "night", "paused": False, "priority": 5, "max_running": 2}],
    }  # fmt: skip
    ok("batch", "set", "later", "--paused", "--create")
    lines = [line.split() for line in ok("batch", "list").out.splitlines()]
    assert lines[0] == ["batch", "paused", "priority", "limit", "todo", "held", "locked", "done", "error", "invalid"]
    assert lines[1][:3] == ["later", "yes", "0"]
    assert lines[2][:4] == ["night", "5", "2", "1"]
    assert ok("batch", "list", "-q").out == "later\nnight\n"
    assert [each["max_running"] for each in ok("batch", "list", "--json").json["batches"]] == [None, 2]
    ok("batch", "set", "night", "--max-running", "none")
    assert ok("batch", "list", "--json").json["batches"][1]["max_running"] is None


def test_a_batch_with_higher_priority_goes_first():
    ok("push", "-b", "low", "--priority", "100", "--", "true")
    ok("push", "-b", "high", "--", "true")
    ok("batch", "set", "high", "--priority", "1")
    ok("work", "--max-tasks", "1", "--slots", "1")
    assert ids("state:done") == ids("batch:high")


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        (["pause", "nihgt"], 4, "there is no batch 'nihgt'", "did you mean 'night'?"),
        (["set", "night"], 2, "nothing was named to be set", "--priority 5"),
        (["set", "nihgt", "--priority", "1"], 4, "there is no batch 'nihgt'", "did you mean 'night'?"),
        (["set", "xyzzy", "--priority", "1"], 4, "there is no batch 'xyzzy'", "--create"),
        (["set", "night", "--max-running", "0"], 2, "'0' is no limit", "--help"),
        (["set", "night", "--priority", "nan"], 2, "is not a number", "for example"),
        (["set", "", "--paused"], 2, "without a name", "batch="),
    ],
)
def test_an_order_that_makes_no_sense_is_told(words, code, error, hint):
    ok("push", "-b", "night", "--", "true")
    answer = call("batch", *words)
    assert (answer.code, error in answer.error) == (code, True), answer.err
    assert hint in answer.err


# --- running tokens --------------------------------------------------------------------------------------------------------------


def test_cancel_tells_the_worker_to_look(backend):
    me = worker(backend)
    locked(backend, "t", me)
    token(backend, "u")
    ok("cancel", "t")
    assert backend.get(me)["look"] == 1
    ok("cancel", "u")
    assert backend.get(me)["look"] == 1


def test_words_of_a_token_reach_the_terminal_harmless(backend):
    me = worker(backend, hostname="\x1b[31mred", note="\x07bell", running=[running("t", command="\x1b[2J")])
    locked(backend, "t", me)
    for words in (["worker", "list"], ["watch", "--once"]):
        assert not {"\x1b", "\x07"} & set(ok(*words).out)
    json.dumps(ok("worker", "list", "--json").json)

"""Stories of looking: `status`, `list`, `show`, `logs`, `wait`, `watch`."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest
from cli_tools import call, command, environment, ids, ok, use

import tokenpool

STATES = ["todo", "held", "locked", "done", "error", "invalid"]


@pytest.fixture(autouse=True)
def pool(pool_url: str) -> str:
    return use(pool_url)


@pytest.fixture
def worked() -> None:
    """Two batches: one token done, one failed, one waiting."""
    ok("push", "-", "-b", "a", stdin="echo out; echo err >&2\nexit 3\n")
    ok("work", "--quit", "--slots", "1")
    ok("push", "-b", "b", "--id", "later", "--tag", "k=v", "--", "true")


def test_status_json_is_stable(worked, pool):
    told = ok("status", "--json").json
    assert set(told) == {"schema", "pool", "states", "batches", "workers"}
    assert told["schema"] == 1
    assert list(told["states"].items()) == [
        ("todo", 1),
        ("held", 0),
        ("locked", 0),
        ("done", 1),
        ("error", 1),
        ("invalid", 0),
    ]
    assert told["batches"]["b"] == {**dict.fromkeys(STATES, 0), "todo": 1}
    assert told["workers"] == []


def test_status_is_a_table_for_people(worked):
    answer = ok("status")
    assert answer.out.split() == [
        "state",
        "tokens",
        "todo",
        "1",
        "held",
        "0",
        "locked",
        "0",
        "done",
        "1",
        "error",
        "1",
        "invalid",
        "0",
    ]
    assert answer.err.startswith("pool ")
    lines = ok("status", "--batches").out.splitlines()
    assert [line.split()[0] for line in lines] == ["batch", "a", "b", "all"]


def test_no_password_is_ever_shown(worked, pool):
    secret = pool.split("@")[0].rpartition(":")[2]
    shown = [
        ok(*words)
        for words in (
            ["status"],
            ["status", "--json"],
            ["doctor"],
            ["config", "list", "--origin"],
            ["config", "get", "pool"],
        )
    ]
    shown += [
        call("show", "nobody", "-p", pool),
        call("status", "-p", pool + "/x/y"),
        call("wait", "batch:b", "--timeout", "0", "-p", pool),
    ]
    for answer in shown:
        assert f":{secret}@" not in answer.out + answer.err


def test_list_chooses_by_state_batch_tag_and_id(worked):
    assert len(ids()) == 3
    assert ids("batch:b") == ids("tag:k=v") == ids("state:todo") == ids("later") == ["later"]
    assert len(ids("state:done", "state:error")) == 2
    assert ids("state:done", "batch:b") == []
    assert len(ids("--limit", "2")) == 2


def test_list_json_is_an_array_of_whole_tokens(worked):
    (token,) = ok("list", "--json", "later").json
    assert token["_id"] == "later"
    assert {"_rev", "type", "lock", "done", "input", "exit_code"} <= set(token)
    assert ok("list", "--json", "batch:nobody").json == []


def test_list_is_a_table_for_people(worked):
    lines = ok("list").out.splitlines()
    assert lines[0].split() == ["id", "state", "exit", "batch", "host", "age", "command"]
    failed = next(line for line in lines if " error " in line)
    assert "exit 3" in failed
    assert ok("list", "batch:nobody").err == "no token matches\n"


def test_show_tells_one_token_and_its_history(worked):
    (failed,) = ids("state:error")
    assert ok("show", failed, "--json").json["exit_code"] == 3
    shown = ok("show", failed).out
    assert shown.startswith(f"{failed}  error\n")
    assert "attempt 1" in shown
    assert f"logs_{failed}.err" in shown


def test_logs_are_what_the_command_wrote(worked):
    (done,) = ids("state:done")
    answer = ok("logs", done)
    assert (answer.out, answer.err) == ("out\n", "err\n")
    assert (ok("logs", done, "--err").out, ok("logs", done, "--err").err) == ("err\n", "")
    assert (ok("logs", done, "--out").out, ok("logs", done, "--out").err) == ("out\n", "")
    told = ok("logs", done, "--json").json
    assert (told["stdout"], told["stderr"]) == ("out\n", "err\n")
    assert "has no logs" in ok("logs", "later").err


def test_logs_keep_every_byte():
    token = ok("push", "--", r"printf '\377\000x'").out.strip()
    ok("work", "--quit")
    done = subprocess.run(command("logs", token), env=environment(), capture_output=True)
    assert done.stdout == b"\xff\x00x"


def test_logs_of_earlier_attempts_stay():
    call("run", "--max-retries", "1", "--", "echo try $TOKENPOOL_ATTEMPT; exit 1")
    (token,) = ids()
    assert ok("logs", token).out == "try 2\n"
    assert ok("logs", token, "--attempt", "1").out == "try 1\n"
    answer = call("logs", token, "--attempt", "3")
    assert (answer.code, "2 attempts" in answer.error) == (4, True)


@pytest.mark.parametrize(
    "words", [["show", "nobody"], ["logs", "nobody"], ["wait", "nobody"], ["retry", "nobody"], ["export", "nobody"]]
)
def test_a_token_that_is_not_there_is_exit_code_4(words):
    answer = call(*words)
    assert answer.code == 4
    assert "nobody" in answer.error


# --- wait and watch --------------------------------------------------------------------------------------------------------


def test_wait_tells_by_its_exit_code_how_it_ended(worked):
    assert call("wait", "batch:a").code == 3
    answer = call("wait", "all", "--timeout", "0.2")
    assert (answer.code, "still wait or run" in answer.error) == (75, True)
    ok("work", "--quit")
    answer = ok("wait", "batch:b", "--json")
    assert answer.json == {"schema": 1, "states": {**dict.fromkeys(STATES, 0), "done": 1}}


def test_wait_ends_when_somebody_else_has_done_the_work(worked):
    worker = subprocess.Popen(command("work", "--quit"), env=environment(), stderr=subprocess.DEVNULL)
    ok("wait", "later", "--timeout", "20")
    worker.wait()


def test_wait_for_a_mistyped_batch_is_an_error(worked):
    answer = call("wait", "batch:tpyo")
    assert (answer.code, "there is no batch 'tpyo'" in answer.error) == (4, True)


def test_watch_shows_a_frame(worked):
    assert "1 todo, 0 held, 0 locked, 1 done, 1 error, 0 invalid" in ok("watch", "--once").out
    told = ok("watch", "--once", "--json", "--batch", "a").json
    assert (told["schema"], told["states"]["done"], told["rate"]) == (1, 1, 0.0)


def test_watch_goes_on_until_it_is_interrupted(worked):
    with subprocess.Popen(
        command("watch", "--json", "--interval", "0.1"), env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        timer = threading.Timer(20, process.kill)
        timer.start()
        frames = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(2)
        assert process.wait(10) == 130
        timer.cancel()
    assert all(frame["states"]["todo"] == 1 for frame in frames)


# --- tokens that somebody edited by hand -----------------------------------------------------------------------------------

NONSENSE = [
    {"lock": "", "done": None},
    {"lock": [1], "done": {"a": 1}},
    {
        "lock": 5,
        "done": 9,
        "exit_code": {"odd": True},
        "hostname": 7,
        "batch": ["x"],
        "attempts": "many",
        "error": "boom",
    },
    {"lock": 0, "done": 0, "input": {"picas": ["any", "thing"]}, "tags": "k=v", "_attachments": {}},
    {"lock": -7, "done": 0, "command": "\x1b[31mred\x07", "attempts": [1, None], "error": [None, {"message": 3}]},
    {"lock": True, "done": 1e300, "creation_time": "yesterday"},
]


def test_tokens_edited_into_nonsense_are_listed_shown_and_counted(pool):
    with tokenpool.connect(pool) as opened:
        docs = [{"_id": f"odd{n}", "type": "token", **fields} for n, fields in enumerate(NONSENSE)]
        opened.backend.put_many(docs)
        opened.backend.put_many([{"_id": "bare", "type": "token"}])
    assert len(ids()) == len(NONSENSE) + 1
    table = ok("list").out
    assert len(table.splitlines()) == len(NONSENSE) + 2
    assert "\x1b" not in table + ok("show", "odd4").out
    assert sum(ok("status", "--json").json["states"].values()) == len(NONSENSE) + 1
    for number in range(len(NONSENSE)):
        ok("show", f"odd{number}")
        ok("logs", f"odd{number}")
        assert ok("show", f"odd{number}", "--json").json["_id"] == f"odd{number}"
    ok("list", "age>1s", "--json")
    ok("status", "--batches")
    assert call("doctor").code == 1
    ok("doctor", "--fix")
    assert "invalid" not in {state for state, count in ok("status", "--json").json["states"].items() if count}


def test_files_are_left_alone():
    ok("status")
    assert [path.name for path in Path.cwd().iterdir() if not path.name.startswith("tokenpool.")] == []

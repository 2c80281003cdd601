"""Function tokens: results, output, failures; whatever a function does to its process, the worker and the others go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cli_tools import ok
from function_tools import DEEDS, call, failure, made, message, worker
from processes import LINUX, alive, gone, until

import tokenpool


def test_a_result_and_what_was_printed_come_back(sqlite_url: str) -> None:
    # Given a call with arguments of both kinds, and one that prints from another process
    added, shouted = made(
        sqlite_url, {"function": {"name": "deeds:add", "args": [1], "kwargs": {"b": 5}}}, call("shout")
    )

    # Then the result stands in the token, and the output in its logs
    assert added["output"] == {"result": 6}
    assert added["exit_code"] == 0
    with tokenpool.connect(sqlite_url) as pool:
        assert pool.logs(added.id) == tokenpool.pool.Logs(b"adding 1 5\n", b"to stderr\n")
        assert pool.logs(shouted.id).out == b"python\na process\n"


@pytest.mark.parametrize(
    ("name", "args", "code", "kind", "says"),
    [
        ("fail", ["why"], 1, "executor", "OwnError: ('why', 7)"),
        ("leave", [4], 4, "executor", "sys.exit(4)"),
        ("no_json", [], 1, "executor", "the result of deeds:no_json is not JSON"),
        ("add", [1, 2, 3], 1, "executor", "TypeError"),
        ("nothing_there", [], 99, "invalid", "has no function 'nothing_there'"),
        ("os.getpid", [], 99, "invalid", "has no function"),
        ("subprocess", [], 99, "invalid", "is no function"),
        ("end_process", [3], 3, "executor", "the function ended its process, with exit code 3"),
        ("end_process", [0], 1, "executor", "the function ended its process, with exit code 0"),
        ("crash", [], 139, "executor", "with the signal SIGSEGV"),
        ("kill_9", [], 137, "executor", "with the signal SIGKILL"),
    ],
)
def test_a_call_that_fails_says_why_and_the_worker_goes_on(
    sqlite_url: str, name: str, args: list[object], code: int, kind: str, says: str
) -> None:
    # When a bad call and good ones are made by one worker
    bad, *good = made(sqlite_url, call(name, *args), call("same", 1), call("same", 2), slots=1)

    # Then only the bad one failed, and says how
    assert (bad["exit_code"], failure(bad)) == (code, kind)
    assert says in message(bad)
    assert [each["output"] for each in good] == [{"result": 1}, {"result": 2}]


@pytest.mark.parametrize("name", ["os:getpid", "json:dumps", "deedsmore:add", "UNKNOWN_TYPE"])
def test_what_is_not_on_the_list_is_not_called(sqlite_url: str, name: str) -> None:
    (token,) = made(sqlite_url, {"function": {"name": name}})
    assert failure(token) == "invalid"
    assert "--allow-module" in message(token)


def test_pickles_are_refused_unless_the_worker_is_told(sqlite_url: str) -> None:
    # Given a call that comes as a pickle
    from tokenpool.functions.codec import to_pickle

    told = {"name": "deeds:same", "exact": True, "pickle": to_pickle((None, [(((1, 2),), {})]))}

    # When workers meet it that take none, and that do
    (refused,) = made(sqlite_url, {"function": told})
    (taken,) = made(sqlite_url, {"function": told}, words=(*DEEDS, "--allow-pickles"))

    # Then
    assert failure(refused) == "invalid"
    assert "--allow-pickles" in message(refused)
    assert "pickle" in taken["output"]


def test_a_large_result_is_attached_and_one_above_the_limit_is_an_error(sqlite_url: str) -> None:
    words = (*DEEDS, "--attach-limit", "1MB")
    large, too_large = made(sqlite_url, call("text_of", 200_000), call("text_of", 2_000_000), words=words)
    assert large["output"] == {"attached": "result.json"}
    with tokenpool.connect(sqlite_url) as pool:
        assert len(pool.attachment(large.id, "result.json")) == 200_000 + len('{"result":""}')
    assert "above the" in message(too_large)


def test_large_arguments_arrive(sqlite_url: str) -> None:
    (token,) = made(sqlite_url, call("same", "y" * 300_000))
    with tokenpool.connect(sqlite_url) as pool:
        assert b"y" * 300_000 in pool.attachment(token.id, "result.json")


def test_one_process_makes_many_calls_and_each_finds_it_clean(sqlite_url: str) -> None:
    # When a call changes all it can, between others
    first, mess, places, second = made(
        sqlite_url, call("process_id"), call("mess_up"), call("places"), call("process_id"), slots=1
    )

    # Then the next ones see nothing of it, in the same process
    assert mess["exit_code"] == 0
    assert places["output"]["result"] == {"here": True, "mess": None, "own": None, "umask": 0o022}
    assert first["output"] == second["output"]


def test_a_token_with_variables_of_its_own_has_a_process_of_its_own(sqlite_url: str) -> None:
    own, usual = made(sqlite_url, call("places", env={"OWN": "mine"}), call("places"))
    assert own["output"]["result"]["own"] == "mine"
    assert usual["output"]["result"]["own"] is None


@pytest.mark.parametrize("fields", [{}, {"env": {"A": "1"}}], ids=["warm", "own process"])
def test_an_endless_call_ends_at_its_timeout(sqlite_url: str, fields: dict[str, object]) -> None:
    endless, other = made(sqlite_url, call("loop", timeout=0.3, **fields), call("same", 1))
    assert failure(endless) == "timeout"
    assert "timeout of 0.3 s" in message(endless)
    assert other["output"] == {"result": 1}


def test_a_cancelled_call_ends_and_its_finally_blocks_run(sqlite_url: str, tmp_path: Path) -> None:
    # Given a call that runs, and one behind it
    mark = tmp_path / "runs"
    with tokenpool.connect(sqlite_url, create=True) as pool:
        running, behind = pool.push([call("loop_and_tidy", str(mark)), call("same", 2)])
        with worker(sqlite_url, "--slots", "1", *DEEDS):
            until(mark.exists)

            # When it is cancelled
            pool.cancel(running)

            # Then it ends, tidied up, and the next one is made
            until(lambda: pool.counts()["done"] == 1)
        assert failure(pool.get(running)) == "cancelled"
        assert not mark.exists()
        assert pool.get(behind)["output"] == {"result": 2}


@LINUX
def test_what_a_call_leaves_running_dies_with_it(sqlite_url: str, tmp_path: Path) -> None:
    # When a call leaves a daemon behind and returns
    pid_file = tmp_path / "pid"
    left, after = made(sqlite_url, call("leave_daemon", str(pid_file)), call("same", 1), slots=1)

    # Then the daemon is gone, and both calls are done
    assert gone([int(pid_file.read_text())])
    assert left["output"] == {"result": "left"}
    assert after["output"] == {"result": 1}


@LINUX
def test_a_worker_that_is_killed_leaves_no_process(sqlite_url: str, tmp_path: Path) -> None:
    # Given a worker with a call that runs
    pid_file = tmp_path / "pid"
    with tokenpool.connect(sqlite_url, create=True) as pool:
        pool.push(call("loop", str(pid_file)))
    with worker(sqlite_url, "--slots", "1", *DEEDS) as process:
        until(lambda: pid_file.exists() and pid_file.read_text())
        pid = int(pid_file.read_text())
        assert alive(pid)

        # When it is killed
        os.kill(process.pid, signal.SIGKILL)

        # Then the call ends too
        until(lambda: gone([pid]))


def test_a_worker_that_leaves_gives_running_calls_back(sqlite_url: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with tokenpool.connect(sqlite_url, create=True) as pool:
        ids = pool.push([call("loop", str(pid_file)), *(call("loop") for _ in range(5))])
        with worker(sqlite_url, "--slots", "1", *DEEDS):
            until(pid_file.exists)
        assert pool.counts()["todo"] == len(ids)


def test_commands_and_functions_share_the_slots(sqlite_url: str) -> None:
    mixed = [call("same", n) if n % 2 else {"command": f"echo {n}"} for n in range(20)]
    assert [token["exit_code"] for token in made(sqlite_url, *mixed)] == [0] * 20


def test_the_command_line_pushes_calls(sqlite_url: str) -> None:
    # When a call is pushed by options
    ok("--pool", sqlite_url, "push", "--function", "deeds:add", "--args", "[1]", "--kwargs", '{"b": 2}')

    # Then the token holds it, and the line that does the same for picas
    with tokenpool.connect(sqlite_url) as pool:
        (token,) = pool.tokens()
    assert token["function"] == {"name": "deeds:add", "args": [1], "kwargs": {"b": 2}}
    assert token["input"].startswith("python3 -c ")


def test_a_picas_line_makes_the_call_as_well(sqlite_url: str) -> None:
    import subprocess

    from function_tools import surroundings

    with tokenpool.connect(sqlite_url, create=True) as pool:
        line = pool.get(pool.push(call("same", {"a": [1, "x y'z"]}))[0])["input"]
    said = subprocess.run(line, shell=True, env=surroundings(), capture_output=True, text=True, check=True).stdout
    assert said == '{"a": [1, "x y\'z"]}\n'

"""Stories of `run` and `work`: a file is worked to its end, failures are shown, interrupts give tokens back."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path

from cli_tools import call, command, environment, ids, ok, states, use


def started(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*words), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to it"
        time.sleep(0.1)


# --- run -----------------------------------------------------------------------------------------------------------------


def test_run_makes_the_pool_works_the_file_and_leaves_results_beside_it(tmp_path):
    Path("jobs.txt").write_text("echo one > one.txt\necho two > two.txt\n")
    answer = ok("run", "jobs.txt")
    assert (Path("one.txt").read_text(), Path("two.txt").read_text()) == ("one\n", "two\n")
    assert re.search(r"pushed 2 tokens into batch jobs-\w+\n", answer.err)
    assert re.search(r"batch jobs-\w+: 2 done\n", answer.err)
    assert Path("tokenpool.db").exists()


def test_run_works_on_every_kind_of_pool(pool_url):
    use(pool_url)
    Path("jobs.txt").write_text("".join(f"echo {n}\n" for n in range(20)))
    told = ok("run", "jobs.txt", "--json", "--slots", "3", "--batch", "b").json
    assert told["batch"] == "b"
    assert told["states"] == {"todo": 0, "held": 0, "locked": 0, "done": 20, "error": 0, "invalid": 0}
    assert told["failed"] == []


def test_what_failed_is_shown_with_what_to_type_next(pool_url):
    use(pool_url)
    Path("jobs.txt").write_text("echo fine\nfor n in $(seq 20); do echo line $n >&2; done; exit 7\n")
    answer = call("run", "jobs.txt", "-b", "b")
    assert answer.code == 3
    (failed,) = ids("state:error")
    for part in (
        failed,
        "exit code  7",
        f"folder     {Path.cwd()}",
        "| line 11\n",
        "| line 20\n",
        f"tokenpool logs {failed}",
    ):
        assert part in answer.err
    assert "line 10\n" not in answer.err
    assert "tokenpool retry state:error batch:b" in answer.err
    assert "batch b: 1 done, 1 error" in answer.err


def test_the_commands_it_tells_to_type_work(sqlite_url):
    use(sqlite_url)
    Path("jobs.txt").write_text("test -e ready\n")
    answer = call("run", "jobs.txt")
    line = next(line.strip() for line in answer.err.splitlines() if line.strip().startswith("tokenpool retry"))
    Path("ready").touch()
    for part in line.split(" && "):
        ok(*part.split()[1:])
    assert states() == {"done": 1}


def test_only_the_first_ten_failures_are_shown(sqlite_url):
    use(sqlite_url)
    Path("jobs.txt").write_text("exit 1\n" * 13)
    answer = call("run", "jobs.txt")
    assert answer.err.count("exit code") == 10
    assert "13 error; 3 more failed" in answer.err


def test_run_is_limited_to_its_own_batch(sqlite_url):
    use(sqlite_url)
    ok("push", "-b", "other", "--", "false")
    Path("jobs.jsonl").write_text('{"input": "true", "batch": "elsewhere"}\n')
    ok("run", "jobs.jsonl")
    assert states() == {"todo": 1, "done": 1}
    assert next(iter(ok("status", "--json").json["batches"])).startswith("jobs-")


def test_failed_attempts_are_repeated_as_often_as_asked(sqlite_url):
    use(sqlite_url)
    ok("run", "--max-retries", "2", "--", "echo x >> tries; test $(wc -l < tries) = 3")
    assert Path("tries").read_text() == "x\nx\nx\n"


def test_isolated_commands_run_in_a_folder_of_their_own(sqlite_url):
    use(sqlite_url)
    ok("run", "--isolated", "--workdir", "scratch", "--", "pwd > here; test $PWD = $TOKENPOOL_WORKDIR")
    assert not Path("here").exists()


def test_a_dry_run_runs_nothing(sqlite_url):
    assert json.loads(ok("run", "--dry-run", "-b", "x", "--", "touch", "here").out)["command"] == ["touch", "here"]
    assert not Path("here").exists()
    assert not Path("tokenpool.db").exists()


def test_an_interrupted_run_gives_tokens_back_and_says_how_to_go_on(pool_url):
    use(pool_url)
    Path("jobs.txt").write_text("touch begun; sleep 60\n" * 3)
    with started("run", "jobs.txt", "-b", "b", "--slots", "2") as process:
        until(Path("begun").exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"tokenpool work --batch b --quit --cwd {Path.cwd()}" in err
    assert states() == {"todo": 3}


def test_run_shows_a_bar_on_a_terminal(sqlite_url):
    use(sqlite_url)
    Path("jobs.txt").write_text("sleep 0.3\necho hi\nfalse\n")
    read, write = pty.openpty()
    done = subprocess.run(
        command("run", "jobs.txt", "-b", "b"), env={**environment(), "TERM": "xterm", "COLUMNS": "100"},
        stdin=write, stdout=write, stderr=write, timeout=30,
    )  # fmt: skip
    os.close(write)
    shown = b""
    try:
        while piece := os.read(read, 65536):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(read)
    assert done.returncode == 3
    assert b"3/3" in shown
    assert b"2 done, 1 failed, 0 running" in shown


# --- work ----------------------------------------------------------------------------------------------------------------


def test_work_runs_what_waits_and_leaves_when_told_to(pool_url):
    use(pool_url)
    ok("push", "-", "-b", "b", stdin="echo out\nexit 3\n")
    answer = ok("work", "--slots", "2", "--quit")
    assert "left: 1 done, 1 failed" in answer.err
    assert states() == {"done": 1, "error": 1}


def test_work_takes_only_what_it_is_told_to(pool_url):
    use(pool_url)
    ok("push", "-b", "a", "--", "true")
    ok("push", "-b", "b", "--tag", "k=v", "--", "true")
    ok("push", "-b", "c", "--", "true")
    ok("work", "--quit", "--batch", "a", "--batch", "x")
    assert states() == {"todo": 2, "done": 1}
    ok("work", "--quit", "--tag", "k=v")
    assert states() == {"todo": 1, "done": 2}
    ok("work", "--quit", "--view", "Monitor/todo")
    assert states() == {"done": 3}


def test_work_tells_each_event_when_asked(sqlite_url):
    use(sqlite_url)
    token = ok("push", "--", "exit 4").out.strip()
    answer = ok("work", "--quit", "-v")
    assert f"started {token}: exit 4\n" in answer.err
    assert f"error {token} exit 4: exit 4\n" in answer.err


def test_work_tells_its_life_as_json(sqlite_url):
    use(sqlite_url)
    ok("push", "-", stdin="true\nfalse\n")
    told = ok("work", "--quit", "--json").json
    assert told == {"schema": 1, "done": 1, "failed": 1, "returned": 0, "superseded": 0, "undelivered": 0, "spool": ""}


def test_work_leaves_after_its_limits(sqlite_url):
    use(sqlite_url)
    ok("push", "-", stdin="true\n" * 5)
    ok("work", "--max-tasks", "2")
    assert states() == {"todo": 3, "done": 2}
    ok("work", "--max-total-time", "0.001")
    began = time.monotonic()
    ok("work", "--idle-timeout", "0.3")
    assert time.monotonic() - began < 10
    assert states() == {"done": 5}


def test_work_takes_settings_from_the_environment(sqlite_url, monkeypatch):
    use(sqlite_url)
    monkeypatch.setenv("TOKENPOOL_SLOTS", "7")
    assert "7 slots" in ok("work", "--quit").err
    assert "1 slot\n" in ok("work", "--quit", "--slots", "1").err


def test_work_keeps_head_and_tail_of_long_logs(sqlite_url):
    use(sqlite_url)
    token = ok("push", "--", "seq 100000").out.strip()
    ok("work", "--quit", "--log-limit", "1k")
    log = ok("logs", token).out
    assert log.startswith("1\n2\n")
    assert log.endswith("99999\n100000\n")
    assert len(log) < 1200


def test_a_worker_that_is_stopped_gives_its_tokens_back_and_did_its_job(pool_url):
    use(pool_url)
    ok("push", "--", f"touch {Path.cwd()}/begun; sleep 60")
    with started("work", "--slots", "1") as process:
        until(Path("begun").exists)
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert states() == {"todo": 1}


def test_a_view_that_is_not_there_is_told_at_once(pool_url):
    use(pool_url)
    answer = call("work", "--view", "Nobody/knows", "--quit")
    assert "there is no view Nobody/knows" in answer.error
    assert answer.code == 4


def test_a_scratch_folder_that_is_a_file_is_told(sqlite_url):
    use(sqlite_url)
    Path("file").touch()
    ok("push", "--", "true")
    answer = call("work", "--quit", "-q", "--workdir", "file/below")
    assert "file/below" in answer.error
    assert answer.code == 1
    assert states() == {"todo": 1}

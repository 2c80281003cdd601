"""Workers by a real HTCondor: they drain a pool, come back from what ends them, and are refused in two lines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_tools import call, ok
from condor_root import UID
from condor_server import Condor
from slurm_server import until

from tokenpool.launchers import open_launcher
from tokenpool.launchers.base import Job
from tokenpool.pool import Pool


@pytest.fixture(scope="session")
def program(condor_pool: Condor) -> str:
    """The worker as one file, which needs nothing but the Python there is; and a folder for what jobs say."""
    ok("sandbox", "--output", str(condor_pool.desk / "sandbox"))
    (condor_pool.desk / "logs").mkdir()
    shutil.chown(condor_pool.desk / "logs", UID, UID)
    return f"python3 {condor_pool.desk}/sandbox/tokenpool.pyz"


@pytest.fixture
def options(condor: Condor, program: str) -> tuple[object, ...]:
    """What all orders here have in common."""
    return ("--program", program, "--logs", condor.desk / "logs", "--ram-gb", 0.5, "--time", "20m")


def launched(*words: object) -> Job:
    """Launch workers by HTCondor; return their job."""
    (job,) = ok("--json", "launch", "htcondor", *words).json["jobs"]
    return Job("htcondor", str(job["id"]), str(job["name"]))


def jobs(*words: str) -> list[dict[str, Any]]:
    """Return what is listed."""
    return list(ok("--json", "launch", "list", *words).json["jobs"])


def gated(condor: Condor, count: int) -> list[dict[str, str]]:
    """Return tokens that say when they run, and that end when somebody makes the file `go`."""
    (condor.desk / "go").unlink(missing_ok=True)
    return [{"input": f"until [ -e {condor.desk}/go ]; do sleep 0.1; done"} for _ in range(count)]


def test_a_cluster_of_jobs_drains_a_pool(condor: Condor, pool: Pool, options: tuple[object, ...]) -> None:
    # Given 40 tokens
    ids = pool.push([{"input": "echo $GREETING; id -un"} for _ in range(40)])
    # When three workers are launched, with a line of shell before them that has quotes in it
    setup = """export GREETING='a "b" c'"""
    job = launched("-n", 3, "--slots", 2, "--quit", "--setup", setup, *options)
    until("the last token", lambda: pool.counts()["done"] == 40)
    # Then all are done, by the user that the jobs belong to, in the environment that was set up
    assert pool.attachment(ids[0], f"logs_{ids[0]}.out") == b'a "b" c\ntester\n'
    # And the jobs have ended in order
    until("the end of the workers", lambda: jobs() == [])
    assert [(each["name"], each["state"], each["size"]) for each in jobs("-a")] == [(job.name, "ended", 3)]
    assert condor.exit_codes(job.id) == ["0"] * 3, condor.words()


def test_jobs_are_listed_found_by_their_name_and_cancelled(
    condor: Condor, pool: Pool, options: tuple[object, ...]
) -> None:
    # Given three workers on two CPUs, of which two run something
    pool.push(gated(condor, 2))
    launched("-n", 3, "--name", "night", *options)
    until("two running tokens", lambda: pool.counts()["locked"] == 2)
    until("two running workers", lambda: [job["running"] for job in jobs()] == [2])
    (found,) = open_launcher("htcondor").find("night")
    assert (found.size, found.running) == (3, 2)
    # When they are cancelled
    ok("launch", "cancel", "night")
    until("the end of the workers", lambda: jobs() == [])
    # Then the tokens are given back, uncounted
    until("tokens that are back", lambda: pool.counts()["todo"] == 2)
    assert {a["failure_class"] for token in pool.tokens() for a in token["attempts"]} == {"preempted"}
    # And cancelling what has ended, or never was, is no error
    open_launcher("htcondor").cancel([found, Job("htcondor", "99999", "gone")])


def test_only_what_waits_is_cancelled_where_that_is_asked_for(
    condor: Condor, pool: Pool, options: tuple[object, ...]
) -> None:
    # Given a worker that has taken all CPUs and is busy, and one that waits for them
    (token,) = pool.push(gated(condor, 1))
    busy = launched("--cpus", 2, "--slots", 1, "--quit", *options)
    until("a running token", lambda: pool.counts()["locked"] == 1)
    waiting = launched("--cpus", 2, "--slots", 1, "--quit", *options)
    # When both are to be cancelled as far as they wait
    launcher = open_launcher("htcondor")
    launcher.cancel([busy, waiting], only_waiting=True)
    # Then the busy one goes on to its end
    until("the end of the other", lambda: [job.state for job in launcher.status([waiting])] == ["ended"])
    assert launcher.status([busy])[0].running == 1
    Path(condor.desk, "go").touch()
    until("the end of the token", lambda: pool.counts()["done"] == 1)
    assert len(pool.get(token)["attempts"]) == 1
    # And nothing that waits is no error either
    launcher.cancel([waiting], only_waiting=True)


def test_a_job_that_is_held_tells_why(condor: Condor, pool: Pool, options: tuple[object, ...]) -> None:
    # Given a job that nobody can run now; when it is put on hold
    job = launched("--cpus", 64, *options)
    condor.run("condor_hold", "-reason", "the disk is full of eels", job.id)
    # Then it waits, and says why
    until("a held job", lambda: any("the disk is full of eels" in each["reason"] for each in jobs()))
    assert [each["state"] for each in jobs()] == ["waiting"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("requirements = (", "Parse error in expression: Requirements = (("),
        ("universe = parallel-world", "'parallel-world' universe"),
    ],
)
def test_a_submit_that_is_rejected_is_two_lines(
    condor: Condor, pool: Pool, options: tuple[object, ...], line: str, told: str
) -> None:
    answer = call("launch", "htcondor", *map(str, options), "--", line)
    assert answer.code == 1, answer.out + answer.err
    assert answer.error.startswith("error: HTCondor refuses the jobs: ")
    assert told in answer.error
    assert "--print" in answer.err
    assert len(answer.err.strip().splitlines()) == 2
    # And nothing was launched
    assert jobs("-a") == []
    assert condor.run("condor_q", "-af", "ClusterId").strip() == ""

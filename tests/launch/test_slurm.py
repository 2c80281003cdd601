"""Workers as a job array of a real Slurm: they drain a pool, and whatever ends them loses nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_tools import ROOT, call, ok
from couch_server import raw_couch
from history import Check, Harm, History, uptime
from slurm_server import Slurm, until

from tokenpool.backends.base import Json
from tokenpool.launchers.ledger import Ledger, folder_of
from tokenpool.pool import Pool, connect


def launched(*words: object) -> str:
    """Launch workers by Slurm; return the number of their job."""
    (job,) = ok("--json", "launch", "slurm", *words).json["jobs"]
    return str(job["id"])


class Judge(Check):
    """Knows that a shell may say of the command it waits for that Slurm has ended it."""

    def _check_log(self, token: str, attempt: Json, kind: str, found: bytes, whole: bool) -> None:
        super()._check_log(token, attempt, kind, found if whole else found.replace(b"Terminated\n", b""), whole)


def judge(history: History, pool: Pool, ids: list[str], **more: Any) -> None:
    """Insist on the promise: nothing lost, no outcome recorded twice."""
    print(Judge(history, pool, {}, **more).run(ids))


def test_a_job_array_drains_500_tokens(slurm: Slurm, pool: Pool, history: History, tmp_path: Path) -> None:
    # Given 500 tokens in a CouchDB
    ids = pool.push(history.tokens(500, seconds=0.02))
    # When an array of four workers with two slots each is launched
    job = launched("-n", 4, "--slots", 2, "--time", "20m", "--quit", "--ram-gb", 0.5)
    until("the end of the array", lambda: slurm.ended(job), 240)
    # Then all are done once, and no task of the array is marked as failed
    judge(history, pool, ids)
    assert pool.counts()["done"] == 500
    assert set(slurm.states(job)) == {"COMPLETED"}, slurm.words(tmp_path / "tokenpool-logs")
    # And the tokens know which task ran them
    tasks = {token["slurm_job_id"] for token in pool.tokens()}
    assert {task.partition("_")[0] for task in tasks} == {job}
    assert len(tasks) > 1


# ── what ends workers ────────────────────────────────────────────────────────────────────────────────────────────────


def all_running(history: History, count: int) -> None:
    """Wait until so many tokens have started."""
    until(f"{count} started tokens", lambda: len(history.runs()) >= count)


def harms(history: History, kind: str) -> list[Harm]:
    """Return what is about to be done to all workers that have run something."""
    return [Harm(kind, pid, uptime()) for pid in {run.worker for run in history.runs()}]


def test_scancel_gives_back_what_runs(slurm: Slurm, pool: Pool, history: History) -> None:
    # Given an array of two workers, each with two tokens that would run for long
    ids = pool.push(history.tokens(12, gate="go"))
    job = launched("-n", 2, "--slots", 2, "--time", "20m", "--quit", "--ram-gb", 0.5)
    all_running(history, 4)
    # When it is cancelled
    done_to = harms(history, "scancel")
    slurm.run("scancel", job)
    until("the end of the array", lambda: slurm.ended(job))
    # Then all tokens wait again, and the attempts are not counted
    until("tokens that are back", lambda: pool.counts()["todo"] == 12)
    given_back = [token for token in pool.tokens() if token.doc.get("attempts")]
    assert {attempt["failure_class"] for token in given_back for attempt in token["attempts"]} == {"preempted"}
    # And the next array does them
    history.open_gate("go")
    again = launched("-n", 2, "--slots", 2, "--time", "20m", "--quit", "--ram-gb", 0.5)
    until("the end of the second array", lambda: slurm.ended(again))
    judge(history, pool, ids, harms=done_to)
    assert pool.counts()["done"] == 12


def test_a_walltime_of_one_minute_with_longer_work(slurm: Slurm, pool: Pool, history: History) -> None:
    # Given tokens that take longer than a job may run, and one that says so itself
    ids = pool.push([*history.tokens(3, gate="go"), {"_id": "long", "input": "true", "timeout": 600}])
    # When a job of one minute works on them
    job = launched("--slots", 4, "--time", "1m", "--ram-gb", 0.5)
    all_running(history, 3)
    done_to = harms(history, "walltime")
    until("the end of the job", lambda: slurm.ended(job), 120)
    # Then its worker has left in time and in order, and gave back what it could not finish
    assert slurm.states(job) == ["COMPLETED"]
    assert pool.counts()["todo"] == 4
    assert {a["failure_class"] for n in ids[:3] for a in pool.get(n)["attempts"]} == {"preempted"}
    # And did not begin what could not have ended
    assert not pool.get("long").doc.get("attempts")
    # And a longer job does the rest
    history.open_gate("go")
    again = launched("--slots", 2, "--time", "20m", "--quit", "--ram-gb", 0.5)
    until("the end of the second job", lambda: slurm.ended(again))
    judge(history, pool, ids[:3], harms=done_to)
    assert pool.counts()["done"] == 4


def test_a_node_that_is_killed_loses_nothing(slurm: Slurm, pool: Pool, history: History) -> None:
    # Given workers with a short lease, busy on the node
    ids = pool.push(history.tokens(12, gate="go"))
    options = ("--slots", 2, "--time", "20m", "--ram-gb", 0.5, "--idle-timeout", "20s", "--work", "--lease 3s")
    job = launched("-n", 2, *options)
    all_running(history, 4)
    # When the node is gone from one moment to the next: slurmd, the jobs, the workers and all below them
    done_to = harms(history, "node")
    victims = slurm.kill_node()
    assert {harm.pid for harm in done_to} <= victims
    history.open_gate("go")
    # And comes back, and other workers live
    slurm.start_node()
    again = launched("-n", 1, *options)
    # Then all tokens come to their end, once
    until("the last token", lambda: pool.counts()["done"] == 12, 120)
    judge(history, pool, ids, harms=done_to)
    lost = [a for n in ids for a in pool.get(n)["attempts"] if a.get("failure_class") == "lost"]
    assert len(lost) == 4
    ok("launch", "cancel", job, again)


def test_a_warned_worker_finishes_what_it_runs(slurm: Slurm, pool: Pool, history: History) -> None:
    # Given a worker that runs one of three tokens
    pool.push(history.tokens(3, gate="go"))
    job = launched("--time", "20m", "--ram-gb", 0.5)
    all_running(history, 1)
    # When Slurm sends it what --signal=B:USR1 means, and the token may end
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    until("a worker that drains", lambda: any(each.state == "draining" for each in pool.workers()))
    history.open_gate("go")
    # Then it leaves in order after that one
    until("the end of the job", lambda: slurm.ended(job))
    assert slurm.states(job) == ["COMPLETED"]
    assert pool.counts() | {"done": 1, "todo": 2} == pool.counts()


# ── the script, and what was launched ────────────────────────────────────────────────────────────────────────────────


def test_the_script_is_printed_changed_and_handed_in(slurm: Slurm, pool: Pool, tmp_path: Path) -> None:
    # Given a script as it would be handed in: nothing is launched by looking at it
    shown = ok("launch", "slurm", "-n", 2, "--time", "5m", "--ram-gb", 0.5, "--quit", "--print", "--", "-p", "short")
    assert "#SBATCH -p short" in shown.out
    assert slurm.run("squeue", "-h") == ""
    # When it is changed and handed in
    ids = pool.push([{"input": "echo $CHANGED"}])
    (tmp_path / "mine.sh").write_text(shown.out.replace("exec ", "export CHANGED=by-me\nexec "))
    job = launched("-n", 2, "--script", tmp_path / "mine.sh")
    assert slurm.run("squeue", "-h", "-j", job, "-o", "%P").split()[0] == "short"
    until("the end of the array", lambda: slurm.ended(job))
    # Then the change has come to the token
    assert pool.attachment(ids[0], f"logs_{ids[0]}.out") == b"by-me\n"


def test_what_was_launched_is_listed_and_cancelled(slurm: Slurm, pool: Pool, history: History) -> None:
    # Given an array that has more tasks than the node can run at a time
    pool.push(history.tokens(4, gate="go"))
    job = launched("-n", 6, "--time", "20m", "--ram-gb", 1, "--name", "night")
    until("four running workers", lambda: running("night") == 4)
    # Then the list tells so
    (listed,) = ok("--json", "launch", "list").json["jobs"]
    assert (listed["id"], listed["state"], listed["size"], listed["running"]) == (job, "running", 6, 4)
    assert ok("launch", "list").out.splitlines()[1].split()[:6] == ["night", "slurm", job, "running", "6", "4"]
    # When it is cancelled by its name; then it has ended, and is listed only where all are asked for
    assert f"would cancel slurm job {job}" in ok("launch", "cancel", "night", "--dry-run").err
    assert f"cancelled slurm job {job}" in ok("launch", "cancel", "night").err
    until("the end of the array", lambda: ok("--json", "launch", "list").json["jobs"] == [])
    assert ok("--json", "launch", "list", "-a").json["jobs"][0]["state"] == "ended"
    assert (
        call("launch", "cancel", "night").error == "error: nothing that is called night was launched, or it has ended"
    )


def running(name: str) -> int:
    """Return how many workers of an order run, as the list tells."""
    return sum(job["running"] for job in ok("--json", "launch", "list").json["jobs"] if job["name"] == name)


def test_an_order_whose_number_got_lost_is_found_by_its_name(slurm: Slurm, pool: Pool, history: History) -> None:
    # Given an order that was noted and taken, and then we were killed
    pool.push(history.tokens(1, gate="go"))
    job = launched("--time", "20m", "--ram-gb", 0.5, "--name", "lost")
    ledger = Ledger(folder_of(os.environ))
    ledger.intend("slurm", "lost", pool.url, time.time())
    # When we look again; then it is known by its number, and can be cancelled
    (listed,) = ok("--json", "launch", "list").json["jobs"]
    assert (listed["id"], listed["name"]) == (job, "lost")
    ok("launch", "cancel", "lost")
    until("the end of the job", lambda: slurm.ended(job))


def test_no_password_is_seen_by_slurm(
    slurm: Slurm, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a password in the environment: a job would carry it
    monkeypatch.setenv("TOKENPOOL_PASSWORD", "geheim")
    assert "does not reach a job" in call("launch", "slurm").error
    # When it is in a file, then the job gets the name of the file
    (tmp_path / "password").write_text("geheim\n")
    monkeypatch.setenv("TOKENPOOL_PASSWORD_FILE", str(tmp_path / "password"))
    pool.push([{"input": "env; ps axeww"}])
    job = launched("--time", "5m", "--ram-gb", 0.5, "--quit")
    until("the end of the job", lambda: slurm.ended(job))
    # And neither the script nor anything that runs has the password itself
    script = slurm.run("scontrol", "write", "batch_script", job, "-")
    assert f"TOKENPOOL_PASSWORD_FILE={tmp_path}/password" in script
    assert "geheim" not in script
    (token,) = pool.tokens()
    seen = pool.attachment(token.id, f"logs_{token.id}.out").decode(errors="replace")
    mine = [line for line in seen.splitlines() if "pytest" not in line]
    assert "TOKENPOOL_LAUNCH" in seen
    assert not [line for line in mine if "geheim" in line]


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rejected_partition_leaves_nothing_behind(slurm: Slurm, pool: Pool) -> None:
    answer = call("launch", "slurm", "--", "-p", "no-such-partition")
    assert answer.code == 1
    assert "Slurm refuses the jobs" in answer.error
    assert "Invalid partition name specified" in answer.error
    assert "sinfo" in answer.err
    assert ok("--json", "launch", "list", "-a").json["jobs"] == []
    assert slurm.run("squeue", "-h") == ""


@pytest.mark.parametrize(
    ("words", "told", "advice"),
    [
        (("--cpus", 99), "More processors requested than permitted", "sinfo -N -l"),
        (("--ram-gb", 999), "Requested node configuration is not available", "sinfo -N -l"),
        (("--time", "2h", "--", "-p", "short"), "Requested time limit is invalid", "less --time"),
        (("--", "--no-such-option"), "unrecognized option", "--print"),
    ],
)
def test_more_than_there_is_is_refused(
    slurm: Slurm, pool: Pool, words: tuple[Any, ...], told: str, advice: str
) -> None:
    answer = call("launch", "slurm", *words)
    assert told in answer.error
    assert advice in answer.err
    assert ok("--json", "launch", "list", "-a").json["jobs"] == []


def test_a_controller_that_is_away(slurm: Slurm, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a cluster whose controller does not answer
    there = (slurm.folder / "slurm.conf").read_text()
    away = "".join(
        f"{line}\n" if not line.startswith("SlurmctldPort=") else "SlurmctldPort=1\nMessageTimeout=2\n"
        for line in there.splitlines()
    )
    (tmp_path / "slurm.conf").write_text(away)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    # When workers are launched; then it is told in two lines, and nothing is noted
    answer = call("launch", "slurm")
    assert "Unable to contact slurm controller" in answer.error
    assert ok("--json", "launch", "list", "-a").json["jobs"] == []


# ── picas' examples ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def desk(slurm: Slurm, couch_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples, with the environment of somebody who has loaded a Python."""
    folder = tmp_path / "copy" / "examples"
    shutil.copytree(ROOT / "examples", folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.db*"))
    server, name = raw_couch(couch_db)
    for variable, value in {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "PICAS_HOST_URL": server,
        "PICAS_DATABASE": name,
    }.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(folder)
    return folder


def example(*words: str) -> str:
    """Run an example as picas' README says."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", ["slurm-example.sh", "slurm_example.sh"])
def test_picas_example_runs_by_sbatch(slurm: Slurm, desk: Path, couch_db: str, script: str) -> None:
    # Given views and tokens as picas' README makes them
    example("createViews.py")
    example("pushTokens.py", "quickExample.txt")
    # When its line is typed
    job = slurm.run("sbatch", "--parsable", "--export=ALL", script, cwd=desk, env=dict(os.environ)).strip()
    until("the end of the array", lambda: slurm.ended(job))
    # Then the tokens are done, and know their tasks, of which there were six
    assert slurm.states(job) == ["COMPLETED"] * 6
    with connect(couch_db) as pool:
        assert pool.counts()["done"] == 3
        assert all(re.fullmatch(rf"{job}_[0-5]", token["slurm_job_id"]) for token in pool.tokens())


def test_the_autopilot_starts_arrays_where_work_waits(slurm: Slurm, desk: Path, couch_db: str) -> None:
    # Given views of tokens by cores, without tokens; then it starts nothing
    example("create_views.py", "autopilot")
    assert example("run_autopilot.py", "--cores", "4", "--design_doc", "MultiCore", "-v") == "no token waits\n"
    # When tokens of one and of four cores wait, and it is called as by scrontab: twice
    example("push_tokens.py", "autopilot")
    slurm.run("scontrol", "update", "partition=debug", "state=down")
    told = example("run_autopilot.py", "--design_doc", "MultiCore", "--cores", "4")
    assert example("run_autopilot.py", "--design_doc", "MultiCore", "--cores", "4") == ""
    slurm.run("scontrol", "update", "partition=debug", "state=up")
    job = told.split()[-1]
    until("the end of the array", lambda: slurm.ended(job))
    # Then there was one array, and it did what is for it
    assert set(slurm.states(job)) == {"COMPLETED"}
    with connect(couch_db) as pool:
        assert pool.attachment("token_2", "logs_token_2.out") == b"4\n"
        assert [pool.get(f"token_{n}").state for n in range(3)] == ["todo", "todo", "done"]

"""Workers by PBS and HTCondor, whose commands are stood in for, and on this machine itself: one way for all of them."""

from __future__ import annotations

import os
import re
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import batch_fake
import pytest
from cli_tools import call, ok
from slurm_server import until

from tokenpool.errors import BadInput
from tokenpool.launchers import commands, open_launcher
from tokenpool.launchers.base import ENDED, RUNNING, UNKNOWN, Job, Order, QuotaReached
from tokenpool.launchers.launching import DOUBT, KEPT, launch, refresh
from tokenpool.launchers.ledger import Ledger, folder_of
from tokenpool.pool import Pool

BATCH = ["pbs", "htcondor"]
ALL = [*BATCH, "local"]


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Commands of batch systems on PATH; no job outlives the test."""
    records = tmp_path / "records"
    records.mkdir()
    monkeypatch.setenv("PATH", f"{batch_fake.install(tmp_path / 'bin')}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_BATCH", str(records))
    yield records
    monkeypatch.setattr(batch_fake, "FOLDER", records)
    for job in batch_fake.jobs():
        batch_fake.end(job)
    call("launch", "cancel", "all")


def jobs(*words: str) -> list[dict[str, Any]]:
    """Return what is listed."""
    return list(ok("--json", "launch", "list", *words).json["jobs"])


# ── the whole way ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ALL)
def test_workers_drain_a_pool(batch: Path, pool: Pool, kind: str) -> None:
    # Given 30 tokens; when three workers are launched, with a line of shell before them that has quotes in it
    ids = pool.push([{"input": "sleep 0.05; echo $GREETING"} for _ in range(30)])
    setup = """export GREETING='a "b" c'"""
    program = re.sub(r" work.*", "", ok("launch", kind, "--print").out.partition("exec ")[2].splitlines()[0])
    ok("launch", kind, "-n", 3, "--quit", "--setup", setup, "--program", program, "--time", "10m")
    # Then all are done, in the environment that was set up, and nothing is left of the workers
    until("the last token", lambda: pool.counts()["done"] == 30)
    assert pool.attachment(ids[0], f"logs_{ids[0]}.out") == b'a "b" c\n'
    until("the end of the workers", lambda: jobs() == [])
    assert {job["state"] for job in jobs("-a")} == {"ended"}


@pytest.mark.parametrize("kind", ALL)
def test_workers_are_listed_and_cancelled(batch: Path, pool: Pool, kind: str) -> None:
    # Given workers that wait for tokens, one of which runs long
    (token,) = pool.push([{"input": "sleep 60"}])
    ok("launch", kind, "-n", 2, "--name", "mine", "--ram-gb", 2)
    until("a running token", lambda: pool.counts()["locked"] == 1)
    assert sum(job["running"] for job in jobs()) == 2
    # When their note is lost but for the intent; then they are found by their name
    Ledger(folder_of(os.environ)).intend(kind, "mine", pool.url, time.time())
    assert sum(job["running"] for job in jobs()) == 2
    # And when they are cancelled, then the token is given back, uncounted
    ok("launch", "cancel", "mine")
    until("the end of the workers", lambda: jobs() == [])
    assert pool.get(token).state == "todo"
    assert [attempt["failure_class"] for attempt in pool.get(token)["attempts"]] == ["preempted"]
    # And cancelling what has ended is no error
    launcher = open_launcher(kind)
    launcher.cancel([Job(kind, "99.1", "gone"), *(Job(kind, job["id"], "mine") for job in jobs("-a"))])


@pytest.mark.parametrize("kind", ALL)
def test_what_runs_is_left_alone_where_that_is_asked_for(batch: Path, pool: Pool, kind: str) -> None:
    # Given a worker that is busy
    pool.push([{"input": "sleep 60"}])
    ok("launch", kind, "--name", "mine")
    until("a running token", lambda: pool.counts()["locked"] == 1)
    # When only what waits is to be cancelled; then it goes on
    open_launcher(kind).cancel([Job(kind, job["id"], "mine") for job in jobs()], only_waiting=True)
    assert [job["running"] for job in jobs()] == [1]
    assert pool.counts()["locked"] == 1


def test_what_waits_in_pbs_is_cancelled(batch: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QUEUES", "1")
    ok("launch", "pbs", "--name", "mine")
    (job,) = jobs()
    assert job["state"] == "waiting"
    open_launcher("pbs").cancel([Job("pbs", job["id"], "mine")], only_waiting=True)
    assert jobs() == []


def test_pbs_knows_the_resources_and_the_walltime(batch: Path, pool: Pool) -> None:
    # Given a job of 20 seconds, and a token that would need more
    (token,) = pool.push([{"input": "true", "timeout": 60}])
    options = ("--cpus", 2, "--ram-gb", 1.5, "--time", "20s", "--work", "--grace 1s", "--idle-timeout", "2s")
    ok("launch", "pbs", *options)
    # When its worker has left; then it has not begun the token, and PBS was asked for what was meant
    until("the end of the job", lambda: jobs() == [])
    assert not pool.get(token).doc.get("attempts")
    (resources,) = batch.glob("*.resources")
    assert resources.read_text().splitlines() == ["select=1:ncpus=2:mem=1536mb", "walltime=00:00:20"]


def test_a_batch_system_that_ends_a_token_before_its_worker(pool: Pool, tmp_path: Path) -> None:
    # Given a token that runs
    (token,) = pool.push([{"input": f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; exec sleep 60"}])
    ok("launch", "local")
    until("a running token", (tmp_path / "pid").exists)
    # When all processes of the job are told to end, the worker a moment after the token
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    time.sleep(0.1)
    ok("launch", "cancel", "all")
    # Then the token has not failed: it is given back
    until("the end of the worker", lambda: jobs() == [])
    assert pool.get(token).state == "todo"
    assert [attempt["failure_class"] for attempt in pool.get(token)["attempts"]] == ["preempted"]


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "program"), [("slurm", "sbatch"), ("pbs", "qsub"), ("htcondor", "condor_submit")])
def test_without_the_command(pool: Pool, monkeypatch: pytest.MonkeyPatch, kind: str, program: str) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    answer = call("launch", kind)
    assert answer.code == 4
    assert answer.error.startswith(f"error: {program} is not on PATH")
    assert list(folder_of(os.environ).glob("*")) == []


@pytest.mark.parametrize(
    ("kind", "words", "told"),
    [
        ("pbs", ["-q", "nowhere"], "PBS refuses the jobs: qsub: Unknown queue"),
        ("htcondor", ["requirements = ("], "HTCondor refuses the jobs: Parse error in expression: Requirements = ("),
        ("htcondor", ["-p", "x"], "'-p' is no line of a submit description"),
    ],
)
def test_a_refusal(batch: Path, pool: Pool, kind: str, words: list[str], told: str) -> None:
    assert told in call("launch", kind, "--", *words).error
    assert jobs("-a") == []


def test_a_quota(batch: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_LIMIT", "0")
    order = Order(pool=pool.url, name="tp-x")
    launcher = open_launcher("pbs")
    with pytest.raises(QuotaReached, match="would exceed"):
        launcher.submit(order, launcher.script(order))
    assert "launch fewer" in call("launch", "pbs").err


def test_a_command_that_hangs_leaves_a_note(batch: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a qsub that does not answer
    monkeypatch.setenv("FAKE_HANGS", "qsub")
    monkeypatch.setattr(commands, "PATIENCE", 0.5)
    assert "did not answer within 0.5 s" in call("launch", "pbs", "--name", "tp-hangs").error
    # Then nobody knows whether it was taken, and that is what is listed
    (job,) = jobs()
    assert (job["name"], job["id"], job["state"]) == ("tp-hangs", "", "unknown")
    # Until PBS has not known the name for long
    ledger = Ledger(folder_of(os.environ))
    assert refresh(ledger, now=lambda: time.time() + DOUBT + 1) == []
    assert jobs("-a") == []


def test_a_system_that_cannot_be_asked_has_not_ended_its_jobs(
    batch: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok("launch", "pbs", "--name", "tp-on")
    monkeypatch.setenv("FAKE_HANGS", "qstat")
    monkeypatch.setattr(commands, "PATIENCE", 0.5)
    assert [job["state"] for job in jobs()] == ["unknown"]
    monkeypatch.delenv("FAKE_HANGS")
    assert [job["state"] for job in jobs()] == ["running"]


def test_a_machine_without_room_tells_what_was_started(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a machine on which the third process cannot be started
    from tokenpool.launchers import local

    started, begin = [], local._start

    def start(order: Order, script: str, number: int) -> Job:
        if number == 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(begin(order, script, number))
        return started[-1]

    monkeypatch.setattr(local, "_start", start)
    # When four are launched
    answer = call("launch", "local", "-n", 4)
    # Then those that live are named, and can be cancelled
    assert answer.code == 1
    assert answer.err.count("launched 1 worker") == 2
    assert "worker 3 of 4 cannot be started: Resource temporarily unavailable" in answer.err
    assert {job["id"] for job in jobs()} == {job.id for job in started}
    ok("launch", "cancel", "all")
    until("the end of the workers", lambda: jobs() == [])


def test_a_template_with_a_field_that_nobody_fills(batch: Path, pool: Pool, tmp_path: Path) -> None:
    # Given an own template that asks for something unknown
    (tmp_path / "mine.sh").write_text("#!/bin/bash\n#PBS -q {{queue}}\nexec {{worker}}\n")
    answer = call("launch", "pbs", "--template", "mine.sh")
    # Then the line and the field are named, and nothing was launched
    assert answer.code == 2
    assert answer.error == "error: line 2 of the template has a field that nobody fills: {{queue}}"
    assert "worker" in answer.err
    assert jobs("-a") == []


def test_an_own_template(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "mine.sh").write_text("# {{name}} of {{jobs}}\n# mem {{ram_mb}}\nexec {{worker}}\n")
    shown = ok("launch", "slurm", "--template", "mine.sh", "--name", "a", "--print", "--program", "tp").out
    assert shown == "# a of 1\nexec tp work --slots 1 --idle-timeout 120s\n"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"jobs": 0}, "0 jobs make no sense"),
        ({"slots": 0}, "0 slots make no sense"),
        ({"walltime": 0.0}, "a walltime of 0 s makes no sense"),
        ({"extra": ("-p\nx",)}, "line break"),
        ({"logs": "a\nb"}, "line break"),
    ],
)
@pytest.mark.parametrize("kind", [*ALL, "slurm"])
def test_orders_that_make_no_sense(kind: str, change: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        open_launcher(kind).script(Order(**{"pool": "sqlite:////p.db", "name": "a", **change}))


def test_words_of_the_shell_stay_words(pool: Pool) -> None:
    shown = ok("launch", "slurm", "--print", "--logs", "a b", "-b", "x; rm -rf /", "--env", "A=it's $HOME").out
    assert "--output='" in shown
    assert "--batch 'x; rm -rf /'" in shown
    assert "export A='it'\"'\"'s $HOME'" in shown


def test_a_password_in_the_url_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = call("-p", "couchdb+https://me:geheim@example.org/db", "launch", "slurm", "--print")
    assert answer.code == 2
    assert "TOKENPOOL_PASSWORD_FILE" in answer.err
    assert "geheim" not in answer.out + answer.err


def test_a_pool_that_is_not_there_starts_no_jobs(batch: Path) -> None:
    assert call("-p", "couchdb+http://127.0.0.1:1/db", "launch", "pbs").code == 69
    assert not list(batch.glob("*"))


# ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_does_nothing(batch: Path, pool: Pool) -> None:
    assert "would launch 3 workers by pbs" in ok("launch", "pbs", "-n", 3, "--dry-run").err
    assert ok("--json", "launch", "pbs", "-n", 3, "--dry-run").json["workers"] == 3
    assert jobs("-a") == []
    assert not Path("tokenpool-logs").exists()


def test_a_process_with_a_number_that_was_ours_is_left_alone(pool: Pool) -> None:
    # Given a note about a worker whose process id another process has by now
    other = Job("local", f"{os.getpid()}.1", "old", RUNNING)
    local = open_launcher("local")
    # Then it has ended, and the other one gets no signal
    assert [job.state for job in local.status([other])] == [ENDED]
    before = signal.getsignal(signal.SIGTERM)
    local.cancel([other])
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_ledger_is_for_its_owner_only_and_forgets_in_time(tmp_path: Path, pool: Pool) -> None:
    # Given an order that has ended
    ledger = Ledger(tmp_path / "ledger")
    local = open_launcher("local")
    order = Order(pool=pool.url, name="short", program="true #")
    launch("local", local, order, local.script(order), ledger)
    until("its end", lambda: [job.state for job in refresh(ledger)] == [ENDED])
    assert stat.S_IMODE(ledger.folder.stat().st_mode) == 0o700
    # Then it is known for a week, and not for ever
    assert refresh(ledger, pool="another") == []
    assert [job.name for job in refresh(ledger, pool=pool.url)] == ["short"]
    assert refresh(ledger, now=lambda: time.time() + KEPT + 1) == []
    assert ledger.jobs() == []


def test_a_launcher_that_is_missing_now_leaves_its_jobs_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given jobs that were noted where Slurm was; when they are looked up where it is not
    ledger = Ledger(tmp_path / "ledger")
    ledger.note("sqlite:////p.db", [Job("slurm", "7", "a"), Job("slurm", "", "b", submitted=time.time())])
    monkeypatch.setenv("PATH", "/nowhere")
    # Then nobody says that they have ended
    assert {job.state for job in refresh(ledger)} == {UNKNOWN}

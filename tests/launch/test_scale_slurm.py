"""`scale` with a real Slurm: workers come with the tokens and go with them, and a `scale` that is killed leaves no orphan."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cli_tools import command, environment, ok
from slurm_server import Slurm, until

from tokenpool.launchers import open_launcher
from tokenpool.launchers.base import WAITING, Order
from tokenpool.launchers.ledger import Ledger, folder_of
from tokenpool.pool import Pool
from tokenpool.scale import Rules
from tokenpool.scaling import Notes, Scaler

WORDS = (
    "scale",
    "--launcher",
    "slurm",
    "--max",
    4,
    "--backlog",
    1,
    "--every",
    "1s",
    "--patience",
    "2s",
    "--ram-gb",
    0.5,
)
#: It is scale that lets workers go here, not their own patience.
PATIENT = ("--time", "20m", "--idle-timeout", "10m")


@contextmanager
def scaling(told: Path, *more: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `scale` in a process of its own."""
    with told.open("ab") as file:
        process = subprocess.Popen(
            command(*WORDS, *PATIENT, *more), env=environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


def queued(slurm: Slurm) -> int:
    """Return the number of jobs that wait or run."""
    return len(slurm.run("squeue", "-h", "-r", "-t", "PENDING,RUNNING").split("\n")) - 1


def test_workers_come_with_the_tokens_and_go_with_them(slurm: Slurm, pool: Pool, tmp_path: Path) -> None:
    told = tmp_path / "told"
    with scaling(told) as scale:
        # Given a pool without work, then there is nobody
        until("a first decision", lambda: b"keep 0 workers" in told.read_bytes())
        assert queued(slurm) == 0
        # When tokens come, then four workers come, and no fifth
        pool.push([f"sleep {2 + number % 3}" for number in range(16)])
        until("four jobs", lambda: queued(slurm) == 4)
        until("the end of all tokens", lambda: pool.counts()["done"] == 16 or queued(slurm) > 4)
        assert queued(slurm) <= 4
        # When the tokens are done, then all workers go
        until("an empty queue", lambda: queued(slurm) == 0)
        # And when more come, then workers come again
        pool.push(["true"] * 3)
        until("the end of the new ones", lambda: pool.counts()["done"] == 19)
        until("an empty queue", lambda: queued(slurm) == 0)
        # When it is told to leave, then it does so in order
        scale.terminate()
        assert scale.wait(30) == 0, told.read_text()
    # And no token has met any harm, and each decision has its reason
    assert all(len(token["attempts"]) == 1 for token in pool.tokens())
    lines = told.read_text().splitlines()
    assert any(line.startswith("start 4 workers: 16 open tokens want 4") for line in lines), lines
    assert any(line.startswith("drain ") for line in lines), lines


def test_a_scale_that_is_killed_right_after_sbatch_leaves_no_orphan(
    slurm: Slurm, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an sbatch that kills who called it as soon as Slurm has taken the job
    path = os.environ["PATH"]
    folder = tmp_path / "bin"
    folder.mkdir()
    real = slurm.run("sh", "-c", "command -v sbatch").strip()
    script = folder / "sbatch"
    script.write_text(f'#!/bin/sh\n{real} "$@" >{tmp_path}/taken\nkill -9 $PPID\nsleep 5\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{path}")
    pool.push(["sleep 1"] * 4)
    # When scale starts a worker, then it dies without having noted the job
    with scaling(tmp_path / "told") as scale:
        assert scale.wait(60) == -signal.SIGKILL
    assert (tmp_path / "taken").read_text().strip().isdigit()
    assert queued(slurm) == 1
    # When it is started again
    monkeypatch.setenv("PATH", path)
    with scaling(tmp_path / "told again"):
        # Then there are never more workers than it may have: the lost one is found by its name
        until("four jobs", lambda: queued(slurm) >= 4)
        assert queued(slurm) == 4
        until("the end of all tokens", lambda: pool.counts()["done"] == 4)
        # And the lost one is let go as all others
        until("an empty queue", lambda: queued(slurm) == 0)
    assert "start 3 workers" in (tmp_path / "told again").read_text()


def test_a_dry_run_and_a_single_round_tell_what_they_would_do_and_do(slurm: Slurm, pool: Pool) -> None:
    pool.push(["true"] * 2)
    would = ok("--json", *WORDS, *PATIENT, "--dry-run").json
    assert (would["wanted"], would["start"], would["drain"]) == (2, 2, [])
    assert queued(slurm) == 0
    does = ok("--json", *WORDS, *PATIENT, "--once").json
    assert does["start"] == 2
    until("the jobs", lambda: queued(slurm) == 2)
    again = ok("--json", *WORDS, *PATIENT, "--dry-run").json
    assert again["start"] == 0


def test_a_job_that_starts_while_it_is_cancelled_goes_on(slurm: Slurm, pool: Pool, tmp_path: Path) -> None:
    # Given a scale that wants to cancel two jobs that waited when it looked: one of them has started since, and is busy
    (token,) = pool.push([f"until [ -e {tmp_path}/go ]; do sleep 0.1; done"])
    words = ("launch", "slurm", "--cpus", 4, "--slots", 1, "--ram-gb", 0.5, "--time", "10m", "--quit")
    launched = []
    for name in ("scale-busy", "scale-late"):
        ok(*words, "--name", name)
        until("a busy worker", lambda: pool.counts()["locked"] == 1)
        launched += [job for job in Ledger(folder_of(os.environ)).jobs() if job.name == name]
    seen = [replace(job, state=WAITING, running=0) for job in launched]
    scaler = Scaler(
        pool=pool, kind="slurm", launcher=open_launcher("slurm"), order=Order(pool=pool.url), rules=Rules(),
        ledger=Ledger(folder_of(os.environ)), notes=Notes(tmp_path / "notes", pool.url, "slurm"),
    )  # fmt: skip
    # When it cancels them
    told = scaler._cancel(seen)
    # Then only the one that waits is gone, and it says so
    assert told == ["scale-busy started meanwhile"]
    assert {job.name: job.state for job in scaler.ledger.jobs()} == {"scale-busy": "running", "scale-late": "ended"}
    (tmp_path / "go").touch()
    until("the end of the token", lambda: pool.counts()["done"] == 1)
    assert len(pool.get(token)["attempts"]) == 1

"""A worker knows when its batch job ends, and begins nothing that would not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import LINUX, gone, until

from tokenpool import walltime
from tokenpool.errors import BadInput
from tokenpool.processes import birth
from tokenpool.walltime import Walltime, end_of, parse

NOON = "2030-01-31T12:00:00"


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def slurm(folder: Path) -> dict[str, str]:
    return {"SLURM_JOB_ID": "17", "PATH": f"{folder}:{os.environ['PATH']}"}


# ── when the job ends ────────────────────────────────────────────────────────────────────────────────────────────────


def test_outside_of_batch_jobs_there_is_no_end() -> None:
    assert end_of({}, 1000.0) is None
    assert end_of({"SLURM_JOB_END_TIME": "soon", "PBS_WALLTIME": "-1"}, 1000.0) is None


def test_slurm_tells_its_jobs_when_they_end() -> None:
    assert end_of({"SLURM_JOB_END_TIME": "1900000000", "SLURM_JOB_ID": "17"}, 1000.0) == 1_900_000_000


def test_an_older_slurm_is_asked(tmp_path: Path) -> None:
    program(
        tmp_path, "squeue", f'[ "$*" = "-h -j 17 -O EndTime" ] && [ $SLURM_TIME_FORMAT = standard ] && echo "{NOON} "'
    )
    assert end_of(slurm(tmp_path), 1000.0) == time.mktime((2030, 1, 31, 12, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    "squeue", ["echo N/A", "exit 1", "kill -9 $$", "echo slurm_load_jobs error >&2", "echo 2031-01-31T12:00:00; exit 1"]
)
def test_where_the_queue_does_not_know_the_controller_is_asked(tmp_path: Path, squeue: str) -> None:
    program(tmp_path, "squeue", squeue)
    program(
        tmp_path,
        "scontrol",
        f'echo "JobId=17 JobName=a"; echo "   StartTime=2029-01-01T00:00:00 EndTime={NOON} Deadline=N/A"',
    )
    assert end_of(slurm(tmp_path), 1000.0) == time.mktime((2030, 1, 31, 12, 0, 0, 0, 0, -1))


def test_a_slurm_that_says_nothing_sets_no_end(tmp_path: Path) -> None:
    for name in ("squeue", "scontrol"):
        program(tmp_path, name, "echo EndTime=Unknown")
    assert end_of(slurm(tmp_path), 1000.0) is None
    assert end_of({"SLURM_JOB_ID": "17", "PATH": "/nonexistent"}, 1000.0) is None


@LINUX
def test_a_slurm_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given commands that never answer, with a child that keeps their output open
    monkeypatch.setattr(walltime, "PATIENCE", 0.2)
    for name in ("squeue", "scontrol"):
        program(tmp_path, name, f"sleep 600 & echo $$ $! >> {tmp_path}/pids; wait")
    # Then there is an answer, and nothing is left behind
    assert end_of(slurm(tmp_path), 1000.0) is None
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 4
    until(lambda: gone(pids))


@LINUX
def test_pbs_tells_how_long_a_job_may_run_from_its_start_on() -> None:
    # Given a job whose first process was there before this one, itself below one that is not of the job
    ask = "import os, time; from tokenpool.walltime import end_of; print(end_of(os.environ, time.time()))"
    environ = {**os.environ, "PBS_JOBID": "17.host", "PBS_WALLTIME": "3600"}
    shell = ["sh", "-c", f"read go; {sys.executable} -c '{ask}'; :"]
    with subprocess.Popen(shell, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        began = birth(job.pid) / os.sysconf("SC_CLK_TCK") + time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        until(lambda: time.time() - began > 0.5)
        told = float(job.communicate("go\n")[0])
    # Then its hour began with that process
    assert told == pytest.approx(began + 3600, abs=0.2)
    # And a process that knows of no job begins its hour now
    assert end_of({"PBS_WALLTIME": "3600"}, 1000.0) == 4600


# ── what people write ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("90", 1090), ("2h", 8200), (" 1h 30m ", 6400), ("1-00:00:10", 87410), ("00:10:00", 1600),
        ("2030-01-31T12:00:00Z", 1896091200), ("2030-01-31T13:00:00+01:00", 1896091200),
    ],
)  # fmt: skip
def test_an_end_is_a_duration_or_a_time(text: str, end: float) -> None:
    assert parse(text, 1000.0) == end


@pytest.mark.parametrize("text", ["", "soon", "10:30", "2030-13-01T00:00:00Z", "-5"])
def test_what_is_neither_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(text, 1000.0)
    assert "2h" in refused.value.hint


# ── what can be done until then ──────────────────────────────────────────────────────────────────────────────────────


def test_without_an_end_everything_can_be_done() -> None:
    for endless in (Walltime(None, 60), Walltime.until(None, 60)):
        assert endless.can_finish({"timeout": 1e9})
        assert not endless.over()
        assert endless.remaining() == float("inf")


def test_a_token_is_begun_only_if_its_timeout_fits() -> None:
    now = [0.0]
    hour = Walltime(3600, 600, lambda: now[0])
    assert hour.can_finish({"timeout": 3000})
    assert not hour.can_finish({"timeout": 3001})
    assert hour.can_finish({})
    assert hour.can_finish({"timeout": "nonsense"})
    now[0] = 2999
    assert hour.can_finish({})
    assert not hour.over()
    now[0] = 3000
    assert not hour.can_finish({})
    assert not hour.can_finish({"timeout": 0.001})
    assert hour.over()


@given(st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0.1, 1e6))
def test_what_is_begun_is_done_before_the_margin(left: float, margin: float, timeout: float) -> None:
    end = Walltime(left, margin, lambda: 0.0)
    if end.can_finish({"timeout": timeout}):
        assert timeout + margin <= left + 1e-6
    assert end.over() == (not end.can_finish({}))


def test_time_that_a_machine_slept_through_is_gone_and_a_clock_set_back_gives_none() -> None:
    # Given an end by the wall clock, one hour from now
    clock, wall = [50.0], [1_000_000.0]
    end = Walltime.until(1_003_600.0, 60, lambda: clock[0], lambda: wall[0])
    assert end.remaining() == 3600
    # When the machine sleeps for half an hour, only the wall clock goes on
    wall[0] += 1800
    assert end.remaining() == 1800
    # And when the wall clock is set back, the other one goes on
    clock[0], wall[0] = clock[0] + 3000, wall[0] - 1800
    assert end.remaining() == 600

"""Pilots on a real computing element of the Grid, from the sandbox: they drain a pool that asks for a password."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest
from arc_server import ArcServer
from cli_tools import call, ok

from tokenpool.launchers import open_launcher
from tokenpool.launchers.base import ENDED, RUNNING, UNKNOWN, WAITING, Job, Launcher, Order
from tokenpool.pool import Pool

WAIT = 120


def ended(launcher: Launcher, jobs: list[Job]) -> list[Job]:
    """Ask for the jobs until all have ended; each question takes its time by itself."""
    until = time.monotonic() + WAIT
    while True:
        jobs = launcher.status(jobs)
        if all(job.state == ENDED for job in jobs):
            return jobs
        assert time.monotonic() < until, jobs


def test_pilots_from_the_sandbox_drain_the_pool(arc: ArcServer, sandbox: Path, grid_pool: Pool) -> None:
    # Given 30 tokens
    grid_pool.push([{"command": f"echo {n}; id -un"} for n in range(30)])
    # When two jobs are launched, and have ended
    words = ("launch", "grid", "--arc", "-n", "2", "--quit", "--time", "30m", "--sandbox", str(sandbox))
    launched = ok(*words, "--json", "--", *arc.words).json["jobs"]
    jobs = ended(open_launcher("arc"), [Job("arc", job["id"], job["name"]) for job in launched])
    # Then all tokens are done, by the user that jobs are mapped to
    assert grid_pool.counts()["done"] == 30, arc.outputs()
    assert ok("logs", ok("list", "-q", "state:done").out.split()[0]).out.splitlines()[1] == "nobody"
    assert len(jobs) == 2
    assert {job.reason for job in jobs} == {"finished, exit code 0"}
    # And the jobs are listed as what they are
    listed = ok("launch", "list", "--all", "--json").json["jobs"]
    assert [(job["id"], job["state"]) for job in listed] == [(job.id, ENDED) for job in jobs]
    # And the password was in no description that the computing element keeps
    secret = Path(os.environ["TOKENPOOL_PASSWORD_FILE"]).read_text().encode()
    kept = [path for path in arc.folder.glob("control/**/*") if path.is_file()]
    assert kept
    assert not any(secret in path.read_bytes() for path in kept)
    brought = list(arc.folder.glob("session/*/password"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in brought} <= {0o600}


def test_a_job_is_found_by_its_name_and_ended(arc: ArcServer, sandbox: Path, grid_pool: Pool) -> None:
    # Given a worker that would wait for an hour
    words = ("launch", "grid", "--arc", "--idle-timeout", "1h", "--sandbox", str(sandbox), "--name", "tp-patient")
    ok(*words, "--", *arc.words)
    launcher = open_launcher("arc")
    found = launcher.find("tp-patient")
    assert [job.state for job in launcher.status(found)] != [ENDED]
    # When it is cancelled; then it ends
    ok("launch", "cancel", "tp-patient")
    assert len(ended(launcher, found)) == 1
    # And once more does no harm
    launcher.cancel(found)


def test_a_job_that_nobody_knows_is_unknown(arc: ArcServer) -> None:
    strange = Job("arc", f"{arc.url}/rest/1.0/jobs/none", "none")
    assert open_launcher("arc").status([strange])[0].state == UNKNOWN


@pytest.mark.parametrize("wrong", ["no such element", "no proxy", "no element"])
def test_a_refusal_is_two_lines_and_launches_nothing(
    wrong: str, arc: ArcServer, sandbox: Path, grid_pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given an element that is not there, or no proxy, or nothing that names an element
    words = {"no such element": ["-C", "https://localhost:1/arex", "-T", "arcrest", "-Q", "NONE"], "no element": []}
    if wrong == "no proxy":
        monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "missing.pem"))
    # When workers are launched; then it fails in two lines, and nothing is noted
    answer = call("launch", "grid", "--arc", "--sandbox", str(sandbox), "--", *words.get(wrong, arc.words))
    assert answer.code == 1
    assert "ARC refuses the jobs" in answer.error
    assert ok("launch", "list", "--all", "--json").json["jobs"] == []


def test_an_element_that_stops_taking_jobs_leaves_none_unlisted(
    arc: ArcServer, sandbox: Path, grid_pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given an arcsub that works once
    real = shutil.which("arcsub")
    once = tmp_path / "bin" / "arcsub"
    once.parent.mkdir()
    once.write_text(
        f'#!/bin/sh\nmkdir {tmp_path}/used 2>/dev/null && exec {real} "$@"\necho "ERROR: full" >&2; exit 1\n'
    )
    once.chmod(0o755)
    monkeypatch.setenv("PATH", f"{once.parent}:{os.environ['PATH']}")
    # When three are launched; then the error says how many were taken, and that one is listed
    words = ("launch", "grid", "--arc", "-n", "3", "--quit", "--sandbox", str(sandbox))
    answer = call(*words, "--json", "--", *arc.words)
    assert answer.code == 1
    assert "ARC took 1 of 3 jobs: full" in answer.err
    listed = ok("launch", "list", "--all", "--json").json["jobs"]
    assert [job["state"] for job in listed] in ([WAITING], [RUNNING])
    ok("launch", "cancel", "all")


def test_the_script_is_text_without_a_secret() -> None:
    # Given an order for the Grid; when its description is written
    order = Order(
        pool="couchdb+https://me@host:6984/db", jobs=3, slots=4, cpus=4, ram_gb=2, walltime=7200, name="tp-1",
        work=("--quit",), program="/sandbox", password_file="/home/me/secret", files=("/data/Snakefile",),
    )  # fmt: skip
    text = open_launcher("arc").script(order)
    # Then it names the files that travel, and the password's by its name only
    assert '("tokenpool.pyz" "/sandbox/tokenpool.pyz")' in text
    assert '("Snakefile" "/data/Snakefile")' in text
    assert '("TOKENPOOL_PASSWORD_FILE" "secret")' in text
    assert '(wallTime = "120 minutes")' in text
    assert '"startpilot.sh" "--slots" "4" "--walltime" "7200s" "--quit"' in text

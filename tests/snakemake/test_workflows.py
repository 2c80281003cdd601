"""Workflows of the real Snakemake through a pool: run, failed, interrupted, killed and found again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from snakemake_tools import ROOT, Workflow

from tokenpool.pool import connect

SIMPLE = """
rule all:
    input: expand("out/{i}", i=range(4))
rule each:
    output: "out/{i}"
    threads: 2
    resources: mem_mb=100
    shell: "echo {threads} > {output}"
"""
SLOW = """
rule all:
    input: "out/a", "out/b"
rule each:
    output: "out/{i}"
    shell: "echo {wildcards.i} $$ >> ran; while [ ! -e go ]; do sleep 0.1; done; touch {output}"
"""
PAUSES = """
localrules: pause
rule last:
    input: "paused"
    output: "last"
    shell: "touch {output}"
rule pause:
    input: "first"
    output: "paused"
    shell: "touch begun; while [ ! -e go ]; do sleep 0.1; done; touch {output}"
rule first:
    output: "first"
    shell: "touch {output}"
"""
FAILS = """
rule all:
    input: "good", "bad"
rule good:
    output: "good"
    shell: "touch {output}"
rule bad:
    output: "bad"
    shell: "echo the disk is full of eels >&2; exit 3"
"""


def until(what: str, found: Callable[[], object], patience: float = 90.0) -> None:
    """Wait until `found()` is true."""
    end = time.monotonic() + patience
    while not found():
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.1)


def ran() -> list[str]:
    """Return which jobs have begun, once for each time."""
    return [line.split()[0] for line in Path("ran").read_text().splitlines()] if Path("ran").exists() else []


def alive(pid: str) -> bool:
    """Tell whether a process is there."""
    return Path("/proc", pid).exists()


def test_jobs_are_tokens_with_their_resources(workflow: Workflow) -> None:
    # Given a workflow of four jobs that ask for CPUs and memory
    Path("Snakefile").write_text(SIMPLE)
    # When it is run with a worker of its own
    done = workflow.run("--tokenpool-workers", 2)
    # Then all is there
    assert done.returncode == 0, done.stdout + done.stderr
    assert [Path(f"out/{i}").read_text() for i in range(4)] == ["2\n"] * 4
    # And the pool shows what was run
    with connect(workflow.pool) as pool:
        tokens = list(pool.tokens())
        assert len(tokens) == 4
        for token in tokens:
            assert token["resources"] == {"cpu_cores": 2, "ram_gb": 0.391}
            assert token["tags"]["rule"] == "each"
            assert token["exit_code"] == 0
        # And the worker has left in order
        assert pool.workers() == []


def test_workers_that_know_nothing_of_snakemake_run_plain_commands(workflow: Workflow, tmp_path: Path) -> None:
    Path("Snakefile").write_text(SIMPLE)
    with connect(workflow.pool, create=True):
        pass
    words = [sys.executable, "-m", "tokenpool", "work", "-p", workflow.pool, "--slots", "2", "--idle-timeout", "60s"]
    worker = workflow.spawn(words, tmp_path / "worker")
    try:
        done = workflow.run()
    finally:
        worker.terminate()
        worker.wait(30)
    assert done.returncode == 0, done.stdout + done.stderr
    with connect(workflow.pool) as pool:
        assert all(token.doc.get("function") is None for token in pool.tokens())
        assert all(token["input"].startswith(f"cd {tmp_path} && ") for token in pool.tokens())


def test_a_job_that_fails_shows_its_log(workflow: Workflow) -> None:
    Path("Snakefile").write_text(FAILS)
    done = workflow.run("--tokenpool-workers", 2, "--keep-going")
    assert done.returncode == 1
    assert Path("good").exists()
    assert "ended with exit code 1" in done.stderr
    (log,) = Path(".snakemake/tokenpool_logs").glob("snakemake-*.log")
    assert "the disk is full of eels" in log.read_text()
    # When it is mended and run again, then only that job is run
    Path("Snakefile").write_text(FAILS.replace("exit 3", "touch {output}"))
    again = workflow.run("--tokenpool-workers", 1)
    assert again.returncode == 0, again.stderr
    assert "1 of 2 steps" in again.stderr


def test_an_interrupted_workflow_takes_its_tokens_back(workflow: Workflow, tmp_path: Path) -> None:
    # Given two jobs that run for long
    Path("Snakefile").write_text(SLOW)
    snakemake = workflow.spawn(workflow.command("--tokenpool-workers", 2), tmp_path / "said")
    until("two jobs", lambda: len(ran()) == 2)
    pids = [line.split()[1] for line in Path("ran").read_text().splitlines()]
    # When it is interrupted
    os.kill(snakemake.pid, signal.SIGINT)
    assert snakemake.wait(60) != 0
    # Then nothing of it is left, neither here nor in the pool
    until("the end of the jobs", lambda: not any(map(alive, pids)))
    with connect(workflow.pool) as pool:
        counts = pool.counts()
        assert counts["error"] == 2 or all(token.doc.get("cancel") for token in pool.tokens())
    # And the next run does all of it
    Path("go").touch()
    again = workflow.run("--tokenpool-workers", 2, "--rerun-incomplete")
    assert again.returncode == 0, again.stderr


def test_a_worker_that_left_for_want_of_work_comes_again(workflow: Workflow, tmp_path: Path) -> None:
    # Given a workflow that has nothing for its worker for a long time
    Path("Snakefile").write_text(PAUSES)
    snakemake = workflow.spawn(workflow.command("--tokenpool-workers", 1), tmp_path / "said")
    until("the pause", lambda: Path("begun").exists())
    # When the worker leaves in order, as it does after a while without work
    with connect(workflow.pool) as pool:
        until("an idle worker", lambda: [worker.held for worker in pool.workers()] == [0])
    (worker,) = workers_of(workflow.pool)
    os.kill(worker, signal.SIGTERM)
    until("the end of the worker", lambda: worker not in workers_of(workflow.pool))
    # Then another one does what comes later
    Path("go").touch()
    assert snakemake.wait(90) == 0, (tmp_path / "said").read_text()
    assert Path("last").exists()


def workers_of(pool: str) -> list[int]:
    """Return the workers that were started for a pool."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[1:4] == [b"-m", b"tokenpool", b"work"] and pool.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_workflow_that_was_killed_finds_its_tokens_again(workflow: Workflow, tmp_path: Path) -> None:
    # Given two jobs that run in the pool's own workers
    Path("Snakefile").write_text(SLOW)
    with connect(workflow.pool, create=True):
        pass
    words = [sys.executable, "-m", "tokenpool", "work", "-p", workflow.pool, "--slots", "2", "--idle-timeout", "60s"]
    worker = workflow.spawn(words, tmp_path / "worker")
    snakemake = workflow.spawn(workflow.command(), tmp_path / "said")
    until("two jobs", lambda: len(ran()) == 2)
    # When Snakemake is killed, then they go on
    snakemake.kill()
    snakemake.wait()
    with connect(workflow.pool) as pool:
        assert pool.counts()["locked"] == 2
    # And the next run waits for them, and does not run them once more
    unlocked = subprocess.run([sys.executable, "-m", "snakemake", "--unlock"], capture_output=True, check=False)
    assert unlocked.returncode == 0
    second = workflow.spawn(workflow.command(), tmp_path / "said again")
    until("a second run that waits", lambda: b"rule each" in (tmp_path / "said again").read_bytes())
    Path("go").touch()
    try:
        assert second.wait(90) == 0, (tmp_path / "said again").read_text()
    finally:
        worker.terminate()
        worker.wait(30)
    assert sorted(ran()) == ["a", "b"]
    with connect(workflow.pool) as pool:
        assert pool.counts()["done"] == 2


def test_the_profile_of_picas_readme_runs_a_workflow_in_pilots(
    workflow: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the profile where Snakemake looks for it, and a pilot that works on the pool of the settings
    Path("Snakefile").write_text(SIMPLE)
    shutil.copytree(ROOT / "examples" / "profiles" / "picas", Path(os.environ["XDG_CONFIG_HOME"], "snakemake", "picas"))
    monkeypatch.setenv("TOKENPOOL_POOL", workflow.pool)
    with connect(workflow.pool, create=True):
        pass
    pilot = workflow.spawn(
        [sys.executable, "-m", "tokenpool", "work", "--slots", "2", "--idle-timeout", "60s"], tmp_path / "w"
    )
    # When the line of the README is run
    words = [sys.executable, "-m", "snakemake", "--profile", "picas", "-j", "1"]
    try:
        done = subprocess.run(words, env=workflow.environment, capture_output=True, text=True, timeout=200, check=False)
    finally:
        pilot.terminate()
        pilot.wait(30)
    # Then the pilot has run it, job by job
    assert done.returncode == 0, done.stdout + done.stderr
    with connect(workflow.pool) as pool:
        assert pool.counts()["done"] == 4


@pytest.mark.parametrize("pool", ["couchdb+http://127.0.0.1:1/none", "nonsense://x"])
def test_a_pool_that_cannot_be_opened_is_told(workflow: Workflow, pool: str) -> None:
    Path("Snakefile").write_text(SIMPLE)
    done = workflow.run("--tokenpool-pool", pool)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not Path("out").exists()

"""The JDL as the real client of DIRAC reads and runs it; its commands where there is no server: by scripts on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cli_tools import ROOT, call, ok
from dirac_venv import DiracMissing, ask_dirac, ensure_dirac
from grid_needs import not_here

from tokenpool.errors import BadInput
from tokenpool.launchers import open_launcher
from tokenpool.launchers.base import ENDED, RUNNING, UNKNOWN, WAITING, Job, LaunchFailed, Order
from tokenpool.pool import Pool

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="session")
def dirac_client() -> Path:
    """The folder of DIRAC's commands."""
    try:
        return ensure_dirac()
    except DiracMissing as error:
        not_here(f"no DIRAC client: {error}")


@pytest.fixture
def dirac(dirac_client: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DIRAC's commands on PATH."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{dirac_client}")
    return dirac_client


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DIRAC whose commands say what a test puts into files, and note how they were called."""
    folder = tmp_path / "staged"
    folder.mkdir()
    for verb in ("submit", "status", "kill"):
        script = folder / f"dirac-wms-job-{verb}"
        script.write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/{verb}.called\n'
            f'[ "{verb}" = submit ] && cat "$1" > {folder}/submitted.jdl\n'
            f"cat {folder}/{verb}.says\nexit $(cat {folder}/{verb}.code 2>/dev/null || echo 0)\n"
        )
        script.chmod(0o755)
        (folder / f"{verb}.says").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def says(staged: Path, verb: str, text: str, code: int = 0) -> None:
    """Let a command answer so."""
    (staged / f"{verb}.says").write_text(text)
    (staged / f"{verb}.code").write_text(str(code))


# --- the real client -----------------------------------------------------------------------------------------------------


def test_dirac_runs_the_job_and_it_drains_the_pool(dirac: Path, sandbox: Path, grid_pool: Pool, tmp_path: Path) -> None:
    # Given ten tokens and the JDL of three workers
    grid_pool.push([{"command": f"echo {n}"} for n in range(10)])
    words = (
        "launch",
        "grid",
        "-n",
        "3",
        "--cpus",
        "2",
        "--quit",
        "--time",
        "1h",
        "--name",
        "tp-d",
        "--sandbox",
        str(sandbox),
    )
    (tmp_path / "workers.jdl").write_text(ok(*words, "--print", "--", 'Site = "LCG.SURFsara.nl"').out)
    # When DIRAC expands it; then there are three jobs, that know their pool
    jobs = ask_dirac(dirac, tmp_path, "expand", tmp_path / "workers.jdl")
    assert [job["JobName"] for job in jobs] == ["tp-d_0", "tp-d_1", "tp-d_2"]
    assert {job["CPUTime"] for job in jobs} == {"7200"}
    # And when it runs the first, the pool is drained
    (tmp_path / "answer.json").unlink()
    told = ask_dirac(dirac, tmp_path, "run", tmp_path / "workers.jdl")
    assert told["OK"], told
    assert grid_pool.counts()["done"] == 10


@pytest.mark.parametrize("name", ["fractals", "snakemake"])
def test_dirac_reads_the_examples(name: str, dirac: Path, tmp_path: Path) -> None:
    jobs = ask_dirac(dirac, tmp_path, "expand", EXAMPLES / f"{name}.jdl")
    assert jobs[0]["Arguments"].startswith("startpilot.sh ")
    assert "grid-sandbox/tokenpool.pyz" in jobs[0]["InputSandbox"]


def test_dirac_runs_picas_fractals(dirac: Path, grid_pool: Pool, tmp_path: Path) -> None:
    # Given a copy of the examples, in which the README's steps were done
    desk = tmp_path / "examples"
    shutil.copytree(EXAMPLES, desk, ignore=shutil.ignore_patterns("__pycache__", "bin"))
    (desk / "bin").mkdir()
    if shutil.which("cc") is None:
        not_here("there is no C compiler: install gcc")
    subprocess.run(["cc", "src/fractals.c", "-o", "bin/fractals", "-lm"], cwd=desk, check=True)
    ok("sandbox", "--output", str(desk / "grid-sandbox"), "--credentials")
    grid_pool.push([{"input": f"-q 0.{100 + n * 17} -d 60 -m 1"} for n in range(4)])
    # When DIRAC runs a job of it; its local mode wants all files beside the JDL
    for path in [*(desk / "grid-sandbox").iterdir(), desk / "bin" / "fractals"]:
        shutil.copy(path, desk)
    told = ask_dirac(dirac, desk, "run", desk / "fractals.jdl")
    # Then the fractals are drawn
    assert told["OK"], told
    assert grid_pool.counts()["done"] == 4


def test_a_jdl_that_dirac_refuses_is_two_lines(dirac: Path, sandbox: Path, grid_pool: Pool) -> None:
    # Given the real client, which has no server to go to; when workers are launched
    answer = call("launch", "grid", "--sandbox", str(sandbox))
    # Then its refusal is told in two lines, and nothing is noted
    assert answer.code == 1
    assert answer.error == "error: DIRAC refuses the job: URL for service WorkloadManagement/SandboxStore not found"
    assert "dirac-configure" in answer.err
    assert ok("launch", "list", "--all", "--json").json["jobs"] == []


# --- its commands, by scripts on PATH ----------------------------------------------------------------------------------------


def test_jobs_are_launched_listed_and_ended(staged: Path, sandbox: Path, grid_pool: Pool) -> None:
    # Given a DIRAC that takes the jobs; when three are launched
    says(staged, "submit", "JobID = [11, 12, 13]\n")
    launched = ok("launch", "grid", "-n", "3", "--sandbox", str(sandbox), "--json").json["jobs"]
    # Then the JDL was handed in, and each job is known
    assert "Parameters = 3;" in (staged / "submitted.jdl").read_text()
    assert [job["id"] for job in launched] == ["11", "12", "13"]
    # And they are as DIRAC says
    rows = ("11 Status=Running; MinorStatus=Application; Site=LCG.X.nl;", "12 Status=Waiting;", "13 Status=Done;")
    says(staged, "status", "".join(f"JobID={row}\n" for row in rows))
    listed = ok("launch", "list", "--all", "--json").json["jobs"]
    assert [job["state"] for job in listed] == [RUNNING, WAITING, ENDED]
    assert listed[0]["reason"] == "Running, Application, LCG.X.nl"
    # And when they are cancelled, those that have not ended are killed
    ok("launch", "cancel", "all")
    assert (staged / "kill.called").read_text().split() == ["11", "12"]


@pytest.mark.parametrize(
    ("told", "code", "what", "hint"),
    [
        ("ERROR /x/y.jdl: Failed to parse JDL\n", 2, "Failed to parse JDL", "--print"),
        ("ERROR /x/y.jdl: Job JDL is empty\n", 0, "Job JDL is empty", "--print"),
        ("2026 UTC Framework ERROR: proxy is expired\n", 1, "proxy is expired", "dirac-proxy-init"),
    ],
)
def test_a_refusal_is_two_lines(
    told: str, code: int, what: str, hint: str, staged: Path, sandbox: Path, grid_pool: Pool
) -> None:
    says(staged, "submit", told, code)
    answer = call("launch", "grid", "-n", "3", "--sandbox", str(sandbox))
    assert answer.code == 1
    assert answer.error == f"error: DIRAC refuses the job: {what}"
    assert hint in answer.err
    assert ok("launch", "list", "--all", "--json").json["jobs"] == []


def test_a_lost_order_is_found_by_its_name(staged: Path) -> None:
    says(staged, "status", "JobID=12 Status=Running;\nJobID=7 Status=Done;\n")
    found = open_launcher("dirac").find("tp-lost")
    assert [(job.id, job.state) for job in found] == [("7", ENDED), ("12", RUNNING)]
    assert (staged / "status.called").read_text().split() == ["-g", "tp-lost"]


def test_only_what_waits_is_killed_where_that_is_asked_for(staged: Path) -> None:
    # Given two jobs that waited, of which one has started since; when they are to be cancelled as far as they wait
    says(staged, "status", "JobID=11 Status=Running;\nJobID=12 Status=Waiting;\n")
    open_launcher("dirac").cancel([Job("dirac", "11", "x"), Job("dirac", "12", "x")], only_waiting=True)
    # Then the other one is killed
    assert (staged / "kill.called").read_text().split() == ["12"]


def test_what_dirac_does_not_tell_of_is_unknown(staged: Path) -> None:
    says(staged, "status", "ERROR: no answer\n", 2)
    assert open_launcher("dirac").status([Job("dirac", "1", "x")])[0].state == UNKNOWN
    says(staged, "kill", "ERROR not yours\n", 2)
    with pytest.raises(LaunchFailed, match="not yours"):
        open_launcher("dirac").cancel([Job("dirac", "1", "x")])


def test_without_dirac_nothing_is_launched(
    sandbox: Path, grid_pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = call("launch", "grid", "--sandbox", str(sandbox))
    assert answer.code == 4
    assert "dirac-wms-job-submit is not on PATH" in answer.error
    assert ok("launch", "list", "--all", "--json").json["jobs"] == []


def test_a_missing_file_is_told_before_anything_is_handed_in(staged: Path, sandbox: Path, grid_pool: Pool) -> None:
    # Given a changed JDL that names a file which is not there; when it is handed in
    jdl = ok("launch", "grid", "--sandbox", str(sandbox), "--print").out
    Path("changed.jdl").write_text(jdl.replace('startpilot.sh"', 'nowhere.sh"'))
    answer = call("launch", "grid", "--script", "changed.jdl")
    # Then nothing was
    assert "nowhere.sh is not there" in answer.error
    assert not (staged / "submit.called").exists()


@pytest.mark.parametrize(
    "strange",
    [
        {"work": ('--tag=a"b',)},
        {"files": ("/a/tokenpool.pyz",)},
        {"setup": ("module load python",)},
        {"work": ("100%",)},
    ],
)
def test_what_a_jdl_cannot_hold_is_refused(strange: dict[str, tuple[str, ...]]) -> None:
    order = Order(pool="couchdb+https://host/db", name="tp-1", program="/sandbox")
    with pytest.raises(BadInput):
        open_launcher("dirac").script(Order(**{**vars(order), **strange}))

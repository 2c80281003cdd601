"""The JDL as DiracX takes it: the server of its own packages, in a process and an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_tools import ROOT, ok
from dirac_venv import DiracMissing, ensure_venv
from grid_needs import not_here

from tokenpool.pool import Pool

VERSION = "0.7.0"
PACKAGES = [f"diracx-routers=={VERSION}", f"diracx-testing=={VERSION}", "moto[server]", "pytest"]


@pytest.fixture(scope="session")
def diracx() -> Path:
    """The folder of the commands of DiracX' environment."""
    try:
        return ensure_venv(f"diracx-{VERSION}", PACKAGES)
    except DiracMissing as error:
        not_here(f"no DiracX: {error}")


def hand_in(diracx: Path, folder: Path, jdl: str) -> Any:
    """Hand a JDL to a server that has nothing to do yet; return its answer, and the jobs that it has then."""
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("inside_diracx.py"), folder / "test_inside.py")
    # Its fixtures are no plug-in of pytest: whoever wants them imports them.
    (folder / "conftest.py").write_text("from diracx.testing.utils import *  # noqa: F403\n")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = enabled_dependencies: what the server is made of\n")
    (folder / "workers.jdl").write_text(jdl)
    environment = {
        "PATH": f"{diracx}:{os.defpath}", "HOME": str(folder), "LANG": "C.UTF-8", "JDL": "workers.jdl",
        "ANSWER": "answer.json",
    }  # fmt: skip
    done = subprocess.run(
        [str(diracx / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_inside.py"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((folder / "answer.json").read_text())


def test_diracx_makes_a_job_of_each_worker(diracx: Path, sandbox: Path, grid_pool: Pool, tmp_path: Path) -> None:
    # Given the JDL of five workers
    words = ("launch", "grid", "-n", "5", "--cpus", "2", "--time", "1h", "--name", "tp-x", "--sandbox", str(sandbox))
    jdl = ok(*words, "--print", "--", 'Site = "LCG.SURFsara.nl"').out
    # When it is handed in
    told = hand_in(diracx, tmp_path / "server", jdl)
    # Then it is taken as it stands, and there are five jobs of one group
    assert told["status"] == 201, told
    jobs = sorted(told["jobs"], key=lambda job: int(job["JobID"]))
    assert [job["JobName"] for job in jobs] == [f"tp-x_{number}" for number in range(5)]
    assert {(job["JobGroup"], job["Site"]) for job in jobs} == {("tp-x", "LCG.SURFsara.nl")}
    assert [job["JobID"] for job in told["answer"]] == [job["JobID"] for job in jobs]


def test_diracx_takes_the_fractals_of_picas(diracx: Path, tmp_path: Path) -> None:
    told = hand_in(diracx, tmp_path / "server", (ROOT / "examples" / "fractals.jdl").read_text())
    assert told["status"] == 201, told
    assert [job["JobName"] for job in told["jobs"]] == [f"fractals_{number}" for number in range(4)]

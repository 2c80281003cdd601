"""The steps of picas' README, in its order, by somebody who has cloned the repository to a new place and installed it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_tools import ROOT
from couch_server import CouchServer, Unavailable
from slurm_server import Slurm, until

sys.path.append(str(Path(__file__).resolve().parents[1] / "launch_grid"))

from dirac_venv import DiracMissing, ask_dirac, ensure_dirac
from grid_needs import not_here

from tokenpool.pool import Pool, connect

#: What no clone has.
NOT_CLONED = (".git", ".venv", "build", "dist", "demo", "*.egg-info", "__pycache__", ".*_cache", "*.db*")
CONFIG = """PICAS_HOST_URL = "{host}"
PICAS_DATABASE = "{database}"
PICAS_USERNAME = "{user}"
PICAS_PASSWORD = "{password}"
"""


@dataclass
class Desk:
    """The folder `examples` of the clone, and a shell in it."""

    folder: Path
    environment: dict[str, str]
    pool: Pool

    def type(self, line: str) -> str:
        """Type a line of the README; return what it prints."""
        words = ["bash", "-c", line]
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, installed into an environment of its own, which shares the libraries of ours."""
    place = tmp_path_factory.mktemp("new") / "place"
    shutil.copytree(ROOT, place / "clone", ignore=shutil.ignore_patterns(*NOT_CLONED), symlinks=True)
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True, capture_output=True)
    python = place / "venv" / "bin" / "python"
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    Path(site.stdout.strip(), "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", "."]
    done = subprocess.run(install, cwd=place / "clone", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where = [str(python), "-c", "import tokenpool; print(tokenpool.__file__)"]
    assert subprocess.check_output(where, cwd=place, text=True).startswith(f"{place}/venv/")
    return place


@pytest.fixture
def desk(clone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Desk]:
    """The examples of the clone, with a database on a CouchDB that asks for a password."""
    try:
        server = CouchServer(admin=("pilot", "only in its file"))
    except Unavailable as error:
        not_here(f"no CouchDB server: {error}")
    with server:
        url = server.create_database("readme")
        host, _, database = url.partition("+")[2].rpartition("/")
        host = host.partition("://")[0] + "://" + host.rpartition("@")[2]
        examples = clone / "clone" / "examples"
        config = CONFIG.format(host=host, database=database, user=server.username, password=server.password)
        (examples / "picasconfig.py").write_text(config)
        with connect(url) as pool:
            path = f"{clone}/venv/bin:{os.environ['PATH']}"
            yield Desk(examples, {**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore"}, pool)


def test_the_readme_locally_and_on_slurm(slurm: Slurm, desk: Desk) -> None:
    # Given a database; when views are made and tokens sent, as the README says
    desk.type("python createViews.py")
    assert desk.type("python pushTokens.py quickExample.txt") == "pushed 3 of 3 tokens\n"
    # Then the local example works on them, and shows what the README shows
    shown = desk.type("python local-example.py").splitlines()
    assert "Working on token: token_0" in shown
    assert "exit_code 0" in shown
    assert desk.pool.attachment("token_0", "logs_token_0.out") == b"bash-echo\n"
    # When more tokens are sent, and its line for Slurm is typed
    desk.type("python pushTokens.py quickExample.txt")
    job = desk.type("sbatch slurm-example.sh").split()[-1]
    until("the end of the array", lambda: slurm.ended(job))
    # Then the array has done them
    assert slurm.states(job) == ["COMPLETED"] * 6
    assert desk.pool.counts()["done"] == 6
    assert all(desk.pool.get(f"token_{n}")["slurm_job_id"].startswith(f"{job}_") for n in (3, 4, 5))
    # And when scrontab calls the autopilot, it starts an array for what waits, of as many cores
    desk.type("python create_views.py autopilot && python push_tokens.py autopilot")
    array = desk.type("python run_autopilot.py --design_doc MultiCore --cores 4").split()[-1]
    until("the end of its array", lambda: slurm.ended(array))
    assert desk.pool.get("token_8").state == "done"
    assert desk.pool.attachment("token_8", "logs_token_8.out") == b"4\n"


def test_the_readme_on_the_grid(desk: Desk, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        dirac = ensure_dirac()
    except DiracMissing as error:
        not_here(f"no DIRAC client: {error}")
    # Given long tokens, made and sent as the README says, of which we have time for three, in small
    desk.type("python createViews.py")
    desk.type(
        "file=$(./createTokens) && sed 's/-d [0-9]*/-d 60/' $file | head -n 3 > long.txt && python pushTokens.py long.txt"
    )
    # And the program, and the sandbox, which stands in for its two archives
    desk.type("cc src/fractals.c -o bin/fractals -lm")
    secret = tmp_path / "password"
    secret.write_text("only in its file")
    secret.chmod(0o600)
    desk.environment |= {"TOKENPOOL_POOL": desk.pool.url, "TOKENPOOL_PASSWORD_FILE": str(secret)}
    desk.type("tokenpool sandbox --output grid-sandbox --credentials")
    # When the JDL is handed in by the real client, then it finds all files, and lacks nothing but a server
    words = ["bash", "-c", "dirac-wms-job-submit fractals.jdl"]
    environment = {"PATH": f"{dirac}:{os.defpath}", "HOME": str(tmp_path)}
    said = subprocess.run(
        words, cwd=desk.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "URL for service WorkloadManagement/SandboxStore not found" in said.stdout + said.stderr
    # And when DIRAC runs a job of it here; its local mode wants all files beside the JDL
    for path in [*(desk.folder / "grid-sandbox").iterdir(), desk.folder / "bin" / "fractals"]:
        shutil.copy(path, desk.folder)
    told = ask_dirac(dirac, desk.folder, "run", desk.folder / "fractals.jdl")
    # Then the fractals are drawn
    assert told["OK"], told
    assert desk.pool.counts()["done"] == 3

"""picas' example of Snakemake on the Grid: a pilot that shares no disk with us, and a workflow whose files are on xrootd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import ok
from grid_servers import GridServer, need, xrootd
from snakemake_tools import ROOT, Workflow

from tokenpool.pool import Pool, connect

PREFIX = "root://se.example.org:1094//path/to/snakemake/files"
#: The steps of Snakemake's tutorial, with programs that every machine has.
SNAKEFILE = """
rule all:
    input: "plots/quals.svg"
rule map:
    input: "data/genome.fa", "data/samples/{sample}.fastq"
    output: "mapped_reads/{sample}.bam"
    shell: "cat {input} > {output}"
rule call:
    input: expand("mapped_reads/{sample}.bam", sample=["A", "B"])
    output: "calls/all.vcf"
    shell: "sort {input} > {output}"
rule plot:
    input: "calls/all.vcf"
    output: "plots/quals.svg"
    script: "plot-quals.py"
"""
SCRIPT = """
lines = open(snakemake.input[0]).read().split()
open(snakemake.output[0], "w").write("<svg>" + " ".join(lines) + "</svg>")
"""


@pytest.fixture(scope="module")
def storage() -> Iterator[GridServer]:
    """An xrootd that has the data of the tutorial."""
    try:
        import snakemake_storage_plugin_xrootd  # noqa: F401
    except ImportError:
        need(False, "no storage plugin: pip install snakemake-storage-plugin-xrootd")
    with xrootd() as server:
        yield server


@pytest.fixture
def data(storage: GridServer) -> Path:
    """The folder of the workflow's files on the storage, with the inputs in it."""
    folder = storage.files / "files"
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in {"genome.fa": "g\n", "samples/A.fastq": "a2\na1\n", "samples/B.fastq": "b2\nb1\n"}.items():
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / name).write_text(text)
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "nobody")
    return folder


@pytest.fixture
def pool(couch_db: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """An empty pool on a CouchDB, that of the settings."""
    monkeypatch.setenv("TOKENPOOL_POOL", couch_db)
    with connect(couch_db, create=True) as opened:
        opened.init()
        yield opened


def copied_profile(prefix: str) -> None:
    """Copy the example to where Snakemake looks for profiles, and fill it in as its comments say."""
    folder = Path(os.environ["XDG_CONFIG_HOME"], "snakemake", "picas")
    shutil.copytree(ROOT / "examples" / "profiles" / "picas", folder)
    lines = (folder / "config.yaml").read_text().replace(PREFIX, prefix).splitlines()
    wanted = ("# default-storage-", "# shared-fs-usage", "# storage-")
    text = "\n".join(line[2:] if line.startswith(wanted) else line for line in lines)
    assert text.count(prefix) == 1
    (folder / "config.yaml").write_text(text)


def write_workflow(folder: Path) -> None:
    """Write the two files of the workflow; they travel with a pilot."""
    folder.mkdir(exist_ok=True)
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "plot-quals.py").write_text(SCRIPT)


@pytest.fixture
def pilot(workflow: Workflow, pool: Pool, tmp_path: Path) -> Iterator[Path]:
    """A pilot as examples/snakemake.jdl starts it, from its sandbox, with an environment as on CVMFS; yields its log."""
    ok("sandbox", "--output", "node", "--credentials")
    write_workflow(tmp_path / "node")
    environment = {"PATH": os.environ["PATH"], "TOKENPOOL_ENVIRONMENT": sys.prefix, "PYTHON": sys.executable}
    words = ["sh", "startpilot.sh", "--cwd", ".", "--idle-timeout", "10m"]
    log = tmp_path / "said"
    with log.open("wb") as said:
        process = subprocess.Popen(words, cwd=tmp_path / "node", env=environment, stdout=said, stderr=said)
    yield log
    process.terminate()
    assert process.wait(30) == 0, log.read_text()


def snakemake_as_in_the_readme(workflow: Workflow, folder: Path) -> subprocess.CompletedProcess[str]:
    """Type the line of the README in a folder."""
    line = [sys.executable, "-m", "snakemake", "--profile", "picas", "-j", "1"]
    environment = workflow.environment
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_the_readme_of_picas_with_grid_storage(
    workflow: Workflow, pool: Pool, pilot: Path, storage: GridServer, data: Path, tmp_path: Path
) -> None:
    # Given the profile, filled in; and a pilot somewhere else
    copied_profile(f"root://localhost:{storage.port}//data/files")
    write_workflow(tmp_path / "desk")
    # When the line of the README is typed on our own machine, which has none of the data
    done = snakemake_as_in_the_readme(workflow, tmp_path / "desk")
    # Then all files of the workflow are on the storage, and it was the pilot that made them
    assert done.returncode == 0, done.stdout + done.stderr + pilot.read_text()
    made = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert made >= {"mapped_reads/A.bam", "mapped_reads/B.bam", "calls/all.vcf", "plots/quals.svg"}
    assert (data / "plots" / "quals.svg").read_text() == "<svg>a1 a2 b1 b2 g g</svg>"
    assert pool.counts() | {"done": 4, "error": 0} == pool.counts()
    # And no token names a folder of ours
    assert not [token.id for token in pool.tokens() if str(tmp_path) in str(token.doc.get("input"))]
    # And the next run finds all of it there
    again = snakemake_as_in_the_readme(workflow, tmp_path / "desk")
    assert "Nothing to be done" in again.stdout + again.stderr

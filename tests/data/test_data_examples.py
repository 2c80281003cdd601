"""The worked examples run as they stand, on servers of loopback; and tokens whose data is on the Grid or in ENA."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grid_servers as grid
import pytest
from data_servers import Server
from ena_server import ena_server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
sys.path.append(str(ROOT / "tests" / "container"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def authority(home: Path) -> grid.Authority:
    return grid.authority(home / "authority")


@pytest.fixture(scope="module")
def storage_element(authority: grid.Authority) -> Iterator[grid.GridServer]:
    with grid.xrootd(authority) as running:
        yield running


def _run(words: list[str], folder: Path, environ: Mapping[str, str], code: int = 0) -> str:
    """Run a command as a user does, and return what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        words, cwd=folder, env={**os.environ, "PATH": path, **environ}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def _expected(samples: Path, number: int) -> dict[str, int]:
    """Count again, without the pipeline."""
    genes = dict(line.split("\t") for line in _text(samples / "reference" / "genes.tsv.gz").splitlines())
    name = f"mgshot_S5810Nr{number}"
    reads = [row for side in (1, 2) for row in _text(samples / "S5810" / f"{name}.{side}.fastq.gz").splitlines()[1::4]]
    return {"reads": len(reads), **{gene: sum(word in read for read in reads) for gene, word in genes.items()}}


def _text(path: Path) -> str:
    with gzip.open(path, "rt") as file:
        return file.read()


def _check_counts(results: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    _run([sys.executable, str(EXAMPLES / "pytq-s3" / "samples.py")], tmp_path, {"OUTPUT": str(samples)})
    for number in range(1, 9):
        lines = (results / f"mgshot_S5810Nr{number}.counts").read_text().splitlines()
        assert {name: int(count) for name, count in (line.split("\t") for line in lines)} == _expected(samples, number)


@pytest.mark.parametrize("store", ["s3_moto", "s3_swift"])
def test_the_eight_samples_of_pytqs_readme(serve: Callable[[str], Server], store: str, tmp_path: Path) -> None:
    # Given a store that speaks S3, and credentials in the environment alone
    server = serve(store)
    environ = {**server.environ, "BUCKET": f"{server.url}/example-{store}"}
    # When the session runs
    out = _run([str(EXAMPLES / "pytq-s3" / "session.sh")], tmp_path, environ)
    # Then all eight are done, and their results came through the bucket
    assert len(re.findall(r"(?m)^task_\w+ +done +0 +s5810", out)) == 8
    _check_counts(tmp_path / "results", tmp_path)


def test_the_eight_samples_in_containers(
    serve: Callable[[str], Server], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Given an engine, and an image that has a shell, gzip and awk
    engines = pytest.importorskip("engines")
    try:
        engine = engines.EngineServer("docker", tmp_path_factory.mktemp("d"), engines.free_port())
        with engine:
            server = serve("s3_moto")
            environ = {**server.environ, "BUCKET": f"{server.url}/contained", "IMAGE": engines.IMAGE}
            # When the same session runs with it
            out = _run(
                [str(EXAMPLES / "pytq-s3" / "session.sh")],
                tmp_path,
                {**environ, "DOCKER_HOST": engine.url, "SLOTS": "2"},
            )
    except engines.Missing as error:
        grid.need(False, f"no docker: {error}")
    # Then nothing is different
    assert len(re.findall(r"(?m)^task_\w+ +done +0 +s5810", out)) == 8
    _check_counts(tmp_path / "results", tmp_path)


@pytest.mark.parametrize("scheme", ["root", "davs"])
def test_tokens_on_grid_storage(
    storage_element: grid.GridServer, authority: grid.Authority, scheme: str, tmp_path: Path
) -> None:
    # Given a storage element that wants a proxy, and ann's
    storage = getattr(storage_element, scheme) + f"example-{scheme}"
    environ = {**grid.grid_environ(authority, authority.proxy("ann")), "STORAGE": storage}
    # When the session runs
    out = _run([str(EXAMPLES / "grid-storage" / "session.sh")], tmp_path, environ)
    # Then the worker brought and took away, and so did the picas script
    assert out.splitlines()[:3] == ["100", "200", "300"], out
    assert re.search(r"(?m)^done +3$", out)
    files = storage_element.files / f"example-{scheme}"
    for folder, name in (("results/sample{}", "count.txt"), ("counts", "sample{}.txt")):
        counts = [int((files / folder.format(n) / name.format(n)).read_text()) for n in (1, 2, 3)]
        assert counts == [100, 200, 300]


def test_an_expired_proxy_is_the_machines_fault(
    storage_element: grid.GridServer, authority: grid.Authority, tmp_path: Path
) -> None:
    # Given a worker whose proxy ended, and a token whose input is on the Grid
    environ = grid.grid_environ(authority, authority.proxy("ann", hours=-5, name="old"))
    environ["TOKENPOOL_POOL"] = f"sqlite:///{tmp_path}/pool.db"
    (storage_element.files / "given").write_text("x")
    push = ["tokenpool", "-q", "push", "-i", f"{storage_element.davs}given", "--", "cat $INPUT/given"]
    name = _run(push, tmp_path, environ).strip()
    # When the worker tries
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    work = ["tokenpool", "work", "--max-tasks", "1", "--quit"]
    subprocess.run(work, cwd=tmp_path, env={**os.environ, "PATH": path, **environ}, capture_output=True, timeout=120)
    # Then the token says what the owner of the machine has to do
    token = json.loads(_run(["tokenpool", "--json", "show", name], tmp_path, environ))
    said = json.dumps(token)
    assert token["attempts"][-1]["failure_class"] == "system", said
    assert "expired at" in said
    assert "voms-proxy-init" in said


def test_a_wrong_checksum_of_a_run(tmp_path: Path) -> None:
    # Given an archive whose report does not fit its files
    with ena_server() as ena:
        ena.runs["SRR000001"] = {"SRR000001.fastq": b"@r\nACGT\n+\nFFFF\n"}
        ena.wrong_sums = True
        environ = _ena_settings(tmp_path, ena.url)
        name = _run(["tokenpool", "-q", "push", "-i", "run+fastq://SRR000001", "--", "true"], tmp_path, environ).strip()
        _run(["tokenpool", "-q", "work", "--quit"], tmp_path, environ)
    # Then no token ever sees them
    token = json.loads(_run(["tokenpool", "--json", "show", name], tmp_path, environ))
    assert token["attempts"][-1]["failure_class"] == "staging"
    assert "md5" in json.dumps(token).lower()


def test_a_run_of_ena_comes_to_a_token(tmp_path: Path) -> None:
    # Given PYTQ's spelling of a run with two files
    with ena_server() as ena:
        ena.runs["SRR890934"] = {f"SRR890934_{n}.fastq": b"@r\nACGT\n+\nFFFF\n" * n for n in (1, 2)}
        environ = _ena_settings(tmp_path, ena.url)
        push = ["tokenpool", "-q", "push", "-i", "run+fastq/SRR890934/", "--", "wc -l $INPUT/*.fastq | sort"]
        name = _run(push, tmp_path, environ).strip()
        _run(["tokenpool", "-q", "work", "--quit"], tmp_path, environ)
    # Then the command finds both
    lines = _run(["tokenpool", "logs", name], tmp_path, environ).split()
    assert [int(lines[0]), int(lines[2]), int(lines[4])] == [4, 8, 12]


def _ena_settings(folder: Path, url: str) -> dict[str, str]:
    (folder / "tokenpool.toml").write_text(f'[storage."run+fastq://"]\nbase_url = "{url}"\nscheme = "http"\n')
    return {"TOKENPOOL_POOL": f"sqlite:///{folder}/pool.db"}

"""What the tests of launchers share: a real Slurm, and a pool with workers that note what they run."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from couch_server import Unavailable

sys.path += [str(Path(__file__).resolve().parents[1] / name) for name in ("acceptance", "chaos")]

from condor_server import Condor
from history import History
from slurm_server import Slurm

from tokenpool.pool import Pool, connect


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Slurm]:
    """A Slurm of one node with four CPUs, for all tests."""
    # Sockets have short names.
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:
        try:
            cluster = Slurm(Path(folder) / "s", accounting=True)
        except Unavailable as error:
            if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
                pytest.fail(f"no Slurm: {error}", pytrace=False)
            pytest.skip(f"no Slurm: {error}")
        with cluster:
            yield cluster


@pytest.fixture(scope="session")
def condor_pool() -> Iterator[Condor]:
    """HTCondor's own pool of one machine with two CPUs, for all tests."""
    # Jobs run as another user: pytest's own folders are closed to it.
    with tempfile.TemporaryDirectory(prefix="condor-", dir="/tmp") as folder:
        try:
            server = Condor(Path(folder) / "pool")
        except Unavailable as error:
            if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
                pytest.fail(f"no HTCondor: {error}", pytrace=False)
            pytest.skip(f"no HTCondor: {error}")
        with server:
            yield server


@pytest.fixture
def condor(condor_pool: Condor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Condor]:
    """The pool without any jobs, as the machine's own: its commands are on PATH, and we are where its jobs can be."""
    monkeypatch.setenv("PATH", f"{condor_pool.path}:{os.environ['PATH']}")
    monkeypatch.chdir(condor_pool.desk)
    yield condor_pool
    condor_pool.clear()


@pytest.fixture
def slurm(slurm_cluster: Slurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Slurm]:
    """The cluster without any jobs, as the machine's own: its commands are on PATH."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, slurm_cluster.environment[name])
    yield slurm_cluster
    slurm_cluster.clear()


@pytest.fixture
def pool(couch_db: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """An empty pool on a CouchDB, which all calls of the command line use."""
    monkeypatch.setenv("TOKENPOOL_POOL", couch_db)
    with connect(couch_db, create=True) as opened:
        opened.init()
        yield opened


@pytest.fixture
def history(tmp_path: Path) -> History:
    """The record of this test's tokens."""
    return History(tmp_path / "history")

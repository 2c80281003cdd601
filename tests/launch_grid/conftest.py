"""What the tests of the Grid share: a sandbox, a pool on a CouchDB with a password, a computing element."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from couch_server import Couch, CouchServer, Unavailable

sys.path += [str(Path(__file__).resolve().parents[1] / name) for name in ("acceptance",)]

from arc_server import ArcMissing, ArcServer
from clean_room import pythons_at_hand
from grid_needs import not_here

from tokenpool.pool import Pool, connect
from tokenpool.sandbox import build


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tokenpool sandbox` builds, compiled for all Pythons of this machine."""
    folder = tmp_path_factory.mktemp("built") / "sandbox"
    build(folder, [str(path) for path in pythons_at_hand().values()])
    return folder


@pytest.fixture(scope="session")
def guarded_couch() -> Iterator[Couch]:
    """A CouchDB that asks for a password."""
    try:
        server = CouchServer(admin=("pilot", "only in its file"))
    except Unavailable as error:
        not_here(f"no CouchDB server: {error}")
    with server:
        yield server


@pytest.fixture
def grid_pool(
    request: pytest.FixtureRequest, guarded_couch: Couch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Pool]:
    """An empty pool; its password is in a file, which the settings name, and nowhere else."""
    url = guarded_couch.create_database(request.node.name)
    parts = urlsplit(url.partition("+")[2])
    secret = tmp_path / "password"
    secret.write_text(guarded_couch.password)
    secret.chmod(0o600)
    monkeypatch.setenv("TOKENPOOL_POOL", f"couchdb+http://{parts.username}@{parts.hostname}:{parts.port}{parts.path}")
    monkeypatch.setenv("TOKENPOOL_PASSWORD_FILE", str(secret))
    with connect(os.environ["TOKENPOOL_POOL"], create=True) as pool:
        pool.init()
        yield pool
    guarded_couch.delete_database(url)


@pytest.fixture(scope="session")
def computing_element(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    """A computing element of the Grid."""
    # Jobs run as another user: pytest's own folders are closed to it.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="arc-", dir="/tmp") as folder:
        try:
            server = ArcServer(Path(folder) / "ce")
        except ArcMissing as error:
            not_here(f"no computing element: {error}")
        os.chmod(folder, 0o755)
        yield server
        server.stop()


@pytest.fixture
def arc(computing_element: ArcServer, monkeypatch: pytest.MonkeyPatch) -> ArcServer:
    """The computing element, with a proxy of somebody it knows."""
    for name, value in computing_element.environment.items():
        if name != "HOME":  # each test has its own, and so its own list of jobs
            monkeypatch.setenv(name, value)
    return computing_element

"""What the tests of cloud machines share: a real OpenStack, a pool, and what its machines find in their image."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from couch_server import Couch, CouchServer, Unavailable

sys.path += [str(Path(__file__).resolve().parents[1] / name) for name in ("acceptance",)]

from cut_line import CutLine
from openstack_config import POOL_PASSWORD
from openstack_server import OpenStack

from tokenpool.pool import Pool, connect
from tokenpool.sandbox import build


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="session")
def openstack() -> Iterator[OpenStack]:
    """An OpenStack of one region whose machines are pretended, for all tests."""
    with tempfile.TemporaryDirectory(prefix="openstack-", dir="/tmp") as folder:
        try:
            cloud = OpenStack(Path(folder) / "o", free_ports)
        except Unavailable as error:
            if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
                pytest.fail(f"no OpenStack: {error}", pytrace=False)
            pytest.skip(f"no OpenStack: {error}")
        with cloud:
            yield cloud


@pytest.fixture(scope="session")
def second_line(openstack: OpenStack) -> Iterator[CutLine]:
    """The region `There`: the same cloud, by a line that can be cut."""
    with CutLine(f"http://127.0.0.1:{openstack.ports['nova']}") as line:
        openstack.add_region("There", line.url)
        yield line


@pytest.fixture
def pool(couch_db: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """An empty pool on a CouchDB, which all calls of the command line use."""
    monkeypatch.setenv("TOKENPOOL_POOL", couch_db)
    with connect(couch_db, create=True) as opened:
        opened.init()
        yield opened


@pytest.fixture(scope="session")
def guarded_couch() -> Iterator[Couch]:
    """A CouchDB that asks for a password."""
    try:
        server = CouchServer(admin=("pilot", POOL_PASSWORD))
    except Unavailable as error:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail(f"no CouchDB server: {error}", pytrace=False)
        pytest.skip(f"no CouchDB server: {error}")
    with server:
        yield server


@pytest.fixture
def guarded_pool(
    guarded_couch: Couch, cloud: OpenStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pool]:
    """An empty pool in place of the other; its password is in a file, which the settings name, and nowhere else."""
    url = guarded_couch.create_database("guarded")
    parts = urlsplit(url.partition("+")[2])
    (tmp_path / "password").write_text(f"{POOL_PASSWORD}\n")
    monkeypatch.setenv("TOKENPOOL_POOL", f"couchdb+http://pilot@{parts.hostname}:{parts.port}{parts.path}")
    monkeypatch.setenv("TOKENPOOL_PASSWORD_FILE", str(tmp_path / "password"))
    with connect(os.environ["TOKENPOOL_POOL"], create=True) as opened:
        opened.init()
        yield opened


@pytest.fixture
def cloud(openstack: OpenStack, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenStack]:
    """The OpenStack without any machines; the environment says how it is reached."""
    for name in [name for name in os.environ if name.startswith(("OS_", "AWS_"))]:
        monkeypatch.delenv(name)
    for name, value in openstack.environment().items():
        monkeypatch.setenv(name, value)
    openstack.clear()
    yield openstack
    openstack.clear()


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenpool in one file, for an image that has nothing but Python."""
    folder = tmp_path_factory.mktemp("built") / "sandbox"
    build(folder)
    return folder

"""Servers over both backends, and clients of every role."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from server_parts import People, Server, log_in, make_people, serving

from tokenpool.pool import Pool, connect

if TYPE_CHECKING:
    from starlette.testclient import TestClient

NEEDED = ("fastapi", "uvicorn", "jinja2", "python_multipart", "httpx")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

collect_ignore_glob: list[str] = []
if MISSING and os.environ.get("TOKENPOOL_REQUIRE_ALL") != "1":
    collect_ignore_glob.append("test_*.py")


#: Files of tests that need more.
MORE = {
    "test_tes_client.py": ("tes",),
    "test_tes_containers.py": ("tes", "docker"),
    "test_tes_schema.py": ("schemathesis",),
}
LEFT_OUT = {
    file: lacks for file, names in MORE.items() if (lacks := [n for n in names if not importlib.util.find_spec(n)])
}
collect_ignore = [] if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1" else list(LEFT_OUT)


def pytest_report_collectionfinish() -> list[str]:
    whole = [f"the server's tests were left out: {', '.join(MISSING)} missing"] if collect_ignore_glob else []
    return whole or [f"{file} was left out: {', '.join(LEFT_OUT[file])} missing" for file in collect_ignore]


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    """An empty pool of each backend in turn."""
    with connect(pool_url, create=True) as made:
        yield made


@pytest.fixture
def sqlite_pool(sqlite_url: str) -> Iterator[Pool]:
    """An empty pool in a file, for what does not depend on the backend."""
    with connect(sqlite_url, create=True) as made:
        yield made


@pytest.fixture
def pool_with_tokens(sqlite_pool: Pool) -> Pool:
    """A pool that has something to lose."""
    sqlite_pool.push(["echo one", {"_id": "nothing", "input": "echo two", "batch": "nothing"}])
    return sqlite_pool


@pytest.fixture(scope="session")
def all_people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """People of every role, made once: their hashes are slow on purpose."""
    return make_people(tmp_path_factory.mktemp("people") / "users.json")


@pytest.fixture
def people(all_people: People, tmp_path: Path) -> People:
    """A file of people that the test may change."""
    own = tmp_path.with_name(f"{tmp_path.name}-home") / "users.json"
    shutil.copy2(all_people.file, own)
    return People(own, all_people.tokens)


Serve = Callable[..., "TestClient"]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a pool inside this process: ``serve(pool, users=people.file, …)`` gives a client of it."""
    TestClient = client_class()
    from tokenpool.web.app import make_app
    from tokenpool.web.options import WebOptions

    open_ones: list[TestClient] = []

    def started(pool: Pool, **options: Any) -> TestClient:
        root = options.get("root_path", "")
        app = make_app(pool, WebOptions(**options))
        client = TestClient(app, f"http://127.0.0.1:8080{root}/", follow_redirects=False, raise_server_exceptions=False)
        client.__enter__()
        open_ones.append(client)
        return client

    yield started
    for client in open_ones:
        client.__exit__(None, None, None)


@pytest.fixture
def client(pool: Pool, serve: Serve) -> TestClient:
    """A client of a server that is open, over each backend in turn."""
    return serve(pool)


@pytest.fixture
def as_role(sqlite_pool: Pool, serve: Serve, people: People) -> Callable[[str], TestClient]:
    """Return what gives a client of one server that sends the API token of a role; of a file, so quick."""
    first = serve(sqlite_pool, users=people.file)

    def client_of(role: str) -> TestClient:
        return another(first, people.bearer(role) if role else {})

    return client_of


@pytest.fixture
def logged_in(sqlite_pool: Pool, serve: Serve, people: People) -> Callable[[str], TestClient]:
    """Return what gives a client of one server that has logged in with the password of a role, as a browser does."""
    first = serve(sqlite_pool, users=people.file)

    def client_of(role: str) -> TestClient:
        client = another(first, {})
        log_in(client, role)
        return client

    return client_of


def client_class() -> type[TestClient]:
    """Return Starlette's client; newer ones ask for another library than httpx, and still work with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    return TestClient


def another(client: TestClient, headers: dict[str, str]) -> TestClient:
    """Return a client of the same server with cookies and headers of its own; it lives as long as the first."""
    other = client_class()(client.app, str(client.base_url), follow_redirects=False, raise_server_exceptions=False)
    other.portal = client.portal
    other.headers.update(headers)
    return other


@pytest.fixture
def server(pool_url: str) -> Iterator[Server]:
    """A real process over each backend in turn, open as it is on loopback."""
    with connect(pool_url, create=True):
        pass
    with serving(pool_url) as running:
        yield running

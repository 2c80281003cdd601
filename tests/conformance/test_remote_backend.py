"""The conformance suite through a server: `tokenpool+http://`, a process of its own, over SQLite and over CouchDB."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest
from served_pools import ServedPools, served_pools

from tokenpool.backends import open_backend
from tokenpool.backends.base import Backend
from tokenpool.testing.backends import BackendTests

MISSING = [name for name in ("fastapi", "uvicorn", "jinja2") if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def servers() -> Iterator[ServedPools]:
    """A process that serves the pools of all tests."""
    if MISSING:
        reason = f"no server: {', '.join(MISSING)} missing"
        pytest.fail(reason) if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1" else pytest.skip(reason)
    with served_pools() as running:
        yield running


class RemoteTests(BackendTests):
    """Every sentence of the interface, with a server in between."""

    @pytest.fixture
    def stored(self) -> str:
        """The URL of the pool as the server opens it."""
        raise NotImplementedError

    @pytest.fixture
    def backend(self, stored: str, servers: ServedPools) -> Iterator[Backend]:
        with open_backend(servers.serve(stored)) as backend:
            yield backend

    def reopen(self, backend: Backend) -> Backend:
        return open_backend(backend.url)


class TestRemoteSQLite(RemoteTests):
    @pytest.fixture
    def stored(self, sqlite_url: str) -> str:
        return sqlite_url


class TestRemoteCouchDB(RemoteTests):
    @pytest.fixture
    def stored(self, couch_db: str) -> str:
        return couch_db

    # pouchdb-server ignores `startkey_docid`, and answers 500 to data that is not base64.

    @pytest.mark.real_couchdb
    def test_a_page_begins_where_the_last_one_ended(self, pool: Backend) -> None:
        super().test_a_page_begins_where_the_last_one_ended(pool)

    @pytest.mark.real_couchdb
    def test_data_that_is_not_base64_is_refused_alone(self, pool: Backend) -> None:
        super().test_data_that_is_not_base64_is_refused_alone(pool)

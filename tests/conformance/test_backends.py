"""The conformance suite on each backend that comes with the package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tokenpool.backends import open_backend
from tokenpool.backends.base import Backend
from tokenpool.testing.backends import BackendTests


class TestSQLite(BackendTests):
    @pytest.fixture
    def backend(self, sqlite_url: str) -> Iterator[Backend]:
        with open_backend(sqlite_url, create=True) as backend:
            yield backend

    def reopen(self, backend: Backend) -> Backend:
        return open_backend(backend.url)


class TestCouchDB(BackendTests):
    @pytest.fixture
    def backend(self, couch_db: str) -> Iterator[Backend]:
        # The URL holds the password, which a backend never repeats.
        self._pool_url = couch_db
        with open_backend(couch_db) as backend:
            yield backend

    def reopen(self, backend: Backend) -> Backend:
        return open_backend(self._pool_url)

    # pouchdb-server ignores `startkey_docid`, and answers 500 to data that is not base64.

    @pytest.mark.real_couchdb
    def test_a_page_begins_where_the_last_one_ended(self, pool: Backend) -> None:
        super().test_a_page_begins_where_the_last_one_ended(pool)

    @pytest.mark.real_couchdb
    def test_data_that_is_not_base64_is_refused_alone(self, pool: Backend) -> None:
        super().test_data_that_is_not_base64_is_refused_alone(pool)

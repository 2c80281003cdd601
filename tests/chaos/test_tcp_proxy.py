"""The proxy itself can be relied on: without faults it changes nothing, and each fault is what its name says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
import urllib3
from couch_server import Couch, raw_couch
from tcp_proxy import BUSY, CUT, DROPPED, ERROR, FAULTS, GATEWAY, HANG, LATE, REFUSE, RESET, SLOW, TRICKLE, TcpProxy
from urllib3.exceptions import HTTPError

from tokenpool.backends import open_backend
from tokenpool.backends.base import Backend
from tokenpool.testing.backends import BackendTests


@pytest.fixture
def proxy(couch_server: Couch) -> Iterator[TcpProxy]:
    with TcpProxy(couch_server.url, stall=0.2) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: TcpProxy, couch_db: str) -> Iterator[Far]:
    far = Far(proxy, couch_db)
    yield far
    far.http.clear()


class Far:
    """A client behind the proxy, which asks once and takes what comes."""

    def __init__(self, proxy: TcpProxy, pool_url: str) -> None:
        self.path = f"/{raw_couch(pool_url).name}"
        self.http = urllib3.PoolManager(retries=False, timeout=5)
        self.proxy = proxy
        self.base = proxy.url
        account, _, host = proxy.url.partition("://")[2].rpartition("@")
        self.base = f"http://{host}"
        self.headers = urllib3.make_headers(basic_auth=account) if account else {}

    def put(self, doc_id: str) -> int:
        body = json.dumps({"text": "x" * 1000}).encode()
        headers = {**self.headers, "Content-Type": "application/json"}
        return self.http.request("PUT", f"{self.base}{self.path}/{doc_id}", body=body, headers=headers).status


class TestThroughTheProxy(BackendTests):
    """The conformance suite of backends, behind a proxy that does nothing."""

    @pytest.fixture
    def backend(self, proxy: TcpProxy, couch_db: str) -> Iterator[Backend]:
        self._pool_url = proxy.pool_url(couch_db)
        with open_backend(self._pool_url) as backend:
            yield backend
        assert proxy.requests > 0
        assert not proxy.met

    def reopen(self, backend: Backend) -> Backend:
        return open_backend(self._pool_url)

    # As in the conformance tests of CouchDB itself: pouchdb-server cannot do these.

    @pytest.mark.real_couchdb
    def test_a_page_begins_where_the_last_one_ended(self, pool: Backend) -> None:
        super().test_a_page_begins_where_the_last_one_ended(pool)

    @pytest.mark.real_couchdb
    def test_data_that_is_not_base64_is_refused_alone(self, pool: Backend) -> None:
        super().test_data_that_is_not_base64_is_refused_alone(pool)


APPLIED = {DROPPED, CUT, GATEWAY, SLOW, TRICKLE, LATE}
ANSWERED = {LATE, SLOW, TRICKLE}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_does_what_it_says(far: Far, couch_server: Couch, fault: str) -> None:
    # Given a proxy that fails in one way only, and always
    far.proxy.kinds, far.proxy.share = (fault,), 1.0
    # When a document is written through it
    try:
        status = far.put("a")
    except HTTPError:
        status = 0
    # Then the server has it or has it not, and the client has an answer, a page of somebody else's, or nothing
    there = couch_server.call("GET", f"{far.path}/a")[0] == 200
    assert there == (fault in APPLIED)
    if fault in ANSWERED:
        assert status == 201
    elif fault in (ERROR, BUSY, GATEWAY):
        assert status in {ERROR: (500, 502, 503), BUSY: (429,), GATEWAY: (504,)}[fault]
    else:
        assert fault in (RESET, DROPPED, CUT)
        assert status == 0
    assert far.proxy.met == {fault: far.proxy.requests}


def test_a_share_of_requests_meets_faults_and_the_seed_repeats_them(couch_server: Couch) -> None:
    chosen = []
    for _ in range(2):
        proxy = TcpProxy(couch_server.url, seed=3)
        proxy.share = 0.2
        chosen.append([proxy._choose() for _ in range(1000)])
        with proxy:
            pass
    assert chosen[0] == chosen[1]
    assert 150 < sum(map(bool, chosen[0])) < 250
    assert set(chosen[0]) == {"", *FAULTS}


def test_what_hangs_in_a_partition_arrives_late(far: Far, couch_server: Couch) -> None:
    # Given a partition, and a write that was sent into it
    assert far.put("before") == 201
    with far.proxy.partition(HANG):
        with pytest.raises(HTTPError):
            far.http.request("PUT", f"{far.base}{far.path}/late", body=b"{}", headers=far.headers, timeout=0.3)
        assert couch_server.call("GET", f"{far.path}/late")[0] == 404
        told: list[int] = []
        patient = threading.Thread(target=lambda: told.append(far.put("patient")))
        patient.start()
    # When it ends, then a client that waited has its answer, and the write of the one that did not arrives too
    patient.join(20)
    assert told == [201]
    while couch_server.call("GET", f"{far.path}/late")[0] != 200:
        assert patient.ident  # ends with the test's own time limit
    assert far.put("after") == 201


def test_what_was_lost_in_a_partition_never_arrives(far: Far, couch_server: Couch) -> None:
    with far.proxy.partition(HANG, late=False), pytest.raises(HTTPError):
        far.http.request("PUT", f"{far.base}{far.path}/lost", body=b"{}", headers=far.headers, timeout=0.3)
    assert far.put("after") == 201
    assert couch_server.call("GET", f"{far.path}/lost")[0] == 404


def test_nobody_is_there_while_connections_are_refused(far: Far) -> None:
    assert far.put("before") == 201
    with far.proxy.partition(REFUSE), pytest.raises(HTTPError):
        far.put("during")
    assert far.put("after") == 201

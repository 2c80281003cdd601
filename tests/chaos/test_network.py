"""R4 and the late claim: a network that loses, cuts, delays and garbles what workers and server tell each other."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest
from couch_server import Couch, raw_couch
from faulty_proxy import Fault, FaultyProxy
from figures import Figures
from fleet import Fleet
from history import History
from scale import LEASE, PATIENCE, Scale
from tcp_proxy import FAULTS, HANG, TcpProxy
from waits import all_ended, leases, renewed, wait_for, worker_docs

from tokenpool.pool import Pool

Judge = Callable[..., Figures]

#: A fifth of all requests; the longest stall in seconds, and the lease here, which no stall may end.
SHARE, STALL, LONG_LEASE = 0.2, 2.0, 15.0
LEAST_REQUESTS = 1000


@pytest.fixture
def pool_url(couch_db: str) -> str:
    """A pool with a network before it."""
    return couch_db


def test_a_fifth_of_all_requests_fails(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, couch_server: Couch, scale: Scale, dice: random.Random
) -> None:
    with TcpProxy(couch_server.url, seed=dice.randrange(1 << 32), stall=STALL) as proxy:
        # Given four workers behind a network in which every fifth request meets a fault of some kind
        far = proxy.pool_url(fleet.url, timeout=5)
        proxy.share = SHARE
        fleet.start(4, url=far, lease=f"{LONG_LEASE:g}s")
        ids = pool.push(history.tokens(scale.tokens))
        began = time.monotonic()
        all_ended(pool, len(ids), scale.patience)
        # When they work until a thousand requests have been sent
        while proxy.requests < LEAST_REQUESTS or time.monotonic() - began < scale.seconds:
            ids += pool.push(history.tokens(50, name=f"r{len(ids):05}-"))
            all_ended(pool, len(ids), scale.patience)
        # Then every token is done, and none ran twice: no claim was orphaned, no answer cost a result
        proxy.share = 0.0
        fleet.nobody_left()
        fleet.leave()
        met = sum(proxy.met.values())
        figures = judge(
            fleet, pool, ids, notes=f"{met} of {proxy.requests} requests met {len(proxy.met)} kinds of faults"
        )
        assert pool.counts()["done"] == len(ids)
        assert set(proxy.met) == set(FAULTS)
        assert met >= 0.8 * SHARE * LEAST_REQUESTS
        assert figures.reruns == 0


def test_an_outage_that_ends_for_one_worker_first(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, couch_server: Couch
) -> None:
    # Given two workers that both cannot reach the server for longer than their leases, without a word of refusal
    with TcpProxy(couch_server.url) as first, TcpProxy(couch_server.url) as second:
        ids = pool.push(history.tokens(2, gate="go", long_each=0))
        fleet.start(url=first.pool_url(fleet.url), slots=2)
        wait_for(lambda: len(history.runs()) == 2, "the first one runs both")
        fleet.start(url=second.pool_url(fleet.url), slots=2)
        more = pool.push(history.tokens(2, name="more", gate="go", long_each=0))
        wait_for(lambda: len(history.runs()) == 4, "the second one runs the others")
        leases(pool, 1)  # each has seen the other for a while
        with first.partition(HANG):
            with second.partition(HANG):
                time.sleep(2 * LEASE)
            before = worker_docs(pool)
            # When the second one is back first: what it saw of the other before the outage does not count
            wait_for(lambda: renewed(before, worker_docs(pool)), "the second one renews its lease")
        # Then the other, who is back within a lease of that, has lost nothing
        leases(pool)
        assert len(history.runs()) == 4
        history.open_gate("go")
        all_ended(pool, 4)
        fleet.nobody_left()
        fleet.leave()
        figures = judge(fleet, pool, [*ids, *more])
        assert figures.reruns == 0


# --- a claim that arrives when nobody waits for it any more --------------------------------------------------------------


@pytest.fixture
def slow(couch_server: Couch) -> Iterator[FaultyProxy]:
    """A proxy that can keep one request back."""
    with FaultyProxy(couch_server.url) as proxy:
        yield proxy


def behind(slow: FaultyProxy, fleet: Fleet) -> str:
    """Return the pool's URL behind it, for a worker that soon gives up on an answer."""
    return slow.pool_url(raw_couch(fleet.url).name) + "?timeout=1"


def test_a_late_claim_is_given_back(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, slow: FaultyProxy
) -> None:
    # Given a worker that is busy, so that it has a lease, and a token: its first claim hangs, later ones get lost
    (busy,) = pool.push(history.tokens(1, name="busy", gate="go", long_each=0))
    fleet.start(url=behind(slow, fleet), slots=2)
    wait_for(lambda: len(history.runs()) == 1, "the worker is busy")
    held = slow.hold("POST", "/_bulk_docs$", body=b'"late0000"')
    lost = slow.drop_request("POST", "/_bulk_docs$", times=1 << 30, body=b'"late0000"')
    (late,) = pool.push(history.tokens(1, name="late", long_each=0))
    assert held.met.wait(PATIENCE)
    assert lost.met.wait(PATIENCE), "the worker did not give up on the first claim"
    # When the first claim arrives after all: the token is locked in the name of a worker that knows nothing of it
    claimed = lands(pool, held, late)
    lost.times = 0
    # Then it is given back, uncounted, and runs: once
    all_ended(pool, 1)
    history.open_gate("go")
    all_ended(pool, 2)
    fleet.nobody_left()
    fleet.leave()
    (run,) = history.of(late)
    judge(fleet, pool, [busy, late], notes=f"{lost.hits} claims were lost")
    assert run.claim != claimed
    assert not any(attempt["counted"] for attempt in pool.get(late)["attempts"] if attempt["claim"] == claimed)
    assert pool.counts()["done"] == 2


def lands(pool: Pool, held: Fault, token: str) -> str:
    """Let a claim go that was held, and return its name once the pool has it."""
    held.release.set()
    wait_for(lambda: pool.get(token).state == "locked", "the late claim is there", 20)
    return str(pool.get(token)["lease"]["claim"])


def test_a_late_claim_of_a_token_that_another_took_does_nothing(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, slow: FaultyProxy
) -> None:
    # Given a claim that hangs in the network, and a worker that gave up on it
    (token,) = pool.push(history.tokens(1, gate="go", long_each=0))
    held = slow.hold("POST", "/_bulk_docs$", times=1 << 30, body=b'"t0000"')
    late = fleet.start(url=behind(slow, fleet))
    assert held.met.wait(PATIENCE)
    # When another worker takes the token, and then the first claim arrives
    fleet.start()
    wait_for(lambda: len(history.runs()) == 1, "the other one runs it")
    now = pool.get(token)
    asked = len(slow.requests)
    held.release.set()
    wait_for(lambda: len(slow.requests) > asked + 3, "the first one goes on")
    fleet.nobody_left(but=[late])
    history.open_gate("go")
    all_ended(pool, 1)
    # Then the token ran once, under the claim that won
    fleet.leave()
    figures = judge(fleet, pool, [token])
    assert figures.reruns == 0
    assert [run.claim for run in history.runs()] == [now["lease"]["claim"]]


def test_a_late_claim_of_a_worker_that_is_gone_comes_back(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, slow: FaultyProxy
) -> None:
    # Given a claim that hangs in the network, and whose worker dies
    (token,) = pool.push(history.tokens(1, long_each=0))
    held = slow.hold("POST", "/_bulk_docs$", times=1 << 30, body=b'"t0000"')
    worker = fleet.start(url=behind(slow, fleet))
    assert held.met.wait(PATIENCE)
    fleet.kill(worker)
    # When it arrives: a token that is locked for somebody whom nobody knows
    claimed = lands(pool, held, token)
    # Then whoever comes next brings it back within two leases, and runs it
    fleet.start()
    took = all_ended(pool, 1, 2 * LEASE + 10)
    fleet.leave()
    assert claimed not in {run.claim for run in history.runs()}
    judge(fleet, pool, [token], notes=f"back and done after {took:.1f}s")
    assert pool.counts()["done"] == 1

"""R3: a server that is killed, away or frozen costs nothing: nobody is reaped, no worker leaves, nothing runs twice."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest
from couch_server import Unavailable
from figures import Figures
from fleet import Fleet
from history import History
from scale import LEASE, Scale
from server import KeptServer
from waits import all_ended, leases, runs_ended, wait_for

from tokenpool.pool import Pool

Judge = Callable[..., Figures]


@pytest.fixture
def server() -> Iterator[KeptServer]:
    """A server that keeps its data; the real CouchDB, where there is one, belongs to others too."""
    try:
        found = KeptServer()
    except Unavailable as error:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    with found:
        yield found
        assert found.crashes() == []


@pytest.fixture
def pool_url(server: KeptServer) -> str:
    """A pool on that server; it goes with it."""
    return server.create_database("restarts")


def test_a_server_killed_at_random(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, server: KeptServer, scale: Scale, dice: random.Random
) -> None:
    # Given four workers amid many short tokens
    restarts = scale.kills // 2
    ids = pool.push(history.tokens(scale.tokens))
    fleet.start(4)
    wait_for(lambda: len({run.worker for run in history.runs()}) == 4, "all workers have begun")
    # When the server is killed again and again, at any moment, and is back after up to a lease
    for number in range(restarts):
        ended = 0.9 * scale.tokens * number / restarts
        runs_ended(history, int(ended), scale.patience)
        server.kill()
        time.sleep(dice.uniform(0, LEASE))
        server.start()
    all_ended(pool, scale.tokens, scale.patience)
    # Then no worker has left, and nothing ran twice: only the server was harmed
    fleet.nobody_left()
    fleet.leave()
    figures = judge(fleet, pool, ids, notes=f"{server.restarts} restarts of the server")
    assert pool.counts()["done"] == scale.tokens
    assert (server.restarts, figures.reruns) == (restarts, 0)


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_away_for_three_leases(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, server: KeptServer, how: str
) -> None:
    # Given two workers with tokens that end while the server is away, and some that do not
    short = pool.push(history.tokens(4, name="short", seconds=LEASE))
    long = pool.push(history.tokens(4, name="long", gate="go"))
    fleet.start(2, slots=4)
    wait_for(lambda: len(history.runs()) == 8, "all tokens run")
    # When it is away for three leases: dead, or alive and silent
    server.kill() if how == "killed" else server.freeze()
    away = time.monotonic()
    wait_for(lambda: history.ended() == 4, "the short ones end")
    wait_for(lambda: time.monotonic() - away > 3 * LEASE, "three leases pass")
    server.start() if how == "killed" else server.thaw()
    # Then what ended meanwhile is delivered, and nobody was reaped: the others still run, for the first time
    all_ended(pool, 4)
    leases(pool)
    assert len(history.runs()) == 8
    history.open_gate("go")
    all_ended(pool, 8)
    fleet.nobody_left()
    fleet.leave()
    figures = judge(fleet, pool, [*short, *long])
    assert (pool.counts()["done"], figures.reruns) == (8, 0)

"""R12: picas 1.1.2 in the same fleet: it damages nothing, and what it holds is its own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from couch_server import Unavailable
from figures import Figures
from fleet import Fleet
from history import PICAS, History
from picas_venv import picas_python
from pilots import Pilots
from processes import alive
from scale import LEASE, Scale
from waits import all_ended, leases, runs_started, wait_for

from tokenpool.pool import Pool

Judge = Callable[..., Figures]


@pytest.fixture
def pool_url(couch_db: str) -> str:
    """picas knows no other."""
    return couch_db


@pytest.fixture
def pilots(pool_url: str, pool: Pool, tmp_path: Path) -> Iterator[Pilots]:
    """Pilots of the real picas."""
    try:
        python = picas_python()
    except Unavailable as error:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    with Pilots(python, pool_url, tmp_path / "pilots") as pilots:
        yield pilots


def test_a_mixed_fleet_with_kills(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, pilots: Pilots, scale: Scale, dice: random.Random
) -> None:
    # Given three pilots of picas and three workers of ours amid many short tokens
    count, kills = scale.tokens // 2, scale.kills // 2
    tokens = history.tokens(count)
    ids = pool.push({**token, "note": "mine"} for token in tokens)
    for _ in range(3):
        pilots.start()
    spared = fleet.start()
    fleet.start(2)
    # When ours are killed again and again
    for number in range(kills):
        started = 0.7 * count * (number + 1) / kills
        runs_started(history, int(started), scale.patience)
        victim = dice.choice([member for member in fleet.living if member is not spared])
        fleet.kill(victim)
        fleet.again(victim)
    all_ended(pool, count, scale.patience)
    # Then all are done, each as it was pushed, with the logs of whoever ran it, and only picas ever ran one twice
    pilots.end()
    fleet.nobody_left()
    fleet.leave()
    theirs = {run.token for run in history.runs() if run.claim == PICAS}
    judge(fleet, pool, ids, notes=f"{len(theirs)} by picas")
    assert pool.counts()["done"] == count
    for token in tokens:
        doc = pool.get(token["_id"])
        assert (doc["input"], doc["note"], doc["type"]) == (token["input"], "mine", "token")
        if doc.get("output") == {"by": "picas"}:
            assert pool.attachment(doc.id, f"logs_{doc.id}.out") == history.log(doc.id, PICAS, "out")
    assert theirs
    assert theirs != set(ids)


def test_what_picas_holds_is_never_reaped(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, pilots: Pilots
) -> None:
    # Given tokens that picas runs for longer than any lease
    ids = pool.push(history.tokens(2, gate="go", long_each=0))
    pilots.start()
    pilots.start()
    wait_for(lambda: len(history.runs()) == 2, "picas runs both")
    held = [dict(pool.get(each).doc) for each in ids]
    # When our workers come, work, and look after the pool for more than two leases
    fleet.start(2, slots=4)
    more = pool.push(history.tokens(4, name="more", gate="go", long_each=0))
    wait_for(lambda: len(history.runs()) == 6, "ours run the others")
    leases(pool)
    # Then what picas holds is as it was, to the byte
    assert [dict(pool.get(each).doc) for each in ids] == held
    history.open_gate("go")
    all_ended(pool, 6)
    pilots.end()
    fleet.leave()
    judge(fleet, pool, [*ids, *more])
    assert {run.claim == PICAS for run in history.runs() if run.token in ids} == {True}


def test_what_picas_holds_comes_back_only_where_somebody_asked_for_it(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, pilots: Pilots
) -> None:
    # Given a token of a pilot that died: picas itself leaves it locked for ever
    (token,) = pool.push(history.tokens(1, gate="go", long_each=0))
    pilot = pilots.start()
    wait_for(lambda: history.runs(), "picas runs it")
    pilot.kill()
    pilot.wait()
    history.open_gate("go")
    # When a worker was told to take over what picas has held for so long
    fleet.start(adopt_picas_after=f"{LEASE:g}s")
    took = all_ended(pool, 1, 3 * LEASE + 20)
    # Then it is run by us
    fleet.leave()
    judge(fleet, pool, [token], notes=f"taken over and done after {took:.1f}s")
    assert history.runs()[-1].claim != PICAS
    assert pool.get(token).state == "done"


def test_a_pilot_that_overwrites_a_lock(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, pilots: Pilots, tmp_path: Path
) -> None:
    # Given a pilot that has seen a waiting token, and a worker of ours that claims and runs it before the pilot reads it
    (token,) = pool.push(history.tokens(1, gate="go", long_each=0))
    looked, go = tmp_path / "looked", tmp_path / "go"
    pilots.start(looked, go)
    wait_for(looked.exists, "the pilot looks")
    fleet.start()
    wait_for(lambda: history.runs(), "ours runs it")
    (ours,) = history.runs()
    second = pool.get(token)["lock"]
    wait_for(
        lambda: pool.backend.now() > second + 1, "a second passes: a lock of the same second and host is the same lock"
    )
    # When the pilot goes on: it takes the token without a look at its lock
    go.touch()
    wait_for(lambda: len(history.runs()) == 2, "the pilot runs it too")
    held = dict(pool.get(token).doc)
    # Then ours ends its child, and nobody writes to the token or takes it away, for more than two leases
    wait_for(lambda: history.runs() and not alive(ours.pid), "our child ends", 30)
    fleet.start()
    more = pool.push(history.tokens(2, name="more", gate="go", long_each=0))
    wait_for(lambda: len(history.runs()) == 4, "ours run others")
    leases(pool)
    assert dict(pool.get(token).doc) == held
    # And the outcome is that of picas
    history.open_gate("go")
    all_ended(pool, 3)
    pilots.end()
    fleet.nobody_left()
    fleet.leave()
    judge(fleet, pool, [token, *more])
    doc = pool.get(token)
    assert (doc.state, doc["output"]) == ("done", {"by": "picas"})
    assert pool.attachment(token, f"logs_{token}.out") == history.log(token, PICAS, "out")

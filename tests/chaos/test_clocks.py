"""R7: clocks an hour wrong, and clocks that stood still: nobody is reaped early or forgotten, no pause ends too soon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from figures import Figures
from fleet import Fleet
from history import History, uptime
from picas_scripts import child_environment
from scale import LEASE, PATIENCE, Scale
from waits import all_ended, leases, renewed, runs_started, wait_for, worker_docs

from tokenpool.pool import Pool

Judge = Callable[..., Figures]

HOUR = 3600.0
CLOCK = Path(__file__).with_name("clock")


def clock(shift: float) -> dict[str, str]:
    """Return the environment of a process whose clock is so many seconds ahead."""
    path = child_environment()["PYTHONPATH"]
    return {"PYTHONPATH": f"{CLOCK}:{path}", "CLOCK_SHIFT": str(shift)}


def test_the_clock_can_be_moved() -> None:
    code = (
        "import json, time; from datetime import datetime, timezone; from tokenpool.util import seconds, timestamp;"
        "told = datetime.fromisoformat(timestamp().replace('Z', '+00:00')).timestamp();"
        "print(json.dumps([time.time(), seconds(), told, datetime.now(timezone.utc).timestamp()]))"
    )
    environment = {**child_environment(), **clock(-HOUR)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert [round((time.time() - told) / HOUR) for told in json.loads(ran.stdout)] == [1, 1, 1, 1]


def test_wrong_clocks_reap_nobody_and_forget_nobody(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, scale: Scale
) -> None:
    # Given workers an hour ahead and an hour behind, each with tokens that run for longer than their leases
    wrong = []
    ids: list[str] = []
    for number, shift in enumerate((HOUR, -HOUR)):
        ids += pool.push(history.tokens(2, name=f"w{number}-", gate="go", long_each=0))
        wrong.append(fleet.start(environment=clock(shift)))
        runs_started(history, len(ids))
    # When one with the right time looks at them for two leases
    fleet.start(slots=8)
    wait_for(lambda: len(worker_docs(pool)) == 3, "all have a lease")
    leases(pool)
    # Then nothing was taken from them
    assert len(history.runs()) == len(ids)
    # And when they die, all that they had comes back in time; they would have noticed too
    for member in wrong:
        fleet.kill(member)
    wait_for(lambda: len(history.runs()) == 2 * len(ids), "their tokens run again", scale.recovery() + 10)
    history.open_gate("go")
    all_ended(pool, len(ids))
    fleet.leave()
    figures = judge(fleet, pool, ids)
    assert pool.counts()["done"] == len(ids)
    assert (figures.share(0.95) or 0) <= scale.recovery()


@pytest.mark.parametrize("shift", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_wrong_clocks_bring_back_what_others_had(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, scale: Scale, shift: float
) -> None:
    # Given a worker that dies, and only others whose clocks are wrong
    ids = pool.push(history.tokens(4, gate="go", long_each=0))
    victim = fleet.start(slots=4)
    wait_for(lambda: len(history.runs()) == 4, "the tokens run")
    fleet.start(2, environment=clock(shift))
    fleet.kill(victim)
    # Then its tokens come back in time
    wait_for(lambda: len(history.runs()) == 8, "its tokens run again", scale.recovery() + 10)
    history.open_gate("go")
    all_ended(pool, 4)
    fleet.leave()
    figures = judge(fleet, pool, ids)
    assert (figures.share(0.95) or 0) <= scale.recovery()


def test_a_machine_that_slept(pool: Pool, fleet: Fleet, history: History, judge: Judge) -> None:
    # Given two workers on a machine that is put to sleep for longer than their leases
    ids = pool.push(history.tokens(4, gate="go", long_each=0))
    workers = [fleet.start() for _ in range(2)]
    wait_for(lambda: len(history.runs()) == 4, "all tokens run")
    leases(pool, 1)
    for worker in workers:
        os.kill(worker.pid, signal.SIGSTOP)
    time.sleep(2 * LEASE)
    # When one of them wakes up first, and has time to look at the other
    before = worker_docs(pool)
    os.kill(workers[0].pid, signal.SIGCONT)
    wait_for(lambda: renewed(before, worker_docs(pool)), "the first one renews its lease")
    os.kill(workers[1].pid, signal.SIGCONT)
    # Then it takes nothing from it: it was asleep as well
    leases(pool)
    assert len(history.runs()) == 4
    history.open_gate("go")
    all_ended(pool, 4)
    fleet.nobody_left()
    fleet.leave()
    figures = judge(fleet, pool, ids)
    assert figures.reruns == 0


def test_a_time_to_wait_for_is_the_pools(couch_db: str, tmp_path: Path, history: History) -> None:
    # Given tokens that are due soon, and in half an hour, by the clock of the pool
    from tokenpool.pool import connect

    with connect(couch_db, create=True) as pool, Fleet(couch_db, tmp_path / "fleet") as fleet:
        began, now = uptime(), pool.backend.now()
        for name, seconds in (("soon", 4.0), ("next", 8.0), ("later", HOUR / 2)):
            pool.push(history.tokens(1, name=name, long_each=0), not_before=now + seconds)
        # When one worker is an hour ahead and another an hour behind
        fleet.start(environment=clock(HOUR))
        fleet.start(environment=clock(-HOUR))
        all_ended(pool, 2, PATIENCE)
        # Then each ran when it was due, not before (the server tells whole seconds), and the last one waits
        assert [(run.token, run.start - began >= due - 1.5) for run, due in zip(history.runs(), (4, 8))] == [
            ("soon0000", True), ("next0000", True),
        ]  # fmt: skip
        assert pool.get("later0000").state == "held"
        fleet.nobody_left()

"""R1, R10: workers that are killed, and workers that are told to leave."""

from __future__ import annotations

import random
from collections.abc import Callable

from figures import Figures
from fleet import Fleet, Member
from history import History, uptime
from scale import Scale
from waits import all_ended, runs_started, wait_for

from tokenpool.pool import Pool

Judge = Callable[..., Figures]

GRACE = 2.0


def test_workers_killed_at_random(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, scale: Scale, dice: random.Random
) -> None:
    # Given four workers amid many short tokens, and one that is spared: somebody must live to see who died
    ids = pool.push(history.tokens(scale.tokens))
    spared = fleet.start()
    fleet.start(4)

    def busy() -> list[Member]:
        running = {run.worker for run in history.runs() if run.end is None}
        return [member for member in fleet.living if member.pid in running and member is not spared]

    # When one of them is killed in mid-task again and again, and another takes its place
    for number in range(scale.kills):
        started = 0.8 * scale.tokens * (number + 1) / scale.kills
        runs_started(history, int(started), scale.patience)
        wait_for(busy, "somebody works")
        victim = dice.choice(busy() or [member for member in fleet.living if member is not spared])
        fleet.kill(victim)
        fleet.again(victim)
    all_ended(pool, scale.tokens, scale.patience)
    # Then every token is done once, whatever was lost ran again by itself, and soon
    fleet.nobody_left()
    fleet.leave()
    figures = judge(fleet, pool, ids)
    assert pool.counts()["done"] == scale.tokens
    assert figures.kills == scale.kills
    assert (figures.share(0.95) or 0) <= scale.recovery()


def test_told_to_leave_and_killed_later(pool: Pool, fleet: Fleet, history: History, judge: Judge) -> None:
    # Given a worker amid two tokens that would wait for ever, and do not care for SIGTERM
    tokens = history.tokens(2, gate="go", long_each=0)
    ids = pool.push({**token, "input": f"trap '' TERM; {token['input']}"} for token in tokens)
    worker = fleet.start(grace=f"{GRACE:g}s", slots=2)
    wait_for(lambda: len(history.runs()) == 2, "both run")
    # When a batch system tells it to leave: SIGTERM, and SIGKILL 30 s later
    fleet.end(worker)
    began = uptime()
    wait_for(lambda: pool.counts()["todo"] == 2 or uptime() - began > 30, "both are given back", 35)
    took = uptime() - began
    # Then its tokens are back within its grace and a little, uncounted, and it has left before it is killed
    assert pool.counts()["todo"] == 2
    assert took <= GRACE + 5
    assert worker.process.wait(30 - took) == 0
    for each in ids:
        attempts = pool.get(each)["attempts"]
        assert [(a["failure_class"], a["counted"]) for a in attempts] == [("preempted", False)]
    # And the next worker ends them
    history.open_gate("go")
    fleet.start()
    all_ended(pool, 2)
    fleet.leave()
    judge(fleet, pool, ids, notes=f"back after {took:.1f}s")
    assert pool.counts()["done"] == 2

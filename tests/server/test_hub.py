"""What the server sees of a pool: one look for all who watch, and what it remembers of the last day."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from processes import until
from waiting_tokens import finish

from tokenpool import transitions
from tokenpool.errors import ServerAway
from tokenpool.pool import Pool
from tokenpool.web.bars import Bars
from tokenpool.web.hub import Hub, Snapshot
from tokenpool.web.series import STEP, Series

EVERY = 0.05


@pytest.fixture
def hub(pool: Pool) -> Iterator[Hub]:
    """A hub that looks often."""
    made = Hub(pool, EVERY)
    yield made
    made.close()


def first(hub: Hub, fits: Callable[[Snapshot], object], then: Callable[[], object] = lambda: None) -> Snapshot:
    """Watch until a snapshot fits; `then` is done once somebody watches."""

    async def watch() -> Snapshot:
        changes = hub.changes()
        try:
            begun = False
            async for snapshot in changes:
                if not begun:
                    begun = True
                    await asyncio.get_running_loop().run_in_executor(None, then)
                if fits(snapshot):
                    return snapshot
        finally:
            await changes.aclose()
        raise AssertionError("the hub has closed")

    return asyncio.run(asyncio.wait_for(watch(), 60))


def test_a_snapshot_has_counts_batches_rules_and_workers(pool: Pool, hub: Hub) -> None:
    # Given tokens in two batches, one of them paused
    pool.push(["echo 1", "echo 2"], batch="blue")
    pool.push("echo 3")
    pool.set_batch("blue", paused=True)

    # Then all of it is seen
    seen = hub.snapshot()
    assert seen.away == ""
    assert seen.counts == {**dict.fromkeys(transitions.STATES, 0), "todo": 3}
    assert {name: counts["todo"] for name, counts in seen.batches.items()} == {"": 1, "blue": 2}
    assert seen.rules["blue"].paused
    assert seen.workers == ()


def test_who_watches_is_told_of_a_change(pool: Pool, hub: Hub) -> None:
    # When a token is pushed while somebody watches, then they are told
    seen = first(hub, lambda now: now.counts["todo"] == 1, lambda: pool.push("echo 1"))
    assert seen.total == 1

    # And nobody watches any more
    assert hub.watchers == 0


def test_who_sleeps_is_owed_the_latest_look_and_not_all_of_them(pool: Pool, hub: Hub) -> None:
    # Given somebody who watches, and reads nothing while the pool changes thirty times
    async def wakes() -> list[int]:
        loop, changes = asyncio.get_running_loop(), hub.changes()
        try:
            assert (await anext_of(changes)).total == 0
            for number in range(1, 31):
                await loop.run_in_executor(None, pool.push, "echo")
                hub.stir()
                while (await loop.run_in_executor(None, hub.snapshot)).total < number:
                    hub.stir()
            seen = []
            while not seen or seen[-1] < 30:
                seen.append((await anext_of(changes)).total)
            return seen
        finally:
            await changes.aclose()

    # When they read again, then they are told how it is now, at once
    assert len(asyncio.run(asyncio.wait_for(wakes(), 60))) <= 2


def anext_of(changes: Any) -> Any:
    """Return what waits for the next one: `anext` is not there before Python 3.10."""
    return changes.__anext__()


def test_a_hundred_who_watch_cost_one_look(pool: Pool) -> None:
    # Given a hub whose looks are counted, and a hundred who watch
    looks = []
    counts = pool.backend.counts
    hub = Hub(_with(pool, counts=lambda: looks.append(1) or counts()), every=0.2)

    async def watch_all() -> int:
        told = 0

        async def one() -> None:
            nonlocal told
            changes = hub.changes()
            async for snapshot in changes:
                if snapshot.counts["todo"] == 1:
                    told += 1
                    break
            await changes.aclose()

        tasks = [asyncio.ensure_future(one()) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, lambda: pool.push("echo 1"))
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        return told

    # When something changes
    told = asyncio.run(watch_all())
    hub.close()

    # Then all are told, by far fewer looks than there are of them
    assert told == 100
    assert 1 <= len(looks) < 50


def test_nothing_is_asked_while_nobody_watches(pool: Pool) -> None:
    # Given a hub that was asked once
    looks: list[int] = []
    counts = pool.backend.counts
    hub = Hub(_with(pool, counts=lambda: looks.append(1) or counts()), every=0.01, idle=3600)
    hub.snapshot()
    before = len(looks)

    # When nobody watches while another hub looks
    other = Hub(pool, 0.01)
    seen: list[Snapshot] = []
    first(other, lambda now: seen.append(now) or len(seen) > 1, lambda: [pool.push("x") for _ in range(5)])
    other.close()

    # Then the first has not looked again, and does when it is asked by somebody who knows of a change
    assert len(looks) == before
    hub.stir()
    assert hub.snapshot().counts["todo"] == 5
    hub.close()


def test_a_pool_that_goes_away_is_told_and_recovers_by_itself(pool: Pool) -> None:
    # Given a hub over a pool that somebody can take away
    away = threading.Event()
    counts = pool.backend.counts

    def asked() -> Any:
        if away.is_set():
            raise ServerAway("no answer from the pool")
        return counts()

    hub = Hub(_with(pool, counts=asked), EVERY)
    pool.push("echo 1")
    assert hub.snapshot().counts["todo"] == 1

    # When it goes, those who watch are told, and still see what was known
    gone = first(hub, lambda now: now.away, away.set)
    assert "no answer" in gone.away
    assert gone.counts["todo"] == 1

    # And when it is back they are told that too
    back = first(hub, lambda now: not now.away, away.clear)
    assert back.counts["todo"] == 1
    hub.close()


def test_a_pool_that_hangs_does_not_hang_pages(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a pool that does not answer at all
    monkeypatch.setattr("tokenpool.web.hub.PATIENCE", 0.05)
    release = threading.Event()
    hub = Hub(_with(pool, counts=lambda: release.wait(60) or {}), EVERY)

    # Then a page is told so at once
    assert hub.snapshot().away
    release.set()
    hub.close()


def _with(pool: Pool, **methods: Any) -> Pool:
    """Return a pool with some methods of its backend exchanged."""

    class Altered:
        def __getattr__(self, name: str) -> Any:
            return methods.get(name) or getattr(pool.backend, name)

    return Pool(Altered())  # type: ignore[arg-type]


# --- what ended when -------------------------------------------------------------------------------------------------


def test_the_series_shares_what_ended_among_the_steps_between_two_looks() -> None:
    # Given looks ten steps apart, in which a hundred tokens ended
    series, start = Series(), 1_000_000.0
    series.see(start, 0, 0)
    series.see(start + 10 * STEP, 80, 20)

    # Then each step has its part, and nothing is lost
    points = series.points(start + 10 * STEP, 20 * STEP)
    assert sum(point.done for point in points) == pytest.approx(80)
    assert max(point.done for point in points) == pytest.approx(8)
    assert sum(point.failed for point in points) == pytest.approx(20)


def test_tokens_that_are_put_back_do_not_count_as_ended() -> None:
    # Given fifty that are done, and put back by a reset
    series, start = Series(), 1_000_000.0
    for at, done in enumerate((0, 50, 0, 10)):
        series.see(start + at * STEP, done, 0)

    # Then what ended is the sum of what was seen to end
    assert sum(point.done for point in series.points(start + 3 * STEP, 10 * STEP)) == pytest.approx(60)


def test_the_rate_looks_further_back_where_few_tokens_end() -> None:
    # Given a token that ends each ten minutes, for an hour
    series, start = Series(), 1_000_000.0
    for minute in range(61):
        series.see(start + minute * 60, minute // 10, 0)

    # Then the rate is not nothing most of the time
    assert series.rate(start + 3595)[0] == pytest.approx(0.1, rel=0.25)


def test_the_series_keeps_a_day() -> None:
    # Given two days in which a token ended each step
    series = Series()
    for step in range(0, int(2 * 86400 / STEP), 10):
        series.see(step * STEP, step, 0)

    # Then only those of one day are kept
    assert 86400 / STEP * 0.9 < len(series._steps) < 86400 / STEP * 1.1


# --- what ran where --------------------------------------------------------------------------------------------------


def test_a_run_is_a_bar_from_its_claim_to_its_end(pool: Pool) -> None:
    # Given a token that is claimed
    pool.push({"_id": "t1", "input": "true", "image": "alpine", "name": "one"}, batch="blue")
    bars, now = Bars(), pool.backend.now()
    token = pool.claim()[0]
    bars.see(pool.backend, now + 1)

    # Then its bar is open
    (bar,) = bars.since(now - 60)
    assert (bar.token, bar.batch, bar.kind, bar.state, bar.end) == ("t1", "blue", "container", "running", None)
    assert bar.host

    # When it fails, the bar ends, and says so
    pool.close(token, exit_code=3)
    bars.see(pool.backend, now + 5)
    (bar,) = bars.since(now - 60)
    assert bar.state == "error"
    assert bar.end is not None


def test_a_token_that_was_deleted_or_put_back_ends_its_bar_as_lost(pool: Pool) -> None:
    # Given two tokens that run
    pool.push([{"_id": "gone"}, {"_id": "back"}])
    bars, now = Bars(), pool.backend.now()
    held = {token.id: token for token in pool.claim(2)}
    bars.see(pool.backend, now)
    assert len(bars.since(0)) == 2

    # When one is deleted and one put back
    pool.rm(["gone"], running=True)
    pool.release(held["back"])
    bars.see(pool.backend, now + 1)

    # Then neither is a failure
    assert {bar.token: bar.state for bar in bars.since(0)} == {"gone": "lost", "back": "lost"}


def test_bars_are_bounded(sqlite_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given that few bars are kept
    monkeypatch.setattr("tokenpool.web.bars.KEPT", 10)
    bars = Bars()

    # When many tokens run one after another
    for i in range(5):
        sqlite_pool.push([f"echo {n}" for n in range(10)])
        tokens = sqlite_pool.claim(10)
        bars.see(sqlite_pool.backend, 1000.0 + i)
        for token in tokens:
            sqlite_pool.close(token)
        bars.see(sqlite_pool.backend, 1000.5 + i)

    # Then only the last are there
    assert len(bars.since(0)) == 10


def test_the_hub_draws_what_ran(pool: Pool, hub: Hub) -> None:
    # Given a token that ran, and was seen at it
    pool.push({"_id": "t1"})
    finish(pool.backend)
    token = pool.claim()[0]
    first(hub, lambda now: now.counts["locked"] == 1)
    pool.close(token)
    first(hub, lambda now: now.counts["done"] == 1)

    # Then series and bars have it
    until(lambda: sum(point.done for point in hub.series(600)) > 0.99)
    assert [bar.state for bar in hub.bars(600)] == ["done"]


def test_what_ended_before_the_first_look_is_drawn_too(pool: Pool) -> None:
    # Given tokens that ended before the server was started
    now = pool.backend.now()
    times = [datetime.fromtimestamp(now - age, timezone.utc).isoformat(timespec="seconds") for age in (900, 600, 300)]
    for i, exit_code in enumerate((0, 1)):
        entry = {
            "claim": f"c{i}",
            "hostname": "n1",
            "start_time": times[i],
            "end_time": times[i + 1],
            "exit_code": exit_code,
        }
        doc = {"_id": f"t{i}", "type": "token", "lock": now - 900, "done": now, "exit_code": exit_code}
        before = {**entry, "claim": f"b{i}", "start_time": times[0], "end_time": times[0], "exit_code": 1}
        pool.backend.put_many([{**doc, "attempts": [before, entry]}])

    # When a hub looks for the first time
    hub = Hub(pool, EVERY)
    hub.snapshot()

    # Then it knows when they ran, and how they ended; one that was repeated is counted once
    assert [(bar.token, bar.state) for bar in hub.bars(3600)] == [
        ("t0", "error"),
        ("t0", "done"),
        ("t1", "error"),
        ("t1", "error"),
    ]
    points = hub.series(3600)
    assert (sum(point.done for point in points), sum(point.failed for point in points)) == (1, 1)
    hub.close()


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_the_worker_chart_survives_a_restart(
    sqlite_pool: Pool, tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that has seen a run, and stops
    now = sqlite_pool.backend.now()
    times = [datetime.fromtimestamp(now - age, timezone.utc).isoformat(timespec="seconds") for age in (600, 300)]
    entry = {"claim": "c1", "hostname": "n1", "start_time": times[0], "end_time": times[1], "exit_code": 0}
    doc = {"_id": "t1", "type": "token", "lock": now - 600, "done": now, "exit_code": 0, "attempts": [entry]}
    sqlite_pool.backend.put_many([doc])
    before = Hub(sqlite_pool, EVERY, folder=tmp_path / "kept")
    before.snapshot()
    before.close()

    # When it starts again; a large pool is not read again
    if large:
        monkeypatch.setattr("tokenpool.web.hub.REMEMBERED", 0)
    after = Hub(sqlite_pool, EVERY, folder=tmp_path / "kept")
    after.snapshot()

    # Then the run is drawn as before, and counted once
    assert [(bar.token, bar.state) for bar in after.bars(3600)] == [("t1", "done")]
    assert sum(point.done for point in after.series(3600)) == pytest.approx(1)
    after.close()

    # And a file that is none of ours does no harm
    for nonsense in ("[", "[]", '{"bars": [{}]}', '{"bars": [{"start": "x"}]}', '{"bars": 7}'):
        (tmp_path / "kept" / "bars.json").write_text(nonsense)
        again = Hub(sqlite_pool, EVERY, folder=tmp_path / "kept")
        assert again.snapshot().counts["done"] == 1
        again.close()


def test_the_series_survives_a_restart(sqlite_pool: Pool, tmp_path: Path) -> None:
    # Given a server that has seen a token end, and stops; another one ends meanwhile
    sqlite_pool.push([{"_id": "t1"}, {"_id": "t2"}, *({} for _ in range(3))])
    first_hub = Hub(sqlite_pool, EVERY, folder=tmp_path / "kept")
    first_hub.snapshot()
    finish(sqlite_pool.backend, "t1")
    first_hub.stir()
    first_hub.snapshot()
    first_hub.close()
    finish(sqlite_pool.backend, "t2")

    # When it starts again, then both are known
    second = Hub(sqlite_pool, EVERY, folder=tmp_path / "kept")
    second.snapshot()
    assert sum(point.done for point in second.series(3600)) == pytest.approx(2, abs=0.01)
    second.close()

    # And a file that is damaged does no harm
    (tmp_path / "kept" / "series.json").write_text('{"last": [')
    third = Hub(sqlite_pool, EVERY, folder=tmp_path / "kept")
    assert third.snapshot().counts["done"] == 2
    third.close()


def test_who_asks_during_a_look_gets_the_next_one(pool: Pool) -> None:
    # Given a look that is held up
    counts, begun, go_on = pool.backend.counts, threading.Event(), threading.Event()

    def slow() -> Any:
        begun.set()
        go_on.wait(60)
        return counts()

    hub = Hub(_with(pool, counts=slow), EVERY)
    early: list[Snapshot] = []
    late: list[Snapshot] = []
    first_reader = threading.Thread(target=lambda: early.append(hub.snapshot()))
    first_reader.start()
    assert begun.wait(60)

    # When somebody pushes and asks while it is under way
    pool.push("echo 1")
    second_reader = threading.Thread(target=lambda: late.append(hub.snapshot()))
    second_reader.start()
    until(lambda: hub._wanted)
    go_on.set()
    first_reader.join()
    second_reader.join()

    # Then they see what they pushed
    assert late[0].counts["todo"] == 1
    hub.close()

"""PoolExecutor: results and exceptions come back, one bad call hurts no other, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import CancelledError, as_completed
from pathlib import Path

import deeds
import pytest
from function_tools import DEEDS, surroundings, worker
from processes import until

import tokenpool
from tokenpool import PoolExecutor
from tokenpool.functions.exchange import RemoteError


@pytest.fixture
def executor(sqlite_url: str) -> Iterator[PoolExecutor]:
    with PoolExecutor(sqlite_url, workers=2) as made:
        yield made


def test_calls_come_back_on_every_pool(pool_url: str) -> None:
    with PoolExecutor(pool_url, workers=2) as executor:
        assert executor.submit(deeds.add, 1, b=2).result(60) == 3
        assert list(executor.map(deeds.same, range(200))) == list(range(200))
        assert list(executor.map(deeds.same, range(20), chunksize=1)) == list(range(20))


def test_values_come_back_as_they_were(executor: PoolExecutor) -> None:
    values = [(1, 2), {3: "x"}, {4, 5}, b"bytes", None, [1.5], "ü"]
    assert list(executor.map(deeds.same, values)) == values
    assert len(executor.submit(deeds.text_of, 300_000).result(60)) == 300_000


def test_exceptions_are_of_their_own_type_and_say_where(executor: PoolExecutor) -> None:
    error = executor.submit(deeds.fail, "why").exception(60)
    assert isinstance(error, deeds.OwnError)
    assert error.args == ("why", 7)
    assert "in fail" in str(error.__cause__)
    with pytest.raises(TypeError):
        executor.submit(deeds.add).result(60)


def test_a_call_that_ends_its_process_fails_alone(executor: PoolExecutor) -> None:
    # When one call of a chunk ends the process in which all of them are made
    futures = [executor.submit(deeds.crash_at, 0, 0)]
    results = executor.map(deeds.crash_at, range(10), [3] * 10, chunksize=10)

    # Then the others have their results
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RemoteError, match="exit code 9"):
        next(results)
    with pytest.raises(RemoteError, match="exit code 9"):
        futures[0].result(60)


def test_chunks_make_fewer_tokens_and_a_chunksize_of_one_does_not(sqlite_url: str) -> None:
    with PoolExecutor(sqlite_url, workers=2) as executor:
        assert list(executor.map(deeds.same, range(100), chunksize=25)) == list(range(100))
        assert list(executor.map(deeds.same, range(10), chunksize=1)) == list(range(10))
    with tokenpool.connect(sqlite_url) as pool:
        assert pool.counts()["done"] == 14


def test_futures_work_with_the_standard_library(executor: PoolExecutor) -> None:
    futures = [executor.submit(deeds.same, n) for n in range(20)]
    assert sorted(each.result() for each in as_completed(futures, timeout=60)) == list(range(20))


def test_waiting_calls_can_be_taken_back(sqlite_url: str, tmp_path: Path) -> None:
    # Given a call that runs for ever, and others behind it
    executor = PoolExecutor(sqlite_url, workers=1)
    running = executor.submit(deeds.loop, str(tmp_path / "pid"))
    behind = [executor.submit(deeds.same, n) for n in range(5)]
    until((tmp_path / "pid").exists)

    # When one is taken back, and then all
    assert behind[0].cancel()
    executor.shutdown(cancel_futures=True)

    # Then
    assert all(each.cancelled() for each in (running, *behind))
    with pytest.raises(CancelledError):
        running.result()
    with tokenpool.connect(sqlite_url) as pool:
        assert pool.counts()["todo"] == pool.counts()["locked"] == 0


def test_an_executor_that_was_shut_down_takes_no_more(sqlite_url: str) -> None:
    executor = PoolExecutor(sqlite_url, workers=1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(deeds.same, 1)


def test_a_timeout_of_map_is_kept(executor: PoolExecutor) -> None:
    with pytest.raises(TimeoutError if sys.version_info >= (3, 11) else Exception):
        list(executor.map(deeds.loop, [""], timeout=0.5, chunksize=1))


def test_the_workers_of_the_pool_make_plain_calls(sqlite_url: str) -> None:
    # Given a worker of the pool that allows the module, and no pickles
    tokenpool.connect(sqlite_url, create=True).backend.close()
    with worker(sqlite_url, "--slots", "2", *DEEDS), PoolExecutor(sqlite_url, workers=0) as executor:
        # Then plain values work, an exception comes back, and what would need a pickle is refused here
        assert list(executor.map(deeds.same, [[n] for n in range(50)])) == [[n] for n in range(50)]
        assert isinstance(executor.submit(deeds.fail, "x").exception(60), deeds.OwnError)
        with pytest.raises(TypeError, match="in no module"):
            executor.submit(lambda: 1)
        with pytest.raises(TypeError, match="not plain JSON"):
            executor.submit(deeds.same, (1, 2)).result(60)


def test_a_program_that_forgets_to_shut_down_ends(sqlite_url: str, tmp_path: Path) -> None:
    # Given a script with functions of its own, which needs cloudpickle
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        from tokenpool import PoolExecutor

        def double(x):
            return 2 * x

        if __name__ == "__main__":
            executor = PoolExecutor({sqlite_url!r}, workers=1)
            try:
                print(sum(executor.map(double, range(10))))
            except TypeError as error:
                print(error)
        """)
    )

    # When it runs to its end
    argv = [sys.executable, str(script)]
    done = subprocess.run(argv, env=surroundings(), capture_output=True, text=True, timeout=60)

    # Then it has the result, or says what is missing
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "90" or "install cloudpickle" in done.stdout

"""The conformance suite of a `Runner`: subclass `RunnerTests` and say which tokens are of its kind.

Each test pushes tokens into a SQLite pool and runs them with a real worker: what a runner promises is what becomes of
its tokens. The runner is found as any worker finds it, so it has to be installed, or be one of the built-in ones.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..pool import Pool, connect
from ..runners import Runners, kind_of
from ..runners.base import Policy, Runner
from ..worker import Worker, WorkerOptions

Json = dict[str, Any]

#: Seconds within which a token that is cancelled, or the worker that runs it, has ended.
PATIENCE = 60.0


class RunnerTests(ABC):
    """Every sentence of `tokenpool.runners.base`, as a test; each method below returns the fields of a token."""

    #: What the worker lets tokens do.
    policy = Policy()

    @abstractmethod
    def printing(self, text: str) -> Json:
        """A token that prints a text and succeeds."""

    @abstractmethod
    def failing(self, code: int) -> Json:
        """A token that ends with an exit code of its own."""

    @abstractmethod
    def endless(self) -> Json:
        """A token that ends only when it is told to."""

    def senseless(self) -> Json | None:
        """A token that this kind of runner cannot make sense of; None: there is none that a push lets pass."""
        return None

    # --- what a runner does ------------------------------------------------------------------------------------------

    @pytest.fixture
    def pool(self, tmp_path: Path) -> Iterator[Pool]:
        with connect(f"sqlite:///{tmp_path}/runners.db", create=True) as opened:
            yield opened

    @pytest.fixture
    def work(self, pool: Pool, tmp_path: Path) -> Callable[..., None]:
        """Run what is in the pool."""

        def run(**options: Any) -> None:
            settings = {"slots": 2, "quit": True, "workdir": tmp_path / "work", "policy": self.policy, "grace": 2.0}
            Worker(pool, WorkerOptions(**{**settings, **options})).run()

        return run

    def test_it_is_found_for_its_tokens(self) -> None:
        runners = Runners()
        token = {"_id": "t", **self.printing("hello")}
        assert isinstance(runners.of(token), Runner)
        assert runners.of(token) is runners.of(token)
        assert kind_of(token) == kind_of({"_id": "u", **self.failing(1)})
        runners.close()

    def test_what_it_prints_is_the_log(self, pool: Pool, work: Callable[..., None]) -> None:
        (token,) = pool.push(self.printing("hello from a token"))
        work()
        doc = pool.get(token)
        assert (doc.state, doc["exit_code"]) == ("done", 0)
        assert b"hello from a token" in pool.logs(token).out
        assert doc["attempts"][0]["failure_class"] is None

    def test_an_exit_code_is_the_tokens_own(self, pool: Pool, work: Callable[..., None]) -> None:
        (token,) = pool.push(self.failing(3))
        work()
        doc = pool.get(token)
        assert (doc.state, doc["exit_code"]) == ("error", 3)
        assert doc["attempts"][0]["failure_class"] == "executor"

    def test_a_failure_is_tried_again_where_it_may(self, pool: Pool, work: Callable[..., None]) -> None:
        (token,) = pool.push(dict(self.failing(3), max_retries=1, retry_delay=0))
        work()
        assert [attempt["exit_code"] for attempt in pool.get(token)["attempts"]] == [3, 3]

    def test_what_makes_no_sense_ends_with_the_reason(self, pool: Pool, work: Callable[..., None]) -> None:
        senseless = self.senseless()
        after = self.printing("after")
        ids = pool.push([after] if senseless is None else [senseless, after])
        work(slots=1)
        *odd, fine = (pool.get(token) for token in ids)
        assert fine.state == "done"
        for doc in odd:
            assert doc["attempts"][-1]["failure_class"] in ("invalid", "staging", "system")
            assert doc.get_errors()[-1]["message"]

    def test_a_timeout_ends_it(self, pool: Pool, work: Callable[..., None]) -> None:
        (token,) = pool.push(dict(self.endless(), timeout=1))
        work()
        assert pool.get(token)["attempts"][-1]["failure_class"] == "timeout"

    def test_it_is_cancelled_while_it_runs(self, pool: Pool, work: Callable[..., None]) -> None:
        (token,) = pool.push(self.endless())
        with _aside(work):
            _until(lambda: pool.get(token).state == "locked")
            pool.cancel(token)
        assert pool.get(token)["attempts"][-1]["failure_class"] == "cancelled"

    def test_many_run_at_once_and_keep_apart(self, pool: Pool, work: Callable[..., None]) -> None:
        ids = pool.push([self.printing(f"this is number {n}.") for n in range(8)])
        work(slots=4)
        logs = [pool.logs(token).out for token in ids]
        assert [f"number {n}.".encode() in log for n, log in enumerate(logs)] == [True] * 8
        assert [log.count(b"this is number") for log in logs] == [1] * 8

    def test_nothing_is_left_in_the_scratch_folder(self, pool: Pool, work: Callable[..., None], tmp_path: Path) -> None:
        pool.push([self.printing("one"), self.failing(1)])
        work(cleanup="always")
        assert [path for path in (tmp_path / "work").rglob("*") if path.is_file()] == []


class _aside:
    """Works in another thread as long as the body runs, and then until nothing is left to do."""

    def __init__(self, work: Callable[..., None]) -> None:
        self._thread = threading.Thread(target=work, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the worker did not end"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not begin"
        time.sleep(0.02)

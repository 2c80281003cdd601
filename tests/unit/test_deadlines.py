"""A deadline ends what is inside it, in any thread, once, and never what comes after."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tokenpool.deadlines import Deadline
from tokenpool.errors import TokenTimeout


def in_thread(call: Callable[[], Any]) -> Any:
    """Run `call` in another thread and return what it returned, or raise what it raised."""
    answer: list[Any] = []

    def run() -> None:
        try:
            answer.append(call())
        except BaseException as error:
            answer.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    if isinstance(answer[0], BaseException):
        raise answer[0]
    return answer[0]


@pytest.fixture(params=["main thread", "another thread"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Any]:
    return in_thread if request.param == "another thread" else lambda call: call()


def busy() -> None:
    """Wait in pure Python, for a minute at most."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass


def test_no_limit_arms_nothing(run: Any) -> None:
    def work() -> bool:
        with Deadline(None, lambda: None) as deadline:
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        return deadline.passed

    assert run(work) is False


def test_code_that_runs_too_long_is_ended_and_its_children_are_killed(run: Any) -> None:
    killed: list[int] = []

    def work() -> None:
        with Deadline(0.05, lambda: killed.append(1)):
            busy()

    began = time.monotonic()
    with pytest.raises(TokenTimeout, match=r"timeout limit of 0\.05 seconds"):
        run(work)
    assert time.monotonic() - began < 30
    assert killed


def test_the_death_of_the_children_ends_a_wait(run: Any) -> None:
    child_died = threading.Event()

    def work() -> bool:
        with Deadline(0.05, child_died.set) as deadline:
            try:
                assert child_died.wait(60)
            except TokenTimeout:
                pass  # swallowed by a script
        return deadline.passed

    assert run(work) is True


def test_what_comes_after_is_not_interrupted(run: Any) -> None:
    def work() -> int:
        counted = 0
        for _ in range(300):
            # As tight as it can be: it often passes just when the body begins or ends.
            deadline = Deadline(0.0002, lambda: None)
            try:
                with deadline:
                    time.sleep(0.0002)
            except TokenTimeout:
                pass
            finally:
                deadline.disarm()
            for _ in range(100):
                counted += 1
        return counted

    assert run(work) == 30_000


def test_handlers_and_timers_are_put_back() -> None:
    mine = lambda *args: None  # noqa: E731
    before = signal.signal(signal.SIGALRM, mine)
    try:
        with pytest.raises(TokenTimeout), Deadline(0.01, lambda: None):
            busy()
        with Deadline(60, lambda: None):
            pass
        assert signal.getsignal(signal.SIGALRM) is mine
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_error_of_the_code_itself_comes_through(run: Any) -> None:
    def work() -> None:
        with Deadline(60, lambda: None):
            raise KeyError("mine")

    with pytest.raises(KeyError):
        run(work)

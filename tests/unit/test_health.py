"""A machine on which everything fails at once must not eat the queue."""

from __future__ import annotations

from tokenpool.health import FAST, Health, run_check


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_fast_failures_in_a_row_stop_claims_and_say_why() -> None:
    health = Health(most=3)
    for _ in range(3):
        assert health.ok()
        health.attempt(failed=True, seconds=0.1)
    assert not health.ok()
    assert "3 tokens in a row failed" in health.note


def test_a_success_or_a_slow_failure_breaks_the_row() -> None:
    health = Health(most=2)
    for failed, seconds in [(True, 0.1), (False, 0.1), (True, 0.1), (True, 2 * FAST), (True, 0.1)]:
        health.attempt(failed, seconds)
    assert health.ok()


def test_without_a_limit_nothing_stops() -> None:
    health = Health(most=None)
    for _ in range(1000):
        health.attempt(failed=True, seconds=0.0)
    assert health.ok()


def test_the_check_decides_and_is_asked_ever_less_often() -> None:
    # given a machine that was stopped, whose check fails twice and then succeeds
    clock, answers, asked = Clock(), ["no disk", "no disk", ""], []

    def check(command: str) -> str:
        asked.append(clock.now)
        return answers[len(asked) - 1]

    health = Health(most=1, check="df", run=check, clock=clock)
    health.attempt(failed=True, seconds=0.0)
    # when it is asked every second for a quarter of an hour
    while not health.ok() and clock.now < 900:
        clock.now += 1
    # then the check ran three times, each pause longer than the last, and tokens may be claimed again
    assert health.ok()
    assert len(asked) == 3
    assert asked[2] - asked[1] > asked[1] - asked[0] > 0
    assert health.note == ""


def test_the_check_says_what_is_wrong_in_its_own_words() -> None:
    assert run_check("exit 0") == ""
    assert run_check("echo the disk is gone; exit 1") == "the disk is gone"
    assert run_check("exit 3") == "exit code 3"

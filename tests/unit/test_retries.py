"""What becomes of a token after an attempt."""

from __future__ import annotations

from typing import Any

import pytest

from tokenpool import retries, transitions


def attempt(failure_class: str | None = "executor", counted: bool = True, **more: Any) -> dict[str, Any]:
    return {"claim": "c", "failure_class": failure_class, "counted": counted, **more}


def token(*attempts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    lease = {"worker": "worker_1", "claim": "c9", "lock": 5, "hostname": "n1"}
    return {
        "_id": "t", "type": "token", "lock": 5, "done": 0, "hostname": "n1", "exit_code": "", "lease": lease,
        "attempts": list(attempts), **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("exit_code", "failure_class", "move"),
    [
        (0, "", "close"),
        (1, "executor", "close"),
        (143, "preempted", "unlock"),
        (143, "lost", "unlock"),
        (143, "cancelled", "fail"),
        (99, "invalid", "fail"),
        (99, "system", "fail"),
        (99, "staging", "fail"),
        (137, "oom", "close"),
        (143, "timeout", "close"),
        (85, "executor", "unlock"),
        (75, "executor", "scrub"),
    ],
)
def test_without_retries_each_end_has_its_move(exit_code: int, failure_class: str, move: str) -> None:
    ended = token(attempt(failure_class or None, retries.is_counted(exit_code, failure_class)))
    assert retries.judge(ended, exit_code, failure_class).move == move


def test_only_counted_attempts_use_up_retries() -> None:
    # given a token with two retries that was preempted and lost many times
    free = [attempt("preempted", counted=False), attempt("lost", counted=False)] * 5
    # when it has failed twice, then a third time
    twice, thrice = token(*free, attempt(), attempt(), max_retries=2), token(*free, *[attempt()] * 3, max_retries=2)
    # then it is tried again after the second failure, and not after the third
    assert retries.judge(twice, 1, "executor").move == "scrub"
    assert retries.judge(thrice, 1, "executor").move == "close"


def test_a_cancelled_or_invalid_token_is_not_tried_again_whatever_its_retries() -> None:
    for failure_class in ("cancelled", "invalid"):
        assert retries.judge(token(attempt(failure_class), max_retries=9), 99, failure_class).move == "fail"


def test_the_pause_grows_with_each_counted_attempt() -> None:
    policy = {"max_retries": 9, "retry_delay": 10, "retry_backoff": 3}
    delays = [retries.judge(token(*[attempt()] * n, **policy), 1, "executor").delay for n in (1, 2, 3)]
    assert delays == [10, 30, 90]


def test_the_pause_never_exceeds_a_day_however_it_grows() -> None:
    policy = {"max_retries": 900, "retry_delay": 10, "retry_backoff": 100}
    assert retries.judge(token(*[attempt()] * 800, **policy), 1, "executor").delay == retries.LONGEST_DELAY


def test_a_passing_failure_is_tried_again_five_times_with_growing_pauses() -> None:
    verdicts = [retries.judge(token(*[attempt()] * n), retries.TEMPFAIL, "executor") for n in range(1, 7)]
    assert [verdict.move for verdict in verdicts] == ["scrub"] * 5 + ["close"]
    assert [verdict.delay for verdict in verdicts[:5]] == [1, 2, 4, 8, 16]


def test_a_pause_holds_the_token_until_then() -> None:
    # given a token that failed and may be tried again after ten seconds
    failed = token(attempt(), max_retries=1, retry_delay=10)
    # when the verdict is carried out at second 1000 of the pool's clock
    retries.apply(failed, retries.judge(failed, 1, "executor"), 1000.0)
    # then it is held until second 1010, and nobody holds it
    assert transitions.state_of(failed) == transitions.HELD
    assert failed["not_before"] == 1010
    assert "lease" not in failed


def test_a_lost_token_comes_back_uncounted_with_the_loss_in_its_history() -> None:
    back = retries.lose(token(max_retries=0))
    assert transitions.state_of(back) == transitions.TODO
    assert back["scrub_count"] == 1
    assert (back["attempts"][-1]["failure_class"], back["attempts"][-1]["counted"]) == ("lost", False)
    assert back["attempts"][-1]["claim"] == "c9"


def test_five_losses_in_a_row_end_a_token() -> None:
    fifth = retries.lose(token(*[attempt("lost", counted=False)] * 4))
    assert transitions.state_of(fifth) == transitions.ERROR
    assert fifth["attempts"][-1]["failure_class"] == "lost"
    assert "5 times in a row" in fifth["error"][-1]["message"]


def test_any_other_end_between_losses_is_progress() -> None:
    mixed = [*[attempt("lost", counted=False)] * 4, attempt("preempted", counted=False)]
    assert transitions.state_of(retries.lose(token(*mixed))) == transitions.TODO


def test_a_lost_token_that_was_to_be_cancelled_is_cancelled() -> None:
    ended = retries.lose(token(cancel={"time": 1, "by": "ada"}))
    assert transitions.state_of(ended) == transitions.ERROR
    assert ended["attempts"][-1]["failure_class"] == "cancelled"


def test_a_failure_here_is_remembered_by_this_hosts_own_clock() -> None:
    from tokenpool.util import timestamp

    here = token(attempt(hostname="n1", end_time=timestamp()))
    assert retries.failed_here(here, "n1", within=60)
    assert not retries.failed_here(here, "n2", within=60)
    assert not retries.failed_here(token(attempt(hostname="n1", end_time="2001-01-01T00:00:00.000Z")), "n1", within=60)
    assert not retries.failed_here(token(attempt("lost", counted=False, hostname="n1", end_time=timestamp())), "n1", 60)


def test_a_token_whose_runs_are_lost_here_again_and_again_ends_too() -> None:
    lost = [attempt("lost", counted=False)]
    assert retries.judge(token(*lost * 4), 99, "lost").move == "unlock"
    assert retries.judge(token(*lost * 5), 99, "lost").move == "fail"

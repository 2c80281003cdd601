"""The small helpers: a timer that cannot run backwards, whole seconds, dictionaries that stay apart after a merge."""

from __future__ import annotations

import time

import pytest

from tokenpool.util import Timer, merge_dicts, seconds, time_elapsed


def test_a_timer_counts_from_its_start_or_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    timer = Timer()
    now[0] = 105.0
    assert timer.elapsed() == 5.0
    assert time_elapsed(timer, 4.9)
    assert not time_elapsed(timer, max=5.0)
    timer.reset()
    assert timer.elapsed() == 0.0


def test_seconds_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1700000000.9)
    assert (seconds(), type(seconds())) == (1700000000, int)


def test_a_merge_leaves_both_as_they_were() -> None:
    first, second = {"a": {"deep": [1]}, "b": 1}, {"b": 2, "c": 3}
    merged = merge_dicts(first, second)
    merged["a"]["deep"].append(2)
    assert merged == {"a": {"deep": [1, 2]}, "b": 2, "c": 3}
    assert (first, second) == ({"a": {"deep": [1]}, "b": 1}, {"b": 2, "c": 3})
    assert merge_dicts({}, {}) == {}

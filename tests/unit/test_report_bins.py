"""What a report counts with: in little memory, and right."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenpool.reports.bins import OTHERS, Amounts, Clock, Groups, Shares, Top
from tokenpool.reports.words import count, figure, percent, rate, span, ticks

TIMES = st.floats(1e9, 2e9)


@given(st.lists(TIMES, min_size=1, max_size=200))
def test_a_clock_loses_nothing_however_long_it_gets(times: list[float]) -> None:
    # Given times from anywhere in thirty years
    clock = Clock(most=60)
    one, two = clock.series(), clock.series()
    for when in times:
        clock.add(one, when)
        clock.add(two, when, 3.0)
    # Then there are few pieces, and each time is in its own
    assert len(clock.pieces) <= 60
    assert sum(one.values()) == len(times)
    assert {at: 3 * number for at, number in one.items()} == two
    assert {math.floor(when / clock.width) for when in times} == set(one)


@given(st.lists(st.tuples(TIMES, st.floats(0, 1e6)), min_size=1, max_size=50))
def test_time_that_is_spread_adds_up(spans: list[tuple[float, float]]) -> None:
    clock = Clock(most=60)
    series = clock.series()
    for start, length in spans:
        clock.spread(series, start, start + length)
    assert sum(series.values()) == pytest.approx(sum((s + n) - s for s, n in spans), rel=1e-6, abs=1e-3)
    assert all(0 < seconds <= len(spans) * clock.width * 1.001 for seconds in series.values())


def test_a_merged_series_is_forgotten() -> None:
    clock = Clock(most=4, width=1.0)
    one, two = clock.series(), clock.series()
    clock.add(one, 1e9)
    clock.add(two, 1e9 + 1)
    clock.merge(one, two)
    clock.add(one, 1e9 + 100)
    assert (sum(one.values()), sum(two.values())) == (3.0, 1.0)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=300), st.sampled_from([0.05, 0.5, 0.95]))
def test_a_quantile_is_right_to_a_tenth(values: list[float], share: float) -> None:
    amounts = Amounts()
    for value in values:
        amounts.add(value)
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    assert amounts.quantile(share) == pytest.approx(exact, rel=0.1, abs=1e-5)
    assert (amounts.least, amounts.most, amounts.count) == (min(values), max(values), len(values))
    assert sum(amounts.octaves().values()) == len(values)


def test_of_nothing_there_is_nothing_to_tell() -> None:
    assert (Amounts().quantile(0.5), Amounts().mean, Amounts().octaves(), list(Clock().pieces)) == (0.0, 0.0, {}, [])


def test_shares_beyond_the_whole_are_told_apart() -> None:
    shares = Shares()
    for share in (0.0, 0.55, 1.0, 1.04, 1.2):
        shares.add(share)
    assert (shares.tenths, shares.count) == ([1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1], 5)


def test_too_many_names_share_one_place() -> None:
    groups: Groups[Shares] = Groups(Shares, 3)
    for number in range(10):
        groups[f"n{number}"].add(0.5)
    assert {name: shares.count for name, shares in groups} == {"n0": 1, "n1": 1, "n2": 1, OTHERS: 7}
    assert groups.largest(lambda each: each.count, 1)[0][0] == OTHERS


def test_the_largest_are_kept_in_order_and_of_equal_ones_the_first() -> None:
    top: Top[str] = Top(3)
    for size, name in ((1, "a"), (5, "b"), (3, "c"), (5, "d"), (0, "e")):
        top.add(size, name)
    assert list(top) == ["b", "d", "c"]


# --- words -----------------------------------------------------------------------------------------------------------


@given(st.floats(1e9, 1.9e9), st.floats(0.001, 5e8))
def test_an_axis_has_few_round_times(first: float, length: float) -> None:
    found = ticks(first, first + length)
    assert len(found) <= 9
    assert all(first <= when <= first + length for when, _ in found)


def test_numbers_are_written_for_people() -> None:
    told = [count(1e6), figure(999.7), figure(0.00012), percent(0.9996), percent(0), rate(0), rate(0.5), span(59.9)]
    assert [text.replace("\u202f", " ") for text in told] == [
        "1 000 000", "1 000", "0.00012", "99.9 %", "0 %", "–", "30 / min", "1 min",
    ]  # fmt: skip

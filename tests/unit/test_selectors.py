"""Words choose tokens: ids add up, conditions narrow, and what makes no sense is refused with a hint."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenpool.errors import BadInput
from tokenpool.selectors import Selector, last_change, parse, parse_duration, parse_time

TOKEN: dict[str, Any] = {
    "_id": "a", "type": "token", "lock": 0, "done": 0, "batch": "x", "hostname": "n1", "tags": {"k": "v", "n": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "a",
        "all",
        "state:todo",
        "batch:x",
        "host:n1",
        "tag:k=v",
        "tag:n=1",
        "state:todo state:error",
        "batch:x tag:k=v",
        "b a",
    ],
)
def test_these_words_choose_the_token(words: str) -> None:
    assert parse(words.split()).matches(TOKEN)


@pytest.mark.parametrize(
    "words", ["b", "state:error", "batch:y", "host:n2", "tag:k=w", "tag:x=v", "batch:x tag:k=w", "age>1s"]
)
def test_these_words_do_not(words: str) -> None:
    assert not parse(words.split()).matches(TOKEN)


def test_ages_count_from_the_last_change() -> None:
    hour_ago = {**TOKEN, "lock": int(time.time()) - 3600}
    assert parse(["age>30m"]).matches(hour_ago)
    assert parse(["age > 30m"]).matches(hour_ago)
    assert not parse(["age>2h"]).matches(hour_ago)
    assert parse(["age<=2h"]).matches(hour_ago)
    assert parse(["age>30m", "age<2h", "batch:x"]).matches(hour_ago)


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ({"lock": 200, "done": 300}, 300.0),
        ({"lock": 200, "done": 0}, 200.0),
        ({"lock": 99, "done": 99, "attempts": [{"end_time": "1970-01-01T00:10:00Z"}]}, 600.0),
        ({"lock": 0, "creation_time": "1970-01-01T00:00:05+00:00"}, 5.0),
        ({"lock": True, "done": "x", "attempts": ["x"]}, None),
        ({"attempts": [{"end_time": None}]}, None),
    ],
)
def test_the_last_change_is_found_where_the_token_tells_it(doc: dict[str, Any], expected: float | None) -> None:
    assert last_change(doc) == expected


@pytest.mark.parametrize(
    "words",
    [
        [], [""], ["a", "all"], ["a", "state:todo"], ["state:nope"], ["tag:k"], ["age>5x"], ["age>-5s"],
        ["age>"],
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_a_hint(words: list[str]) -> None:
    with pytest.raises(BadInput) as refused:
        parse(words)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("5 min", 300), ("1h 30m", 5400), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400),
     ("2 days", 172800), ("1w", 604800), ("3 hours", 10800), ("10 secs", 10), ("2 mins", 120)],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 50), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}d {hours}h {minutes}m {seconds}s"
    assert parse_duration(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def test_times_are_read_or_none() -> None:
    assert parse_time("1970-01-01T00:00:01Z") == 1.0
    assert parse_time("1970-01-01T01:00:00+01:00") == 0.0
    assert parse_time("soon") is parse_time(None) is None


def test_several_values_of_one_kind_add_up_and_kinds_narrow() -> None:
    selector = parse(["batch:x", "batch:y", "state:todo", "tag:k=v=w"])
    assert selector == Selector(states=("todo",), batches=("x", "y"), tags={"k": "v=w"})


def test_odd_tokens_are_not_chosen_by_accident() -> None:
    for odd in ({"tags": None}, {"tags": ["k"]}, {"tags": {"k": None}}, {}):
        assert not parse(["tag:k=v"]).matches({**{k: v for k, v in TOKEN.items() if k != "tags"}, **odd})

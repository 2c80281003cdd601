"""What makes no sense in a token is refused with a hint; what makes sense, and what picas wrote, is let pass."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenpool.checks import CHECKS, check, moment, problem
from tokenpool.errors import BadInput

GOOD: list[dict[str, Any]] = [
    {},
    {"resources": {}},
    {"resources": {"cpu_cores": 4, "ram_gb": 0, "disk_gb": 0.5, "gpus": 0}},
    {"resources": {"cpu_cores": [1, 2, 4], "ram_gb": [8.5]}},
    {"resources": {"cpu_cores": None}},
    {"timeout": 0.1},
    {"timeout": None, "priority": None, "depends_on": None},
    {"max_retries": 0},
    {"max_retries": 1000},
    {"max_retries": 3.0},
    {"retry_delay": 0, "retry_backoff": 1},
    {"retry_delay": 30 * 86400, "retry_backoff": 100},
    {"priority": -7.5},
    {"not_before": 1_893_481_200.5},
    {"depends_on": []},
    {"_id": "a", "depends_on": ["b", "c"]},
    {"checkpoint": ["state-*.bin", "out/**/x..y"]},
    {"accept_failure": True, "paused": False},
    {"batch": "Näch te/7"},
    {"batch": "x" * 200},
    {"tags": {"k": "v", "n": 1, "x": 1.5, "on": True, "none": None}},
    {"cpu_cores": -1, "whatever": [float("nan")]},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"resources": {"cpu_cores": 0}}, "resources.cpu_cores 0 is not above 0"),
    ({"resources": {"cpu_cores": -1}}, "resources.cpu_cores -1 is not above 0"),
    ({"resources": {"cpu_cores": "4"}}, "resources.cpu_cores '4' is not a number"),
    ({"resources": {"cpu_cores": True}}, "resources.cpu_cores True is not a number"),
    ({"resources": {"cpu_cores": [1, 0]}}, "resources.cpu_cores 0 is not above 0"),
    ({"resources": {"cpu_cores": [1, None]}}, "resources.cpu_cores None is not a number"),
    ({"resources": {"cpu_cores": [[1]]}}, "resources.cpu_cores [1] is not a number"),
    ({"resources": {"cpu_cores": []}}, "resources.cpu_cores is an empty list"),
    ({"resources": {"cpu_cores": 1_000_001}}, "resources.cpu_cores 1000001 is above 1,000,000"),
    ({"resources": {"ram_gb": -0.5}}, "resources.ram_gb -0.5 is below 0"),
    ({"resources": {"ram_gb": float("nan")}}, "resources.ram_gb nan is not a number"),
    ({"resources": {"ram_gb": float("inf")}}, "resources.ram_gb inf is above"),
    ({"resources": {"disk_gb": -1}}, "resources.disk_gb -1 is below 0"),
    ({"resources": {"gpus": -1}}, "resources.gpus -1 is below 0"),
    ({"resources": {"gpus": 0.5}}, "resources.gpus 0.5 is not a whole number"),
    ({"resources": {"cpu_core": 1}}, "there is no resource 'cpu_core'"),
    ({"resources": [4]}, "resources [4] is no object"),
    ({"timeout": 0}, "timeout 0 is not above 0"),
    ({"timeout": -1}, "timeout -1 is not above 0"),
    ({"timeout": "2h"}, "timeout '2h' is not a number"),
    ({"timeout": float("nan")}, "timeout nan is not a number"),
    ({"timeout": 1e300}, "timeout 1e+300 is above"),
    ({"max_retries": -1}, "max_retries -1 is below 0"),
    ({"max_retries": 1.5}, "max_retries 1.5 is not a whole number"),
    ({"max_retries": 1001}, "max_retries 1001 is above 1,000"),
    ({"max_retries": 10**9}, "max_retries 1000000000 is above 1,000"),
    ({"max_retries": 10**5000}, "max_retries of thousands of digits is above 1,000"),
    ({"max_retries": "many"}, "max_retries 'many' is not a number"),
    ({"retry_delay": -1}, "retry_delay -1 is below 0"),
    ({"retry_delay": 30 * 86400 + 1}, "retry_delay 2592001 is above 2,592,000"),
    ({"retry_backoff": 0.9}, "retry_backoff 0.9 is below 1"),
    ({"retry_backoff": 101}, "retry_backoff 101 is above 100"),
    ({"priority": "high"}, "priority 'high' is not a number"),
    ({"priority": float("-inf")}, "priority -inf is below"),
    ({"priority": True}, "priority True is not a number"),
    ({"not_before": "tomorrow"}, "not_before 'tomorrow' is not a number"),
    ({"not_before": 1.7e12}, "not_before 1700000000000.0 is above"),
    ({"not_before": -1}, "not_before -1 is below 0"),
    ({"depends_on": "t1"}, "depends_on 't1' is no list of texts"),
    ({"depends_on": [1]}, "depends_on [1] is no list of texts"),
    ({"depends_on": [""]}, "depends_on [''] is no list of texts"),
    ({"_id": "t1", "depends_on": ["t2", "t1"]}, "token t1 depends on itself"),
    ({"checkpoint": "*.bin"}, "checkpoint '*.bin' is no list of texts"),
    ({"checkpoint": ["/etc/*"]}, "checkpoint '/etc/*' leaves the working folder"),
    ({"checkpoint": ["a/../../b"]}, "checkpoint 'a/../../b' leaves the working folder"),
    ({"accept_failure": "yes"}, "accept_failure 'yes' is neither true nor false"),
    ({"paused": 1}, "paused 1 is neither true nor false"),
    ({"batch": 7}, "batch 7 is no text"),
    ({"batch": " \t"}, "the name of a batch is empty"),
    ({"batch": "a\nb"}, "holds a control character"),
    ({"batch": "x" * 201}, "a batch name of 201 characters is too long"),
    ({"tags": ["a"]}, "tags ['a'] is no object"),
    ({"tags": {"a": ["b"]}}, "tag 'a' is no text, number or switch"),
    ({"tags": {"a": float("nan")}}, "tag 'a' is no text, number or switch"),
]


@pytest.mark.parametrize("fields", GOOD, ids=str)
def test_what_makes_sense_is_let_pass(fields: dict[str, Any]) -> None:
    check(fields)
    assert problem(fields) == ""


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[message for _, message in BAD])
def test_what_makes_no_sense_is_refused_with_a_hint(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        check(fields)
    assert message in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[message for _, message in BAD])
def test_in_the_pool_only_what_hinders_a_worker_is_a_problem(fields: dict[str, Any], message: str) -> None:
    if {"priority", "paused", "batch", "tags"} & set(fields):
        assert problem(fields) == ""
    else:
        assert message in problem(fields)


def test_a_token_of_picas_has_no_problem() -> None:
    assert problem({"_id": "t", "type": "token", "lock": 0, "done": 0, "input": {"a": 1}, "scrub_count": 3}) == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("gpus"), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(CHECKS)), json_values))
def test_any_json_is_either_fine_or_bad_input(fields: dict[str, Any]) -> None:
    told = problem(fields)
    with contextlib.ExitStack() as stack:
        if told:
            stack.enter_context(pytest.raises(BadInput))
        else:
            stack.enter_context(contextlib.suppress(BadInput))  # of a field that no worker looks at
        check(fields)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2030-01-01 08:00:00+01:00", 1893481200),
        ("2030-01-01t07:00:00.25z", 1893481200.25),
        ("2030-01-01T07:00Z", 1893481200),
    ],
)
def test_a_time_is_read_as_rfc_3339_writes_it(text: str, seconds: float) -> None:
    assert moment(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "2030-01-01", "2030-01-01T08:00:00", "2030-13-01T00:00:00Z", "2030-01-01T25:00:00Z", "1Z"]
)
def test_a_time_without_its_zone_or_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is not a time") as refused:
        moment(text)
    assert "zone" in refused.value.hint

"""What CouchDB's views say beyond the state: who holds a token, what it waits for, how a batch is treated; as Python says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_maps import ODD, Views, views_by_node

from tokenpool.backends.batches import rules_of
from tokenpool.backends.sqlite_rows import waits_of
from tokenpool.transitions import holder_of, is_token, state_of


@pytest.fixture(scope="module")
def views() -> Iterator[Views]:
    with views_by_node() as views:
        yield views


def check(views: Views, doc: dict[str, Any]) -> None:
    """Compare Python with the views on one document."""
    emitted = views(doc)
    state = state_of(doc) if is_token(doc) else None
    assert [key[2] for key in emitted["states"]] == ([holder_of(doc)] if state else []), doc
    waits = [(kind, key) for kind, key in waits_of(doc, state)]
    assert sorted((kind, key) for kind, key in emitted["waits"]) == sorted(waits), doc


SMALL = st.one_of(
    st.sampled_from(["", "a", "worker_1", "n1", "__proto__", "dependency", 0, 1, -1, 5, 1.5, True, False, None, [], {}, [5], {"a": 1}]),
    st.sampled_from(ODD),
)  # fmt: skip
TEXT = st.sampled_from(["p", "q", "p", "__proto__", "constructor", "$p", ""])
LOCKS = st.one_of(st.sampled_from([5, 5, 5, "5", [5], True, 1, 99]), SMALL)
HOSTS = st.one_of(st.sampled_from(["n1", "n1", None, 0, False, ""]), SMALL)
WORKERS = st.one_of(st.sampled_from(["worker_1", "", 1]), SMALL)
LEASES = st.one_of(st.fixed_dictionaries({"worker": WORKERS, "lock": LOCKS}, optional={"hostname": HOSTS}), SMALL)
TYPES = st.sampled_from(["token", "token", "token", ["token"], None, "batch"])


@settings(max_examples=1500, deadline=None)
@given(
    fields=st.fixed_dictionaries(
        {"lock": LOCKS, "lease": LEASES, "type": TYPES},
        optional={"hostname": HOSTS, "done": st.sampled_from([0, "0", 5])},
    )
)
def test_holders_are_what_the_view_says(views: Views, fields: dict[str, Any]) -> None:
    check(views, {"_id": "t", "done": 0, **fields})


ENTRIES = st.one_of(st.just({"failure_class": "dependency"}), SMALL, st.fixed_dictionaries({"failure_class": SMALL}))
ATTEMPTS = st.one_of(st.lists(ENTRIES, max_size=3), SMALL)
PARENTS = st.one_of(st.lists(st.one_of(TEXT, SMALL), max_size=4), SMALL)
STATES = st.sampled_from([
    {"lock": -1, "done": 0}, {"lock": "-1", "done": "0"}, {"lock": 99, "done": 99, "exit_code": 99}, {"lock": 5, "done": True, "exit_code": ""},
    {"lock": 5, "done": 5, "exit_code": "0x0"}, {"lock": 5, "done": 5, "exit_code": 0}, {"lock": 0, "done": 0}, {"lock": -1}, {"done": 0}, {"lock": -1, "done": 5, "exit_code": 1},
])  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(
    state=STATES,
    fields=st.fixed_dictionaries(
        {"type": TYPES}, optional={"not_before": SMALL, "depends_on": PARENTS, "attempts": ATTEMPTS, "reuse_key": SMALL}
    ),
)
def test_waits_are_what_the_view_says(views: Views, state: dict[str, Any], fields: dict[str, Any]) -> None:
    check(views, {"_id": "t", **state, **fields})


def test_usual_documents_are_seen_at_all(views: Views) -> None:
    # Otherwise the comparison above might compare nothing with nothing.
    lease = {"worker": "worker_1", "claim": "c", "lock": 5, "hostname": "n1"}
    usual: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
        ({"lock": 5, "done": 0, "hostname": "n1", "lease": lease}, ["locked", "", "worker_1"], []),
        ({"lock": 6, "done": 0, "hostname": "n1", "lease": lease}, ["locked", "", ""], []),
        (
            {"lock": -1, "done": 0, "not_before": 5, "depends_on": ["p", "q", "p"]},
            ["held", "", ""],
            [["due", 5], ["parent", "p"], ["parent", "q"]],
        ),
        (
            {
                "lock": 99,
                "done": 99,
                "exit_code": 99,
                "depends_on": ["p"],
                "attempts": [{"failure_class": "dependency"}],
            },
            ["error", "", ""],
            [["closed", "p"]],
        ),
        (
            {"lock": 5, "done": 6, "exit_code": 0, "depends_on": ["p"], "reuse_key": "k"},
            ["done", "", ""],
            [["reuse", "k"]],
        ),
    ]
    for fields, state, waits in usual:
        doc = {"_id": "t", "type": "token", **fields}
        assert views(doc)["states"] == [state]
        assert views(doc)["waits"] == waits
        check(views, doc)
    conflicting = {"_id": "t", "type": "token", "lock": 0, "done": 0, "_conflicts": ["1-a"]}
    assert views(conflicting)["waits"] == [["conflict", "t"]]


@settings(max_examples=500, deadline=None)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "paused": SMALL, "priority": SMALL, "max_running": SMALL, "lock": SMALL, "done": SMALL,
            "type": st.sampled_from(["batch", "token", None]), "_id": st.sampled_from(["batch_", "batch_x", "batc", "x"]),
        },
    )
)  # fmt: skip
def test_the_rules_of_a_batch_are_what_the_view_says(views: Views, fields: dict[str, Any]) -> None:
    doc = {"_id": "batch_a b", "type": "batch", **fields}
    rows = [key for key in views(doc)["ready"] if isinstance(key[1], list)]
    if doc["type"] != "batch" or not doc["_id"].startswith("batch_"):
        assert rows == []
        return
    rules = rules_of(doc)
    assert rows == [[doc["_id"][6:], ["batch", int(rules.paused), rules.priority, rules.max_running]]]

"""States and moves: Python agrees with the JavaScript views on every document, and every move ends in a state that a view lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_maps import ODD, Views, views_by_node

from tokenpool import transitions
from tokenpool.transitions import FINAL, STATES, claimable, is_held_by, state_of


@pytest.fixture(scope="module")
def views() -> Iterator[Views]:
    with views_by_node() as views:
        yield views


def check(views: Views, doc: dict[str, Any]) -> None:
    """Compare our word with that of every view."""
    emitted, state = views(doc), state_of(doc)
    listed = [name for name in ("todo", "locked", "done", "error") if emitted[name]]
    assert listed == ([state] if state in ("todo", "locked", "done", "error") else []), doc
    assert emitted["overview_total"] == listed, doc
    if emitted["states"]:
        assert emitted["states"][0][0] == state, doc
    else:
        assert state == "invalid", doc
    if emitted["ready"]:
        assert claimable(doc), doc


def test_the_table_of_odd_values_in_every_field(views: Views) -> None:
    for value in ODD:
        for name, others in (
            ("lock", [{"done": 0}, {"done": 5, "exit_code": 0}]),
            ("done", [{"lock": 0}, {"lock": 5, "exit_code": 0}, {"lock": -1}]),
            ("exit_code", [{"lock": 5, "done": 6}]),
            ("type", [{"lock": 0, "done": 0}]),
            ("batch", [{"lock": 0, "done": 0}]),
            ("priority", [{"lock": 0, "done": 0}]),
            ("cancel", [{"lock": 0, "done": 0}]),
        ):
            for other in others:
                check(views, {"_id": "t", "type": "token", **other, name: value})
                check(views, {"_id": "t", "type": "token", **other})


NUMBERS = st.one_of(
    st.sampled_from(ODD),
    st.integers(-3, 3), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(),
    st.text(alphabet="0123456789-+.eExXoObB aInfity\t\u00a0", max_size=6),
    st.lists(st.one_of(st.integers(-2, 2), st.none(), st.sampled_from(["", "0", "1"])), max_size=2),
)  # fmt: skip


@settings(max_examples=1000, deadline=None)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "lock": NUMBERS, "done": NUMBERS, "exit_code": NUMBERS,
            "type": st.sampled_from(["token", "task", ["token"], None, 1, "Token"]),
        },
    )
)  # fmt: skip
def test_state_of_is_what_the_views_say(views: Views, fields: dict[str, Any]) -> None:
    check(views, {"_id": "t", "type": "token", **fields})


# ── moves ────────────────────────────────────────────────────────────────────────────────────────────────────────────

MOVES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "lock": (transitions.lock, "locked"),
    "unlock": (transitions.unlock, "todo"),
    "scrub": (transitions.scrub, "todo"),
    "reset": (transitions.reset, "todo"),
    "retry": (transitions.retry, "todo"),
    "fail": (lambda doc: transitions.fail(doc, "no"), "error"),
    "mark_error": (transitions.mark_error, "error"),
}


OPEN, LOCKED, FAILED = {"lock": 0, "done": 0}, {"lock": 5, "done": 0}, {"lock": 99, "done": 99, "exit_code": 1}


@pytest.mark.parametrize(
    ("move", "start"),
    [
        (move, start)
        for move in MOVES
        for start in (OPEN, LOCKED, FAILED)
        if move not in ("lock", "unlock") or not start["done"]
    ],
)
def test_every_move_ends_in_the_state_of_its_name(move: str, start: dict[str, Any]) -> None:
    change, expected = MOVES[move]
    assert state_of(change({"_id": "t", "type": "token", **start})) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["scrub", "reset", "retry", "fail", "mark_error"]), min_size=1, max_size=6),
    st.sampled_from(ODD),
)
def test_no_sequence_of_moves_leaves_the_states(moves: list[str], odd: Any) -> None:
    doc: Any = {
        "_id": "t",
        "type": "token",
        "lock": odd,
        "done": odd,
        "exit_code": odd,
        "error": odd,
        "scrub_count": odd,
    }
    for move in moves:
        MOVES[move][0](doc)
        assert state_of(doc) == MOVES[move][1]
        assert {type(doc["lock"]), type(doc["done"])} == {int}


@pytest.mark.parametrize("code", ["", None, 0, "0", "0 ok", 0.5])
def test_a_failed_token_never_keeps_an_exit_code_that_means_success(code: Any) -> None:
    assert transitions.fail({"type": "token", "exit_code": code})["exit_code"] == 99
    assert transitions.fail({"type": "token", "exit_code": 7})["exit_code"] == 7


def test_a_token_is_held_only_by_the_claim_that_nobody_has_touched_since() -> None:
    doc: Any = transitions.lock({"_id": "t", "type": "token", "done": 0}, {"worker": "w", "claim": "c"})
    assert is_held_by(doc, "c")
    assert not is_held_by(doc, "other")
    assert not is_held_by({**doc, "lock": doc["lock"] + 1}, "c")  # picas took it
    assert not is_held_by({**doc, "hostname": "elsewhere"}, "c")
    assert not is_held_by({**doc, "done": 5}, "c")
    for move in (transitions.unlock, transitions.scrub, transitions.close, transitions.fail):
        assert "lease" not in move({**doc})


@pytest.mark.parametrize("order", [{}, {"depends_on": ["p"]}, {"not_before": 5}])
def test_a_pause_holds_a_token_and_its_end_only_frees_what_waits_for_nothing_else(order: dict[str, Any]) -> None:
    doc: Any = {"type": "token", "lock": 0, "done": 0, **order}
    assert (state_of(transitions.pause(doc)), doc["paused"]) == ("held", True)
    assert state_of(transitions.resume(doc)) == ("held" if order else "todo")
    assert "paused" not in doc
    assert state_of(transitions.release(doc)) == "todo"
    assert state_of(transitions.hold({**doc, "lease": {"claim": "c"}})) == "held"
    assert "lease" not in transitions.hold({**doc, "lease": {"claim": "c"}})


def test_claimable_wants_a_free_open_token_that_nobody_cancelled() -> None:
    free = {"lock": 0, "done": 0}
    assert claimable(free)
    assert claimable({"lock": 0})
    assert claimable({"lock": "0", "done": ""})
    for odd in ({"done": None}, {"lock": None}, {"lock": 5}, {"done": 5}, {"cancel": {"by": "me"}}, {"_deleted": True}):
        assert not claimable({**free, **odd})


def test_cancelling_ends_what_waits_and_asks_what_runs() -> None:
    waiting: Any = transitions.cancel({"type": "token", "lock": 0, "done": 0, "exit_code": 0}, "me")
    running: Any = transitions.cancel({"type": "token", "lock": 5, "done": 0}, "me")
    assert (state_of(waiting), waiting["error"][0]["message"]) == ("error", "cancelled by me")
    assert (state_of(running), running["cancel"]["by"]) == ("locked", "me")
    assert state_of(transitions.retry(waiting)) == "todo"
    assert "cancel" not in waiting


def test_reset_forgets_the_result_and_retry_keeps_it() -> None:
    failed = {
        "lock": 9,
        "done": 9,
        "exit_code": 1,
        "output": 5,
        "attempts": [1],
        "_attachments": {"a": 1},
        "hostname": "h",
    }
    reset, again = transitions.reset({**failed}), transitions.retry({**failed})
    assert ("_attachments" in reset, reset["exit_code"], reset["hostname"], reset["attempts"]) == (False, "", "", [1])
    assert (again["_attachments"], again["exit_code"], again["scrub_count"]) == ({"a": 1}, "", 1)


def test_the_states_are_named_once() -> None:
    assert len(set(STATES)) == 6
    assert set(STATES) > FINAL

"""Fields of tokens that do not run are changed by a merge patch, and only to what makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_documents import locked, token, worker

from tokenpool import connect
from tokenpool.edits import difference, merge
from tokenpool.errors import BadInput
from tokenpool.pool import Pool
from tokenpool.transitions import state_of

JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4)


@given(OBJECTS, OBJECTS)
def test_a_difference_is_the_patch_that_makes_one_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merge(before, difference(before, after)) == after


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with connect(pool_url, create=True) as opened:
        yield opened


def state(pool: Pool, token_id: str = "t") -> str:
    return state_of(pool.get(token_id).doc)


def test_fields_are_set_merged_and_removed(pool: Pool) -> None:
    pool.push({"_id": "t", "input": "true", "timeout": 5, "resources": {"ram_gb": 1, "gpus": 1}, "tags": {"a": "b"}})
    done = pool.edit("t", {"priority": 5, "timeout": None, "resources": {"ram_gb": 4, "gpus": None}})
    assert (done.matched, done.changed) == (1, 1)
    doc = pool.get("t").doc
    assert (doc["priority"], doc["resources"], doc["tags"]) == (5, {"ram_gb": 4}, {"a": "b"})
    assert "timeout" not in doc


def test_only_tokens_that_do_not_run_are_changed(pool: Pool) -> None:
    # Given a token in every state
    token(pool.backend, "todo")
    token(pool.backend, "held", lock=-1)
    token(pool.backend, "done", lock=5, done=9, exit_code=0)
    token(pool.backend, "error", lock=5, done=9, exit_code=1)
    token(pool.backend, "invalid", lock=-7)
    locked(pool.backend, "locked", worker(pool.backend))
    # When all are edited, then those that run, or are none, are left alone
    done = pool.edit("all", {"priority": 1})
    assert (done.matched, done.changed, done.skipped) == (6, 4, 2)
    assert {each.id for each in pool.tokens() if each.get("priority") == 1} == {"todo", "held", "done", "error"}
    assert pool.edit("all", {"priority": 2}, dry_run=True).changed == 4
    assert pool.get("todo")["priority"] == 1


@pytest.mark.parametrize(
    "name", ["_id", "_rev", "_attachments", "lock", "done", "type", "lease", "exit_code", "cancel"]
)
def test_what_the_pool_writes_is_not_to_be_edited(pool: Pool, name: str) -> None:
    pool.push({"_id": "t", "input": "true"})
    with pytest.raises(BadInput, match=f"'{name}' is not to be edited"):
        pool.edit("t", {name: 1})


@pytest.mark.parametrize(
    "fields",
    [{"timeout": -1}, {"resources": {"cpu_cores": "many"}}, {"depends_on": ["t"]}, {"command": []}, {"input": None}],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    pool: Pool, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two tokens, of which the second would be spoiled, written one by one
    monkeypatch.setattr("tokenpool.changes.CHUNK", 1)
    pool.push([{"_id": "a", "input": "true", "command": "true"}, {"_id": "t", "input": "true"}])
    before = [each.doc for each in pool.tokens()]
    with pytest.raises(BadInput):
        pool.edit("all", fields)
    assert [each.doc for each in pool.tokens()] == before


def test_the_shell_line_that_picas_runs_follows_the_command(pool: Pool) -> None:
    pool.push({"_id": "t", "command": ["echo", "one"], "env": {"A": "1"}})
    pool.edit("t", {"command": ["echo", "two words"]})
    assert pool.get("t")["input"] == "export A=1; echo 'two words'"
    pool.edit("t", {"env": None})
    assert pool.get("t")["input"] == "echo 'two words'"


def test_a_token_that_is_to_wait_is_held_and_one_that_waits_no_more_is_let_go(pool: Pool) -> None:
    pool.push({"_id": "t", "input": "true"})
    pool.push({"_id": "parent", "input": "true"})
    pool.edit("t", {"not_before": pool.backend.now() + 500})
    assert state(pool) == "held"
    pool.edit("t", {"not_before": pool.backend.now() - 500})
    assert state(pool) == "todo"
    pool.edit("t", {"depends_on": ["parent"], "not_before": None})
    assert state(pool) == "held"
    pool.edit("t", {"priority": 5})
    assert state(pool) == "held"
    pool.edit("t", {"depends_on": None})
    assert state(pool) == "todo"


def test_a_token_that_is_held_for_another_reason_stays_held(pool: Pool) -> None:
    token(pool.backend, "paused", lock=-1, paused=True, not_before=5)
    token(pool.backend, "by_hand", lock=-1)
    pool.edit(["paused", "by_hand"], {"not_before": None, "depends_on": None})
    assert [state(pool, name) for name in ("paused", "by_hand")] == ["held", "held"]


def test_a_finished_token_that_is_to_wait_stays_finished(pool: Pool) -> None:
    token(pool.backend, "t", lock=5, done=9, exit_code=1)
    pool.edit("t", {"not_before": pool.backend.now() + 500})
    assert state(pool) == "error"

"""Stories of pushing tokens that wait for a time or for others, on each backend: held, closed, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from waiting_tokens import LATER, finish, last_attempt, push, states

from tokenpool.backends import open_backend
from tokenpool.errors import BadInput
from tokenpool.pool import Pool


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    pool = Pool(open_backend(pool_url, create=True))
    pool.init()
    yield pool
    pool.close_connections()


def test_a_token_with_open_parents_is_held_and_one_without_is_not(pool: Pool) -> None:
    push(pool, "a", "b", "c < a b", "d < c", "e")
    assert states(pool) == {"a": "todo", "b": "todo", "c": "held", "d": "held", "e": "todo"}


def test_a_token_that_is_not_due_or_paused_is_held(pool: Pool) -> None:
    pool.push({"_id": "later", "not_before": LATER})
    pool.push({"_id": "text", "not_before": "2096-10-02T07:06:40Z"})
    pool.push({"_id": "due", "not_before": 5})
    pool.push({"_id": "paused", "paused": True})
    assert states(pool) == {"later": "held", "text": "held", "due": "todo", "paused": "held"}
    assert pool.get("text")["not_before"] == LATER


def test_parents_that_have_ended_decide_at_once(pool: Pool) -> None:
    push(pool, "good", "bad")
    finish(pool.backend, "good")
    finish(pool.backend, "bad", exit_code=3)
    push(pool, "a < good", "b < good bad", "c < b", "d < good a")
    pool.push({"_id": "e", "depends_on": ["bad"], "accept_failure": True})
    pool.push({"_id": "f", "depends_on": ["bad"], "paused": True})
    assert states(pool) == {
        "good": "done", "bad": "error", "a": "todo", "b": "error", "c": "error", "d": "held", "e": "todo", "f": "held",
    }  # fmt: skip
    assert "token bad" in pool.get("b")["error"][-1]["message"]
    assert last_attempt(pool, "c")["failure_class"] == "dependency"


@pytest.mark.parametrize("parents", [["nobody"], ["a", "nobody"]])
def test_a_parent_that_is_not_there_is_named_and_nothing_is_pushed(pool: Pool, parents: list[str]) -> None:
    with pytest.raises(
        BadInput, match="c depends on nobody, which is neither in the pool nor pushed before"
    ) as refused:
        pool.push([{"_id": "a"}, {"_id": "c", "depends_on": parents}])
    assert "parents are pushed first" in refused.value.hint
    assert states(pool) == {}


def test_a_document_that_is_no_token_is_no_parent(pool: Pool) -> None:
    pool.backend.put_many([{"_id": "worker_1", "type": "worker"}])
    with pytest.raises(BadInput, match="depends on worker_1"):
        push(pool, "a < worker_1")


def test_tokens_that_wait_for_one_another_are_named_and_nothing_is_pushed(pool: Pool) -> None:
    with pytest.raises(BadInput, match="wait for one another: b → a → c → b"):
        push(pool, "x", "a < c", "b < a", "c < b x", "d < c")
    assert states(pool) == {}


def test_chunks_before_a_refused_one_stay_and_the_hint_says_so(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenpool.pushes.CHUNK", 2)
    with pytest.raises(BadInput, match="depends on e") as refused:
        push(pool, "a", "b < a", "c < e", "d", "e")
    assert "first 2 tokens were pushed" in refused.value.hint
    assert states(pool) == {"a": "todo", "b": "held"}


def test_of_two_tokens_with_one_id_neither_slips_through(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is saved; that it is the first is no server's promise, so the second may not be open either."""
    push(pool, "a")
    put, sent = pool.backend.put_many, []
    monkeypatch.setattr(pool.backend, "put_many", lambda docs: sent.extend(docs) or put(docs))
    twice = {"_id": "b", "depends_on": ["a"]}
    finished = {"_id": "p", "lock": 9, "done": 9, "exit_code": 0}
    list(pool.push_stream([twice, twice, {"_id": "p"}, finished, {"_id": "c", "depends_on": ["p"]}]))
    assert states(pool) == {"a": "todo", "b": "held", "p": "todo", "c": "held"}
    assert [doc["lock"] for doc in sent if doc["_id"] == "b"] == [-1, -1]


def test_the_same_work_is_known_again_whatever_it_waits_for(pool: Pool) -> None:
    first = pool.push(["echo"], dedupe=True)
    assert pool.push([{"input": "echo", "not_before": LATER, "paused": True}], dedupe=True) == first


def test_what_is_carried_over_keeps_its_state(pool: Pool) -> None:
    docs = [
        {"_id": "a", "depends_on": ["gone"], "lock": -1, "type": "token", "done": 0},
        {"_id": "b", "depends_on": ["gone"], "lock": 9, "type": "token", "done": 9, "exit_code": 0, "priority": "high"},
        {"_id": "c", "depends_on": ["gone"], "lock": 0, "type": "token", "done": 0},
    ]
    assert [answer.saved for answer in pool.restore(docs)] == [True, True, True]
    assert states(pool) == {"a": "held", "b": "done", "c": "todo"}


def test_a_child_that_is_pushed_at_that_moment_stays_open_too(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    push(pool, "a")
    finish(pool.backend, "a", exit_code=1)
    put, once = pool.backend.put_many, []

    def late(docs: Any) -> Any:
        if not once:
            once.append(True)
            pool.retry("a")
        return put(docs)

    monkeypatch.setattr(pool.backend, "put_many", late)
    push(pool, "b < a", "c < b")
    assert states(pool) == {"a": "todo", "b": "held", "c": "held"}

"""Iterators claim until nothing is left, forgive what others did meanwhile, and wait where they are told to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import couchdb.http
import pytest
from picas_scripts import client_of, push, state

from tokenpool.clients import CouchDB
from tokenpool.documents import Document, Task
from tokenpool.errors import ClaimFailed, Conflict, PoolEmpty
from tokenpool.iterators import (
    EndlessViewIterator,
    PrioritizedViewIterator,
    TaskViewIterator,
    ViewIterator,
    _claim_task,
)


@pytest.fixture
def client(pool_url: str) -> Iterator[CouchDB]:
    client = client_of(pool_url)
    yield client
    client.pool.close_connections()


class Listed(ViewIterator):
    """Gives what it is told to."""

    def __init__(self, *items: Any) -> None:
        super().__init__()
        self.items = list(items)

    def claim_task(self) -> Any:
        item = self.items.pop(0)  # IndexError where none is left
        if isinstance(item, BaseException):
            raise item
        return item


def test_an_iterator_ends_and_stays_ended_until_it_is_reset() -> None:
    iterator = Listed(1, 2)
    assert list(iterator) == [1, 2]
    iterator.items.append(3)
    assert (iterator.is_stopped(), list(iterator)) == (True, [])
    iterator.reset()
    assert iterator.next() == 3


def test_a_stopped_iterator_claims_nothing() -> None:
    iterator = Listed(1)
    iterator.stop()
    assert (list(iterator), iterator.items) == ([], [1])


def test_other_errors_come_through() -> None:
    with pytest.raises(OSError, match="disk"):
        next(Listed(OSError("disk")))
    with pytest.raises(NotImplementedError, match="claim_task"):
        next(ViewIterator())


def test_every_token_of_a_view_is_claimed_once(client: CouchDB) -> None:
    ids = push(client, *(f"t{n:02}" for n in range(70)))
    claimed = list(TaskViewIterator(client, "todo"))
    assert sorted(token.id for token in claimed) == ids
    assert {state(client, each) for each in ids} == {"locked"}
    assert len({token["lease"]["claim"] for token in claimed}) == 70


def test_two_iterators_share_a_view_without_a_collision(client: CouchDB) -> None:
    ids = push(client, *(f"t{n:02}" for n in range(30)))
    one, other = TaskViewIterator(client, "todo"), TaskViewIterator(client, "todo")
    claimed: list[str] = []
    while True:
        round_ = [token.id for token in (next(one, None), next(other, None)) if token is not None]
        if not round_:
            break
        claimed += round_
    assert sorted(claimed) == ids


def test_the_high_view_comes_first_again_and_again(couch_db: str) -> None:
    client = client_of(couch_db)
    for name, rank in (("high", "doc.rank == 1"), ("low", "doc.rank == 2")):
        code = f"function(doc) {{ if ({rank} && doc.lock == 0 && doc.done == 0) emit(doc._id, null); }}"
        client.add_view(name, code, design_doc="Priority")
    push(client, *({"_id": f"{n}-{rank}", "rank": rank} for n in range(3) for rank in (2, 1)))
    iterator = PrioritizedViewIterator(client, "high", "low", design_doc="Priority")
    first = [next(iterator)["rank"] for _ in range(4)]
    push(client, {"_id": "late", "rank": 1})
    rest = [token["rank"] for token in iterator]
    assert first == [1, 1, 1, 2]
    assert sorted(rest) == [1, 2, 2]


def test_a_view_that_lists_what_is_taken_gives_only_what_is_free(couch_db: str) -> None:
    client = client_of(couch_db)
    client.add_view("all", "function(doc) { if (doc.type == 'token') emit(doc._id, null); }", design_doc="Mine")
    push(
        client,
        "free",
        {"_id": "held", "lock": -1},
        {"_id": "taken", "lock": 5},
        {"_id": "finished", "lock": 5, "done": 6},
    )
    assert [token.id for token in TaskViewIterator(client, "all", design_doc="Mine")] == ["free"]


class Plain:
    """A client with picas' methods only: a test's, or a user's."""

    conflict: Exception = Conflict("somebody was faster")

    def __init__(self, docs: dict[str, Any], refusals: int = 0) -> None:
        self.docs, self.refusals, self.asked = docs, refusals, 0

    def get_single_from_view(self, view: str, **params: Any) -> Document:
        self.asked += 1
        assert params["window_size"] == 100
        free = [doc for doc in self.docs.values() if doc is not None]
        if not free:
            raise IndexError
        return Document(dict(free[0]))

    def save(self, doc: Task) -> Task:
        if self.refusals:
            self.refusals -= 1
            raise self.conflict
        self.docs[doc.id] = None
        return doc


@pytest.mark.parametrize("conflict", [Conflict("ours"), couchdb.http.ResourceConflict("theirs")])
def test_a_plain_client_is_asked_again_after_a_conflict(conflict: Exception) -> None:
    client = Plain({"a": {"_id": "a", "_rev": "1", "lock": 0}}, refusals=3)
    client.conflict = conflict
    assert [token.id for token in TaskViewIterator(client, "todo")] == ["a"]
    assert client.asked == 5


def test_ten_conflicts_are_too_many() -> None:
    with pytest.raises(ClaimFailed) as failed:
        _claim_task(Plain({"a": {"_id": "a", "_rev": "1", "lock": 0}}, refusals=99), "todo")
    assert isinstance(failed.value, EnvironmentError)
    assert str(failed.value) == "Unable to claim task."


def test_a_token_that_is_locked_or_deleted_meanwhile_is_passed_over() -> None:
    class Changing(Plain):
        answers = [ValueError("deleted"), {"_id": "a", "_rev": "1", "lock": 5}, {"_id": "b", "_rev": "1", "lock": 0}]

        def get_single_from_view(self, view: str, **params: Any) -> Document:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return Document(answer)

    assert _claim_task(Changing({}), "todo").id == "b"


def test_an_empty_view_is_an_index_error(client: CouchDB) -> None:
    with pytest.raises(PoolEmpty):
        _claim_task(client, "todo", design_doc="Monitor", allowed_failures=3)
    with pytest.raises(IndexError):
        client.get_single_from_view("todo")


def test_an_endless_iterator_goes_on_when_work_comes() -> None:
    inner = Listed()

    def callback(limit: int) -> bool:
        calls.append(limit)
        if len(calls) == 3:
            inner.items.append("work")
        return len(calls) >= limit

    calls: list[int] = []
    endless = EndlessViewIterator(inner, sleep_sec=0.001, stop_callback=callback, limit=50)
    assert list(endless) == ["work"]
    assert len(calls) >= 50


def test_a_stopped_endless_iterator_does_not_sleep_on() -> None:
    inner = Listed()
    endless = EndlessViewIterator(inner, sleep_sec=600)
    inner.reset = endless.stop  # type: ignore[method-assign]
    assert list(endless) == []

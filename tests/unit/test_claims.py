"""Claims are spread, looked up when in doubt, and given back when interrupted; nothing stays locked by nobody."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from altered_backend import Altered, away, edit, lose_answer, lose_request

from tokenpool import claims as claims_module
from tokenpool import transitions
from tokenpool.backends import open_backend
from tokenpool.backends.base import Want
from tokenpool.claims import WINDOW_AGE, WINDOW_LEAST, WINDOW_MOST, Claimer
from tokenpool.errors import NotFound, ServerAway
from tokenpool.leases import Lease, new_worker_id
from tokenpool.pool import Pool
from tokenpool.transitions import state_of


@pytest.fixture
def backend(pool_url: str) -> Iterator[Any]:
    pool = Pool(open_backend(pool_url, create=True))
    pool.init()
    yield Altered(pool.backend)
    pool.close_connections()


def push(backend: Any, *tokens: Any) -> None:
    list(Pool(backend).push_stream([{"_id": token} if isinstance(token, str) else token for token in tokens]))


def ids(docs: list[Any]) -> list[str]:
    return [doc["_id"] for doc in docs]


def locked(backend: Any) -> list[str]:
    return sorted(ids(list(backend.scan("locked"))))


def test_claims_carry_worker_and_a_claim_of_their_own(backend: Any) -> None:
    push(backend, "a", "b", "c")
    lease = Lease(backend)
    claimer = Claimer(backend, lease)
    docs = claimer.claim(2) + claimer.claim(5)
    assert sorted(ids(docs)) == ["a", "b", "c"]
    assert {doc["lease"]["worker"] for doc in docs} == {lease.name}
    assert len({doc["lease"]["claim"] for doc in docs}) == 3
    assert all(transitions.is_held_by(backend.get(doc["_id"]), doc["lease"]["claim"]) for doc in docs)
    assert claimer.claim() == []
    assert claimer.exhausted
    assert new_worker_id() != new_worker_id()


def test_one_window_serves_many_claims(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    push(backend, *(f"t{n:03}" for n in range(WINDOW_LEAST + 10)))
    reads: list[int] = []
    candidates = backend.real.candidates
    monkeypatch.setattr(
        backend.real,
        "candidates",
        lambda want, limit, start=None: reads.append(limit) or candidates(want, limit, start),
    )
    claimer = Claimer(backend)
    for _ in range(WINDOW_LEAST):
        assert len(claimer.claim(1)) == 1
    assert reads == [WINDOW_LEAST]
    assert len(claimer.claim(10)) == 10
    assert Claimer(backend, slots=10_000)._size == WINDOW_MOST


def test_an_old_window_is_read_anew(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(claims_module.time, "monotonic", lambda: now[0])
    push(backend, *(f"low{n}" for n in range(5)))
    claimer = Claimer(backend)
    claimer.claim(1)
    push(backend, {"_id": "urgent", "priority": 9})
    now[0] += WINDOW_AGE + 1
    assert ids(claimer.claim(1)) == ["urgent"]


def test_the_highest_priority_comes_first_however_they_are_mixed(backend: Any) -> None:
    push(backend, *({"_id": f"{n}-{rank}", "priority": rank} for n in range(10) for rank in (1, 3, 2)))
    claimer = Claimer(backend)
    claimer._spread = True
    order = [backend.get(claimer.claim(1)[0]["_id"])["priority"] for _ in range(30)]
    assert order == sorted(order, reverse=True)


def test_workers_that_spread_begin_at_different_places(backend: Any) -> None:
    push(backend, *(f"t{n:03}" for n in range(300)))
    firsts = set()
    for seed in range(8):
        random.seed(seed)
        claimer = Claimer(backend)
        claimer._spread = True
        claimer._read_window()
        firsts.add(claimer._window[0]["_id"])
        assert len({doc["_id"] for doc in claimer._window}) == WINDOW_LEAST
    assert len(firsts) >= 6


def test_a_lost_race_makes_it_look_elsewhere(backend: Any) -> None:
    push(backend, *(f"t{n:03}" for n in range(100)))
    claimer = Claimer(backend)
    claimer._spread = False
    claimer._read_window()
    for doc in claimer._window[:20]:
        edit(backend.real, doc["_id"], lock=5)
    got = claimer.commit(10).claimed
    assert (got, claimer._spread, claimer._window, claimer.exhausted) == ([], True, [], False)
    assert len(claimer.claim(10)) == 10


@pytest.mark.parametrize("lost", [lose_answer, lose_request])
def test_a_claim_in_doubt_is_looked_up_at_once(backend: Any, lost: Any) -> None:
    push(backend, "a", "b")
    backend.script = [lost]
    docs = Claimer(backend).claim(2)
    assert (sorted(ids(docs)), locked(backend)) == (["a", "b"], ["a", "b"])


def test_a_claim_in_doubt_while_the_server_is_away_is_looked_up_later(backend: Any) -> None:
    push(backend, "a", "b", "c")
    claimer = Claimer(backend)
    backend.script, backend.reads_away = [lose_answer], 1
    with pytest.raises(ServerAway):
        claimer.commit(2)
    assert len(locked(backend)) == 2
    first = claimer.commit(2)
    assert sorted(ids(first.claimed)) == locked(backend)
    assert len(first.claimed) == 2  # those it had, no third
    assert len(claimer.claim(2)) == 1


@pytest.mark.parametrize("next_failure", ["write", "look"])
def test_claims_found_out_are_not_lost_by_the_next_failure(
    backend: Any, monkeypatch: pytest.MonkeyPatch, next_failure: str
) -> None:
    push(backend, "a", "b", "c")
    claimer = Claimer(backend)
    backend.script, backend.reads_away = [lose_answer], 1
    with pytest.raises(ServerAway):
        claimer.commit(1)

    with monkeypatch.context() as broken:
        if next_failure == "write":
            backend.script = [away]
        else:
            claimer._window = []
            broken.setattr(backend.real, "candidates", refuse)
        with pytest.raises(ServerAway):
            claimer.commit(2)

    assert sorted(ids(claimer.claim(3))) == locked(backend) == ["a", "b", "c"]


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise ServerAway("no answer")


@pytest.mark.parametrize("lost", [lose_answer, lose_request])
def test_an_interrupted_claim_is_given_back(backend: Any, lost: Any) -> None:
    class Signal(BaseException):
        pass

    def interrupted(real: Any, docs: Any) -> Any:
        if lost is lose_answer:
            real.put_many(docs)
        raise Signal

    push(backend, "a", "b")
    claimer = Claimer(backend)
    backend.script = [interrupted]
    with pytest.raises(Signal):
        claimer.commit(2)
    claimer.abandon()
    assert locked(backend) == []
    assert {backend.get(each)["scrub_count"] for each in "ab"} == {0}
    assert len(Claimer(backend).claim(2)) == 2
    claimer.abandon()  # nothing is left to give back
    assert len(locked(backend)) == 2


def test_only_what_is_wanted_is_claimed(backend: Any) -> None:
    push(
        backend,
        {"_id": "a", "batch": "x", "tags": {"k": "v"}}, {"_id": "b", "batch": "x"}, {"_id": "c", "batch": "y", "tags": {"k": "v"}},
    )  # fmt: skip
    assert ids(Claimer(backend, want=Want(batches=("y",))).claim(5)) == ["c"]
    assert ids(Claimer(backend, want=Want(tags={"k": "v"})).claim(5)) == ["a"]
    assert ids(Claimer(backend, want=Want(design="Monitor", view="todo")).claim(5)) == ["b"]


def test_a_view_that_is_missing_is_named(backend: Any) -> None:
    with pytest.raises(NotFound, match="nothing"):
        Claimer(backend, want=Want(design="Monitor", view="nothing")).claim()


def test_asking_for_nothing_writes_nothing(backend: Any) -> None:
    push(backend, "a")
    backend.written.clear()
    began = time.monotonic()
    assert Claimer(backend).commit(0).claimed == []
    assert backend.written == []
    assert time.monotonic() - began < 60
    assert state_of(backend.get("a")) == "todo"

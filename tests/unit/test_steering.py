"""Workers and batches are seen and steered by one small document each, whoever else writes to it meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
from altered_backend import Altered, edit_first, lose_answer, lose_request
from worker_documents import busy, locked, moment, running, token, worker

from tokenpool import batch_rules, connect, steering
from tokenpool.backends.base import Backend, Json, WriteResult
from tokenpool.batch_rules import BatchRule
from tokenpool.errors import BadInput, Conflict, NotFound, TokenpoolError
from tokenpool.pool import Pool
from tokenpool.steering import choose, steer, steer_many, workers


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with connect(pool_url, create=True) as opened:
        yield opened


@pytest.fixture
def backend(pool: Pool) -> Backend:
    return pool.backend


# --- workers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "state", "alive", "claims"),
    [
        ({}, "working", True, True),
        ({"drain": True}, "draining", True, False),
        ({"drain": True, "stop": True}, "stopping", True, False),
        ({"silent_for": 500.0}, "silent", False, False),
        ({"silent_for": 200.0}, "working", True, True),
        ({"fenced": True, "stop": True}, "fenced", False, False),
        ({"renewed": "never"}, "silent", False, False),
    ],
)
def test_the_state_of_a_worker_follows_from_its_document(
    backend: Backend, fields: Json, state: str, alive: bool, claims: bool
) -> None:
    busy(backend, "a", "t", **fields)
    (seen,) = workers(backend)
    assert (seen.state, seen.alive, seen.claims) == (state, alive, claims)


def test_workers_are_listed_by_host_with_all_that_they_tell(backend: Backend) -> None:
    # Given two workers, and things that only look like workers
    worker(backend, "b", hostname="n2")
    busy(backend, "a", "t", silent_for=30.0, note="hm", ends=backend.now() + 60)
    token(backend, "worker_of_the_month")
    # When they are listed, then only workers are
    one, two = workers(backend)
    assert [one.hostname, two.hostname] == ["n1", "n2"]
    assert (one.slots, one.free, one.note, one.load, one.pid) == (4, 3, "hm", 1.2, 7)
    assert one.age == pytest.approx(30, abs=5)
    assert one.ends is not None
    assert one.name == "worker_a0000000 on n1"
    assert one.summary() == {
        "id": one.id, "hostname": "n1", "slots": 4, "running": 1, "state": "working", "renewed": one.renewed, "note": "hm",
    }  # fmt: skip
    assert one.as_json()["tokens"][0]["token"] == "t"
    assert (two.state, two.free) == ("idle", 4)


def test_what_a_worker_has_finished_since_it_renewed_is_not_counted(backend: Backend) -> None:
    # Given a worker whose document still names two tokens, of which it holds one, and one that holds more than it tells
    busy(backend, "a", "t", "u", slots=2)
    token(backend, "u")
    other = worker(backend, "b", slots=2)
    for name in ("v", "w", "x"):
        locked(backend, name, other)
    # Then the pool's own count is told
    assert [(each.held, each.free, each.state) for each in workers(backend)] == [(1, 1, "working"), (3, 0, "working")]
    token(backend, "t")
    assert (workers(backend)[0].state, workers(backend)[0].running) == ("idle", ())


def test_the_tails_of_logs_are_not_in_the_listing(backend: Backend) -> None:
    me = worker(backend, running=[running("t", out={"size": 1, "tail": "x"})])
    locked(backend, "t", me)
    assert "out" not in workers(backend)[0].as_json()["tokens"][0]


def test_a_worker_is_chosen_by_the_beginning_of_its_id_its_host_or_with_all(backend: Backend) -> None:
    for name, host in (("3f9a", "n1"), ("3fb", "n1"), ("c", "n2")):
        worker(backend, name, hostname=host)
    found = workers(backend)

    def ids(*words: str) -> list[str]:
        return sorted(each.id[7:10] for each in choose(found, words))

    assert ids("all") == ["3f9", "3fb", "c00"]
    assert ids("host:n1") == ["3f9", "3fb"]
    assert ids("worker_c") == ids("c") == ["c00"]
    assert ids("3f9", "worker_3f9", "c") == ["3f9", "c00"]


@pytest.mark.parametrize(
    ("word", "kind", "message", "hint"),
    [
        ("3f", BadInput, "could be 2 workers", "worker_3f9a"),
        ("x", NotFound, "no worker 'x'", "worker list"),
        ("worker_", NotFound, "no worker 'worker_'", "worker list"),
        ("n1", NotFound, "no worker 'n1'", "host:n1"),
        ("host:n11", NotFound, "no worker on host 'n11'", "did you mean 'host:n1'?"),
    ],
)
def test_a_word_that_names_no_worker_or_several_is_refused(
    backend: Backend, word: str, kind: type[TokenpoolError], message: str, hint: str
) -> None:
    worker(backend, "3f9a")
    worker(backend, "3fb0")
    with pytest.raises(kind, match=message) as refused:
        choose(workers(backend), [word])
    assert hint in refused.value.hint


def test_orders_are_written_beside_what_the_worker_says_of_itself(backend: Backend) -> None:
    # Given a worker that runs a token
    me = worker(backend, running=[running("t")])
    before = backend.get(me)
    # When it gets all orders there are
    written = steer(backend, me, slots=8, prefetch=2, drain=True, stop=True, look=True, follow="t")
    # Then nothing else has changed
    now = backend.get(me)
    orders = {"slots": 8, "prefetch": 2, "drain": True, "stop": True, "look": 1, "follow": {"t": 1}}
    assert written == now == {**before, **orders, "_rev": now["_rev"]}


def test_what_is_ordered_already_is_not_written(backend: Backend) -> None:
    me = worker(backend)
    before = backend.get(me)["_rev"]
    assert steer(backend, me, slots=4, drain=False)["_rev"] == before == backend.get(me)["_rev"]


def test_follow_counts_up_and_forgets_what_runs_no_more(backend: Backend) -> None:
    me = worker(backend, running=[running("t"), running("u")], follow={"t": 3, "u": 1, "old": 9, "odd": "x"})
    assert steer(backend, me, follow="t")["follow"] == {"t": 4, "u": 1}


@pytest.mark.parametrize("act", [lose_answer, lose_request, edit_first("worker_" + "a".ljust(32, "0"), load=9)])
def test_an_order_arrives_whoever_else_writes_and_whatever_answer_is_lost(backend: Backend, act: object) -> None:
    me = worker(backend, "a")
    altered = Altered(backend)
    altered.script = [act]  # type: ignore[list-item]
    steer(altered, me, slots=9)  # type: ignore[arg-type]
    assert backend.get(me)["slots"] == 9


def test_a_worker_that_is_written_all_the_time_is_told_of(backend: Backend) -> None:
    me = worker(backend, "a")
    altered = Altered(backend)

    def disturb(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
        steer(real, me, look=True)
        return real.put_many(docs)

    altered.script = [disturb] * steering.ROUNDS
    with pytest.raises(Conflict, match="all the time"):
        steer(altered, me, slots=9)  # type: ignore[arg-type]


def test_an_order_to_one_worker_is_for_one(pool: Pool) -> None:
    for name in "ab":
        worker(pool.backend, name)
    assert pool.steer_worker("a", slots=7).slots == 7
    with pytest.raises(BadInput, match="names 2 workers"):
        pool.steer_worker("all", stop=True)
    assert [each.state for each in pool.workers()] == ["idle", "idle"]


def test_workers_that_have_left_are_passed_over_or_told_of(backend: Backend) -> None:
    me = worker(backend)
    assert [doc["_id"] for doc in steer_many(backend, [me, "worker_gone", me], look=True)] == [me]
    assert backend.get(me)["look"] == 1
    with pytest.raises(NotFound, match="not there any more"):
        steer(backend, "worker_gone", look=True)


@pytest.mark.parametrize("slots", [0, -1, True, 1.5])
def test_a_number_of_slots_that_is_none_is_refused(backend: Backend, slots: int) -> None:
    with pytest.raises(BadInput, match="no number of slots"):
        steer(backend, worker(backend), slots=slots)


@pytest.mark.parametrize("prefetch", [-1, True, 1.5, "2"])
def test_a_number_of_tokens_to_claim_ahead_that_is_none_is_refused(backend: Backend, prefetch: int) -> None:
    me = worker(backend)
    with pytest.raises(BadInput, match="no number of tokens"):
        steer(backend, me, prefetch=prefetch)
    assert "prefetch" not in backend.get(me)


@pytest.mark.parametrize(("written", "told"), [({}, 0), ({"prefetch": 3}, 3), ({"prefetch": "many"}, 0)])
def test_a_worker_tells_how_many_tokens_it_claims_ahead(backend: Backend, written: Json, told: int) -> None:
    worker(backend, **written)
    (one,) = workers(backend)
    assert (one.prefetch, one.as_json()["prefetch"]) == (told, told)


# --- tokens that are taken from a worker --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["cancel", "reset", "scrub"])
def test_whoever_holds_a_token_that_is_changed_is_told_to_look_once(pool: Pool, verb: str) -> None:
    # Given a worker with two tokens, one with another, and one that does not hold any
    mine, other, bystander = worker(pool.backend, "a"), worker(pool.backend, "b"), worker(pool.backend, "c")
    for name, holder in (("t", mine), ("u", mine), ("v", other)):
        locked(pool.backend, name, holder, batch="x")
    token(pool.backend, "w", batch="x")
    # When these tokens are taken away
    pool.change(verb, "batch:x")
    # Then each worker was told with one write
    assert [pool.backend.get(each)["look"] for each in (mine, other, bystander)] == [1, 1, 0]


def test_a_dry_run_tells_nobody(pool: Pool) -> None:
    me = worker(pool.backend)
    locked(pool.backend, "t", me)
    pool.cancel("t", dry_run=True)
    assert pool.backend.get(me)["look"] == 0


def test_a_token_that_nobody_alive_holds_is_cancelled_all_the_same(pool: Pool) -> None:
    locked(pool.backend, "t", "worker_gone")
    assert pool.cancel("t").changed == 1


# --- batches ---------------------------------------------------------------------------------------------------------------


def test_a_rule_is_one_document_and_what_is_not_named_stays(pool: Pool) -> None:
    pool.push("true", batch="night")
    assert pool.batch("night") == BatchRule("night")
    assert pool.set_batch("night", priority=5) == BatchRule("night", False, 5)
    assert pool.set_batch("night", paused=True, max_running=3) == BatchRule("night", True, 5, 3)
    assert pool.set_batch("night", max_running=None) == BatchRule("night", True, 5)
    doc = pool.backend.get("batch_night")
    assert {name: value for name, value in doc.items() if name != "_rev"} == {
        "_id": "batch_night", "type": "batch", "name": "night", "paused": True, "priority": 5, "max_running": None,
    }  # fmt: skip


def test_a_rule_for_a_name_that_nobody_knows_is_refused(pool: Pool) -> None:
    pool.push("true", batch="night")
    with pytest.raises(NotFound, match="no batch 'nihgt'") as refused:
        pool.set_batch("nihgt", paused=True)
    assert "did you mean 'night'?" in refused.value.hint
    pool.set_batch("tomorrow", create=True, paused=True)
    assert pool.set_batch("tomorrow", paused=False) == BatchRule("tomorrow")


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": "high"}, {"priority": math.inf}, {"priority": True}, {"max_running": 0}, {"max_running": -1},
        {"max_running": 1.5}, {"max_running": True}, {"paused": "yes"}, {"colour": "red"},
    ],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(pool: Pool, fields: Json) -> None:
    pool.push("true", batch="night")
    with pytest.raises(BadInput):
        pool.set_batch("night", **fields)
    with pytest.raises(BadInput):
        pool.set_batch("", paused=True)
    assert pool.backend.get_many(["batch_night"]) == [None]


def test_batches_are_those_with_tokens_and_those_with_rules(pool: Pool) -> None:
    pool.push(["true", "true"], batch="night")
    pool.push("true")
    pool.set_batch("empty", create=True, paused=True)
    token(pool.backend, "batch_token")
    told = {each.rule.name: (each.rule.paused, each.states["todo"]) for each in batch_rules.batches(pool.backend)}
    assert told == {"empty": (True, 0), "night": (False, 2)}


def test_the_bell_is_rung_when_tokens_may_run_and_only_then(pool: Pool) -> None:
    pool.push("true", batch="night")

    def rings() -> int:
        bell = pool.backend.get_many(["bell"])[0]
        return bell["rings"] if bell else 0

    before = rings()
    pool.set_batch("night", paused=True)
    pool.set_batch("night", priority=3)
    assert rings() == before
    pool.set_batch("night", paused=False)
    assert rings() == before + 1
    pool.set_batch("night", paused=False)
    assert rings() == before + 1


@pytest.mark.parametrize("act", [lose_answer, lose_request, edit_first("batch_night", priority=2)])
def test_a_rule_arrives_whatever_answer_is_lost(pool: Pool, act: object) -> None:
    pool.push("true", batch="night")
    pool.set_batch("night", priority=1)
    altered = Altered(pool.backend)
    altered.script = [act]  # type: ignore[list-item]
    assert batch_rules.set_batch(altered, "night", paused=True).paused  # type: ignore[arg-type]
    assert pool.batch("night").paused


def test_a_rule_that_was_written_by_hand_is_read_as_far_as_it_makes_sense(pool: Pool) -> None:
    pool.backend.put_many([{"_id": "batch_x", "type": "batch", "paused": 1, "priority": "p", "max_running": "m"}])
    assert pool.batch("x") == BatchRule("x", True)


def test_status_has_the_workers(pool: Pool) -> None:
    me = worker(pool.backend, renewed=moment(pool.backend.now()))
    (told,) = pool.status()["workers"]
    assert (told["id"], told["hostname"], told["slots"], told["running"], told["state"]) == (me, "n1", 4, 0, "idle")

"""Stories of tokens that wait for a time or for others, on each backend."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from waiting_tokens import LATER, finish, last_attempt, push, settle, states, write

from tokenpool.backends import open_backend
from tokenpool.backends.base import Backend, Json
from tokenpool.dependencies import end_broken, open_ready, release
from tokenpool.errors import AnswerLost
from tokenpool.pool import Pool


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    pool = Pool(open_backend(pool_url, create=True))
    pool.init()
    yield pool
    pool.close_connections()


# --- a pass --------------------------------------------------------------------------------------------------------


def test_a_child_is_opened_when_all_its_parents_are_done(pool: Pool) -> None:
    push(pool, "a", "b", "c < a b", "d < c")
    finish(pool.backend, "a")
    assert release(pool.backend).released == []
    finish(pool.backend, "b")
    assert release(pool.backend).released == ["c"]
    finish(pool.backend, "c")
    # Only the children of what has just ended are looked at, if one knows what it was.
    assert release(pool.backend, parents=["a"]).released == []
    assert release(pool.backend, parents=["c"]).released == ["d"]
    assert states(pool) == {"a": "done", "b": "done", "c": "done", "d": "todo"}


def test_a_failed_parent_closes_its_children_and_theirs(pool: Pool) -> None:
    push(pool, "a", "b", "c < a b", "d < c", "e < d")
    pool.push({"_id": "f", "depends_on": ["e"], "accept_failure": True})
    finish(pool.backend, "a", exit_code=3)
    found = release(pool.backend)
    assert (sorted(found.closed), found.released) == (["c", "d", "e"], ["f"])
    # Whatever the other parent is still doing
    assert states(pool) == {"a": "error", "b": "todo", "c": "error", "d": "error", "e": "error", "f": "todo"}
    doc = pool.get("d").doc
    assert (doc["exit_code"], doc["lock"], doc["done"]) == (99, 99, 99)
    assert doc["error"][-1]["message"] == "it was not run: token c, which it depends on, failed"
    entry = last_attempt(pool, "d")
    assert (entry["claim"], entry["failure_class"], entry["counted"]) == ("dependency", "dependency", False)


def test_a_token_is_opened_when_it_is_due_by_the_pool_s_clock(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    push(pool, "a", "c < a", not_before=LATER)
    push(pool, "b", not_before=LATER + 60)
    assert release(pool.backend).next_due == LATER
    monkeypatch.setattr(pool.backend, "now", lambda: LATER + 1.0)
    found = release(pool.backend)
    assert (found.released, found.next_due) == (["a"], LATER + 60)
    finish(pool.backend, "a")
    assert release(pool.backend).released == ["c"]


def test_a_parent_that_is_done_does_not_open_a_child_before_its_time(pool: Pool) -> None:
    push(pool, "a", "b")
    pool.push({"_id": "c", "depends_on": ["a"], "not_before": LATER})
    finish(pool.backend, "a")
    assert (release(pool.backend).released, states(pool)["c"]) == ([], "held")


def test_what_is_paused_or_was_held_by_hand_is_left_alone(pool: Pool) -> None:
    push(pool, "a")
    pool.push({"_id": "b", "depends_on": ["a"], "paused": True})
    pool.push({"_id": "c", "not_before": 5, "paused": True})
    write(pool.backend, {"_id": "picas"})
    finish(pool.backend, "a")
    settle(pool)
    assert end_broken(pool.backend, {}, 0.0) == []
    assert states(pool) == {"a": "done", "b": "held", "c": "held", "picas": "held"}


def test_a_pass_changes_no_more_than_it_may_and_says_that_there_is_more(pool: Pool) -> None:
    push(pool, "a", "bad", *(f"c{n} < a" for n in range(5)), *(f"d{n} < bad" for n in range(5)))
    finish(pool.backend, "a")
    finish(pool.backend, "bad", exit_code=1)
    passes = []
    while True:
        found = release(pool.backend, limit=3)
        passes.append(len(found.released) + len(found.closed))
        if not found.more:
            break
    assert passes == [3, 3, 3, 1]
    assert Counter(states(pool).values()) == {"done": 1, "error": 6, "todo": 5}


def test_one_pass_opens_all_children_of_a_parent_also_where_they_fill_several_windows(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenpool.dependencies.WINDOW", 2)
    push(pool, "a", *(f"c{n} < a" for n in range(5)))
    finish(pool.backend, "a")
    assert len(release(pool.backend).released) == 5


def test_parents_that_wait_themselves_and_children_that_are_known_to_wait_are_not_read(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(pool, "t00", *(f"t{n:02} < t{n - 1:02}" for n in range(1, 50)), not_before=LATER)
    monkeypatch.setattr(pool.backend, "now", lambda: LATER - 5.0)
    read, get_many = [], pool.backend.get_many
    monkeypatch.setattr(
        pool.backend, "get_many", lambda ids, conflicts=False: read.extend(ids) or get_many(ids, conflicts)
    )
    release(pool.backend)
    assert read == ["t00"]
    read.clear()
    monkeypatch.setattr(pool.backend, "now", lambda: LATER + 5.0)
    assert release(pool.backend).released == ["t00"]
    assert set(read) == {"t00"}


@pytest.mark.parametrize("still_open", [None, 0, 3, 5, 6])
def test_every_parent_of_many_counts(pool: Pool, still_open: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenpool.parents.SLICE", 2)
    push(pool, *(f"p{n}" for n in range(7)), "c < p0 p1 p2 p3 p4 p5 p6")
    finish(pool.backend, *(f"p{n}" for n in range(7) if n != still_open))
    assert open_ready(pool.backend, ["c"]) == ([] if still_open is not None else ["c"])


@pytest.mark.parametrize("window", [1, 2, 7])
def test_windows_and_pages_miss_nobody(pool: Pool, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the children of one parent fill several, and where the first of them cannot be opened."""
    for name in ("dependencies.WINDOW", "reopening.PAGE", "parents.PAGE", "dependencies.PAGE", "parents.SLICE"):
        monkeypatch.setattr(f"tokenpool.{name}", window)
    monkeypatch.setattr("tokenpool.dependencies.LOOKUPS", 1)
    push(pool, "open", "a", "b", "bad", "stuck0 < a open", "stuck1 < a open", *(f"x{n} < a b" for n in range(8)))
    push(pool, "y0 < x0 b", *(f"z{n} < open bad" for n in range(4)), "last < z3")
    finish(pool.backend, "a", "b")
    finish(pool.backend, "bad", exit_code=1)
    settle(pool)
    ended = states(pool)
    assert {name for name, state in ended.items() if state == "todo"} == {"open", *(f"x{n}" for n in range(8))}
    assert {name for name, state in ended.items() if state == "held"} == {"stuck0", "stuck1", "y0"}
    # Each of these has an open parent as well, and so is closed when its failed parent is looked at.
    release(pool.backend, parents=["bad"])
    assert {states(pool)[f"z{n}"] for n in range(4)} == {"error"}
    assert states(pool)["last"] == "error"


def test_a_parent_with_conflicts_is_not_finished_yet(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    push(pool, "a", "c < a")
    finish(pool.backend, "a")
    read = pool.backend.get_many

    def with_conflicts(ids: Any, conflicts: bool = False) -> list[Json | None]:
        docs = read(ids, conflicts)
        return [{**doc, "_conflicts": ["2-x"]} if doc and conflicts and doc["_id"] == "a" else doc for doc in docs]

    with monkeypatch.context() as patch:
        patch.setattr(pool.backend, "get_many", with_conflicts)
        assert release(pool.backend).released == []
    assert release(pool.backend).released == ["c"]


def test_an_answer_that_was_lost_is_found_out_in_the_next_pass(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    push(pool, "a", "b < a", "c < b")
    finish(pool.backend, "a", exit_code=1)
    put = pool.backend.put_many

    def lost(docs: Any) -> Any:
        put(docs)
        raise AnswerLost("lost")

    with monkeypatch.context() as patch:
        patch.setattr(pool.backend, "put_many", lost)
        assert release(pool.backend).closed == []
    assert release(pool.backend).closed == ["c"]
    assert len(pool.get("b")["attempts"]) == 1


def test_the_children_of_a_child_that_is_put_back_at_that_moment_stay_open(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A janitor read the parent as failed; then somebody retries it, and only then the janitor's write arrives."""
    push(pool, "a", "b < a", "c < b")
    finish(pool.backend, "a", exit_code=1)
    put, once = pool.backend.put_many, []

    def late(docs: Any) -> Any:
        if not once:
            once.append(True)
            pool.retry("a")
        return put(docs)

    monkeypatch.setattr(pool.backend, "put_many", late)
    release(pool.backend)
    assert states(pool) == {"a": "todo", "b": "held", "c": "held"}


# --- in vain -------------------------------------------------------------------------------------------------------


def test_a_parent_may_be_missing_for_a_while_only(pool: Pool) -> None:
    write(pool.backend, {"_id": "a", "depends_on": ["gone"]}, {"_id": "b", "depends_on": ["late"]})
    seen: dict[str, float] = {}
    assert end_broken(pool.backend, seen, 10.0, lambda: 100.0) == []
    push(pool, "late")
    assert end_broken(pool.backend, seen, 10.0, lambda: 109.0) == []
    assert end_broken(pool.backend, seen, 10.0, lambda: 110.0) == ["a"]
    assert states(pool) == {"a": "error", "b": "held", "late": "todo"}
    assert "gone, which is not in the pool" in pool.get("a")["error"][-1]["message"]
    assert last_attempt(pool, "a")["failure_class"] == "invalid"
    # What is missing no more is forgotten: it has the whole time again when it goes missing once more.
    pool.rm("late")
    assert end_broken(pool.backend, seen, 10.0, lambda: 115.0) == []
    assert end_broken(pool.backend, seen, 10.0, lambda: 124.0) == []
    assert end_broken(pool.backend, seen, 10.0, lambda: 125.0) == ["b"]


def test_cycles_that_were_written_into_the_database_end_and_so_does_what_hangs_on_them(pool: Pool) -> None:
    write(
        pool.backend,
        {"_id": "a", "depends_on": ["c"]},
        {"_id": "b", "depends_on": ["a", "ok"]},
        {"_id": "c", "depends_on": ["b"]},
        {"_id": "self", "depends_on": ["self"]},
        {"_id": "behind", "depends_on": ["c"]},
        {"_id": "paused", "depends_on": ["paused"], "paused": True},
        {"_id": "ok", "lock": 0},
        {"_id": "child", "depends_on": ["ok"]},
    )
    assert sorted(end_broken(pool.backend, {}, 10.0)) == ["a", "b", "c", "self"]
    assert "waits for itself: a → c → b → a" in pool.get("a")["error"][-1]["message"]
    assert last_attempt(pool, "self")["failure_class"] == "invalid"
    settle(pool)
    assert last_attempt(pool, "behind")["failure_class"] == "dependency"
    assert (states(pool)["paused"], states(pool)["child"]) == ("held", "held")


def test_a_cycle_is_found_among_many_children_too(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenpool.dependencies.WINDOW", 2)
    write(pool.backend, *({"_id": f"c{n}", "depends_on": ["z"]} for n in range(9)), {"_id": "z", "depends_on": ["c8"]})
    assert sorted(end_broken(pool.backend, {}, 10.0)) == ["c8", "z"]


def test_not_many_more_broken_tokens_are_ended_at_once_than_asked_for(pool: Pool) -> None:
    write(pool.backend, *({"_id": f"t{n}", "depends_on": [f"t{n ^ 1}"]} for n in range(8)))
    seen: dict[str, float] = {}
    # The others are not left until it would be time for the next look
    assert [len(end_broken(pool.backend, seen, 1000.0, limit=3)) for _ in range(3)] == [4, 4, 0]
    assert Counter(states(pool).values()) == {"error": 8}


def test_the_whole_pool_is_not_looked_at_all_the_time(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    waiting = pool.backend.waiting
    monkeypatch.setattr(pool.backend, "waiting", lambda kind, **more: asked.append(kind) or waiting(kind, **more))
    seen: dict[str, float] = {}
    for second in range(100):
        end_broken(pool.backend, seen, 100.0, lambda now=second: float(now))
    assert len(asked) == 4


# --- back again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["retry", "reset", "scrub"])
def test_children_wait_again_when_their_parent_is_put_back(pool: Pool, verb: str) -> None:
    push(pool, "a", "x", "b < a x", "c < b", "d < c")
    finish(pool.backend, "a", exit_code=1)
    settle(pool)
    planned = pool.change(verb, "a", dry_run=True)
    assert (planned.changed, planned.reopened, states(pool)["b"]) == (1, 3, "error")
    done = pool.change(verb, "a")
    assert (done.changed, done.reopened) == (1, 3)
    assert states(pool) == {"a": "todo", "x": "todo", "b": "held", "c": "held", "d": "held"}
    doc = pool.get("b").doc
    assert (doc["attempts"], doc["exit_code"], doc["done"]) == ([], "", 0)
    for name in ("a", "x", "b", "c", "d"):
        settle(pool)
        finish(pool.backend, name)
    assert set(states(pool).values()) == {"done"}


def test_a_retry_of_all_that_failed_runs_no_child_before_its_parent(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenpool.changes.CHUNK", 1)
    push(pool, "m", "z < m", "a < m", "b < a", "c")
    finish(pool.backend, "m", exit_code=1)
    finish(pool.backend, "c", exit_code=1)
    settle(pool)
    planned = pool.retry("state:error", dry_run=True)
    assert (planned.changed, planned.reopened) == (5, 0)
    done = pool.retry("state:error")
    assert (done.changed + done.reopened, done.skipped, done.failed) == (5, 0, ())
    assert states(pool) == {"m": "todo", "c": "todo", "a": "held", "b": "held", "z": "held"}
    settle(pool)
    assert states(pool)["z"] == "held"


def test_a_child_that_is_retried_alone_waits_for_its_parent_or_runs_at_once(pool: Pool) -> None:
    push(pool, "good", "bad")
    finish(pool.backend, "good")
    finish(pool.backend, "bad", exit_code=1)
    push(pool, "b < bad", "g < good", not_before=5)
    finish(pool.backend, "g", exit_code=1)
    assert states(pool)["b"] == "error"
    pool.retry(["b", "g"])
    assert (states(pool)["b"], states(pool)["g"]) == ("held", "todo")
    # The parent is as it was
    assert release(pool.backend).closed == ["b"]


def test_a_pause_goes_before_everything_else(pool: Pool) -> None:
    push(pool, "a", "b < a", "c")
    assert pool.pause("all").changed == 3
    assert pool.pause("all").skipped == 3
    assert set(states(pool).values()) == {"held"}
    settle(pool)
    assert pool.resume("a").changed == 1
    finish(pool.backend, "a")
    settle(pool)
    assert states(pool) == {"a": "done", "b": "held", "c": "held"}
    # Nobody has to make a pass before it is claimed
    pool.resume("all")
    assert states(pool) == {"a": "done", "b": "todo", "c": "todo"}
    assert "paused" not in pool.get("c").doc


def test_a_child_that_is_resumed_waits_for_its_parent_still(pool: Pool) -> None:
    push(pool, "a", "b < a")
    pool.pause("b")
    assert pool.resume("b").changed == 1
    assert states(pool)["b"] == "held"
    finish(pool.backend, "a")
    assert release(pool.backend).released == ["b"]


def test_a_pause_ends_with_the_token(pool: Pool) -> None:
    push(pool, "a")
    pool.pause("a")
    pool.cancel("a")
    pool.retry("a")
    assert (states(pool)["a"], "paused" in pool.get("a").doc) == ("todo", False)


def test_what_waits_is_not_resumed_and_what_was_held_by_hand_is(pool: Pool) -> None:
    push(pool, "a", "b < a")
    write(pool.backend, {"_id": "picas"})
    done = pool.resume("all")
    assert (done.changed, done.skipped) == (1, 2)
    assert states(pool) == {"a": "todo", "b": "held", "picas": "todo"}


def test_what_is_ready_is_opened_and_nothing_is_closed(pool: Pool) -> None:
    push(pool, "good", "bad", "b < bad", "g < good")
    finish(pool.backend, "good")
    finish(pool.backend, "bad", exit_code=1)
    write(pool.backend, {"_id": "picas"})
    assert open_ready(pool.backend, ["b", "g", "good", "gone", "picas"]) == ["g"]
    assert (states(pool)["b"], states(pool)["picas"]) == ("held", "held")


def test_children_wait_again_also_where_an_answer_was_lost(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    push(pool, "a", "b < a", "c < b")
    finish(pool.backend, "a", exit_code=1)
    settle(pool)
    put, lost = pool.backend.put_many, {"a", "b"}

    def put_many(docs: Any) -> Any:
        answer = put(docs)
        if lost & {doc["_id"] for doc in docs}:
            lost.difference_update(doc["_id"] for doc in docs)
            raise AnswerLost("lost")
        return answer

    monkeypatch.setattr(pool.backend, "put_many", put_many)
    done = pool.retry("a")
    assert (done.changed, done.reopened, done.skipped) == (1, 2, 0)
    assert states(pool) == {"a": "todo", "b": "held", "c": "held"}


def test_workers_are_woken_by_what_may_be_claimed_now(pool: Pool) -> None:
    """By a push, and by each verb that opens tokens; a dry run and a pause wake nobody."""

    def rings() -> int:
        bell = pool.backend.get_many(["bell"])[0]
        return int(bell["rings"]) if bell else 0

    push(pool, "a")
    heard = [rings()]
    for verb, words, dry_run in (
        ("pause", "a", False), ("resume", "a", True), ("resume", "a", False), ("cancel", "a", False), ("retry", "a", False),
    ):  # fmt: skip
        pool.change(verb, words, dry_run)
        heard.append(rings())
    assert heard == [1, 1, 1, 2, 2, 3]


# --- many, and at the same time ------------------------------------------------------------------------------------


def test_children_of_one_parent_are_opened_page_by_page(pool: Pool) -> None:
    push(pool, "a", *(f"c{n:04} < a" for n in range(2500)))
    finish(pool.backend, "a")
    counts = []
    while not counts or counts[-1]:
        counts.append(len(release(pool.backend).released))
    assert counts == [1000, 1000, 500, 0]


def both(backend: Backend) -> None:
    """Make a pass in two threads at once."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(2)

    def run() -> None:
        try:
            barrier.wait(60)
            release(backend)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("seed", range(6))
def test_every_token_ends_as_a_plain_model_has_it(pool: Pool, seed: int) -> None:
    """Random tokens with random parents, finished in a random order, some of them failing, some put back once."""
    chance = random.Random(seed)
    count = 40
    names = [f"t{n:02}" for n in range(count)]
    parents = {name: chance.sample(names[:n], min(n, chance.choice([0, 0, 1, 2, 3]))) for n, name in enumerate(names)}
    accepts = {name: chance.random() < 0.2 for name in names}
    fails = {name for name in names if chance.random() < 0.2}
    again = {name for name in fails if chance.random() < 0.3}

    # Given what must come of it: a token whose parent fails is closed, and has failed for its own children
    expected: dict[str, str] = {}
    for name in names:
        hindered = any(expected[parent] != "done" for parent in parents[name]) and not accepts[name]
        expected[name] = "dependency" if hindered else "executor" if name in fails - again else "done"

    shuffled = chance.sample(names, count)
    pool.push({"_id": name, "depends_on": parents[name], "accept_failure": accepts[name]} for name in shuffled)
    retried: set[str] = set()
    failed: set[str] = set()
    while True:
        # When tokens end, and two look at those that wait
        ready = [name for name, state in states(pool).items() if state == "todo"]
        for name in chance.sample(ready, min(len(ready), chance.choice([1, 3, 9]))):
            good = name not in fails or name in retried
            finish(pool.backend, name, exit_code=0 if good else 3)
            failed |= set() if good else {name}
        both(pool.backend)
        # And somebody puts a failed one back
        back = {name for name in failed & again - retried if not ready or chance.random() < 0.5}
        for name in sorted(back):
            retried.add(name)
            pool.retry(name)
        if not ready and not back:
            break
    # Then each stands as the model has it
    found = {}
    for token in pool.tokens():
        reason = (last_attempt(pool, token.id) or {}).get("failure_class")
        found[token.id] = token.state if token.state != "error" else reason or "executor"
    assert found == expected

"""Conformance of a `Backend`: who holds what, what waits for what, and being told of a change at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from ..backends.base import Backend, Heard, Json, Refused
from ..errors import BadInput, TokenpoolError
from ..transitions import holder_of
from .backend_parts import RACERS, Parts, ids, race, saved, token, tokens
from .backend_rules import lease

#: Seconds that no test waits for unless it fails.
LONG = 60.0
#: Seconds after which nothing has come; too short to miss what has.
SHORT = 0.2


def taken() -> list[Json]:
    """Return locked tokens: of two workers in two batches, of picas, and with leases that do not count."""
    return [
        token("a1", batch="a", **lease("worker_1")),
        token("a2", batch="a", **lease("worker_1", lock=6)),
        token("b1", batch="b", **lease("worker_1")),
        token("b2", batch="b", **lease("worker_2")),
        token("none", **lease("worker_2")),
        token("picas", batch="a", lock=5, hostname="n1"),
        token("taken over", batch="a", **{**lease("worker_1"), "lock": 7}),
        token("elsewhere", batch="a", **{**lease("worker_1"), "hostname": "n2"}),
        token("odd", batch="a", lock=5, lease="worker_1"),
        token("nobody", batch="a", lock=5, lease={"lock": 5, "worker": 1}),
        token("no host", batch="a", lock=5, lease={"worker": "worker_2", "lock": 5}),
        # Not locked: a lease that somebody left in it says nothing.
        token("todo", batch="a", lease={"worker": "worker_1", "lock": 0}),
        token("done", batch="a", done=9, exit_code=0, **lease("worker_1")),
        {"_id": "worker_1", "type": "worker", **lease("worker_1"), "done": 0},
    ]


def held(name: str, **fields: object) -> Json:
    """Return a token that is held."""
    return token(name, **{"lock": -1, **fields})


def closed(name: str, *parents: str, failure: str = "dependency", **fields: object) -> Json:
    """Return a token that was closed because a parent failed."""
    attempts = [{"claim": "c", "failure_class": "executor"}, {"claim": "dependency", "failure_class": failure}]
    return token(
        name, **{"lock": 99, "done": 99, "exit_code": 99, "depends_on": [*parents], "attempts": attempts, **fields}
    )


class HolderTests(Parts):
    """holders, and scan by holder."""

    def test_locked_tokens_are_counted_by_holder(self, pool: Backend) -> None:
        assert pool.holders() == {}
        saved(pool, *taken())
        assert pool.holders() == {
            ("a", "worker_1"): 2,
            ("b", "worker_1"): 1,
            ("b", "worker_2"): 1,
            ("", "worker_2"): 1,
            ("a", ""): 5,
            ("a", "worker_2"): 1,
        }

    def test_a_scan_by_holder(self, pool: Backend) -> None:
        saved(pool, *taken())
        for worker in ("worker_1", "worker_2", ""):
            expected = sorted(
                doc["_id"] for doc in taken() if doc["type"] == "token" and doc["lock"] and not doc["done"]
                and holder_of(doc) == worker
            )  # fmt: skip
            assert sorted(ids(list(pool.scan(holder=worker)))) == expected
            assert sorted(ids(list(pool.scan("locked", holder=worker, with_docs=False)))) == expected
        assert sorted(ids(list(pool.scan("locked", "a", holder="worker_1")))) == ["a1", "a2"]
        assert list(pool.scan(holder="worker_9")) == []
        assert list(pool.scan("todo", holder="worker_1")) == []
        assert list(pool.scan(batch="z", holder="worker_1")) == []

    def test_a_scan_by_holder_yields_whole_documents(self, pool: Backend) -> None:
        saved(pool, *taken())
        assert list(pool.scan(holder="worker_2", batch="b")) == [pool.get("b2")]

    def test_a_scan_by_holder_of_many_yields_each_once(self, pool: Backend) -> None:
        saved(pool, *tokens(600, "a", batch="a", **lease("worker_1")), *tokens(300, "b", **lease("worker_1")))
        found = ids(list(pool.scan(holder="worker_1")))
        assert sorted(found) == ids(tokens(600, "a") + tokens(300, "b"))

    def test_holders_follow_every_write(self, pool: Backend) -> None:
        # Given a token that somebody takes, another takes over, and that is done
        (rev,) = saved(pool, token("one"))
        (rev,) = saved(pool, token("one", _rev=rev, **lease("worker_1")))
        assert pool.holders() == {("", "worker_1"): 1}
        (rev,) = saved(pool, token("one", _rev=rev, batch="b", **lease("worker_2")))
        assert pool.holders() == {("b", "worker_2"): 1}
        assert list(pool.scan(holder="worker_1")) == []
        (rev,) = saved(pool, token("one", _rev=rev, done=9, **lease("worker_2")))
        assert pool.holders() == {}


class WaitTests(Parts):
    """waiting."""

    def test_nothing_waits_in_an_empty_pool(self, pool: Backend) -> None:
        for kind in ("due", "parent", "closed", "conflict"):
            assert pool.waiting(kind) == []
            assert pool.waiting(kind, keys=[]) == []
            assert pool.waiting(kind, keys=["none"]) == []

    def test_what_is_due(self, pool: Backend) -> None:
        # Given held tokens with a time, and others with one that nobody waits for
        saved(pool, held("late", not_before=300), held("soon", not_before=100.5), held("now", not_before=-1))
        saved(
            pool, token("todo", not_before=5), held("never"), held("text", not_before="5"), held("yes", not_before=True)
        )
        saved(pool, {"_id": "doc", "lock": -1, "done": 0, "not_before": 5})
        # Then they are listed by it
        assert pool.waiting("due") == [(-1, "now"), (100.5, "soon"), (300, "late")]
        assert pool.waiting("due", until=100.5) == [(-1, "now"), (100.5, "soon")]
        assert pool.waiting("due", until=-2) == []
        # And the next one is found alone
        assert pool.waiting("due", limit=1) == [(-1, "now")]
        assert pool.waiting("due", limit=1, after=-1) == [(100.5, "soon")]
        assert pool.waiting("due", until=200.0, after=-1) == [(100.5, "soon")]

    def test_what_waits_for_parents(self, pool: Backend) -> None:
        # Given held tokens with parents, and others that have some but do not wait
        saved(pool, held("x", depends_on=["p1", "p2", "p1"]), held("y", depends_on=["p2"]), held("z", depends_on=[]))
        saved(pool, token("todo", depends_on=["p1"]), closed("failed", "p1"), held("odd", depends_on=[None, 1, {}]))
        saved(pool, held("text", depends_on="p1"), held("strange", depends_on=["__proto__", "a b/c", ""]))
        # Then there is one row for each parent
        rows = [("", "strange"), ("__proto__", "strange"), ("a b/c", "strange"), ("p1", "x"), ("p2", "x"), ("p2", "y")]
        assert sorted(pool.waiting("parent")) == rows
        # And some parents are asked about
        assert pool.waiting("parent", keys=["p2", "none", "p1"]) == rows[3:]
        assert pool.waiting("parent", keys={"p2"}, limit=1) == [("p2", "x")]
        assert pool.waiting("parent", keys=["none"]) == []
        # And the rows after one
        assert pool.waiting("parent", after="p1") == rows[4:]
        assert pool.waiting("parent", after="p2") == []

    def test_what_was_closed_with_a_parent(self, pool: Backend) -> None:
        # Given tokens that ended because of their parents, and others that ended otherwise
        saved(pool, closed("x", "p1", "p2"), closed("y", "p2"), closed("own", "p1", failure="executor"))
        saved(pool, held("held", depends_on=["p1"]), closed("again", "p1", lock=0, done=0))
        saved(
            pool,
            closed("fine", "p1", exit_code=0),
            closed("odd", "p1", attempts=[None]),
            closed("none", "p1", attempts=5),
        )
        saved(
            pool,
            closed("empty", "p1", attempts=[]),
            closed("last", "p1", attempts=[{"failure_class": "dependency"}, 5]),
        )
        assert pool.waiting("closed") == [("p1", "x"), ("p2", "x"), ("p2", "y")]
        assert pool.waiting("closed", keys=["p2"]) == [("p2", "x"), ("p2", "y")]

    def test_what_waits_follows_every_write(self, pool: Backend) -> None:
        # Given a token that waits for a time and a parent
        (rev,) = saved(pool, held("x", depends_on=["p"], not_before=5))
        # When it waits for others, opens, ends in error, and is deleted
        (rev,) = saved(pool, held("x", _rev=rev, depends_on=["q"], not_before=6))
        assert (pool.waiting("due"), pool.waiting("parent")) == ([(6, "x")], [("q", "x")])
        (rev,) = saved(pool, token("x", _rev=rev, depends_on=["q"], not_before=6))
        assert (pool.waiting("due"), pool.waiting("parent")) == ([], [])
        (rev,) = saved(pool, closed("x", "q", _rev=rev))
        assert pool.waiting("closed") == [("q", "x")]
        saved(pool, {"_id": "x", "_rev": rev, "_deleted": True})
        # Then each time only what is true now is listed
        assert [pool.waiting(kind) for kind in ("due", "parent", "closed", "conflict")] == [[], [], [], []]

    def test_a_refused_write_lists_nothing(self, pool: Backend) -> None:
        saved(pool, held("x", depends_on=["p"]))
        (result,) = pool.put_many([held("x", depends_on=["q"])])
        assert isinstance(result, Refused)
        assert pool.waiting("parent") == [("p", "x")]

    def test_more_parents_than_one_question_names(self, pool: Backend) -> None:
        saved(pool, *(held(f"t{i:04d}", depends_on=[f"p{i:04d}"]) for i in range(900)))
        names = [f"p{i:04d}" for i in range(0, 900, 1)][::-1]
        assert pool.waiting("parent", keys=names) == [(f"p{i:04d}", f"t{i:04d}") for i in range(900)]
        assert pool.waiting("parent", keys=names, limit=600) == pool.waiting("parent", limit=600)

    def test_an_unknown_kind_is_bad_input(self, pool: Backend) -> None:
        with pytest.raises(BadInput) as caught:
            pool.waiting("dew")
        assert "due" in caught.value.hint


class ListenTests(Parts):
    """listen, now, revision."""

    @pytest.fixture
    def aside(self) -> Iterator[ThreadPoolExecutor]:
        """Somewhere to listen while the test goes on."""
        with ThreadPoolExecutor(RACERS) as threads:
            yield threads

    def test_the_first_marker_comes_at_once(self, pool: Backend) -> None:
        # Given documents with a past
        saved(pool, {"_id": "bell"})
        # When somebody begins to listen, then he hears nothing of it
        heard = pool.listen(["bell", "none"], timeout=LONG)
        assert heard.changed == frozenset()
        assert heard.marker
        assert pool.listen(["bell", "none"], heard.marker, SHORT) == Heard(frozenset(), heard.marker)

    def test_a_change_between_two_calls_is_heard(self, pool: Backend, other: Backend) -> None:
        (rev,) = saved(
            pool,
            {"_id": "bell"},
        )
        marker = pool.listen(["bell", "none"]).marker
        # When a document changes while nobody listens, by our own hand or another's
        for writer in (pool, other):
            (rev,) = saved(writer, {"_id": "bell", "_rev": rev})
            saved(writer, {"_id": f"noise {rev}"})
            # Then the next one who listens from where we were hears of it at once, once
            heard = pool.listen(["bell", "none"], marker, LONG)
            assert heard.changed == {"bell"}
            marker = heard.marker
            assert pool.listen(["bell", "none"], marker, 0).changed == frozenset()

    def test_a_change_ends_the_wait(self, pool: Backend, other: Backend, aside: ThreadPoolExecutor) -> None:
        # Given many that listen
        (rev,) = saved(pool, {"_id": "bell"})
        marker = pool.listen(["bell"]).marker
        begun = threading.Barrier(RACERS + 1)

        def wait(number: int) -> Heard:
            begun.wait()
            return pool.listen(["bell", f"worker_{number}"], marker, LONG)

        waits = [aside.submit(wait, number) for number in range(RACERS)]
        begun.wait()
        # When other documents are written, and then that one
        for number in range(5):
            saved(other, {"_id": f"noise {number}"})
        saved(other, {"_id": "bell", "_rev": rev, "rings": 1})
        # Then all are told
        assert {frozenset(heard.result(LONG / 2).changed) for heard in waits} == {frozenset({"bell"})}

    def test_documents_that_are_made_and_deleted_have_changed(self, pool: Backend, other: Backend) -> None:
        marker = pool.listen(["x", "y"]).marker
        (rev,) = saved(other, {"_id": "x"})
        heard = pool.listen(["x", "y"], marker, LONG)
        assert heard.changed == {"x"}
        saved(other, {"_id": "x", "_rev": rev, "_deleted": True})
        assert pool.listen(["x", "y"], heard.marker, LONG).changed == {"x"}

    def test_other_documents_do_not_end_the_wait(self, pool: Backend, other: Backend) -> None:
        marker = pool.listen(["bell"]).marker
        saved(other, *tokens(20), {"_id": "bell2"})
        assert pool.listen(["bell"], marker, SHORT).changed == frozenset()
        assert pool.listen([], marker, SHORT).changed == frozenset()

    def test_several_changes_are_heard_together(self, pool: Backend, other: Backend) -> None:
        names = [f"d{number}" for number in range(9)]
        marker = pool.listen(names).marker
        saved(other, *({"_id": name} for name in names[:5]))
        found: set[str] = set()
        while len(found) < 5:
            heard = pool.listen(names, marker, LONG)
            assert heard.changed
            found |= heard.changed
            marker = heard.marker
        assert found == set(names[:5])

    def test_closing_ends_the_wait(self, pool: Backend, other: Backend, aside: ThreadPoolExecutor) -> None:
        if other is pool:
            pytest.skip("the pool has one handle only")
        # Given a thread that listens on a handle
        marker = other.listen(["bell"]).marker
        wait: Future[Heard] = aside.submit(other.listen, ["bell"], marker, LONG)
        # When the handle is closed, then the thread is told, long before its time
        other.close()
        with pytest.raises(TokenpoolError):
            wait.result(LONG / 2)
        with pytest.raises(TokenpoolError):
            other.listen(["bell"], marker, LONG)

    def test_the_clock_of_the_pool_runs(self, pool: Backend) -> None:
        # One clock for all who use the pool: what is due is due for everybody.
        first = pool.now()
        assert first > 1_700_000_000
        assert all(isinstance(moment, float) for moment in race(4, lambda i: pool.now()))

    def test_a_given_revision(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "a b/c", "n": 1})
        assert pool.revision("a b/c", rev) == pool.get("a b/c")
        assert pool.revision("a b/c", "9-00000000000000000000000000000000") is None
        assert pool.revision("none", rev) is None

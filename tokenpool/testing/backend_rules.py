"""Conformance of a `Backend`: batches that are paused, go first or have a limit, and tokens that do not fit a worker."""

from __future__ import annotations

from typing import Any

import pytest

from ..backends.base import Backend, Json, Want
from .backend_parts import Parts, ids, offered, saved, token, tokens

STARTS = [None, 0.0, 0.6]
MONITOR = Want(design="Monitor", view="todo")


def batch(name: str, **rules: Any) -> Json:
    """Return the document of a batch."""
    return {"_id": f"batch_{name}", "type": "batch", "name": name, **rules}


def lease(worker: str, lock: int = 5, host: str = "n1") -> Json:
    """Return what a worker writes into a token that it locks."""
    return {"lock": lock, "hostname": host, "lease": {"worker": worker, "claim": "c", "lock": lock, "hostname": host}}


class RuleTests(Parts):
    """candidates, as batches and workers limit them. A queue is `short` or `long`: that may be read in another way."""

    @pytest.fixture(params=["short", "long"])
    def many(self, request: pytest.FixtureRequest) -> int:
        """Return how many tokens of a batch are many; the tests ask for ten at once."""
        return 3 if request.param == "short" else 60

    # --- paused ----------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("start", STARTS)
    def test_a_paused_batch_is_not_offered(self, pool: Backend, many: int, start: float | None) -> None:
        # Given two batches, the urgent one paused
        saved(pool, *tokens(many, "a", batch="a", priority=9), *tokens(5, "b", batch="b"), batch("a", paused=True))
        # Then only the other one is offered, and a worker that wants the paused one has nothing to do
        assert sorted(ids(offered(pool, limit=10, start=start))) == ids(tokens(5, "b"))
        assert offered(pool, Want(batches=("a",)), 10, start) == []
        assert sorted(ids(offered(pool, Want(batches=("a", "b")), 10, start))) == ids(tokens(5, "b"))
        # When it is resumed, then it is there
        saved(pool, {**pool.get("batch_a"), "paused": False})
        assert len(offered(pool, Want(batches=("a",)), 3, start)) == 3

    def test_tokens_of_no_batch_can_be_paused_together(self, pool: Backend) -> None:
        saved(pool, *tokens(3), token("b", batch="b"), batch("", paused=True))
        assert ids(offered(pool)) == ["b"]

    def test_a_view_of_the_users_skips_paused_batches(self, pool: Backend) -> None:
        saved(pool, *tokens(20, "a", batch="a"), *tokens(2, "b", batch="b"), batch("a", paused=True))
        assert sorted(ids(offered(pool, MONITOR, 10))) == ids(tokens(2, "b"))

    # --- before others -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("start", STARTS)
    def test_the_priority_of_the_batch_comes_first(self, pool: Backend, many: int, start: float | None) -> None:
        # Given three batches of which one goes first and one last, whatever their tokens say
        saved(pool, *tokens(many, "none"), *tokens(3, "low", batch="first", priority=-5))
        saved(pool, token("high", batch="first", priority=5), token("last", batch="last", priority=100))
        saved(pool, batch("first", priority=2.5), batch("last", priority=-1))
        # Then the batch decides, within it the token
        found = ids(offered(pool, limit=7, start=start))
        assert found[0] == "high"
        assert sorted(found[1:4]) == ids(tokens(3, "low"))
        assert set(found[4:7]) <= set(ids(tokens(many, "none")))
        assert ids(offered(pool, limit=100, start=start))[-1] == "last"
        assert ids(offered(pool, Want(batches=("last", "first")), 1, start)) == ["high"]

    # --- so many at a time ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("start", STARTS)
    def test_a_limited_batch_is_offered_as_far_as_there_is_room(
        self, pool: Backend, many: int, start: float | None
    ) -> None:
        # Given a batch that may have four tokens running, and has two
        saved(pool, *tokens(many, "a", batch="a", priority=9), *tokens(many, "b", batch="b"))
        saved(pool, token("one", batch="a", **lease("worker_1")), token("two", batch="a", lock=5))
        saved(pool, batch("a", max_running=4), batch("b", priority=0))
        # Then two more are offered, first, and the window names the limit
        window = pool.candidates(Want(), 10, start)
        assert [doc["batch"] for doc in window.tokens[:2]] == ["a", "a"]
        assert {doc["batch"] for doc in window.tokens[2:]} == {"b"}
        assert len(window.tokens) == min(10, 2 + many)
        assert window.rooms == {"a": 4}
        # And a worker that wants less is offered less
        assert len(offered(pool, limit=1, start=start)) == 1

    @pytest.mark.parametrize("most", [0, 1, 2, -3])
    def test_a_batch_that_is_full_is_not_offered(self, pool: Backend, many: int, most: int) -> None:
        # Given a batch with as many tokens running as it may have, or more
        saved(pool, *tokens(many, "a", batch="a", priority=9), token("b", batch="b"))
        saved(pool, token("one", batch="a", lock=5), token("two", batch="a", lock=5), batch("a", max_running=most))
        # Then the others go on without it
        window = pool.candidates(Want(), 10, 0.5)
        assert ids(window.tokens) == ["b"]
        assert window.rooms == {}
        # When there is room again, then it is offered
        saved(pool, {**pool.get("batch_a"), "max_running": 3})
        assert len(offered(pool, Want(batches=("a",)), 10)) == 1

    def test_a_view_of_the_users_keeps_to_the_limit(self, pool: Backend) -> None:
        saved(pool, *tokens(20, "a", batch="a"), token("locked", batch="a", lock=5), batch("a", max_running=3))
        window = pool.candidates(MONITOR, 10)
        assert (len(window.tokens), window.rooms) == (2, {"a": 3})

    @pytest.mark.parametrize("odd", [None, "4", True, {}, [1]])
    def test_odd_rules_are_none(self, pool: Backend, odd: Any) -> None:
        # Given a document with nonsense in it, one of another type, and a token whose id looks like one
        saved(pool, *tokens(3, "a", batch="a"), batch("a", max_running=odd, priority=odd))
        saved(pool, {**batch("b", paused=True), "type": "note"}, token("b", batch="b"), token("batch_c", batch="c"))
        # Then no batch is limited by it
        assert sorted(ids(offered(pool))) == [*ids(tokens(3, "a")), "b", "batch_c"]

    def test_rules_without_tokens_do_no_harm(self, pool: Backend) -> None:
        saved(pool, batch("a", max_running=1), batch("b", paused=True), batch("c", priority=1))
        assert offered(pool) == []
        assert offered(pool, Want(batches=("a",)), start=0.5) == []
        assert pool.counts() == {}

    # --- what fits a worker ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("start", STARTS)
    def test_only_what_fits_is_offered(self, pool: Backend, many: int, start: float | None) -> None:
        # Given many tokens that need more than a worker has, before a few that do not
        saved(pool, *tokens(2 * many, "big", cores=8, priority=3), *tokens(4, "small", cores=1))
        want = Want(fits=lambda doc: doc["cores"] <= 2)
        # Then it is offered those, and the others stay
        assert len(set(ids(offered(pool, want, 3, start))) & set(ids(tokens(4, "small")))) == 3
        assert sorted(ids(offered(pool, want, 10, start))) == ids(tokens(4, "small"))
        assert len(offered(pool, limit=10, start=start)) == min(10, 2 * many + 4)

    def test_hundreds_that_do_not_fit_are_looked_through(self, pool: Backend) -> None:
        saved(pool, *tokens(900, "big", cores=8), token("small", cores=1, priority=-1))
        for start in STARTS:
            assert ids(offered(pool, Want(fits=lambda doc: doc["cores"] == 1), 10, start)) == ["small"]

    def test_what_does_not_fit_takes_no_room(self, pool: Backend) -> None:
        # Given a batch with room for one, whose first tokens do not fit
        saved(pool, *tokens(30, "big", batch="a", cores=8, priority=1), *tokens(3, "small", batch="a", cores=1))
        saved(pool, batch("a", max_running=1))
        # Then the room is for one that does
        (doc,) = offered(pool, Want(fits=lambda doc: doc["cores"] == 1), 10)
        assert doc["cores"] == 1

    def test_a_view_of_the_users_is_looked_through(self, pool: Backend) -> None:
        saved(pool, *tokens(900, "big", cores=8), token("small", cores=1))
        want = Want(design="Monitor", view="todo", fits=lambda doc: doc["cores"] == 1)
        assert ids(offered(pool, want, 100)) == ["small"]

    def test_a_want_is_told_apart_by_what_it_names(self) -> None:
        assert Want(fits=lambda doc: False) == Want()

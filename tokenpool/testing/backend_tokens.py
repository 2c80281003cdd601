"""Conformance of a `Backend`: what a worker is offered, how tokens are listed and counted."""

from __future__ import annotations

from typing import Any

import pytest

from ..backends.base import Backend, Json, Saved, Want
from ..errors import NotFound
from ..transitions import state_of
from .backend_parts import Parts, ids, offered, saved, token, tokens

#: Places that cover a queue well enough to meet each of a few dozen tokens first.
PLACES = [i / 200 for i in range(200)]


def in_every_state() -> list[Json]:
    """Return one token of each state, and documents that are none."""
    return [
        token("todo", batch="a"),
        token("held", lock=-1, batch="a"),
        token("locked", lock=5, batch="a"),
        token("done", lock=5, done=6, exit_code=0, batch="b"),
        token("error", lock=5, done=6, exit_code=1),
        token("invalid", lock="x", batch="b"),
        {"_id": "worker_1", "type": "worker", "lock": 0, "done": 0, "batch": "a"},
        {"_id": "plain"},
    ]


class TokenTests(Parts):
    """candidates, scan, counts."""

    # --- what a worker is offered --------------------------------------------------------------------------------------

    def test_an_empty_pool_offers_nothing(self, pool: Backend) -> None:
        assert offered(pool, Want(), 10) == []
        assert offered(pool, Want(), 10, start=0.5) == []
        assert offered(pool, Want(batches=("none",)), 10) == []

    def test_a_candidate_is_a_whole_document(self, pool: Backend) -> None:
        # Given a token
        saved(pool, token("one", input="echo", nested={"list": [1]}))
        # When it is offered
        (found,) = offered(pool, Want(), 10)
        # Then it is the document itself, ready for the write that claims it
        assert found == pool.get("one")
        saved(pool, {**found, "lock": 5})

    def test_only_what_can_be_claimed_is_offered(self, pool: Backend) -> None:
        # Given tokens of every state, one that shall stop, and documents that are none
        saved(pool, *in_every_state(), token("stopped", cancel={"time": 1, "by": "me"}))
        # Then only the one that waits is offered
        assert ids(offered(pool, Want(), 10)) == ["todo"]
        assert ids(offered(pool, Want(), 10, start=0.7)) == ["todo"]

    def test_a_claimed_token_is_not_offered_again(self, pool: Backend) -> None:
        # Given three tokens
        saved(pool, *tokens(3))
        # When the offered ones are claimed one by one, then each comes once
        seen = []
        for _ in range(3):
            (doc,) = offered(pool, Want(), 1)
            seen.append(doc["_id"])
            saved(pool, {**doc, "lock": 5})
        assert sorted(seen) == ids(tokens(3))
        assert offered(pool, Want(), 1) == []
        # When one is given back, then it is offered again
        saved(pool, {**pool.get(seen[0]), "lock": 0})
        assert ids(offered(pool, Want(), 1)) == [seen[0]]

    def test_no_more_than_asked_for(self, pool: Backend) -> None:
        saved(pool, *tokens(30))
        assert len(offered(pool, Want(), 7)) == 7
        assert len(offered(pool, Want(), 7, start=0.9)) == 7
        assert len(offered(pool, Want(), 100)) == 30

    def test_the_highest_priority_comes_first(self, pool: Backend) -> None:
        # Given priorities of every kind; none at all is 0
        saved(
            pool,
            token("none"),
            token("ten", priority=10, batch="a"),
            token("minus", priority=-1, batch="b"),
            token("half", priority=0.5),
            token("twenty", priority=20, batch="b"),
        )
        # Then they are offered in that order, across batches
        order = ["twenty", "ten", "half", "none", "minus"]
        assert ids(offered(pool, Want(), 10)) == order
        assert ids(offered(pool, Want(), 2)) == order[:2]
        assert ids(offered(pool, Want(batches=("b", "a")), 10)) == ["twenty", "ten", "minus"]

    def test_a_start_never_passes_over_a_priority(self, pool: Backend) -> None:
        # Given few urgent tokens among many
        saved(pool, *tokens(40, "slow"), *tokens(4, "urgent", priority=5))
        for start in (0.0, 0.3, 0.6, 0.99):
            # When workers begin at different places, then all of them begin with what is urgent
            found = ids(offered(pool, Want(), 10, start=start))
            assert sorted(found[:4]) == ids(tokens(4, "urgent"))
            assert len(set(found)) == 10

    def test_different_starts_offer_different_tokens(self, pool: Backend) -> None:
        # Given a queue
        saved(pool, *tokens(20))
        # When workers begin everywhere in it
        first = {offered(pool, Want(), 1, start=place)[0]["_id"] for place in PLACES}
        # Then they do not all meet the same token
        assert len(first) > 10

    def test_a_start_wraps_around(self, pool: Backend) -> None:
        saved(pool, *tokens(20))
        for start in (0.0, 0.25, 0.5, 0.999):
            assert sorted(ids(offered(pool, Want(), 100, start=start))) == ids(tokens(20))

    @pytest.mark.parametrize("limit", [50, 500])
    def test_a_start_mixes_what_is_equal(self, pool: Backend, limit: int) -> None:
        # Given two priorities of many tokens each
        saved(pool, *tokens(100, "urgent", priority=1), *tokens(100, "slow"))
        # When two workers begin at the same place, then they are offered the same, in different orders
        first, second = (ids(offered(pool, limit=limit, start=0.4)) for _ in range(2))
        assert sorted(first) == sorted(second)
        assert first != second
        # And what is urgent still comes first
        urgent = min(100, limit)
        assert set(first[:urgent]) <= set(ids(tokens(100, "urgent")))
        # Without a place the order is that of the queue
        assert ids(offered(pool, limit=limit)) == ids(offered(pool, limit=limit))

    def test_only_wanted_batches(self, pool: Backend) -> None:
        # Given tokens of three batches, and of none
        for batch in ("a", "b", "c"):
            saved(pool, *tokens(5, batch, batch=batch))
        saved(pool, *tokens(5, "none"))
        # Then a worker is offered those of the batches it names
        for start in (None, 0.6):
            assert sorted(ids(offered(pool, Want(batches=("a",)), 50, start))) == ids(tokens(5, "a"))
            found = sorted(ids(offered(pool, Want(batches=("c", "a")), 50, start)))
            assert found == ids(tokens(5, "a") + tokens(5, "c"))
            assert sorted(ids(offered(pool, Want(batches=("",)), 50, start))) == ids(tokens(5, "none"))
            assert len(offered(pool, Want(), 50, start)) == 20

    @pytest.mark.parametrize("start", [None, 0.5])
    def test_only_wanted_tags(self, pool: Backend, start: float | None) -> None:
        # Given tokens that carry tags, some only something that looks like it
        saved(
            pool,
            *tokens(100, "plain"),
            token("both", tags={"disk": "ssd", "site": "münchen"}),
            token("one", tags={"disk": "ssd"}),
            token("other", tags={"disk": "hdd", "site": "münchen"}),
            token("elsewhere", input='{"disk":"ssd"}', params={"disk": "ssd"}),
            *tokens(100, "more", tags={"site": "delft"}),
        )
        # Then those are offered that carry all the wanted ones, however many others stand before them
        assert sorted(ids(offered(pool, Want(tags={"disk": "ssd"}), 10, start))) == ["both", "one"]
        assert ids(offered(pool, Want(tags={"disk": "ssd", "site": "münchen"}), 10, start)) == ["both"]
        assert offered(pool, Want(tags={"disk": "tape"}), 10, start) == []
        assert len(offered(pool, Want(tags={"site": "delft"}), 10, start)) == 10

    def test_tags_within_batches(self, pool: Backend) -> None:
        saved(pool, *(token(f"{batch}{i}", batch=batch, tags={"n": str(i)}) for batch in "ab" for i in range(3)))
        assert ids(offered(pool, Want(batches=("b",), tags={"n": "1"}), 10)) == ["b1"]

    def test_a_view_of_the_users(self, pool: Backend) -> None:
        # Given tokens, and a view that lists some
        saved(pool, *tokens(10, batch="a"), token("locked", lock=5), token("stopped", cancel={"by": "me"}))
        want = Want(design="Monitor", view="todo")
        # Then the view's are offered, but none that cannot be claimed
        for start in (None, 0.0, 0.7):
            assert sorted(ids(offered(pool, want, 50, start))) == ids(tokens(10))
        assert len(offered(pool, want, 3)) == 3
        # And the view's options hold
        params = {"startkey": "token_0003", "endkey": "token_0005"}
        some = Want(design="Monitor", view="todo", view_params=params)
        assert ids(offered(pool, some, 50)) == ["token_0003", "token_0004", "token_0005"]

    def test_a_missing_view_is_not_found(self, pool: Backend) -> None:
        for design, view in (("Monitor", "none"), ("None", "todo")):
            with pytest.raises(NotFound) as caught:
                offered(pool, Want(design=design, view=view), 1)
            assert "tokenpool init" in caught.value.hint

    # --- lists -----------------------------------------------------------------------------------------------------------

    def test_a_scan_yields_tokens_only(self, pool: Backend) -> None:
        saved(pool, *in_every_state())
        assert sorted(ids(list(pool.scan()))) == ["done", "error", "held", "invalid", "locked", "todo"]

    def test_a_scan_of_a_state_and_batch(self, pool: Backend) -> None:
        # Given a token of every state, in two batches and none
        saved(pool, *in_every_state())
        # Then each is found by its state, whole
        for doc in in_every_state()[:6]:
            assert list(pool.scan(state_of(doc))) == [pool.get(doc["_id"])]
        # And by its batch, and by both
        assert sorted(ids(list(pool.scan(batch="a")))) == ["held", "locked", "todo"]
        assert sorted(ids(list(pool.scan(batch="b")))) == ["done", "invalid"]
        assert ids(list(pool.scan(batch=""))) == ["error"]
        assert ids(list(pool.scan("held", "a"))) == ["held"]
        assert list(pool.scan("held", "b")) == []
        assert list(pool.scan(batch="none")) == []

    @pytest.mark.parametrize("query", [{}, {"state": "todo"}, {"batch": "a"}, {"state": "todo", "batch": "a"}])
    def test_a_scan_of_many_yields_each_once(self, pool: Backend, query: dict[str, Any]) -> None:
        saved(pool, *tokens(999, batch="a"))
        assert sorted(ids(list(pool.scan(**query)))) == ids(tokens(999))

    def test_a_scan_without_documents_yields_ids(self, pool: Backend) -> None:
        saved(pool, *tokens(3, input="x" * 100))
        found = sorted(pool.scan("todo", with_docs=False), key=lambda doc: str(doc["_id"]))
        assert ids(found) == ids(tokens(3))
        assert all("input" not in doc for doc in found)

    def test_no_token_that_stays_is_missed_by_a_scan(self, pool: Backend) -> None:
        # Given a scan that has begun
        saved(pool, *tokens(900))
        scan = pool.scan("todo")
        found = [next(scan)["_id"] for _ in range(10)]
        # When the tokens that it stands on leave that state, the very last ones too
        last = found[-5:] + ids(tokens(900)[-5:])
        saved(pool, *({**doc, "lock": 5} for doc in pool.get_many(last) if doc))
        found += ids(list(scan))
        # Then all that stayed are seen, once
        assert set(ids(tokens(900))) - set(found) <= set(last)
        assert len(found) == len(set(found))

    # --- counts ------------------------------------------------------------------------------------------------------------

    def test_counts_by_state_and_batch(self, pool: Backend) -> None:
        assert pool.counts() == {}
        # Given tokens of every state, and documents that are none
        saved(pool, *in_every_state(), *tokens(7, batch="a"))
        # Then each token is counted once
        assert pool.counts() == {
            ("todo", "a"): 8,
            ("held", "a"): 1,
            ("locked", "a"): 1,
            ("done", "b"): 1,
            ("error", ""): 1,
            ("invalid", "b"): 1,
        }

    def test_counts_follow_every_write(self, pool: Backend) -> None:
        (rev,) = saved(pool, token("one", batch="a"))
        (rev,) = saved(pool, token("one", batch="b", _rev=rev, lock=5))
        assert pool.counts() == {("locked", "b"): 1}
        (result,) = pool.put_many([{"_id": "one", "_rev": rev, "_deleted": True}])
        assert isinstance(result, Saved)
        assert pool.counts() == {}

"""Conformance of a `Backend`: views, their options, and that they agree with Python on every odd value."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ..backends.base import ALL_DOCS, Backend, Json, Row
from ..errors import NotFound
from ..transitions import INVALID, STATES, state_of
from .backend_parts import Parts, ids, saved, token, tokens

#: What picas scripts and people have written into `lock`, `done` and `exit_code`.
ODD_VALUES: list[Any] = ["", "0", "0abc", 0, 0.4, None, True, -1, "0x0", [], {}]
MONITOR = ("todo", "locked", "done", "error")


def odd_tokens() -> list[Json]:
    """Return tokens with every pair of odd values, or none, in lock and done, and each in exit_code."""
    missing = object()
    values = [*ODD_VALUES, 5, missing]
    cases = [(lock, done, 0) for lock in values for done in values]
    cases += [(5, 6, exit_code) for exit_code in values]
    docs = []
    for i, case in enumerate(cases):
        fields = {name: value for name, value in zip(("lock", "done", "exit_code"), case) if value is not missing}
        docs.append({"_id": f"odd_{i:03d}", "type": "token", **fields})
    return docs


def keys(pool: Backend, **params: Any) -> list[Any]:
    """Return the keys of the waiting tokens that such a query finds."""
    return [row.key for row in pool.view("Monitor", "todo", params).rows]


class ViewTests(Parts):
    """view."""

    def test_views_and_counts_agree_with_python_on_odd_values(self, pool: Backend) -> None:
        # Given tokens with every odd value
        docs = odd_tokens()
        saved(pool, *docs)
        states = {doc["_id"]: state_of(doc) for doc in docs}
        assert set(states.values()) == set(STATES)
        # Then picas' views list each where state_of says, those of no state nowhere
        for state in MONITOR:
            rows = pool.view("Monitor", state, {}).rows
            assert {row.key for row in rows} == {name for name, found in states.items() if found == state}, state
        # And they are counted so, and listed so
        assert pool.counts() == Counter((state, "") for state in states.values())
        assert set(ids(list(pool.scan(INVALID)))) == {name for name, found in states.items() if found == INVALID}

    def test_a_row_is_the_id_as_picas_emits_it(self, pool: Backend) -> None:
        saved(pool, token("one"))
        found = pool.view("Monitor", "todo", {})
        assert found.rows == (Row("one", "one", "one"),)
        assert found.total == 1

    def test_the_total_counts_the_whole_view(self, pool: Backend) -> None:
        saved(pool, *tokens(9), token("locked", lock=5))
        assert pool.view("Monitor", "todo", {"limit": 2}).total == 9
        assert pool.view("Monitor", "todo", {"key": "token_0001"}).total == 9
        assert pool.view("Monitor", "todo", {"limit": 0}) == pool.view("Monitor", "todo", {"limit": 0, "skip": 0})

    def test_rows_come_in_the_order_of_their_keys(self, pool: Backend) -> None:
        # Given tokens that were written in another order
        saved(pool, *tokens(9)[::-1])
        names = ids(tokens(9))
        # Then the rows are sorted, both ways
        assert keys(pool) == names
        assert keys(pool, descending=True) == names[::-1]
        assert keys(pool, limit=3) == names[:3]
        assert keys(pool, limit=3, skip=4) == names[4:7]
        assert keys(pool, limit=0) == []
        assert keys(pool, skip=20) == []
        assert keys(pool, limit=2, descending=True) == names[:-3:-1]

    def test_one_key_or_a_range(self, pool: Backend) -> None:
        saved(pool, *tokens(9))
        names = ids(tokens(9))
        assert keys(pool, key=names[3]) == [names[3]]
        assert keys(pool, key="none") == []
        assert keys(pool, startkey=names[2]) == names[2:]
        assert keys(pool, endkey=names[2]) == names[:3]
        assert keys(pool, startkey=names[2], endkey=names[5]) == names[2:6]
        assert keys(pool, startkey=names[2], endkey=names[5], inclusive_end=False) == names[2:5]
        assert keys(pool, startkey=names[5], endkey=names[2], descending=True) == names[5:1:-1]
        # Arrays and objects sort behind all texts, so an object ends a range that has no end.
        assert keys(pool, startkey=names[2], endkey={}) == names[2:]
        assert keys(pool, startkey=[]) == []

    def test_several_keys(self, pool: Backend) -> None:
        saved(pool, *tokens(9))
        names = ids(tokens(9))
        # The rows come in the order of the keys that were asked for.
        assert keys(pool, keys=[names[5], "none", names[1]]) == [names[5], names[1]]
        assert keys(pool, keys=[names[5], names[1], names[2]], limit=2) == [names[5], names[1]]
        assert keys(pool, keys=[]) == []

    def test_a_page_begins_where_the_last_one_ended(self, pool: Backend) -> None:
        # Given many rows of one key
        saved(pool, *tokens(9))
        params = {"reduce": False, "startkey": "todo", "startkey_docid": "token_0004", "limit": 3}
        # When a page begins at a row, then it begins with that row
        rows = pool.view("Monitor", "overview_total", params).rows
        assert [row.id for row in rows] == ids(tokens(9))[4:7]

    def test_rows_with_their_documents(self, pool: Backend) -> None:
        saved(pool, *tokens(3, input="echo"))
        for query in ({}, {"keys": ids(tokens(3))}):
            rows = pool.view("Monitor", "todo", {"include_docs": True, **query}).rows
            assert [row.doc for row in rows] == pool.get_many(ids(tokens(3)))
        assert [row.doc for row in pool.view("Monitor", "todo", {}).rows] == [None] * 3

    def test_options_about_freshness_are_taken(self, pool: Backend) -> None:
        saved(pool, *tokens(2))
        assert keys(pool, update="true") == ids(tokens(2))
        assert keys(pool, limit=None) == ids(tokens(2))

    # --- reduced -----------------------------------------------------------------------------------------------------------

    def test_the_overview_counts_by_state(self, pool: Backend) -> None:
        # Given tokens of several states
        saved(pool, *tokens(5), *tokens(2, "locked", lock=5), token("held", lock=-1), {"_id": "plain"})
        # When picas' overview is grouped
        rows = pool.view("Monitor", "overview_total", {"group": True}).rows
        # Then it counts those that picas knows
        assert {row.key: row.value for row in rows} == {"todo": 5, "locked": 2}
        assert {row.id for row in rows} == {None}
        assert pool.view("Monitor", "overview_total", {"group_level": 1}).rows == rows

    def test_the_overview_of_all_is_one_number(self, pool: Backend) -> None:
        saved(pool, *tokens(5), *tokens(2, "locked", lock=5))
        assert pool.view("Monitor", "overview_total", {}).rows == (Row(None, None, 7),)
        assert pool.view("Monitor", "overview_total", {"key": "todo"}).rows == (Row(None, None, 5),)

    def test_nothing_to_reduce_is_no_row(self, pool: Backend) -> None:
        assert pool.view("Monitor", "overview_total", {"group": True}).rows == ()
        assert pool.view("Monitor", "overview_total", {}).rows == ()

    def test_groups_of_some_keys(self, pool: Backend) -> None:
        saved(pool, *tokens(5), *tokens(2, "locked", lock=5), token("done", lock=5, done=6, exit_code=0))
        rows = pool.view("Monitor", "overview_total", {"group": True, "keys": ["todo", "done"]}).rows
        assert {row.key: row.value for row in rows} == {"todo": 5, "done": 1}

    def test_a_view_that_reduces_can_be_read_whole(self, pool: Backend) -> None:
        saved(pool, *tokens(3))
        found = pool.view("Monitor", "overview_total", {"reduce": False})
        assert found.rows == tuple(Row(name, "todo", 1) for name in ids(tokens(3)))
        assert found.total == 3

    # --- all documents -----------------------------------------------------------------------------------------------------

    def test_all_documents_by_id(self, pool: Backend) -> None:
        # Given documents of any kind
        revs = saved(pool, token("x_token"), {"_id": "x_plain"})
        # Then each has a row with its revision, sorted by id
        rows = pool.view(ALL_DOCS, "", {"startkey": "x", "endkey": "x_z"}).rows
        assert rows == (Row("x_plain", "x_plain", {"rev": revs[1]}), Row("x_token", "x_token", {"rev": revs[0]}))
        # And the designs are documents too
        assert "_design/Monitor" in {row.id for row in pool.view(ALL_DOCS, "", {}).rows}

    def test_all_documents_with_bodies_and_limits(self, pool: Backend) -> None:
        saved(pool, *tokens(9, "x"))
        query = {"startkey": "x_0002", "limit": 3, "include_docs": True}
        rows = pool.view(ALL_DOCS, "", query).rows
        assert [row.doc for row in rows] == pool.get_many(["x_0002", "x_0003", "x_0004"])

    def test_documents_by_keys_have_a_row_for_each(self, pool: Backend) -> None:
        saved(pool, *tokens(3))
        rows = pool.view(ALL_DOCS, "", {"keys": ["token_0002", "none", "token_0000"], "include_docs": True}).rows
        assert [row.key for row in rows] == ["token_0002", "none", "token_0000"]
        assert [row.id for row in rows] == ["token_0002", None, "token_0000"]
        assert [row.doc and row.doc["_id"] for row in rows] == ["token_0002", None, "token_0000"]

    # --- what is not there ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("design", "view"), [("Monitor", "none"), ("None", "todo"), ("", "todo"), ("../Monitor", "x")]
    )
    def test_an_unknown_view_is_not_found(self, pool: Backend, design: str, view: str) -> None:
        with pytest.raises(NotFound) as caught:
            pool.view(design, view, {})
        assert caught.value.hint

    def test_a_view_that_was_never_written_is_not_found(self, pool: Backend) -> None:
        # Given views that the package has, and the pool has not
        with pytest.raises(NotFound) as caught:
            pool.view("SingleCore", "todo", {})
        assert "tokenpool init" in caught.value.hint

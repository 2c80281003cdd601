"""Conformance of a `Backend`: documents, revisions, compare-and-set, bulk writes, races."""

from __future__ import annotations

import pytest

from ..backends.base import Backend, Json, Refused, Saved
from ..designs import design_document
from ..errors import NotFound
from .backend_parts import RACERS, Parts, ids, race, saved, tokens

STRANGE_IDS = [
    "a/b",
    "a+b",
    "a?b=c",
    "a#b",
    "a&b",
    "a b",
    "a%2Fb",
    "a:b;c,d",
    "ünïcödé",
    "漢字",
    "😀",
    '"quoted"',
    "it's",
    "a.b",
]


class DocumentTests(Parts):
    """create, get_many, put_many, get, close."""

    def test_a_document_comes_back_as_it_was_written(self, pool: Backend) -> None:
        # Given a document with every kind of value, and fields that nobody knows
        fields: Json = {
            "text": 'línea\n\t"quoted" \\ 😀 \u2028',
            "numbers": [0, -1, 1.5, 2**53, 1e-7],
            "nothing": None,
            "flags": [True, False],
            "nested": {"": {}, "list": [[], {}], "ключ": "значение"},
        }
        # When it is written
        (rev,) = saved(pool, {"_id": "doc", **fields})
        # Then all of it is read, with its id and revision
        assert pool.get("doc") == {"_id": "doc", "_rev": rev, **fields}

    def test_documents_come_in_the_order_of_their_ids(self, pool: Backend) -> None:
        # Given two documents
        saved(pool, {"_id": "one"}, {"_id": "two"})
        # When they are asked for among others
        found = pool.get_many(["two", "none", "one", "two"])
        # Then each answer stands where its id stood
        assert [doc and doc["_id"] for doc in found] == ["two", None, "one", "two"]
        assert pool.get_many([]) == []
        assert pool.get_many(["none"]) == [None]

    def test_many_documents_are_read_at_once(self, pool: Backend) -> None:
        # Given more documents than one statement or request names
        docs = tokens(900)
        saved(pool, *docs)
        # When all are read backwards, then they come backwards
        names = ids(docs)[::-1]
        assert ids(pool.get_many(names)) == names

    def test_a_missing_document_has_a_hint(self, pool: Backend) -> None:
        with pytest.raises(NotFound) as caught:
            pool.get("none")
        assert "none" in caught.value.message
        assert caught.value.hint

    def test_a_document_without_conflicts_lists_none(self, pool: Backend) -> None:
        saved(pool, {"_id": "a"}, {"_id": "b"})
        assert "_conflicts" not in pool.get("a", conflicts=True)
        assert all("_conflicts" not in (doc or {}) for doc in pool.get_many(["a", "b"], conflicts=True))

    def test_a_new_document_starts_at_generation_one(self, pool: Backend) -> None:
        # When a document is made and changed
        (first,) = saved(pool, {"_id": "doc"})
        (second,) = saved(pool, {"_id": "doc", "_rev": first, "n": 2})
        # Then its revisions count
        assert first.startswith("1-")
        assert second.startswith("2-")
        assert pool.get("doc")["_rev"] == second

    def test_the_same_content_again_is_a_new_revision(self, pool: Backend) -> None:
        # Otherwise two workers that write the same would both have written.
        (first,) = saved(pool, {"_id": "doc", "n": 1})
        (second,) = saved(pool, {"_id": "doc", "_rev": first, "n": 1})
        assert second != first

    def test_a_document_is_made_only_once(self, pool: Backend) -> None:
        # Given a document
        saved(pool, {"_id": "doc", "n": 1})
        # When it is written again without its revision
        (result,) = pool.put_many([{"_id": "doc", "n": 2}])
        # Then that is a conflict, and nothing changed
        assert isinstance(result, Refused)
        assert result.conflict
        assert result.id == "doc"
        assert pool.get("doc")["n"] == 1

    def test_only_the_current_revision_is_replaced(self, pool: Backend) -> None:
        # Given a document that was changed since we read it
        (old,) = saved(pool, {"_id": "doc", "n": 1, "dropped": True})
        saved(pool, {"_id": "doc", "_rev": old, "n": 2})
        # When we write
        (result,) = pool.put_many([{"_id": "doc", "_rev": old, "n": 3}])
        # Then the other's write stands, whole
        assert isinstance(result, Refused)
        assert result.conflict
        doc = pool.get("doc")
        assert (doc["n"], "dropped" in doc) == (2, False)

    def test_a_refused_write_never_hinders_the_others(self, pool: Backend) -> None:
        # Given one document that exists
        saved(pool, {"_id": "token_0002", "n": "old"})
        # When five are written, that one in the middle
        results = pool.put_many(tokens(5))
        # Then four are written, and the answers are in order
        assert [result.id for result in results] == ids(tokens(5))
        assert [isinstance(result, Saved) for result in results] == [True, True, False, True, True]
        assert pool.get("token_0002")["n"] == "old"
        assert None not in pool.get_many(ids(tokens(5)))

    def test_twice_in_one_write_is_a_conflict(self, pool: Backend) -> None:
        results = pool.put_many([{"_id": "doc", "n": 1}, {"_id": "doc", "n": 2}])
        assert [isinstance(result, Saved) for result in results] == [True, False]
        assert isinstance(results[1], Refused)
        assert results[1].conflict
        assert pool.get("doc")["n"] == 1

    def test_nothing_written_is_nothing_answered(self, pool: Backend) -> None:
        assert pool.put_many([]) == []

    @pytest.mark.parametrize(
        "bad",
        [{"_id": ""}, {"_id": 5}, {"_id": "_own"}, {"n": "no id"}, {"_id": "bad", "n": {1, 2}}],
        ids=["empty id", "number", "underscore", "no id", "not JSON"],
    )
    def test_what_cannot_be_stored_is_refused_alone(self, pool: Backend, bad: Json) -> None:
        # When a document that makes no sense is written among others
        results = pool.put_many([{"_id": "before"}, bad, {"_id": "after"}])
        # Then only that one is refused, with a reason for people
        assert [isinstance(result, Saved) for result in results] == [True, False, True]
        assert isinstance(results[1], Refused)
        assert not results[1].conflict
        assert results[1].reason
        assert ids(pool.get_many(["before", "after"])) == ["before", "after"]

    def test_ids_of_every_kind(self, pool: Backend) -> None:
        # Given ids that mean something in a URL, in SQL or in JSON
        revs = saved(pool, *({"_id": name, "n": name} for name in STRANGE_IDS))
        # Then each is read, alone and among others, changed and deleted
        assert [pool.get(name)["n"] for name in STRANGE_IDS] == STRANGE_IDS
        assert ids(pool.get_many(STRANGE_IDS)) == STRANGE_IDS
        saved(pool, *({"_id": name, "_rev": rev, "_deleted": True} for name, rev in zip(STRANGE_IDS, revs)))
        assert pool.get_many(STRANGE_IDS) == [None] * len(STRANGE_IDS)

    def test_deleting_needs_the_current_revision(self, pool: Backend) -> None:
        # Given a document that was changed
        (old,) = saved(pool, {"_id": "doc"})
        (current,) = saved(pool, {"_id": "doc", "_rev": old})
        # When it is deleted without a revision, or with an old one
        results = [pool.put_many([{"_id": "doc", "_deleted": True, **rev}])[0] for rev in ({}, {"_rev": old})]
        # Then it stays
        assert [isinstance(result, Refused) and result.conflict for result in results] == [True, True]
        # When it is deleted with the current one, then it is gone
        saved(pool, {"_id": "doc", "_rev": current, "_deleted": True})
        assert pool.get_many(["doc"]) == [None]

    def test_a_deleted_document_can_be_neither_changed_nor_deleted(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc"})
        saved(pool, {"_id": "doc", "_rev": rev, "_deleted": True})
        results = pool.put_many([{"_id": "doc", "_rev": rev, "n": 1}])
        results += pool.put_many([{"_id": "doc", "_rev": rev, "_deleted": True}])
        assert [isinstance(result, Refused) and result.conflict for result in results] == [True, True]

    def test_a_deleted_document_can_be_made_again(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc", "n": 1})
        saved(pool, {"_id": "doc", "_rev": rev, "_deleted": True})
        saved(pool, {"_id": "doc", "n": 2})
        assert pool.get("doc")["n"] == 2

    def test_a_large_document(self, pool: Backend) -> None:
        saved(pool, {"_id": "doc", "text": "x" * 1_000_000})
        assert len(pool.get("doc")["text"]) == 1_000_000

    def test_the_url_names_no_password(self, pool: Backend) -> None:
        assert "://" in pool.url
        assert ":secret@" not in pool.url

    # --- creation ----------------------------------------------------------------------------------------------------

    def test_creating_again_changes_nothing(self, pool: Backend) -> None:
        # Given a pool with views and a document
        design = design_document("Monitor")
        saved(pool, {"_id": "doc"})
        before = pool.get_many([design["_id"], "doc"])
        # When it is created again with the same views
        pool.create([design])
        pool.create()
        # Then none was written: that would index everything again
        assert pool.get_many([design["_id"], "doc"]) == before

    def test_a_design_that_differs_is_written(self, pool: Backend) -> None:
        # Given a pool whose view differs from ours
        design = design_document("Monitor")
        there = pool.get(design["_id"])
        saved(pool, {**there, "views": {"todo": {"map": "function(doc) { emit(null); }"}}})
        # When it is created again, then the view is ours
        pool.create([design])
        assert pool.get(design["_id"])["views"] == design["views"]

    # --- several at once -----------------------------------------------------------------------------------------------

    def test_another_handle_sees_every_write(self, pool: Backend, other: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc", "n": 1})
        assert other.get("doc")["n"] == 1
        saved(other, {"_id": "doc", "_rev": rev, "n": 2})
        assert pool.get("doc")["n"] == 2

    def test_of_many_that_change_a_document_one_wins(self, pool: Backend, other: Backend) -> None:
        # Given a document that everybody has read
        (rev,) = saved(pool, {"_id": "doc"})
        handles = [pool, other]

        # When all write at one moment
        def write(i: int) -> bool:
            (result,) = handles[i % 2].put_many([{"_id": "doc", "_rev": rev, "winner": i}])
            return isinstance(result, Saved)

        won = race(RACERS, write)
        # Then exactly one was told that it did, and that one's is there
        assert won.count(True) == 1
        assert pool.get("doc")["winner"] == won.index(True)

    def test_of_many_that_make_a_document_one_wins(self, pool: Backend, other: Backend) -> None:
        handles = [pool, other]
        won = race(RACERS, lambda i: isinstance(handles[i % 2].put_many([{"_id": "doc", "winner": i}])[0], Saved))
        assert won.count(True) == 1
        assert pool.get("doc")["winner"] == won.index(True)

    def test_many_threads_write_side_by_side(self, pool: Backend) -> None:
        # When each thread writes documents of its own
        race(RACERS, lambda i: [saved(pool, *tokens(10, f"thread_{i:02d}_{n}")) for n in range(3)])
        # Then all are there
        assert sum(pool.counts().values()) == RACERS * 30

    def test_every_token_of_many_goes_to_one_claimer(self, pool: Backend, other: Backend) -> None:
        # Given tokens that all have read
        handles = [pool, other]
        revs = saved(pool, *tokens(50))

        # When all try to claim all of them in bulk
        def claim(i: int) -> list[str]:
            docs = [{**doc, "_rev": rev, "lock": i + 1} for doc, rev in zip(tokens(50), revs)]
            return [result.id for result in handles[i % 2].put_many(docs) if isinstance(result, Saved)]

        claims = race(RACERS, claim)
        # Then each went to one, and the document names that one
        assert sorted(name for names in claims for name in names) == ids(tokens(50))
        for i, names in enumerate(claims):
            assert all(doc is not None and doc["lock"] == i + 1 for doc in pool.get_many(names))

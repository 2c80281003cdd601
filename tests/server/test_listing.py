"""The list of tokens, page by page, on both backends: all of them, once, and never more work than a page may cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from waiting_tokens import finish

from tokenpool import listing
from tokenpool.errors import BadInput
from tokenpool.listing import Filter, Page, page
from tokenpool.pool import Pool


@pytest.fixture
def campaign(pool: Pool) -> Pool:
    """Ninety tokens in three batches; of the first thirty, every third has failed, and the others are done."""
    pool.push(
        {
            "_id": f"t{i:03d}",
            "input": f"echo {i}",
            **({"batch": ("blue", "green")[i % 3]} if i % 3 < 2 else {}),
            "tags": {"lane": str(i % 4), "odd" if i % 2 else "even": "yes"},
            "name": f"sample {i}",
            "priority": i % 5,
        }
        for i in range(90)
    )
    finish(pool.backend, *(f"t{i:03d}" for i in range(30) if i % 3))
    finish(pool.backend, *(f"t{i:03d}" for i in range(30) if not i % 3), exit_code=2)
    return pool


def pages(pool: Pool, wanted: Filter, limit: int = 7) -> Iterator[Page]:
    """Yield page after page to the last."""
    after = ""
    while True:
        found = page(pool.backend, wanted, after, limit)
        yield found
        if not found.more:
            return
        after = found.next


def ids(pool: Pool, wanted: Filter, limit: int = 7) -> list[str]:
    """Return the ids on all pages, in their order."""
    return [doc["_id"] for found in pages(pool, wanted, limit) for doc in found.tokens]


FILTERS = [
    (Filter(), lambda i: True),
    (Filter(states=("todo",)), lambda i: i >= 30),
    (Filter(states=("done", "error")), lambda i: i < 30),
    (Filter(batch="green"), lambda i: i % 3 == 1),
    (Filter(batch=""), lambda i: i % 3 == 2),
    (Filter(states=("todo",), batch="blue"), lambda i: i >= 30 and i % 3 == 0),
    (Filter(tags={"lane": "2"}), lambda i: i % 4 == 2),
    (Filter(tags={"odd": ""}, batch="blue"), lambda i: i % 2 == 1 and i % 3 == 0),
    (Filter(prefix="t05"), lambda i: 50 <= i < 60),
    (Filter(name="sample 8"), lambda i: i == 8 or i >= 80),
    (Filter(text="SAMPLE 7"), lambda i: i == 7 or 70 <= i < 80),
    (Filter(also=lambda doc: doc["priority"] == 3), lambda i: i % 5 == 3),
    (Filter(batch="nobody's"), lambda i: False),
]


def test_every_filter_gives_each_token_that_fits_once_whatever_the_size_of_a_page(campaign: Pool) -> None:
    for wanted, fits in FILTERS:
        for back in (False, True):
            # Given a filter, forwards and backwards
            turned = Filter(**{**vars(wanted), "back": back})

            # When one goes through all its pages
            found = ids(campaign, turned, 7)

            # Then each token that fits is there once
            assert sorted(found) == [f"t{i:03d}" for i in range(90) if fits(i)], turned


def test_backwards_is_the_other_way_round(campaign: Pool) -> None:
    # Given filters that are listed by an index
    for wanted in (Filter(), Filter(states=("todo",)), Filter(batch="green")):
        # Then the last come first
        assert ids(campaign, Filter(**{**vars(wanted), "back": True})) == ids(campaign, wanted)[::-1]


def test_sorted_by_any_column_both_ways(campaign: Pool) -> None:
    for name in listing.SORTS:
        # Given a column
        up = [doc for found in pages(campaign, Filter(sort=name), 20) for doc in found.tokens]
        down = [doc for found in pages(campaign, Filter(sort=name, back=True), 20) for doc in found.tokens]

        # Then all tokens are there in its order, and the other way round
        values = [listing.sort_value(doc, name) for doc in up]
        numbers = [value for value in values if isinstance(value, (int, float))]
        words = [value for value in values if value and not isinstance(value, (int, float))]
        assert len(up) == 90
        assert (numbers, words) == (sorted(numbers), sorted(words)), name
        there = len(numbers) + len(words)
        assert [doc["_id"] for doc in down[:there]] == [doc["_id"] for doc in up[:there]][::-1]

        # And those that have nothing there come last, both ways
        assert {listing.sort_value(doc, name) for doc in up[there:] + down[there:]} <= {None, ""}


def test_too_many_to_sort_are_listed_all_the_same(campaign: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given that a page sorts fewer tokens than there are
    monkeypatch.setattr(listing, "SORTABLE", 50)

    # When all of them are to be sorted
    found = list(pages(campaign, Filter(sort="name"), 20))

    # Then they come in the order of the pool, and the pages say so; a batch is small enough
    assert sorted(doc["_id"] for each in found for doc in each.tokens) == [f"t{i:03d}" for i in range(90)]
    assert {each.sorted for each in found} == {False}
    assert page(campaign.backend, Filter(sort="name", batch="green")).sorted


def test_a_page_looks_through_a_bounded_number_of_tokens(campaign: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given that a page may look through ten tokens
    monkeypatch.setattr(listing, "CHUNK", 5)
    monkeypatch.setattr(listing, "LOOKED_THROUGH", 10)

    # When a text is looked for that only the last token has
    found = list(pages(campaign, Filter(text="echo 89"), 50))

    # Then each page says how far it came, and one of them has it
    assert all(each.searched <= 15 for each in found)
    assert len(found) >= 6
    assert [doc["_id"] for each in found for doc in each.tokens] == ["t089"]


def test_a_page_that_takes_long_ends_early_but_never_for_a_small_pool(
    campaign: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a store that is so slow that a page is late at once
    monkeypatch.setattr(listing, "CHUNK", 5)
    monkeypatch.setattr(listing, "PATIENCE", 0)

    # Then a small pool is looked through whole
    (whole,) = pages(campaign, Filter(text="echo 89"), 50)
    assert [doc["_id"] for doc in whole.tokens] == ["t089"]

    # And of a larger one each page looks through the least, and the next goes on
    monkeypatch.setattr(listing, "AT_LEAST", 20)
    found = list(pages(campaign, Filter(text="echo 89"), 50))
    assert len(found) >= 4
    assert [each.searched for each in found[:-1]] == [20] * (len(found) - 1)
    assert [doc["_id"] for each in found for doc in each.tokens] == ["t089"]


def test_tokens_that_are_deleted_between_two_pages_hide_no_others(campaign: Pool) -> None:
    # Given the first page
    first = page(campaign.backend, Filter(states=("todo",)), "", 10)
    there = [doc["_id"] for doc in first.tokens]

    # When its last token goes before the next page is asked for
    campaign.rm([there[-1]])
    rest, after = [], first.next
    while after:
        found = page(campaign.backend, Filter(states=("todo",)), after, 10)
        rest += [doc["_id"] for doc in found.tokens]
        after = found.next

    # Then the others all come
    assert sorted([*there, *rest]) == [f"t{i:03d}" for i in range(30, 90)]


@pytest.mark.parametrize("place", ["nonsense", "e30", "WzEsMl0x", "W10", "\udc80"])
def test_a_place_that_is_none_is_refused(sqlite_pool: Pool, place: str) -> None:
    with pytest.raises(BadInput, match="no place in a list"):
        page(sqlite_pool.backend, Filter(), place)


@pytest.mark.parametrize("wanted", [{"states": ("eaten",)}, {"sort": "colour"}])
def test_a_filter_that_makes_no_sense_is_refused(sqlite_pool: Pool, wanted: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"eaten|colour"):
        page(sqlite_pool.backend, Filter(**wanted))

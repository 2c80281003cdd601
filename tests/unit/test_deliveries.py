"""Outcomes on their way: each is taken out once it stands in the pool, also where a token ran here more than once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tokenpool.backends.base import Json
from tokenpool.commits import Outcome
from tokenpool.deliveries import Deliveries


def told(*claims: str) -> Json:
    """Return a token whose history has these claims."""
    return {"_id": "t", "attempts": [{"claim": claim} for claim in claims]}


@pytest.fixture
def deliveries() -> Deliveries:
    """Two runs of one token: it was put back while it ran, and taken here again."""
    made = Deliveries(None, "sqlite:////pool.db", "worker_a")
    for claim in ("first", "second"):
        run: Any = SimpleNamespace(outcome=Outcome(told(claim), claim))
        made.add(claim, run)
    return made


@pytest.mark.parametrize(
    ("docs", "left"),
    [
        ([told("first", "second"), told("second", "first")], []),
        ([told("first", "second"), told("first", "second")], []),
        ([told(), told(), told()], []),
        ([told("first")], ["second"]),
        ([told("first", "second")], ["first"]),
    ],
)
def test_each_run_of_a_token_is_settled_once(deliveries: Deliveries, docs: list[Json], left: list[str]) -> None:
    settled = [run.outcome.claim for run, _ in deliveries.settle(docs)]
    assert list(deliveries.waiting) == left
    assert sorted([*settled, *left]) == ["first", "second"]


def test_what_is_not_ours_is_left_alone(deliveries: Deliveries) -> None:
    assert deliveries.settle([{"_id": "other"}]) == []
    assert len(deliveries.waiting) == 2

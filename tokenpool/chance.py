"""Chance of our own: the numbers that a script draws from its seeded `random` must not depend on what we draw beside it."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from random import SystemRandom
from typing import Any, TypeVar

Item = TypeVar("Item")


def uniform(low: float, high: float) -> float:
    """Return a number between these two."""
    return SystemRandom().uniform(low, high)


def shuffle(items: MutableSequence[Any]) -> None:
    """Mix these in place."""
    SystemRandom().shuffle(items)


def choice(items: Sequence[Item]) -> Item:
    """Return one of these."""
    return SystemRandom().choice(items)


def sample(items: Sequence[Item], count: int) -> list[Item]:
    """Return so many of these, each at most once."""
    return SystemRandom().sample(items, count)

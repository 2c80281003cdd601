"""What the document of a batch says: paused, before others, so many at a time; and what that leaves of a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .. import chance
from .base import Documents, Json

#: The document of the batch `night` is `batch_night`.
PREFIX = "batch_"


@dataclass(frozen=True)
class Rules:
    """How the tokens of a batch are treated; a batch without a document has these."""

    paused: bool = False
    priority: float = 0.0
    max_running: int | None = None


NO_RULES = Rules()


def rules_of(doc: Mapping[str, Any] | None) -> Rules:
    """Return what a batch document says; what it says oddly is not said, as in the view `tokenpool/ready`."""
    if doc is None or doc.get("type") != "batch":
        return NO_RULES
    paused, priority, most = doc.get("paused"), doc.get("priority"), doc.get("max_running")
    rank, room = _number(priority), _number(most)
    return Rules(
        bool(paused) or isinstance(paused, (list, dict)),
        rank or 0.0,
        None if room is None else max(0, math.floor(room)),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def batch_of(doc: Json) -> str:
    """Return the batch of a token, "" for none."""
    return str(doc.get("batch") or "")


#: What tokens are sorted by: the priority of their batch, then their own, both with the sign changed.
Rank = tuple[float, float]


def mixed(found: list[tuple[Rank, Json]]) -> list[tuple[Rank, Json]]:
    """Mix what is of equal rank: a rival whose window overlaps would else be just ahead all the way."""
    chance.shuffle(found)
    return sorted(found, key=lambda entry: entry[0])


class Gate:
    """Lets tokens into one window: none of a paused batch, of a limited one no more than it has room for.

    `locked` tells how many tokens of a batch are locked; it is asked only about those that have a limit.
    """

    def __init__(self, rules: Mapping[str, Rules], locked: Callable[[str], int]) -> None:
        self._rules = dict(rules)
        self._locked = locked
        self._left: dict[str, int] = {}
        #: The `max_running` of each batch that has one, and of which a token was let in.
        self.rooms: dict[str, int] = {}

    def learn(self, store: Documents, names: Collection[str]) -> None:
        """Read the rules of these batches, where they are not known yet; no batch, "", may have some too."""
        unknown = [name for name in dict.fromkeys(names) if name not in self._rules]
        docs = store.get_many([PREFIX + name for name in unknown])
        self._rules.update(zip(unknown, map(rules_of, docs)))

    def priority(self, batch: str) -> float:
        """Return the batch's own priority."""
        return self._rules.get(batch, NO_RULES).priority

    def is_open(self, batch: str) -> bool:
        """Tell whether a token of this batch could be let in now."""
        rules = self._rules.get(batch, NO_RULES)
        if rules.paused or rules.max_running is None:
            return not rules.paused
        if batch not in self._left:
            self._left[batch] = rules.max_running - self._locked(batch)
        return self._left[batch] > 0

    def admit(self, doc: Json) -> bool:
        """Let this token in and count it, or return False."""
        batch = batch_of(doc)
        if not self.is_open(batch):
            return False
        if batch in self._left:
            self._left[batch] -= 1
            self.rooms[batch] = self._rules[batch].max_running or 0
        return True

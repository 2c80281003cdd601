"""Opens held tokens that are due and whose parents are done, closes those whose parents failed, ends those that wait in vain.

Every step is idempotent and every write a compare-and-set: whoever likes may do it, at the same time as others. What a
conflict left out is there again in the next pass.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import chance, transitions
from .backends.base import Backend, Json, Saved
from .cycles import cycles
from .errors import AnswerLost
from .parents import (
    DONE,
    FAILED,
    MISSING,
    PAGE,
    Verdicts,
    close_with_parent,
    decide,
    end,
    parents_of,
)
from .reopening import KEYS, confirm, pages

#: Rows of the waiting read in one request.
WINDOW = 20_000
#: Parents looked up in one pass, after which only those count that a token is not known to wait for another of.
LOOKUPS = 3_000
#: Ids that a pass remembers; beyond that it reads what it has read before.
REMEMBERED = 300_000
#: In the memory of `end_broken`: when it looked last. No token is named so.
LOOKED = ""


@dataclass(frozen=True)
class Released:
    """The ids that a pass opened and closed, when the next one is due by the pool's clock, and whether to come at once."""

    released: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    next_due: float | None = None
    more: bool = False


# --- a pass --------------------------------------------------------------------------------------------------------


def release(backend: Backend, limit: int = 1000, parents: Sequence[str] | None = None) -> Released:
    """Open what is due and has its parents done; close the children of failed parents, and theirs.

    At most `limit` tokens are changed. With `parents`, only children of these are looked at: they have just ended.
    """
    look = _Pass(backend, limit)
    if parents is None:
        look.all_parents()
        look.due()
    else:
        look.children(parents)
    next_due = backend.waiting("due", after=look.now, limit=1)
    return Released(look.released, look.closed, next_due[0][0] if next_due else None, look.full)


def open_ready(backend: Backend, ids: Sequence[str]) -> list[str]:
    """Open those of these held tokens that are due and have their parents done; return their ids.

    None is closed: a parent that failed may be about to be put back as well.
    """
    look = _Pass(backend, len(ids), may_close=False)
    look.settle(ids)
    return look.released


def comes_soon(backend: Backend, batches: Sequence[str], seconds: float) -> bool:
    """Tell whether held tokens of these batches (none: of any) may soon open by themselves.

    Some are due within so many seconds, or a parent runs or has just ended. A guess: it looks at some parents only.
    """
    if not any(
        number and state == transitions.HELD and (not batches or batch in batches)
        for (state, batch), number in backend.counts().items()
    ):
        return False
    if backend.waiting("due", until=backend.now() + seconds, limit=1):
        return True
    parents = {str(parent) for parent, _ in backend.waiting("parent", limit=PAGE)}
    docs = backend.get_many(sorted(parents))
    moving = (transitions.LOCKED, transitions.DONE, transitions.ERROR)
    return any(doc is not None and transitions.state_of(doc) in moving for doc in docs)


class _Pass:
    """One look at the tokens that wait."""

    def __init__(self, backend: Backend, limit: int, may_close: bool = True) -> None:
        self.backend, self.limit = backend, limit
        self._moves = ("open", "close") if may_close else ("open",)
        self.now = backend.now()
        self.verdicts = Verdicts(backend)
        self.released: list[str] = []
        self.closed: list[str] = []
        #: Held tokens, and those of them that are known to wait for an open parent.
        self._held: set[str] = set()
        self._blocked: set[str] = set()
        self._followed = 0

    @property
    def full(self) -> bool:
        """As many tokens were changed as were allowed."""
        return len(self.released) + len(self.closed) >= self.limit

    def all_parents(self) -> None:
        """Look at the parents of all held tokens, a window at a time; a window ends with all that is needed of a parent."""
        after = None
        while not self.full:
            rows = self.backend.waiting("parent", after=after, limit=WINDOW)
            if not rows:
                return
            children: dict[str, list[str]] = {}
            for parent, child in rows:
                children.setdefault(parent, []).append(child)
            finished = self._finished(children)
            self.settle(dict.fromkeys(child for parent in finished for child in children[parent]))
            after = rows[-1][0]
            if len(rows) < WINDOW:
                break
            if after in finished:
                self.children([after])
        self.children_of_closed()

    def _finished(self, children: Mapping[str, list[str]]) -> list[str]:
        """Return the parents that are done or failed; one that is held itself, as in a long chain, needs no look."""
        if len(self._held) < REMEMBERED:
            self._held.update(*children.values())
        asked = [parent for parent in children if parent not in self._held]
        if len(self.verdicts) > LOOKUPS:
            asked = [parent for parent in asked if not self._blocked.issuperset(children[parent])]
        self.verdicts.learn(asked)
        finished = {parent for parent in asked if self.verdicts[parent] in (DONE, FAILED)}
        if len(self._blocked) < REMEMBERED:
            self._blocked.update(*(named for parent, named in children.items() if parent not in finished))
        return [parent for parent in asked if parent in finished]

    def due(self) -> None:
        """Look at the tokens whose time has come, but for those that are known to wait for a parent still."""
        for ids in pages(self.backend, "due", until=self.now):
            self.settle([each for each in ids if each not in self._blocked])
            if self.full:
                return
        self.children_of_closed()

    def children(self, parents: Sequence[str]) -> None:
        """Look at the children of tokens that have ended, and at theirs where they are closed too."""
        for at in range(0, len(parents), KEYS):
            for ids in pages(self.backend, "parent", keys=parents[at : at + KEYS]):
                self.settle(ids)
                if self.full:
                    return
        self.children_of_closed()

    def children_of_closed(self) -> None:
        """A token that was closed with its parent has failed for its own children."""
        while self._followed < len(self.closed) and not self.full:
            fresh = self.closed[self._followed : self._followed + KEYS]
            self._followed += len(fresh)
            for ids in pages(self.backend, "parent", keys=fresh):
                self.settle(ids)
                if self.full:
                    return

    def settle(self, ids: Iterable[str]) -> None:
        """Decide about these tokens and write what is decided, until as many were changed as are allowed."""
        left = deque(ids)
        while left and not self.full:
            part = [left.popleft() for _ in range(min(PAGE, len(left)))]
            docs = [doc for doc in self.backend.get_many(part, conflicts=True) if doc is not None and _waits(doc)]
            self.verdicts.learn_parents(docs)
            decided = [(doc, *decide(doc, self.verdicts, self.now)) for doc in docs]
            room = self.limit - len(self.released) - len(self.closed)
            self._write([each for each in decided if each[1] in self._moves][:room])

    def _write(self, decided: Sequence[tuple[Json, str, str]]) -> None:
        failed = {doc["_id"]: parent for doc, move, parent in decided if move == "close"}
        docs = [close_with_parent(doc, parent) for doc, move, parent in decided if move == "close"]
        docs += [transitions.release(doc) for doc, move, _ in decided if move == "open"]  # type: ignore[misc]
        if not docs:
            return
        try:
            saved = {result.id for result in self.backend.put_many(docs) if isinstance(result, Saved)}
        except AnswerLost:
            saved = set()  # whatever was written is right; the next pass sees it
        self.released += [doc["_id"] for doc in docs if doc["_id"] in saved and doc["_id"] not in failed]
        gone = [each for each in failed if each in saved]
        self.verdicts.update(dict.fromkeys(gone, FAILED))
        self.closed += gone
        confirm(self.backend, failed.values())


def _waits(doc: Json) -> bool:
    """Tell whether a token waits for something that can come by itself; one with conflicts is settled before."""
    held = transitions.state_of(doc) == transitions.HELD
    return held and transitions.waits(doc) and not doc.get("paused") and not doc.get("_conflicts")


# --- in vain -------------------------------------------------------------------------------------------------------


def end_broken(
    backend: Backend,
    seen: dict[str, float],
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    limit: int = 1000,
) -> list[str]:
    """End held tokens that can never run, and return their ids: in a cycle, or with a parent that is not there.

    `seen` is the caller's memory between two calls: since when, by `clock`, each parent is missing; one may still come
    within `patience` seconds. Called more often, it looks at the whole pool a few times in that time only.
    """
    now = clock()
    late = [each for each, since in seen.items() if each and now - since >= patience]
    if now - seen.get(LOOKED, -math.inf) < patience / 4 and not late:
        return []
    seen[LOOKED] = now
    graph = _graph(backend)
    ended: list[str] = []
    for some in _gathered(cycles(graph), min(PAGE, limit)):
        if len(ended) < limit:
            ended += _end_cycles(backend, some)
    for missing in _missing(backend, graph, seen, now):
        if now - seen[missing] >= patience and len(ended) < limit:
            ended += _end_orphans(backend, missing)
    if len(ended) >= limit:
        del seen[LOOKED]  # there is more of it
    return ended


def _graph(backend: Backend) -> dict[str, list[str]]:
    """Return the parents of held tokens that wait for any, as many as are remembered."""
    graph: dict[str, list[str]] = {}
    after, count = None, 0
    while count < REMEMBERED:
        rows = backend.waiting("parent", after=after, limit=WINDOW)
        count += len(rows)
        if len(rows) == WINDOW:
            after = rows[-1][0]
            rows += backend.waiting("parent", keys=[after], limit=REMEMBERED)
        for parent, child in rows:
            graph.setdefault(child, []).append(parent)
        if len(rows) < WINDOW:
            break
    return graph


def _missing(backend: Backend, graph: Mapping[str, Sequence[str]], seen: dict[str, float], now: float) -> list[str]:
    """Return the parents that are not there; `seen` then tells since when, of these only."""
    asked = {parent for parents in graph.values() for parent in parents if parent not in graph}
    if len(asked) > LOOKUPS:
        asked = set(chance.sample(sorted(asked), LOOKUPS)) | (asked & seen.keys())
    verdicts = Verdicts(backend)
    verdicts.learn(asked)
    missing = [each for each in sorted(asked) if verdicts[each] == MISSING]
    since = {each: seen.get(each, now) for each in [LOOKED, *missing]}
    seen.clear()
    seen.update(since)
    return missing


def _gathered(found: Iterable[list[str]], size: int) -> Iterator[list[list[str]]]:
    """Yield lists of cycles that together hold about so many tokens."""
    some: list[list[str]] = []
    for cycle in found:
        some.append(cycle)
        if sum(map(len, some)) >= size:
            yield some
            some = []
    if some:
        yield some


def _end_cycles(backend: Backend, found: Sequence[Sequence[str]]) -> list[str]:
    """End the tokens of these cycles, of each that still is one."""
    docs = {doc["_id"]: doc for doc in _held(backend, [each for cycle in found for each in cycle])}
    ended = []
    for cycle in found:
        parents = dict(zip(cycle, [cycle[-1], *cycle]))
        if all(each in docs and parents[each] in parents_of(docs[each]) for each in cycle):
            way = [*reversed(cycle), cycle[-1]]
            shown = way if len(way) <= 7 else [*way[:5], f"{len(way) - 6} more", way[-1]]
            message = f"it waits for itself: {' → '.join(shown)} (each depends on the next)"
            ended += [end(docs.pop(each), "invalid", message) for each in cycle]
    return _written(backend, ended)


def _end_orphans(backend: Backend, parent: str) -> list[str]:
    """End the children of a parent that is not there."""
    ended: list[str] = []
    for ids in pages(backend, "parent", keys=[parent]):
        docs = [doc for doc in _held(backend, ids) if parent in parents_of(doc)]
        ended += _written(
            backend, [end(doc, "invalid", f"it depends on {parent}, which is not in the pool") for doc in docs]
        )
    return ended


def _held(backend: Backend, ids: Sequence[str]) -> list[Json]:
    found = []
    for at in range(0, len(ids), PAGE):
        docs = backend.get_many(ids[at : at + PAGE], conflicts=True)
        found += [doc for doc in docs if doc is not None and _waits(doc)]
    return found


def _written(backend: Backend, docs: Sequence[Json]) -> list[str]:
    """Write documents and return the ids of those that were; the next pass sees to the others."""
    saved = []
    for at in range(0, len(docs), PAGE):
        try:
            saved += [result.id for result in backend.put_many(docs[at : at + PAGE]) if isinstance(result, Saved)]
        except AnswerLost:
            continue
    return saved

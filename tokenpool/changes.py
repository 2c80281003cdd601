"""Changes many tokens at once: each by compare-and-set, read again where somebody else was faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from . import transitions
from .backends.base import Backend, Json, Saved
from .bell import Bell
from .dependencies import open_ready
from .errors import AnswerLost
from .reopening import closed_with, reopen
from .selectors import Selector

Item = TypeVar("Item")

#: Tokens written in one request.
CHUNK = 500
#: Times that a token which changed under our hands is read and tried again.
ROUNDS = 6


@dataclass(frozen=True)
class Verb:
    """One bulk change: what it does to a token, and in which states it may.

    `fits` leaves out tokens of these states for which it would make no sense. With `opens`, tokens may be claimed
    afterwards: those that were held are looked at, those closed with a changed parent wait again, workers are woken.
    """

    name: str
    states: tuple[str, ...]
    change: Callable[[Json], object]
    fits: Callable[[Json], bool] = lambda doc: True
    opens: bool = False

    def allows(self, doc: Json) -> bool:
        """Tell whether it may change this token as it stands."""
        return transitions.state_of(doc) in self.states and self.fits(doc)


@dataclass(frozen=True)
class Changed:
    """What a bulk change did: tokens chosen and changed; `skipped` were not in a state that allows it.

    `reopened` tokens were not chosen: they had been closed because of one that was, and wait for it again.
    """

    matched: int
    changed: int
    skipped: int
    failed: tuple[str, ...] = ()
    reopened: int = 0


def _delete(doc: Json) -> None:
    kept = {"_id": doc["_id"], "_rev": doc["_rev"], "_deleted": True}
    doc.clear()
    doc.update(kept)


def _again(move: Callable[[Json], object]) -> Callable[[Json], None]:
    """Return a move back to todo that leaves a token held while it has something to wait for."""

    def change(doc: Json) -> None:
        move(doc)
        doc.pop("paused", None)
        if transitions.waits(doc):
            transitions.hold(doc)

    return change


def _may_resume(doc: Json) -> bool:
    return bool(doc.get("paused")) or not transitions.waits(doc)


VERBS = {
    verb.name: verb
    for verb in (
        Verb("retry", ("error", "invalid"), _again(transitions.retry), opens=True),
        Verb("reset", ("held", "locked", "done", "error", "invalid"), _again(transitions.reset), opens=True),
        Verb("scrub", ("locked", "error"), _again(transitions.scrub), opens=True),
        Verb("pause", ("todo", "held"), transitions.pause, lambda doc: not doc.get("paused")),
        Verb("resume", ("held",), transitions.resume, _may_resume, opens=True),
        Verb("rm", ("todo", "held", "done", "error", "invalid"), _delete),
    )
}
#: Removing what runs takes the token from under its worker; asked for by name only.
REMOVE_RUNNING = Verb("rm", transitions.STATES, _delete)


def cancel_verb(by: str) -> Verb:
    """Return the verb that asks for a stop in the name of `by`."""
    return Verb("cancel", ("todo", "held", "locked"), lambda doc: transitions.cancel(doc, by))


def select(backend: Backend, selector: Selector) -> Iterator[Json]:
    """Yield the chosen tokens, streaming; states and batches are looked up in an index."""
    if selector.ids:
        yield from (doc for doc in backend.get_many(selector.ids) if doc is not None)
        return
    for state in selector.states or (None,):
        for batch in selector.batches or (None,):
            yield from (doc for doc in backend.scan(state, batch) if selector.matches(doc))


def apply(
    backend: Backend,
    selector: Selector,
    verb: Verb,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> Changed:
    """Apply a verb to every chosen token that allows it; with `dry_run` only count."""
    matched = changed = skipped = 0
    failed: list[str] = []
    follow = _Following(backend, selector, verb, dry_run)
    try:
        for chunk in _chunks(doc for doc in select(backend, selector) if doc["_id"] not in follow.reopened):
            matched += len(chunk)
            able = [doc for doc in chunk if verb.allows(doc)]
            skipped += len(chunk) - len(able)
            if dry_run:
                changed += len(able)
                follow.after({doc["_id"]: False for doc in able})
                continue
            done, gone, lost = _apply_chunk(backend, able, verb, selector)
            follow.after(done)
            changed, skipped = changed + len(done), skipped + gone
            failed += lost
            progress(len(chunk))
    finally:
        follow.close()
    return Changed(matched, changed, skipped, tuple(failed), len(follow.reopened))


class _Following:
    """What follows where tokens are opened: their children wait again, what is ready is released, workers are woken."""

    def __init__(self, backend: Backend, selector: Selector, verb: Verb, dry_run: bool) -> None:
        self._backend, self._selector, self._verb, self._dry_run = backend, selector, verb, dry_run
        self._bell = Bell(backend)
        self.reopened: set[str] = set()

    def after(self, changed: Mapping[str, bool]) -> None:
        """Do it for tokens that were just changed, each with whether it is held now."""
        if not self._verb.opens or not changed:
            return
        if self._dry_run:
            self._count(list(changed))
            return
        self.reopened.update(reopen(self._backend, list(changed)))
        open_ready(self._backend, [doc_id for doc_id, held in changed.items() if held])
        self._bell.ring()

    def _count(self, ids: Sequence[str]) -> None:
        """Count the children that would wait again, but for those that were chosen themselves."""
        for some in _chunks(closed_with(self._backend, ids)):
            docs = self._backend.get_many(some)
            self.reopened.update(doc["_id"] for doc in docs if doc is not None and not self._chosen(doc))

    def _chosen(self, doc: Json) -> bool:
        return self._selector.matches(doc) and self._verb.allows(doc)

    def close(self) -> None:
        """Ring what is still to be rung."""
        self._bell.flush()


def _apply_chunk(
    backend: Backend, docs: list[Json], verb: Verb, selector: Selector
) -> tuple[dict[str, bool], int, list[str]]:
    """Return what was changed, how many no longer wanted it, and the ids that would not be written.

    Of what was changed: the ids, each with whether the token is held now.
    """
    changed: dict[str, bool] = {}
    gone = 0
    for _ in range(ROUNDS):
        if not docs:
            return changed, gone, []
        ids = [doc["_id"] for doc in docs]
        for doc in docs:
            verb.change(doc)
        held = {doc["_id"]: doc.get("lock") == transitions.HOLD for doc in docs}
        try:
            results = backend.put_many(docs)
        except AnswerLost:
            # Whoever was changed is not in a state for this verb any more.
            docs = _read_again(backend, ids, verb, selector)
            changed.update((doc_id, True) for doc_id in set(ids).difference(doc["_id"] for doc in docs))
            continue
        changed.update((result.id, held[result.id]) for result in results if isinstance(result, Saved))
        again = [doc_id for doc_id, result in zip(ids, results) if not isinstance(result, Saved)]
        docs = _read_again(backend, again, verb, selector)
        gone += len(again) - len(docs)
    return changed, gone, [doc["_id"] for doc in docs]


def _read_again(backend: Backend, ids: list[str], verb: Verb, selector: Selector) -> list[Json]:
    """Return those of these tokens that still want it."""
    docs = [doc for doc in backend.get_many(ids) if doc is not None]
    return [doc for doc in docs if verb.allows(doc) and selector.matches(doc)]


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk

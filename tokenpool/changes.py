"""Changes many tokens at once: each by compare-and-set, read again where somebody else was faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from . import transitions
from .backends.base import Backend, Json, Saved
from .errors import AnswerLost
from .selectors import Selector

#: Tokens written in one request.
CHUNK = 500
#: Times that a token which changed under our hands is read and tried again.
ROUNDS = 6


@dataclass(frozen=True)
class Verb:
    """One bulk change: what it does to a token, and in which states it may."""

    name: str
    states: tuple[str, ...]
    change: Callable[[Json], object]


@dataclass(frozen=True)
class Changed:
    """What a bulk change did: tokens chosen and changed; `skipped` were not in a state that allows it."""

    matched: int
    changed: int
    skipped: int
    failed: tuple[str, ...] = ()


def _delete(doc: Json) -> None:
    kept = {"_id": doc["_id"], "_rev": doc["_rev"], "_deleted": True}
    doc.clear()
    doc.update(kept)


VERBS = {
    verb.name: verb
    for verb in (
        Verb("retry", ("error", "invalid"), transitions.retry),
        Verb("reset", ("held", "locked", "done", "error", "invalid"), transitions.reset),
        Verb("scrub", ("locked", "error"), transitions.scrub),
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
    for chunk in _chunks(select(backend, selector)):
        matched += len(chunk)
        able = [doc for doc in chunk if transitions.state_of(doc) in verb.states]
        skipped += len(chunk) - len(able)
        if dry_run:
            changed += len(able)
            continue
        done, gone, lost = _apply_chunk(backend, able, verb, selector)
        changed, skipped = changed + done, skipped + gone
        failed += lost
        progress(len(chunk))
    return Changed(matched, changed, skipped, tuple(failed))


def _apply_chunk(backend: Backend, docs: list[Json], verb: Verb, selector: Selector) -> tuple[int, int, list[str]]:
    """Return how many were changed, how many no longer wanted it, and the ids that would not be written."""
    changed = gone = 0
    for _ in range(ROUNDS):
        if not docs:
            return changed, gone, []
        ids = [doc["_id"] for doc in docs]
        for doc in docs:
            verb.change(doc)
        try:
            results = backend.put_many(docs)
            changed += sum(isinstance(result, Saved) for result in results)
            again = [doc_id for doc_id, result in zip(ids, results) if not isinstance(result, Saved)]
        except AnswerLost:
            # Whoever was changed no longer matches the states of the verb when read again.
            again = ids
        docs, missed = _read_again(backend, again, verb, selector)
        gone += missed
    return changed, gone, [doc["_id"] for doc in docs]


def _read_again(backend: Backend, ids: list[str], verb: Verb, selector: Selector) -> tuple[list[Json], int]:
    docs = [doc for doc in backend.get_many(ids) if doc is not None]
    still = [doc for doc in docs if transitions.state_of(doc) in verb.states and selector.matches(doc)]
    return still, len(ids) - len(still)


def _chunks(docs: Iterable[Json]) -> Iterator[list[Json]]:
    iterator = iter(docs)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk

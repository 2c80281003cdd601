"""Changes many tokens for somebody: first counted, then done in the background, and told how far it is."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from .. import changes, edits, listing, steering, transitions
from ..backends.base import Backend, Json
from ..changes import Changed, Verb
from ..errors import BadInput, TokenpoolError
from ..listing import Filter
from ..selectors import Selector
from .access import Person, Role

#: What somebody may do to tokens, and how it is said: before, and when it is done.
VERBS: Mapping[str, tuple[str, str]] = {
    "retry": ("Retry", "put back to run again"),
    "reset": ("Reset", "put back as if they had never run"),
    "cancel": ("Cancel", "cancelled"),
    "pause": ("Pause", "paused"),
    "resume": ("Resume", "resumed"),
    "edit": ("Edit", "edited"),
    "rm": ("Delete", "deleted"),
}
#: Tokens that are found by reading them, and read to find them, for one change.
FOUND, READ = 20_000, 200_000
CHUNK = 500
#: Changes that are remembered.
KEPT = 100


@dataclass(frozen=True)
class Chosen:
    """Which tokens: those of these ids, or all that fit a filter."""

    ids: tuple[str, ...] = ()
    filter: Filter | None = None


@dataclass(frozen=True)
class Preview:
    """What a change would do: tokens chosen, and changed; `cut`: more may fit than were looked at."""

    matched: int
    able: int
    cut: bool = False


def verb_of(name: str, person: Person) -> Verb:
    """Return a verb as somebody does it: to the tokens that are theirs to change. Raises BadInput."""
    if name not in VERBS:
        raise BadInput(f"tokens cannot be {name!r}", f"known: {', '.join(VERBS)}")
    if name == "edit":
        verb = Verb("edit", edits.STATES, lambda doc: None)
    else:
        verb = changes.cancel_verb(person.name) if name == "cancel" else changes.VERBS[name]
    fits = verb.fits
    # A worker's document, or a view, is no token, whoever names it among some.
    return replace(verb, fits=lambda doc: fits(doc) and transitions.is_token(doc) and person.may_change(doc))


def preview(
    backend: Backend, chosen: Chosen, verb: Verb, person: Person, counts: Mapping[tuple[str, str], int]
) -> Preview:
    """Count what a change would do; whole states and batches are counted by the index."""
    wanted = chosen.filter
    if wanted is not None and _indexed(wanted, person):
        matched = listing.counted(counts, wanted)
        states = [state for state in verb.states if not wanted.states or state in wanted.states]
        able = listing.counted(counts, replace(wanted, states=tuple(states))) if states else 0
        return Preview(matched, able)
    docs = list(islice(_docs(backend, chosen), FOUND + 1))
    cut = wanted is not None and len(docs) > FOUND
    return Preview(len(docs), sum(verb.allows(doc) for doc in docs), cut)


def apply(backend: Backend, chosen: Chosen, verb: Verb, person: Person, progress: Callable[[int], None]) -> Changed:
    """Do it, and tell the workers that run some of these tokens."""
    holders: set[str] = set()
    noting = steering.noting_holders(verb, holders)
    total = Changed(0, 0, 0)
    for selector in _selectors(backend, chosen, person):
        total = _sum(total, changes.apply(backend, selector, noting, False, progress))
    steering.steer_many(backend, sorted(holders), look=True)
    return total


def apply_edit(
    backend: Backend,
    chosen: Chosen,
    patch: Mapping[str, Any],
    verb: Verb,
    person: Person,
    progress: Callable[[int], None],
) -> Changed:
    """Put a patch on the chosen tokens that are this person's to change; raises BadInput for one that makes no sense."""
    total = Changed(0, 0, 0)
    for selector in _selectors(backend, chosen, person):
        matched = 0
        if selector.ids:
            docs = [doc for doc in backend.get_many(selector.ids) if doc is not None]
            matched = len(docs)
            selector = Selector(ids=tuple(doc["_id"] for doc in docs if verb.allows(doc)))
            if not selector.ids:
                total = _sum(total, Changed(matched, 0, matched))
                continue
        done = edits.edit(backend, selector, patch, False, progress)
        left = max(0, matched - done.matched)
        total = _sum(total, replace(done, matched=done.matched + left, skipped=done.skipped + left))
    return total


def _sum(one: Changed, other: Changed) -> Changed:
    return Changed(
        one.matched + other.matched,
        one.changed + other.changed,
        one.skipped + other.skipped,
        one.failed + other.failed,
        one.reopened + other.reopened,
    )


def _indexed(wanted: Filter, person: Person) -> bool:
    return not wanted.reads and not wanted.prefix and person.may(Role.OPERATOR)


def _selectors(backend: Backend, chosen: Chosen, person: Person) -> Iterator[Selector]:
    wanted = chosen.filter
    if wanted is not None and _indexed(wanted, person):
        yield Selector(states=wanted.states, batches=() if wanted.batch is None else (wanted.batch,))
        return
    ids = chosen.ids if wanted is None else tuple(doc["_id"] for doc in islice(_docs(backend, chosen), FOUND))
    for at in range(0, len(ids), CHUNK):
        yield Selector(ids=ids[at : at + CHUNK])


def _docs(backend: Backend, chosen: Chosen) -> Iterator[Json]:
    """Yield the chosen tokens; of a filter, those that are found in reading so many."""
    if chosen.filter is None:
        for at in range(0, len(chosen.ids), CHUNK):
            yield from (doc for doc in backend.get_many(chosen.ids[at : at + CHUNK]) if doc is not None)
        return
    after, searched = "", 0
    while searched < READ:
        found = listing.page(backend, replace(chosen.filter, sort=""), after, CHUNK)
        yield from found.tokens
        searched, after = searched + found.searched, found.next
        if not found.more:
            return


# --- in the background -----------------------------------------------------------------------------------------------


@dataclass
class Deed:
    """One change that was begun: how many tokens it has looked at, and its result or why there is none."""

    id: str
    verb: str
    by: str
    looked: int = 0
    result: Changed | None = None
    failure: TokenpoolError | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """It has ended, well or not."""
        return self.ended.is_set()


class Deeds:
    """The changes that were begun lately."""

    def __init__(self) -> None:
        self._known: dict[str, Deed] = {}

    def begin(self, verb: str, by: str, work: Callable[[Callable[[int], None]], Changed]) -> Deed:
        """Begin a change in a thread of its own."""
        deed = Deed(secrets.token_urlsafe(9), verb, by)
        self._known[deed.id] = deed
        for old in list(self._known)[: max(0, len(self._known) - KEPT)]:
            if self._known[old].over:
                del self._known[old]

        def count(number: int) -> None:
            deed.looked += number

        def run() -> None:
            try:
                deed.result = work(count)
            except TokenpoolError as error:
                deed.failure = error
            except Exception as error:  # whoever waits for it has to see an end
                deed.failure = TokenpoolError(f"the server failed at this: {error}", "see the log of the server")
            finally:
                deed.ended.set()

        threading.Thread(target=run, name="tokenpool-deed", daemon=True).start()
        return deed

    def get(self, deed_id: str) -> Deed | None:
        """Return a change that was begun lately."""
        return self._known.get(deed_id)

"""Lists tokens page by page: filtered and sorted, by indexes, and never more of a large pool than a page may cost."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import transitions
from .backends.base import Backend, Json
from .backends.slices import Slice, ids_from, lists_batches, slice_of
from .errors import BadInput
from .selectors import parse_time

#: Documents looked through for one page at most; seconds after which it ends sooner, and documents before which it does
#: not: a small pool is looked through whole, also where each question takes long.
LOOKED_THROUGH, PATIENCE, AT_LEAST = 5_000, 0.06, 1_000
#: Documents read at once while they are looked through.
CHUNK = 250
#: More tokens than this are not sorted: they are listed in the order of the store.
SORTABLE = 2_000
#: What a list can be sorted by.
SORTS = ("id", "name", "state", "batch", "priority", "host", "started", "ended", "duration", "attempts")


@dataclass(frozen=True)
class Filter:
    """Which tokens to list: those that meet all that is given; "" as the value of a tag stands for any value.

    Without `sort` they come in the order of the store, `back`: from its end. `also` is asked of each that fits otherwise.
    """

    states: tuple[str, ...] = ()
    batch: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    #: The first letters of the id.
    prefix: str = ""
    #: In the id, name, description, batch, command, host, or a tag; upper and lower case are the same.
    text: str = ""
    #: The first letters of the name.
    name: str = ""
    also: Callable[[Json], bool] | None = None
    sort: str = ""
    back: bool = False

    @property
    def reads(self) -> bool:
        """Tokens have to be read to know whether they fit; else an index knows."""
        return bool(self.tags or self.host or self.text or self.name or self.also)


@dataclass(frozen=True)
class Page:
    """Some tokens; `more` may follow at `next`. `searched` were looked through; `sorted`: in the order asked for."""

    tokens: list[Json]
    next: str
    searched: int
    more: bool
    sorted: bool = True


def page(
    backend: Backend,
    filter: Filter,
    after: str = "",
    limit: int = 50,
    counts: Mapping[tuple[str, str], int] | None = None,
) -> Page:
    """Return the tokens of one page; `after` is the `next` of the page before. Raises BadInput for one that is not.

    `counts` are those of the backend, where somebody has them already.
    """
    check(filter, limit)
    place = _place(after)
    if filter.sort and not filter.prefix and counted(counts or backend.counts(), filter) <= SORTABLE:
        return _sorted_page(backend, filter, place, limit)
    budget = _Budget()
    tokens: list[Json] = []
    for doc, here in _walk(backend, filter, place, limit, budget):
        if doc is not None:
            tokens.append(doc)
        if len(tokens) >= limit or doc is None:
            return Page(tokens, _spelled(here) if here else "", budget.searched, bool(here), not filter.sort)
    return Page(tokens, "", budget.searched, False, not filter.sort)


def check(filter: Filter, limit: int) -> None:
    """Raise BadInput for a filter that makes no sense."""
    unknown = sorted(set(filter.states) - set(transitions.STATES))
    if unknown:
        raise BadInput(f"there is no state {unknown[0]!r}", f"states: {', '.join(transitions.STATES)}")
    if filter.sort and filter.sort not in SORTS:
        raise BadInput(f"tokens are not sorted by {filter.sort!r}", f"known: {', '.join(SORTS)}")
    if not 1 <= limit <= SORTABLE:
        raise BadInput(f"{limit} tokens are no page", f"from 1 to {SORTABLE}")


def fits(filter: Filter, doc: Json) -> bool:
    """Tell whether a token is to be listed."""
    return (
        (not filter.states or transitions.state_of(doc) in filter.states)
        and (filter.batch is None or str(doc.get("batch") or "") == filter.batch)
        and str(doc.get("_id", "")).startswith(filter.prefix)
        and str(doc.get("name") or "").startswith(filter.name)
        and (not filter.host or doc.get("hostname") == filter.host)
        and _has_tags(doc.get("tags"), filter.tags)
        and (not filter.text or _holds(doc, filter.text.casefold()))
        and (filter.also is None or filter.also(doc))
    )


def _has_tags(tags: Any, wanted: Mapping[str, str]) -> bool:
    if not wanted:
        return True
    return isinstance(tags, Mapping) and all(
        key in tags and value in ("", str(tags[key])) for key, value in wanted.items()
    )


def _holds(doc: Json, text: str) -> bool:
    names = ("_id", "name", "description", "batch", "input", "command", "image", "hostname", "workflow", "tags")
    told = (doc.get(name) for name in names)
    return any(text in (each if isinstance(each, str) else json.dumps(each)).casefold() for each in told if each)


# --- walking -------------------------------------------------------------------------------------------------------


class _Budget:
    """What one page may cost: no more is read after so many documents, or after so long."""

    def __init__(self) -> None:
        self.searched = 0
        self._ends = time.monotonic() + PATIENCE

    @property
    def over(self) -> bool:
        """No more is to be read."""
        late = self.searched >= AT_LEAST and time.monotonic() > self._ends
        return late or self.searched >= LOOKED_THROUGH


def _walk(
    backend: Backend, filter: Filter, place: list[Any], limit: int, budget: _Budget
) -> Iterator[tuple[Json | None, list[Any]]]:
    """Yield the tokens that fit, each with the place behind it ([]: nothing follows); (None, place) ends the budget.

    A place is the number of the part (a state where several are listed) and the place in there.
    """
    parts = _parts(backend, filter)
    number, here = (int(place[0]), place[1]) if place else (0, None)
    # One more than the page: so it is known whether any follow.
    size = CHUNK if filter.reads else limit + 1
    while 0 <= number < len(parts):
        found = _slice(backend, filter, parts[number], here, size)
        budget.searched += len(found.docs)
        final = found.over and number == len(parts) - 1
        for behind, doc in zip(found.places, found.docs):
            if fits(filter, doc):
                yield doc, [] if final and doc is found.docs[-1] else [number, behind]
        if final:
            return
        number, here = (number + 1, None) if found.over else (number, found.end)
        if budget.over:
            yield None, [number, here]
            return


def _parts(backend: Backend, filter: Filter) -> list[str | None]:
    """Return the states that are listed one after another; None: all in one go."""
    if filter.prefix:
        return [None]
    states: list[str | None] = [*sorted(set(filter.states), reverse=filter.back)]
    if not states and filter.batch is not None and not lists_batches(backend):
        there = {state for state, batch in backend.counts() if batch == filter.batch}
        return [*sorted(there, reverse=filter.back)]
    return states or [None]


def _slice(backend: Backend, filter: Filter, state: str | None, here: Any, size: int) -> Slice:
    if filter.prefix:
        return ids_from(backend, filter.prefix, here, size)
    return slice_of(backend, state, filter.batch, here, size, filter.back)


# --- sorting -------------------------------------------------------------------------------------------------------


def counted(counts: Mapping[tuple[str, str], int], filter: Filter) -> int:
    """Return the tokens of the filter's states and batch."""
    return sum(
        number
        for (state, batch), number in counts.items()
        if (not filter.states or state in filter.states) and filter.batch in (None, batch)
    )


def _sorted_page(backend: Backend, filter: Filter, place: list[Any], limit: int) -> Page:
    docs: list[Json] = []
    searched = 0
    for state in _parts(backend, filter):
        found = slice_of(backend, state, filter.batch, None, SORTABLE + CHUNK, False)
        searched += len(found.docs)
        docs += [doc for doc in found.docs if fits(filter, doc)]
    docs.sort(key=lambda doc: _sort_key(doc, filter.sort), reverse=filter.back)
    # Who looks for the longest does not mean those that have not begun: without a value they come last, both ways.
    docs.sort(key=lambda doc: sort_value(doc, filter.sort) in (None, ""))
    start = int(place[0]) if place else 0
    more = start + limit < len(docs)
    following = _spelled([start + limit, None]) if more else ""
    return Page(docs[start : start + limit], following, searched, more)


def _sort_key(doc: Json, name: str) -> tuple[int, Any, str]:
    """Return what a token is sorted by: numbers before texts, the id where all else is equal."""
    value = sort_value(doc, name)
    doc_id = str(doc.get("_id", ""))
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return (0, value, doc_id)
    return (1, str(value or ""), doc_id)


def sort_value(doc: Json, name: str) -> Any:
    """Return what a column shows of a token: a number (times in seconds since 1970) or a text; None: nothing."""
    if name == "id":
        return doc.get("_id")
    if name == "state":
        return transitions.state_of(doc)
    if name in ("name", "batch", "priority"):
        return doc.get(name) or (0 if name == "priority" else "")
    if name == "host":
        return doc.get("hostname") or ""
    if name == "attempts":
        return len(transitions.attempts_of(doc))
    started, ended = span(doc)
    if name == "duration":
        return None if started is None or ended is None else ended - started
    return started if name == "started" else ended


def span(doc: Json) -> tuple[float | None, float | None]:
    """Return when the last attempt of a token began and ended, in seconds since 1970, as far as it is known."""
    state = transitions.state_of(doc)
    if state == transitions.LOCKED:
        return _moment(doc.get("lock")), None
    attempts = [entry for entry in transitions.attempts_of(doc) if not entry.get("superseded")]
    last = attempts[-1] if attempts else {}
    started, ended = parse_time(last.get("start_time")), parse_time(last.get("end_time"))
    if state in transitions.FINAL:
        return started or _moment(doc.get("lock")), ended or _moment(doc.get("done"))
    return started, ended


def _moment(value: Any) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and value > transitions.PICAS_ERROR
    return float(value) if good else None


# --- places --------------------------------------------------------------------------------------------------------


def _spelled(place: list[Any]) -> str:
    text = json.dumps(place, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place(text: str) -> list[Any]:
    if not text:
        return []
    try:
        place = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if isinstance(place, list) and len(place) == 2 and type(place[0]) is int:
            return place
    except ValueError:
        pass
    raise BadInput(f"{text[:40]!r} is no place in a list of tokens", "begin with the first page")

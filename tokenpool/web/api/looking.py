"""Reads the queue for workers elsewhere: only they know what fits them, so they are shown it and then choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...backends.base import Backend, Json, Want
from ...errors import BadInput

#: Documents shown at once at most.
MOST = 5000


class _Enough(Exception):
    """So many were seen as were asked for."""


def only(backend: Backend, asked: Json) -> Json:
    """Return a window of the queue; with `only`, of these tokens."""
    chosen = asked.get("only")
    some = None if chosen is None else frozenset(map(str, chosen))
    window = backend.candidates(
        _want(asked, lambda doc: some is None or doc["_id"] in some), _limit(asked, "limit"), _start(asked)
    )
    return {"tokens": window.tokens, "rooms": dict(window.rooms)}


def look(backend: Backend, asked: Json) -> Json:
    """Return up to `look` tokens as they stand in the queue, without those to `skip`; `more`: there may be others."""
    skipped, number = frozenset(map(str, asked.get("skip") or ())), _limit(asked, "look")
    seen: dict[str, Json] = {}

    def note(doc: Json) -> bool:
        # It fits nobody, so the backend goes on, and counts it against no batch.
        if doc["_id"] not in skipped:
            seen[doc["_id"]] = doc
            if len(seen) >= number:
                raise _Enough
        return False

    try:
        backend.candidates(_want(asked, note), _limit(asked, "limit"), _start(asked))
    except _Enough:
        return {"seen": list(seen.values()), "more": True}
    return {"seen": list(seen.values()), "more": False}


def _want(asked: Json, fits: Any) -> Want:
    batches, tags, params = asked.get("batches"), asked.get("tags"), asked.get("view_params")
    return Want(
        batches=tuple(map(str, batches)) if isinstance(batches, list) else (),
        tags={str(name): str(value) for name, value in tags.items()} if isinstance(tags, Mapping) else {},
        design=str(asked.get("design") or ""),
        view=str(asked.get("view") or ""),
        view_params=params if isinstance(params, Mapping) else {},
        fits=fits,
    )


def _limit(asked: Json, name: str) -> int:
    number = asked.get(name)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise BadInput(f"{name} {number!r} is no number of tokens", "for example 50")
    return min(number, MOST)


def _start(asked: Json) -> float | None:
    start = asked.get("start")
    if start is None or (isinstance(start, (int, float)) and 0 <= start < 1):
        return start
    raise BadInput(f"start {start!r} is no place in the queue", "a number from 0 to 1")

"""Reads what somebody asked for on a page: which tokens, in which order, and what a form holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from starlette.datastructures import FormData, ImmutableMultiDict

from ...errors import BadInput, ServerAway
from ...listing import Filter
from ...transitions import STATES
from ..hub import Snapshot
from ..site import site_of

#: How many tokens a form has just pushed: said once, and carried no further.
PUSHED = "pushed"
NAMES = ("state", "batch", "tag", "host", "text", "prefix")


@dataclass(frozen=True)
class Said:
    """A line at the top of a page; `look` is good, warn or bad."""

    text: str
    look: str = "good"


def here(request: Request) -> Snapshot:
    """Return what is known of the pool; raises ServerAway at once where it is known to be away."""
    snapshot = site_of(request).hub.snapshot()
    if snapshot.away:
        raise ServerAway(f"the pool is away: {snapshot.away}", "nothing is lost; workers wait for it too")
    return snapshot


async def form_of(request: Request) -> AsyncIterator[FormData]:
    """Give the form of a request; a dependency, so that routes that block may stay plain functions."""
    form = await request.form(max_part_size=16 << 20)
    try:
        yield form
    finally:
        await form.close()


def filter_of(given: ImmutableMultiDict[str, Any]) -> Filter:
    """Return the filter that a query or a form asks for; raises BadInput."""
    states = tuple(word for word in map(str, given.getlist("state")) if word)
    unknown = [word for word in states if word not in STATES]
    if unknown:
        raise BadInput(f"there is no state {unknown[0]!r}", f"states: {', '.join(STATES)}")
    batch = given.get("batch")
    return Filter(
        states=states,
        batch=None if batch in (None, "") else "" if batch == "-" else str(batch),
        tags=tags_of(str(given.get("tag") or "")),
        host=str(given.get("host") or "").strip(),
        text=str(given.get("text") or "").strip(),
        prefix=str(given.get("prefix") or "").strip(),
        sort=str(given.get("sort") or ""),
        back=given.get("back") in ("1", "true", "on"),
    )


def tags_of(text: str) -> dict[str, str]:
    """Return the tags that somebody wrote: ``key=value key2=value2``; a key alone stands for any value.

    >>> tags_of("sample=7, lane")
    {'sample': '7', 'lane': ''}
    """
    words = text.replace(",", " ").split()
    return {key: value for key, _, value in (word.partition("=") for word in words) if key}


def query_of(given: ImmutableMultiDict[str, Any], leave: Iterable[str] = (), **more: str) -> str:
    """Return the query of a page with some of its words changed; "" takes one out."""
    left = {*leave, *more, PUSHED}
    pairs = [(name, str(value)) for name, value in given.multi_items() if name not in left and value not in ("", None)]
    return urlencode([*pairs, *((name, value) for name, value in more.items() if value)])


def hidden(given: ImmutableMultiDict[str, Any]) -> list[tuple[str, str]]:
    """Return what a form has to carry so that it means the same tokens."""
    return [(name, str(value)) for name, value in given.multi_items() if name in NAMES and value not in ("", None)]


def whole(text: Any, what: str, least: int = 0) -> int | None:
    """Return the whole number that a field holds, None where it is empty; raises BadInput."""
    word = str(text or "").strip()
    if not word:
        return None
    try:
        value = int(word)
    except ValueError:
        raise BadInput(f"{what} {word[:40]!r} is not a whole number", f"a number from {least} on") from None
    if value < least:
        raise BadInput(f"{what} {value} is too small", f"a number from {least} on")
    return value

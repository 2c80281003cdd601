"""Lists tasks page by page, by filters that an index knows, or that are looked for in so many tokens and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ... import transitions
from ...backends.base import Backend
from ...errors import BadInput, NotFound
from ...listing import Filter, page
from .reading import all_running, logs_of, phase_of, running
from .states import TOKENS_OF, tes_state
from .to_task import minimal, task_of

Json = dict[str, Any]

#: Tasks of one page, and of one whose logs are read.
MOST, MOST_FULL = 2000, 100


@dataclass(frozen=True)
class Asked:
    """Which tasks are asked for, and how much of each; "" as the value of a tag is any."""

    name: str = ""
    state: str = ""
    tags: Mapping[str, str] | None = None
    size: int = 256
    view: str = "MINIMAL"


def list_tasks(backend: Backend, asked: Asked, place: str) -> Json:
    """Return one page of tasks; raises NotFound for a place that is none."""
    states = TOKENS_OF[asked.state] if asked.state else ()
    if asked.state and not states:
        return {"tasks": []}

    chosen = Filter(states=states, tags=asked.tags or {}, name=asked.name, also=_meant(backend, asked.state, states))
    size = min(asked.size, MOST_FULL if asked.view == "FULL" else MOST)
    try:
        found = page(backend, chosen, place, size)
    except BadInput as error:
        raise NotFound(f"there is no page {place[:40]!r}", error.hint) from None
    those = running(backend, found.tokens)
    tasks = [_shown(backend, doc, phase_of(doc, those), asked.view) for doc in found.tokens]
    return {"tasks": tasks, **({"next_page_token": found.next} if found.more else {})}


def _meant(backend: Backend, state: str, states: tuple[str, ...]) -> Callable[[Json], bool] | None:
    """Return what tells whether a token of these states is a task of this one; None: all are."""
    if not set(states) & {transitions.LOCKED, transitions.ERROR}:
        return None
    those = all_running(backend) if transitions.LOCKED in states else {}
    return lambda doc: tes_state(doc, phase_of(doc, those)) == state


def _shown(backend: Backend, doc: Json, phase: str, view: str) -> Json:
    if view == "MINIMAL":
        return minimal(doc, phase)
    return task_of(doc, phase, logs_of(backend, doc) if view == "FULL" else None)

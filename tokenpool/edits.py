"""Changes fields of tokens that do not run: a JSON merge patch, checked on every token before the first is written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import bell, transitions
from .backends.base import Backend, Json
from .changes import Changed, Verb, apply, select
from .checks import check
from .dependencies import open_ready
from .errors import BadInput
from .jobid import JOB_ID_FIELDS
from .runners import equivalent_input
from .selectors import Selector

#: What only workers, or other verbs, may write, and the verb that does.
CORE: Mapping[str, str] = {
    "type": "", "lock": "retry, reset, pause, resume", "done": "retry, reset, cancel", "hostname": "",
    "exit_code": "reset", "error": "reset", "scrub_count": "scrub", "lease": "", "attempts": "",
    "cancel": "cancel", "paused": "pause, resume", **dict.fromkeys(JOB_ID_FIELDS, ""),
}  # fmt: skip
#: What a token waits for.
WAITING = frozenset({"depends_on", "not_before"})
STATES = (transitions.TODO, transitions.HELD, transitions.DONE, transitions.ERROR)


def edit(
    backend: Backend,
    selector: Selector,
    patch: Mapping[str, Any],
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda n: None,
) -> Changed:
    """Put `patch` on the chosen tokens that do not run: None removes a field, an object is merged into one.

    Raises BadInput, with nothing written, for a field that is not to be edited and for a token that would make no
    sense afterwards.
    """
    refuse_core(patch)
    for doc in select(backend, selector):
        if transitions.state_of(doc) in STATES:
            edited(doc, patch)

    may_run: set[str] = set()

    def change(doc: Json) -> None:
        after = edited(doc, patch)
        doc.clear()
        doc.update(after)
        if transitions.state_of(doc) in (transitions.TODO, transitions.HELD):
            may_run.add(doc["_id"])

    done = apply(backend, selector, Verb("edit", STATES, change), dry_run, progress)
    if may_run:
        if WAITING & set(patch):
            open_ready(backend, sorted(may_run))
        bell.ring(backend)
    return done


def refuse_core(names: Iterable[str]) -> None:
    """Raise BadInput for a field that is not written by people."""
    for name in names:
        if name.startswith("_") or name in CORE:
            verbs = CORE.get(name)
            hint = f"use one of these: {verbs}" if verbs else "the pool and its workers write it"
            raise BadInput(f"{name!r} is not to be edited", hint)


def edited(doc: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """Return the document with the patch on it, checked; what follows from other fields is made anew."""
    after = merge(doc, patch)
    check({"_id": after.get("_id"), **{name: after[name] for name in patch if name in after}})
    if {"command", "env"} & set(patch) and "command" in after and "input" not in patch:
        after["input"] = equivalent_input(after)
    if {"command", "input"} & set(patch) and not (after.get("command") or after.get("input")):
        raise BadInput(f"token {after.get('_id')} would have no command", "give it input=TEXT, or command=TEXT")
    if WAITING & set(patch):
        _hold_or_release(doc, after)
    return after


def _hold_or_release(before: Mapping[str, Any], after: Json) -> None:
    """Hold what has to wait now; release what waited for this, unless somebody holds it for another reason."""
    state = transitions.state_of(after)
    if state == transitions.TODO and transitions.waits(after):
        transitions.hold(after)
    ready = transitions.waits(before) and not transitions.waits(after) and not after.get("paused")
    if state == transitions.HELD and ready:
        transitions.release(after)


def merge(value: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """Return what RFC 7396 says: None removes, objects are merged, everything else replaces.

    >>> merge({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    """
    merged = copy.deepcopy(dict(value))
    for name, new in patch.items():
        if new is None:
            merged.pop(name, None)
        elif isinstance(new, Mapping):
            before = merged.get(name)
            merged[name] = merge(before if isinstance(before, dict) else {}, new)
        else:
            merged[name] = copy.deepcopy(new)
    return merged


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Json:
    """Return the patch that makes `after` of `before`.

    >>> difference({"a": 1, "b": {"c": 2}}, {"b": {"c": 3}, "d": 4})
    {'a': None, 'b': {'c': 3}, 'd': 4}
    """
    patch: Json = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            inner = difference(old, value)
            if inner:
                patch[name] = inner
        elif name not in before or old != value:
            patch[name] = value
    return patch

"""Says what parents are to their children: what becomes of a token that waits for others, and how it ends or waits again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import transitions
from .backends.base import Backend, Json
from .util import timestamp

#: Documents read in one request.
PAGE = 500
#: Parents of one token that are looked at before those of others: one that is open is enough to know that it waits.
SLICE = 100

OPEN, DONE, FAILED, MISSING = "open", "done", "failed", "missing"


def parents_of(doc: Mapping[str, Any]) -> list[str]:
    """Return the ids that a token depends on; what somebody wrote there by hand and is none is left out."""
    named = doc.get("depends_on")
    return [each for each in named if isinstance(each, str)] if isinstance(named, list) else []


def verdict(doc: Mapping[str, Any] | None) -> str:
    """Return what a parent is to its children: open, done, failed, or missing. One with conflicts may yet be anything."""
    if doc is None or not transitions.is_token(doc):
        return MISSING
    if doc.get("_conflicts"):
        return OPEN
    return {transitions.DONE: DONE, transitions.ERROR: FAILED}.get(transitions.state_of(doc), OPEN)


def decide(doc: Mapping[str, Any], verdicts: Mapping[str, str], now: float) -> tuple[str, str]:
    """Return what becomes of a waiting token: ("open", ""), ("wait", "") or ("close", the parent that failed)."""
    parents = parents_of(doc)
    if not doc.get("accept_failure"):
        failed = next((each for each in parents if verdicts.get(each) == FAILED), None)
        if failed is not None:
            return "close", failed
    if any(verdicts.get(each) not in (DONE, FAILED) for each in parents):
        return "wait", ""
    due = doc.get("not_before")
    early = isinstance(due, (int, float)) and not isinstance(due, bool) and due > now
    return ("wait", "") if early else ("open", "")


def is_closed_with_parent(doc: Mapping[str, Any]) -> bool:
    """Tell whether a token was closed because a parent failed, and never ran since."""
    attempts = transitions.attempts_of(doc)
    last = attempts[-1].get("failure_class") if attempts else None
    return last == "dependency" and transitions.state_of(doc) == transitions.ERROR


def close_with_parent(doc: Json, parent: str) -> Json:
    """End a token because a token it depends on failed."""
    return end(doc, "dependency", f"it was not run: token {parent}, which it depends on, failed")


def end(doc: Json, failure_class: str, message: str) -> Json:
    """End a token that never ran, with the reason in its history."""
    now = timestamp()
    entry = {
        "claim": failure_class,
        "hostname": "",
        "start_time": now,
        "end_time": now,
        "exit_code": transitions.PICAS_ERROR,
        "failure_class": failure_class,
        "counted": False,
    }
    doc["attempts"] = [*transitions.attempts_of(doc), entry]
    doc["exit_code"] = transitions.PICAS_ERROR
    transitions.fail(doc, message)
    return doc


def reopened(doc: Json) -> Json:
    """Make a token that was closed with its parent wait again, as if nothing had happened to it."""
    attempts = transitions.attempts_of(doc)
    while attempts and attempts[-1].get("failure_class") == "dependency":
        attempts.pop()
    doc["attempts"] = attempts
    doc["done"], doc["exit_code"] = 0, ""
    transitions.hold(doc)
    return doc


class Verdicts(dict[str, str]):
    """What tokens are to their children, by id; each is read once, with its conflicts."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._backend = backend

    def learn(self, ids: Iterable[str]) -> None:
        """Read those that are not known yet."""
        unknown = [each for each in dict.fromkeys(ids) if each not in self]
        for at in range(0, len(unknown), PAGE):
            part = unknown[at : at + PAGE]
            for each, doc in zip(part, self._backend.get_many(part, conflicts=True)):
                self[each] = verdict(doc)

    def learn_parents(self, docs: Sequence[Json]) -> None:
        """Read as many parents of these tokens as are needed to decide about each."""
        at, left = 0, list(docs)
        while left:
            self.learn(each for doc in left for each in parents_of(doc)[at : at + SLICE])
            at += SLICE
            left = [
                doc for doc in left if len(parents_of(doc)) > at and self._all_done(parents_of(doc)[at - SLICE : at])
            ]

    def _all_done(self, ids: Iterable[str]) -> bool:
        return all(self[each] in (DONE, FAILED) for each in ids)

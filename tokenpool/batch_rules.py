"""How a batch is treated: one small document for each that somebody steers, whatever the number of its tokens."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from . import bell, transitions
from .backends.base import Backend, Json, Refused, Saved
from .errors import AnswerLost, BadInput, Conflict, NotFound, TokenpoolError
from .steering import ROUNDS, documents_of, number_of

BATCH = "batch_"


@dataclass(frozen=True)
class BatchRule:
    """How a batch is to be treated; `max_running` None: no limit. Its `priority` goes before that of its tokens."""

    name: str
    paused: bool = False
    priority: float = 0
    max_running: int | None = None


@dataclass(frozen=True)
class BatchInfo:
    """A batch: its rule, and its tokens by state."""

    rule: BatchRule
    states: Mapping[str, int]

    def as_json(self) -> Json:
        """Return it in the stable form of ``batch list --json``."""
        return {**asdict(self.rule), "states": dict(self.states)}


def batch_rule(backend: Backend, name: str) -> BatchRule:
    """Return the rule of a batch; one that nobody made says nothing special."""
    doc = backend.get_many([BATCH + name])[0] if name else None
    return _rule(name, doc or {})


def batch_rules(backend: Backend) -> dict[str, BatchRule]:
    """Return the rules that somebody made, by name of batch."""
    docs = documents_of(backend, BATCH, "batch")
    return {doc["_id"][len(BATCH) :]: _rule(doc["_id"][len(BATCH) :], doc) for doc in docs}


def batches(backend: Backend) -> list[BatchInfo]:
    """Return every batch that has tokens or a rule, by name."""
    rules = batch_rules(backend)
    states: dict[str, dict[str, int]] = {name: dict.fromkeys(transitions.STATES, 0) for name in rules}
    for (state, name), number in backend.counts().items():
        if name:
            states.setdefault(name, dict.fromkeys(transitions.STATES, 0))[state] += number
    return [BatchInfo(rules.get(name, BatchRule(name)), states[name]) for name in sorted(states)]


def set_batch(backend: Backend, name: str, create: bool = False, **fields: Any) -> BatchRule:
    """Change the rule of a batch: `paused`, `priority`, `max_running` (None: no limit); return it as it now stands.

    Raises NotFound where there is neither a rule nor a token of that name, unless `create`.
    """
    _check_rule(name, fields)
    if not create:
        _expect_batch(backend, name)
    for _ in range(ROUNDS):
        before = backend.get_many([BATCH + name])[0]
        rule = _rule(name, {**(before or {}), **fields})
        doc = {**(before or {"_id": BATCH + name}), "type": "batch", **asdict(rule)}
        if doc == before:
            return rule
        try:
            result = backend.put_many([doc])[0]
        except AnswerLost:
            continue  # read again: it stands there, or it does not
        if isinstance(result, Saved):
            if not rule.paused:
                bell.ring(backend)
            return rule
        if isinstance(result, Refused) and not result.conflict:
            raise TokenpoolError(f"the pool refuses the rule of batch {name}: {result.reason}", "tokenpool doctor")
    raise Conflict(f"the rule of batch {name} is written by others all the time", "try again")


def _check_rule(name: str, fields: Mapping[str, Any]) -> None:
    if not name:
        raise BadInput("a batch without a name has no rule", "give its tokens a batch: tokenpool edit ... batch=NAME")
    unknown = sorted(set(fields) - {"paused", "priority", "max_running"})
    if unknown:
        raise BadInput(f"a batch has no {unknown[0]!r}", "paused, priority, max_running")
    priority, most = fields.get("priority", 0), fields.get("max_running")
    if isinstance(priority, bool) or not isinstance(priority, (int, float)) or not math.isfinite(priority):
        raise BadInput(f"priority {priority!r} is not a number", "for example 5, or -1")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise BadInput(f"max_running {most!r} is no number above 0", f"to run none: tokenpool batch pause {name}")
    if not isinstance(fields.get("paused", False), bool):
        raise BadInput(f"paused {fields['paused']!r} is neither true nor false", "true or false")


def _expect_batch(backend: Backend, name: str) -> None:
    """A rule for a mistyped name would be obeyed by nobody."""
    if backend.get_many([BATCH + name])[0] is not None:
        return
    known = {batch for _, batch in backend.counts()} | set(batch_rules(backend))
    if name not in known:
        close = difflib.get_close_matches(name, known - {""}, 1)
        make = f"to make it before its tokens: tokenpool batch set {name} --create"
        hint = f"did you mean {close[0]!r}?" if close else make
        raise NotFound(f"there is no batch {name!r} in {backend.url}", hint)


def _rule(name: str, doc: Mapping[str, Any]) -> BatchRule:
    most = doc.get("max_running")
    whole = isinstance(most, int) and not isinstance(most, bool)
    return BatchRule(name, bool(doc.get("paused")), number_of(doc.get("priority"), 0), most if whole else None)

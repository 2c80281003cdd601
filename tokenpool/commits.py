"""Writes claims and outcomes: one bulk write for many tokens, then the truth about each of them is found out.

A conflict is read back and merged where the token is still ours. A write whose answer was lost is never repeated
before the server has been asked what it holds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import conflicts, precedence, retries, transitions
from .backends.base import Backend, Json, Refused, Saved, WriteResult
from .errors import AnswerLost

log = logging.getLogger(__name__)

#: Rounds of reading back one outcome before it is left to the next pass of the caller.
ROUNDS = 8
#: What a worker writes into a token it ran; everything else is the server's.
OURS = (
    "lock", "done", "exit_code", "output", "error", "scrub_count", "hostname", "lease", "reuse_key",
    *transitions.JOB_ID_FIELDS,
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A token that was run under `claim` and how it is to stand in the pool."""

    doc: Json
    claim: str
    #: The token as it was claimed, where a script may have written any field of it; None: a worker wrote it.
    base: Json | None = None

    @property
    def written(self) -> list[str]:
        """The fields that were written under this claim; what others wrote meanwhile is not among them."""
        if self.base is None:
            return list(OURS)
        changed = [name for name, value in self.doc.items() if self.base.get(name) != value]
        return list(dict.fromkeys([*OURS, *changed]))

    @property
    def attempt(self) -> Json | None:
        """The history entry of this claim."""
        return next((a for a in transitions.attempts_of(self.doc) if a.get("claim") == self.claim), None)


@dataclass(frozen=True)
class Written:
    """What a commit did: tokens now ours, outcomes now recorded, outcomes that were not ours to write any more."""

    claimed: list[Json] = field(default_factory=list)
    closed: list[Json] = field(default_factory=list)
    superseded: list[Json] = field(default_factory=list)
    #: What became of each document that went along; empty where nobody knows.
    companions: list[WriteResult] = field(default_factory=list)


def commit(
    backend: Backend, claims: Sequence[Json] = (), outcomes: Sequence[Outcome] = (), companions: Sequence[Json] = ()
) -> Written:
    """Write stamped claims and outcomes in one request, `companions` along with them; return what became of each.

    Raises ServerAway where the server was gone before anything was sent; the caller keeps its outcomes then.
    """
    # First of all who claims: a token must not name a worker that nobody can find.
    docs = [*companions, *(outcome.doc for outcome in outcomes), *claims]
    written = Written()
    try:
        results = backend.put_many(docs)
    except AnswerLost:
        for outcome in outcomes:
            _settle_outcome(backend, outcome, written)
        settle_claims(backend, claims, written)
        return written
    written.companions.extend(results[: len(companions)])
    results = results[len(companions) :]
    for outcome, result in zip(outcomes, results):
        if isinstance(result, Saved):
            written.closed.append({**outcome.doc, "_rev": result.rev})
        else:
            _settle_outcome(backend, outcome, written, result)
    unsure = []
    for doc, result in zip(claims, results[len(outcomes) :]):
        if isinstance(result, Saved) and not result.accepted:
            doc["_rev"] = result.rev
            written.claimed.append(doc)
        elif isinstance(result, Saved):
            unsure.append(doc)
    settle_claims(backend, unsure, written)
    return written


# --- claims ------------------------------------------------------------------------------------------------------


def settle_claims(backend: Backend, claims: Sequence[Json], written: Written) -> None:
    """Read claims back whose fate is unknown (answer lost, or a cluster without quorum): ours, or nobody's."""
    for doc, now in zip(claims, backend.get_many([doc["_id"] for doc in claims], conflicts=True)):
        claim = doc["lease"]["claim"]
        if now is not None and now.get("_conflicts"):
            # Another worker may have won as well, and run it: which claim stands is the same question for everybody.
            conflicts.resolve(backend, doc["_id"], unused=claim)
            now = backend.get_many([doc["_id"]], conflicts=True)[0]
        if now is not None and not now.get("_conflicts") and transitions.is_held_by(now, claim):
            written.claimed.append(now)


# --- outcomes ----------------------------------------------------------------------------------------------------


def _settle_outcome(backend: Backend, outcome: Outcome, written: Written, result: Refused | None = None) -> None:
    """Bring one outcome home: merged where the token is still ours, kept as superseded where it is not.

    Raises AnswerLost where that could not be found out; the caller has its outcome still, and comes again.
    """
    doc_id = outcome.doc["_id"]
    stripped = False
    for _ in range(ROUNDS):
        if result is not None and not result.conflict:
            if stripped:
                log.error("the pool refuses the outcome of token %s: %s %s", doc_id, result.error, result.reason)
                written.superseded.append(outcome.doc)
                return
            outcome, stripped = _without_what_is_refused(outcome, result), True
        now = backend.get_many([doc_id])[0]
        if now is None or _is_run_by_picas(now, outcome):
            log.warning("token %s is %s by now; its outcome is dropped", doc_id, "deleted" if now is None else "picas'")
            written.superseded.append(outcome.doc)
            return
        if _recorded(now, outcome):
            stands = not any(attempt.get("superseded") for attempt in _told(now, outcome))
            (written.closed if stands else written.superseded).append(now)
            return
        ours = _still_ours(now, outcome)
        merged = merge(now, outcome) if ours else _superseded(now, outcome)
        try:
            answer = backend.put_many([merged])[0]
        except AnswerLost:
            result = None
            continue
        if isinstance(answer, Saved):
            (written.closed if ours else written.superseded).append({**merged, "_rev": answer.rev})
            return
        result = answer
    raise AnswerLost(f"the outcome of token {doc_id} could not be written {ROUNDS} times", "it is tried again")


def _is_run_by_picas(now: Json, outcome: Outcome) -> bool:
    """Tell whether a picas worker took the token: any write of ours, even to its history, would cost it its result."""
    lease = now.get("lease")
    leased = isinstance(lease, dict) and transitions.is_held_by(now, lease.get("claim", ""))
    locked = transitions.state_of({**now, "type": "token"}) == transitions.LOCKED
    return locked and not leased and not _still_ours(now, outcome)


def _recorded(now: Json, outcome: Outcome) -> bool:
    """Tell whether the server already holds this outcome: its answer was lost, not the write."""
    if outcome.attempt is None:
        state = ("lock", "done", "exit_code", "scrub_count")
        held = transitions.is_held_by(now, outcome.claim)
        return not held and all(now.get(name) == outcome.doc.get(name) for name in state)
    # An entry that somebody else made when this worker seemed lost does not tell how the attempt ended.
    end = [outcome.attempt.get(name) for name in ("exit_code", "end_time")]
    return any([attempt.get(name) for name in ("exit_code", "end_time")] == end for attempt in _told(now, outcome))


def _told(now: Json, outcome: Outcome) -> list[Json]:
    """Return what the history tells of this claim."""
    return [attempt for attempt in transitions.attempts_of(now) if attempt.get("claim") == outcome.claim]


def _still_ours(now: Json, outcome: Outcome) -> bool:
    """Ours is what our claim holds, what stands in todo again, and what a picas-style worker locked as we did."""
    if transitions.is_held_by(now, outcome.claim) or transitions.claimable(now):
        return True
    claimed = outcome.base or outcome.doc
    return not outcome.claim and all(now.get(name) == claimed.get(name) for name in ("lock", "hostname"))


def merge(now: Json, outcome: Outcome) -> Json:
    """Return the server's document with our result on it: what others wrote meanwhile stays, logs are united."""
    ours = outcome.doc
    merged = {**now}
    for name in outcome.written:
        if name in ("_rev", "_attachments", "attempts"):
            continue
        if name in ours:
            merged[name] = ours[name]
        else:
            merged.pop(name, None)
    if outcome.attempt is not None:
        merged["attempts"] = [*_attempts_of_others(now, outcome), outcome.attempt]
    attachments = {**now.get("_attachments", {}), **_new_attachments(ours, now)}
    if attachments:
        merged["_attachments"] = attachments
    _end_if_used_up(merged, outcome.attempt)
    # Somebody may have asked it to stop just before it was put back: nobody would take it, nor end it.
    return dict(transitions.heed_cancel(merged))


def _end_if_used_up(merged: Json, attempt: Json | None) -> None:
    """End a token that was put back for a retry, where attempts of others have used up its retries meanwhile."""
    if attempt is None or not (attempt.get("counted") and attempt.get("failure_class")):
        return
    waits = transitions.state_of(merged) in (transitions.TODO, transitions.HELD)
    if waits and not retries.may_retry(merged, attempt.get("exit_code")):
        merged["exit_code"] = attempt.get("exit_code")
        transitions.fail(merged, "failed, and its retries are used up")


def _superseded(now: Json, outcome: Outcome) -> Json:
    """Return the server's document with our result as history only: another claim or a person decides it."""
    kept = {**now}
    logs = {f"superseded_{name}": data for name, data in _new_attachments(outcome.doc, now).items() if "data" in data}
    if outcome.attempt is not None:
        told = outcome.attempt
        names = {kind: f"superseded_{told.get(kind)}" for kind in ("stdout", "stderr")}
        renamed = {kind: name for kind, name in names.items() if name in logs}
        attempt = {**told, **renamed, "superseded": True, "counted": False}
        kept["attempts"] = precedence.placed(now, _attempts_of_others(now, outcome), [attempt])
    if logs:
        kept["_attachments"] = {**now.get("_attachments", {}), **logs}
    return kept


def _attempts_of_others(now: Json, outcome: Outcome) -> list[Json]:
    """Return the history without what others noted about this claim: its own worker knows better."""
    return [attempt for attempt in transitions.attempts_of(now) if attempt.get("claim") != outcome.claim]


def _new_attachments(ours: Json, now: Json) -> dict[str, Any]:
    """Return our attachments that the server can take: data, and stubs that it holds as well."""
    there = now.get("_attachments", {})
    return {name: data for name, data in ours.get("_attachments", {}).items() if "data" in data or name in there}


def _without_what_is_refused(outcome: Outcome, result: Refused) -> Outcome:
    """Return the outcome without its logs: a token must not stay open because a server refuses an attachment."""
    reason = f"the logs were refused by the server: {result.error} {result.reason}".strip()
    doc = {name: value for name, value in outcome.doc.items() if name != "_attachments"}
    errors = doc.get("error")
    doc["error"] = [*(errors if isinstance(errors, list) else []), {"message": reason}]
    return Outcome(doc, outcome.claim, outcome.base)

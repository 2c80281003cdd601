"""What becomes of a token after an attempt: closed, put back at once, put back after a pause, or ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import transitions
from .backends.base import Json
from .util import timestamp

#: Exit codes with a meaning of their own: a passing failure (EX_TEMPFAIL), and "checkpointed, run me again" (HTCondor).
TEMPFAIL, CHECKPOINTED = 75, 85
#: A passing failure is tried again at least so often, at first after so many seconds, never after more than a day.
TEMPFAIL_RETRIES, TEMPFAIL_DELAY, LONGEST_DELAY = 5, 1.0, 86400.0
#: Losses in a row that end a token: it may be what kills its workers.
MOST_LOSSES = 5
#: Seconds for which a token that failed on a host is left to other hosts, where there are any.
AVOID = 60.0
#: What does not use up a retry: the token did nothing wrong.
UNCOUNTED = frozenset({"preempted", "lost"})
#: What no other attempt could mend.
HOPELESS = frozenset({"invalid", "cancelled", "dependency"})


@dataclass(frozen=True)
class Verdict:
    """`move` is close, fail, unlock (uncounted) or scrub (counted); `delay` in seconds goes with the last two."""

    move: str
    delay: float = 0.0


def judge(doc: Mapping[str, Any], exit_code: Any, failure_class: str) -> Verdict:
    """Decide about a token whose history already holds the attempt that just ended."""
    if failure_class in UNCOUNTED:
        return Verdict("fail" if _losses(transitions.attempts_of(doc)) >= MOST_LOSSES else "unlock")
    if failure_class in HOPELESS:
        return Verdict("fail")
    if exit_code == CHECKPOINTED and failure_class == "executor":
        return Verdict("unlock", _number(doc.get("retry_delay")))
    if not failure_class and transitions.means_success(exit_code):
        return Verdict("close")
    if not may_retry(doc, exit_code):
        return Verdict("fail" if failure_class in ("system", "staging") else "close")
    return Verdict("scrub", _delay(doc, exit_code))


def may_retry(doc: Mapping[str, Any], exit_code: Any = None) -> bool:
    """Tell whether a failed token has attempts left; only counted ones use them up."""
    allowed = _number(doc.get("max_retries"))
    if exit_code == TEMPFAIL:
        allowed = max(allowed, TEMPFAIL_RETRIES)
    return _counted(doc) <= allowed


def is_counted(exit_code: Any, failure_class: str) -> bool:
    """Tell whether an attempt uses up a retry."""
    return failure_class not in UNCOUNTED and not (exit_code == CHECKPOINTED and failure_class == "executor")


def apply(doc: Json, verdict: Verdict, now: float, message: str = "") -> Json:
    """Make the move on a claimed document; `now` is the pool's time, for a pause that another host ends."""
    if verdict.move == "close":
        transitions.close(doc)
        if message:
            errors = doc.get("error")
            known = errors if isinstance(errors, list) else []
            doc["error"] = [*known, {"time": doc["done"], "message": message}]
    elif verdict.move == "fail":
        transitions.fail(doc, message)
    elif verdict.move == "unlock":
        transitions.unlock(doc)
    else:
        transitions.scrub(doc)
    if verdict.delay > 0:
        doc["lock"] = -1
        doc["not_before"] = round(now + verdict.delay, 3)
    return doc


def lose(doc: Json) -> Json:
    """Put back a token whose worker is gone: uncounted, unless it was lost too often, or somebody asked it to stop."""
    attempts = transitions.attempts_of(doc)
    lease = doc.get("lease")
    held = lease if isinstance(lease, Mapping) else {}
    entry = {
        "claim": str(held.get("claim", "")),
        "worker": str(held.get("worker", "")),
        "hostname": doc.get("hostname", ""),
        "start_time": timestamp(doc["lock"]) if _number(doc.get("lock")) > transitions.PICAS_ERROR else None,
        "end_time": timestamp(),
        "exit_code": None,
        "failure_class": "lost",
        "counted": False,
    }
    doc["attempts"] = [*attempts, entry]
    if doc.get("cancel"):
        return _end(doc, "cancelled", "cancelled, and then its worker was lost")
    if _losses(doc["attempts"]) >= MOST_LOSSES:
        return _end(doc, "lost", f"its workers were lost {MOST_LOSSES} times in a row: it may be the cause")
    transitions.scrub(doc)
    return doc


def _end(doc: Json, failure_class: str, message: str) -> Json:
    doc["attempts"][-1]["failure_class"] = failure_class
    doc["exit_code"] = transitions.PICAS_ERROR
    transitions.fail(doc, message)
    return doc


def end_invalid(doc: Json, message: str, claim: str = "invalid") -> Json:
    """End a token that makes no sense, with the reason in its history."""
    entry = {"claim": claim, "end_time": timestamp(), "failure_class": "invalid", "counted": False}
    doc["attempts"] = [*transitions.attempts_of(doc), entry]
    doc["exit_code"] = transitions.PICAS_ERROR
    transitions.fail(doc, message)
    return doc


def failed_here(doc: Mapping[str, Any], hostname: str, within: float) -> bool:
    """Tell whether the last attempt failed on this host in the last seconds, by this host's own clock."""
    attempts = transitions.attempts_of(doc)
    last = attempts[-1] if attempts else {}
    if last.get("hostname") != hostname or not last.get("failure_class") or not last.get("counted"):
        return False
    return 0 <= time.time() - _epoch(last.get("end_time")) <= within


def _epoch(value: Any) -> float:
    """Return RFC 3339 text as seconds since 1970; 0 where it is none."""
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _losses(attempts: list[Json]) -> int:
    count = 0
    for attempt in reversed(attempts):
        if attempt.get("failure_class") != "lost":
            break
        count += 1
    return count


def _counted(doc: Mapping[str, Any]) -> int:
    return sum(bool(attempt.get("counted", True)) for attempt in transitions.attempts_of(doc))


def _delay(doc: Mapping[str, Any], exit_code: Any) -> float:
    """Return the pause before the next attempt: the token's own, growing with each counted attempt."""
    first = _number(doc.get("retry_delay"))
    growth = _number(doc.get("retry_backoff"), 1.0)
    if exit_code == TEMPFAIL:
        first, growth = first or TEMPFAIL_DELAY, max(growth, 2.0) if "retry_backoff" not in doc else growth
    try:
        return float(min(LONGEST_DELAY, first * growth ** max(0, _counted(doc) - 1)))
    except OverflowError:
        return LONGEST_DELAY


def _number(value: Any, default: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return default
    return float(value)

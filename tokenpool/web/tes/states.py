"""The states of TES, made of a token's own: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import transitions

Doc = Mapping[str, Any]

#: What a failure's class means to TES; the others are the system's.
_FAILED = {
    **dict.fromkeys(("executor", "timeout", "oom"), "EXECUTOR_ERROR"),
    **dict.fromkeys(("preempted", "lost"), "PREEMPTED"),
    "cancelled": "CANCELED",
}
#: What a worker does with a token before its first command runs.
_BEFORE = frozenset({"wait", "stage_in"})

#: The tokens' states in which tasks of a TES state are.
TOKENS_OF: Mapping[str, tuple[str, ...]] = {
    "UNKNOWN": (),
    "QUEUED": (transitions.TODO,),
    "PAUSED": (transitions.HELD,),
    **dict.fromkeys(("INITIALIZING", "RUNNING", "CANCELING"), (transitions.LOCKED,)),
    "COMPLETE": (transitions.DONE,),
    **dict.fromkeys(("EXECUTOR_ERROR", "CANCELED", "PREEMPTED"), (transitions.ERROR,)),
    "SYSTEM_ERROR": (transitions.ERROR, transitions.INVALID),
}


def tes_state(doc: Doc, phase: str = "") -> str:
    """Return the TES state of a token; `phase` is what its worker does with it, "" where nobody told.

    >>> tes_state({"type": "token", "lock": 0, "done": 0})
    'QUEUED'
    >>> tes_state({"type": "token", "lock": 5, "done": 9, "exit_code": 3})
    'EXECUTOR_ERROR'
    """
    state = transitions.state_of(doc)
    if state == transitions.LOCKED:
        return _running(doc, phase)
    if state == transitions.ERROR:
        return _failed(doc)
    return {transitions.TODO: "QUEUED", transitions.HELD: "PAUSED", transitions.DONE: "COMPLETE"}.get(
        state, "SYSTEM_ERROR"
    )


def _running(doc: Doc, phase: str) -> str:
    if doc.get("cancel"):
        return "CANCELING"
    if phase:
        return "INITIALIZING" if phase in _BEFORE else "RUNNING"
    # Just claimed, or a picas worker has it, which tells nothing.
    return "INITIALIZING" if transitions.holder_of(doc) and doc.get("inputs") else "RUNNING"


def _failed(doc: Doc) -> str:
    attempts = transitions.attempts_of(doc)
    last = str(attempts[-1].get("failure_class") or "") if attempts else ""
    by_us = doc.get("lock") == transitions.PICAS_ERROR
    # A task that is cancelled between two attempts ends without a further one.
    if doc.get("cancel") and by_us and last in ("", *_FAILED):
        return "CANCELED"
    if last:
        return _FAILED.get(last, "SYSTEM_ERROR")
    return "SYSTEM_ERROR" if by_us else "EXECUTOR_ERROR"

"""The states of a token and every legal move between them: the one truth about `lock` and `done`.

States are never stored. `state_of` derives them as picas' JavaScript views do (loose ``==``, ``parseInt``), so that
Python, SQL and CouchDB agree on every document, odd ones included.
"""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Mapping, MutableMapping
from typing import Any

from .jobid import JOB_ID_FIELDS as JOB_ID_FIELDS
from .jobid import add_job_id, remove_job_id
from .util import seconds

Doc = MutableMapping[str, Any]

TODO, HELD, LOCKED, DONE, ERROR, INVALID = "todo", "held", "locked", "done", "error", "invalid"
STATES = (TODO, HELD, LOCKED, DONE, ERROR, INVALID)
#: What a token cannot leave by itself.
FINAL = frozenset({DONE, ERROR})
#: picas writes this into `lock` and `done` of a token that failed.
PICAS_ERROR = 99
#: In `lock`: open, but not to be taken by anybody.
HOLD = -1

_MISSING = object()
_JS_NUMBER = re.compile(r"[+-]?(Infinity|(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)\Z", re.ASCII)
_JS_RADIX = re.compile(r"0([xXoObB])([0-9a-fA-F]+)\Z")
_JS_INT = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|(?!0[xX])\d+)", re.ASCII)
_JS_SPACE = (
    " \t\n\r\v\f\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000\ufeff"
)


# --- JavaScript's idea of a value ----------------------------------------------------------------------------


def _js_string(value: Any) -> str:
    """Return ``String(value)``; only what ``parseInt`` and ``==`` look at needs to be exact."""
    if value is _MISSING:
        return "undefined"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join("" if item is None else _js_string(item) for item in value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if isinstance(value, float) and 1e-6 <= abs(value) < 1:
        return f"{value:.20f}"
    if isinstance(value, dict):
        return "[object Object]"
    return str(value)


def _js_number(value: Any) -> float:
    """Return ``Number(value)``, NaN included."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if value is None:
        return 0.0
    if value is _MISSING or isinstance(value, dict):
        return math.nan
    text = _js_string(value).strip(_JS_SPACE)
    if not text:
        return 0.0
    radix = _JS_RADIX.match(text)
    if radix:
        try:
            return float(int(radix.group(2), {"x": 16, "o": 8, "b": 2}[radix.group(1).lower()]))
        except ValueError:
            return math.nan
    return float(text) if _JS_NUMBER.match(text) else math.nan


def _equals(value: Any, number: int) -> bool:
    """Return ``value == number`` as JavaScript sees it: null and undefined equal no number."""
    if type(value) is int:  # nearly always, and asked for every token that is written
        return bool(value == number)
    return value is not None and value is not _MISSING and _js_number(value) == number


def _parses_to_zero(value: Any) -> bool:
    """Return ``parseInt(value) == 0``."""
    found = _JS_INT.match(_js_string(value).lstrip(_JS_SPACE))
    return bool(found) and int(found.group(), 16 if "x" in found.group().lower() else 10) == 0  # type: ignore[union-attr]


# --- states ----------------------------------------------------------------------------------------------------


def is_token(doc: Mapping[str, Any]) -> bool:
    """Tell whether picas' views would look at this document at all."""
    kind = doc.get("type")
    return kind == "token" or (isinstance(kind, list) and _js_string(kind) == "token")


def state_of(doc: Mapping[str, Any]) -> str:
    """Return the state of a token: todo, held, locked, done, error, or invalid where no view lists it.

    >>> state_of({"type": "token", "lock": 0, "done": 0})
    'todo'
    >>> state_of({"type": "token", "lock": 5, "done": 9, "exit_code": ""})
    'error'
    >>> state_of({"type": "token", "lock": 0})
    'invalid'
    """
    if not is_token(doc):
        return INVALID
    lock, done = doc.get("lock", _MISSING), doc.get("done", _MISSING)
    if _equals(done, 0):
        if _equals(lock, 0):
            return TODO
        if _equals(lock, -1):
            return HELD
        return LOCKED if _js_number(lock) > 0 else INVALID
    if _js_number(lock) > 0 and _js_number(done) > 0:
        return DONE if _parses_to_zero(doc.get("exit_code", _MISSING)) else ERROR
    return INVALID


def means_success(exit_code: Any) -> bool:
    """Tell whether the views list a closed token with this exit code as done.

    >>> means_success(0), means_success("0"), means_success(""), means_success(1)
    (True, True, False, False)
    """
    return _parses_to_zero(exit_code)


def claimable(doc: Mapping[str, Any]) -> bool:
    """Tell whether a worker may take this document: free, open, and not asked to stop.

    A missing `done` counts as open here, and `type` is left to the view, because picas databases hold such tokens.
    """
    return (
        _equals(doc.get("lock", _MISSING), 0)
        and ("done" not in doc or _equals(doc["done"], 0))
        and not doc.get("cancel")
        and not doc.get("_deleted")
    )


def attempts_of(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the history of a token; what somebody wrote there by hand and is none is left out."""
    found = doc.get("attempts")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


# --- moves -----------------------------------------------------------------------------------------------------


def lock(doc: Doc, lease: Mapping[str, Any] | None = None) -> Doc:
    """Claim: `lock` is now, the batch job and host are ours; `lease` names worker and claim."""
    doc["lock"] = seconds()
    doc["hostname"] = socket.gethostname()
    add_job_id(doc)
    if lease is not None:
        doc["lease"] = {**lease, "lock": doc["lock"], "hostname": doc["hostname"]}
    return doc


def is_held_by(doc: Mapping[str, Any], claim: str) -> bool:
    """Tell whether this claim still holds the token; a picas worker that took it left another lock or host."""
    lease = doc.get("lease")
    return (
        isinstance(lease, Mapping)
        and lease.get("claim") == claim
        and lease.get("lock") == doc.get("lock")
        and lease.get("hostname") == doc.get("hostname")
        and _equals(doc.get("done", 0), 0)
    )


def holder_of(doc: Mapping[str, Any]) -> str:
    """Return the worker whose lease holds this locked token; "" where it is not locked, or picas or a person holds it.

    >>> token = {"type": "token", "lock": 5, "done": 0, "hostname": "n1"}
    >>> holder_of({**token, "lease": {"worker": "worker_1", "lock": 5, "hostname": "n1"}})
    'worker_1'
    >>> holder_of({**token, "lease": {"worker": "worker_1", "lock": 4, "hostname": "n1"}})
    ''
    """
    lease = doc.get("lease")
    if not isinstance(lease, Mapping) or state_of(doc) != LOCKED:
        return ""
    worker = lease.get("worker")
    valid = all(_identical(lease.get(name), doc.get(name)) for name in ("lock", "hostname"))
    return worker if valid and isinstance(worker, str) else ""


def _identical(one: Any, other: Any) -> bool:
    """Return ``one === other`` for texts and numbers; what is missing is null, and Python's True is no 1."""
    if isinstance(one, (dict, list)) or isinstance(one, bool) is not isinstance(other, bool):
        return False
    return bool(one == other)


def unlock(doc: Doc) -> Doc:
    """Give a claimed token back as if it had not been taken."""
    doc["lock"] = 0
    doc["hostname"] = socket.gethostname()
    remove_job_id(doc)
    doc.pop("lease", None)
    return doc


def close(doc: Doc) -> Doc:
    """Finish: `done` is now; the exit code says how."""
    doc["done"] = seconds()
    doc.pop("lease", None)
    return doc


def unclose(doc: Doc) -> Doc:
    """Open a finished token again, still locked."""
    doc["done"] = 0
    remove_job_id(doc)
    return doc


def scrubs(doc: Mapping[str, Any]) -> int:
    """Return how often the token was put back so far; what is no number counts as never."""
    count = doc.get("scrub_count")
    return int(count) if isinstance(count, (int, float)) and math.isfinite(count) else 0


def scrub(doc: Doc) -> Doc:
    """Put a token back to todo and count it."""
    doc["scrub_count"] = scrubs(doc) + 1
    doc["done"] = 0
    return unlock(doc)


def reset(doc: Doc) -> Doc:
    """Put a token back to todo with its result forgotten, as picas' resetTokens does; the history stays."""
    scrub(doc)
    doc["hostname"] = ""
    doc["exit_code"] = ""
    doc.pop("cancel", None)
    doc.pop("_attachments", None)
    return doc


def retry(doc: Doc) -> Doc:
    """Put a failed token back to todo; its logs and history stay to be read."""
    scrub(doc)
    doc["exit_code"] = ""
    doc.pop("cancel", None)
    return doc


def waits(doc: Mapping[str, Any]) -> bool:
    """Tell whether a token names something to wait for, a time or other tokens; it may have come by now.

    >>> waits({"depends_on": ["t1"]}), waits({"not_before": 1.5e9}), waits({"depends_on": []})
    (True, True, False)
    """
    return bool(doc.get("depends_on")) or doc.get("not_before") is not None


def hold(doc: Doc) -> Doc:
    """Keep an open token from every worker, picas' too."""
    doc["lock"] = HOLD
    doc.pop("lease", None)
    return doc


def release(doc: Doc) -> Doc:
    """Let a held token be claimed."""
    doc["lock"] = 0
    return doc


def pause(doc: Doc) -> Doc:
    """Hold a token until it is resumed, whatever else it waits for."""
    doc["paused"] = True
    return hold(doc)


def resume(doc: Doc) -> Doc:
    """Undo a pause; a token that names something to wait for stays held until that has been looked at."""
    doc.pop("paused", None)
    return doc if waits(doc) else release(doc)


def fail(doc: Doc, message: str = "", exception: str = "") -> Doc:
    """End a token in error, as picas marks it; a stale exit code 0 would list it as done, so it goes."""
    entry: dict[str, int | str] = {"time": seconds()}
    if message:
        entry["message"] = message
    if exception:
        entry["exception"] = exception
    errors = doc.get("error")
    doc["error"] = [*(errors if isinstance(errors, list) else []), entry]
    return mark_error(doc)


def mark_error(doc: Doc) -> Doc:
    """Write picas' 99/99 with an exit code that no view takes for success."""
    doc["lock"] = doc["done"] = PICAS_ERROR
    if doc.get("exit_code") in ("", None) or _parses_to_zero(doc["exit_code"]):
        doc["exit_code"] = PICAS_ERROR
    doc.pop("lease", None)
    return doc


def cancel(doc: Doc, by: str) -> Doc:
    """Ask for a stop: a waiting token ends at once, a running one when its worker sees the request."""
    doc["cancel"] = {"time": seconds(), "by": by}
    return heed_cancel(doc)


def heed_cancel(doc: Doc) -> Doc:
    """End a token that waits although somebody asked it to stop: it was put back before its worker saw the request."""
    asked = doc.get("cancel")
    if asked and state_of(doc) in (TODO, HELD):
        by = asked.get("by", "") if isinstance(asked, Mapping) else ""
        doc["exit_code"] = PICAS_ERROR
        fail(doc, f"cancelled by {by}")
    return doc

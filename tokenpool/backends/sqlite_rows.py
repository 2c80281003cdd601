"""Turns documents into rows of a pool's file and back: what is checked, computed and kept beside them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..transitions import DONE, ERROR, HELD, LOCKED, TODO, claimable, holder_of, is_token, state_of
from .base import Json, Refused

#: What CouchDB tells about a document and takes back without storing it.
_TOLD = frozenset({"_id", "_rev", "_deleted", "_attachments", "_conflicts", "_deleted_conflicts", "_revisions"})
_TOLD |= {"_revs_info", "_local_seq"}
_REV = re.compile(r"[1-9][0-9]*-[0-9a-f]{32}")


@dataclass(frozen=True)
class Incoming:
    """A document ready to be written: all of it is computed before the database is locked."""

    id: str
    base: str | None
    rev: str
    columns: tuple[Any, ...]
    deleted: bool = False
    new: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    waits: tuple[tuple[str, Any], ...] = ()


def incoming(doc: Json) -> Incoming | Refused:
    """Check a document and compute what is stored of it, or say why it is refused."""
    try:
        return _incoming(doc)
    except _Bad as bad:
        return Refused(str(doc.get("_id")), bad.word, bad.reason)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return Refused(str(doc.get("_id")), "bad_request", f"this is not JSON: {error}")


class _Bad(Exception):
    def __init__(self, word: str, reason: str) -> None:
        super().__init__(reason)
        self.word = word
        self.reason = reason


def _incoming(doc: Json) -> Incoming:
    doc_id = _checked_id(doc)
    base = doc.get("_rev")
    if base is not None and not (isinstance(base, str) and _REV.fullmatch(base)):
        raise _Bad("bad_request", "this is no revision: write back the _rev that was read")
    for name in doc:
        # A dictionary that json would accept may have keys that are no text.
        if isinstance(name, str) and name.startswith("_") and name not in _TOLD:
            raise _Bad("doc_validation", f"a field may not begin with an underscore: {name}")
    new, kept = _attachments(doc.get("_attachments") or {})
    body = to_json({name: value for name, value in doc.items() if name not in _TOLD})
    deleted = doc.get("_deleted") is True
    rev = next_rev(base, f"{body}{deleted}{kept}", *(data for _, data in new.values()))
    columns = derived(doc)
    waits = () if deleted else waits_of(doc, columns[1])
    return Incoming(doc_id, base, rev, (rev, *columns, body), deleted, new, kept, waits)


def _checked_id(doc: Json) -> str:
    doc_id = doc.get("_id")
    if not isinstance(doc_id, str) or not doc_id:
        raise _Bad("bad_request", "the _id must be a text that is not empty")
    if doc_id.startswith("_") and not doc_id.startswith(("_design/", "_local/")):
        raise _Bad("bad_request", "only reserved documents have an _id that starts with _")
    doc_id.encode()
    return doc_id


def to_json(value: Any) -> str:
    """Return the one spelling in which documents are stored; tags are searched in it as text."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def next_rev(base: str | None, *content: str | bytes) -> str:
    """Return the revision that follows `base` with this content."""
    digest = hashlib.md5((base or "").encode(), usedforsecurity=False)
    for part in content:
        digest.update(part.encode() if isinstance(part, str) else part)
    return f"{generation(base)}-{digest.hexdigest()}"


def generation(base: str | None) -> int:
    """Return the number at the front of the revision that follows `base`."""
    return int(base.partition("-")[0]) + 1 if base else 1


def derived(doc: Json) -> tuple[str | None, str | None, int, str, float, str | None]:
    """Return the columns type, state, ready, batch, priority, holder."""
    kind = doc.get("type")
    state = state_of(doc) if is_token(doc) else None
    batch = doc.get("batch")
    return (
        kind if isinstance(kind, str) else None,
        state,
        int(state == TODO and claimable(doc)),
        str(batch) if batch else "",
        _priority(doc),
        holder_of(doc) if state == LOCKED else None,
    )


def waits_of(doc: Json, state: str | None) -> tuple[tuple[str, Any], ...]:
    """Return what a token of this state waits for, as (kind, key): the rows of the view `tokenpool/waits`."""
    if state == HELD:
        due, kind = doc.get("not_before"), "parent"
        rows: list[tuple[str, Any]] = []
        if isinstance(due, (int, float)) and not isinstance(due, bool):
            rows.append(("due", float(due)))
    elif state == ERROR:
        attempts = doc.get("attempts")
        last = attempts[-1] if isinstance(attempts, list) and attempts else None
        if not isinstance(last, dict) or last.get("failure_class") != "dependency":
            return ()
        kind, rows = "closed", []
    else:
        key = doc.get("reuse_key")
        return (("reuse", key),) if state == DONE and isinstance(key, str) and key else ()
    parents = doc.get("depends_on")
    ids = dict.fromkeys(each for each in parents if isinstance(each, str)) if isinstance(parents, list) else ()
    return (*rows, *((kind, each) for each in ids))


def _priority(doc: Json) -> float:
    priority = doc.get("priority")
    if isinstance(priority, bool) or not isinstance(priority, (int, float)):
        return 0.0
    return float(priority)


def from_row(doc_id: str, rev: str, body: str, stubs: str | None) -> Json:
    """Return a document as it is read: with its revision, and stubs of what is attached."""
    doc = {"_id": doc_id, "_rev": rev, **json.loads(body)}
    if stubs:
        doc["_attachments"] = {
            name: {key: value for key, value in stub.items() if key != "blob"}
            for name, stub in json.loads(stubs).items()
        }
    return doc


# --- attachments ---------------------------------------------------------------------------------------------------


def _attachments(named: Any) -> tuple[dict[str, tuple[str, bytes]], tuple[str, ...]]:
    """Return (name → (type, bytes) of new ones, names of those to keep)."""
    if not isinstance(named, dict):
        raise _Bad("bad_request", "_attachments must be an object")
    new: dict[str, tuple[str, bytes]] = {}
    kept = []
    for name, entry in named.items():
        if not isinstance(name, str) or not name or name.startswith("_") or not isinstance(entry, dict):
            raise _Bad("bad_request", f"this is no attachment: {name!r}")
        if "data" in entry:
            new[name] = str(entry.get("content_type") or "application/octet-stream"), _decode(name, entry["data"])
        elif entry.get("stub"):
            kept.append(name)
        else:
            raise _Bad("bad_request", f"attachment {name!r} has neither data nor stub")
    return new, tuple(kept)


def _decode(name: str, data: Any) -> bytes:
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (AttributeError, TypeError, binascii.Error) as error:
        raise _Bad("bad_request", f"the data of attachment {name!r} is not base64: {error}") from None

"""Turns documents into rows of a pool's file and back: what is checked, computed and kept beside them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from ..transitions import TODO, claimable, is_token, state_of
from .base import Json, Refused

#: Bytes of an attachment in one row, and in one piece that is handed out.
PIECE = 65536
#: What CouchDB tells about a document and takes back without storing it.
_TOLD = frozenset({"_id", "_rev", "_deleted", "_attachments", "_conflicts", "_deleted_conflicts", "_revisions"})
_TOLD |= {"_revs_info", "_local_seq"}
_REV = re.compile(r"([1-9][0-9]*)-[0-9a-f]{32}")

#: How a document's attachments are remembered: as CouchDB shows them, and with the number of the blob.
Stubs = dict[str, dict[str, Any]]


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

    @property
    def generation(self) -> int:
        """Return the number at the front of the new revision."""
        return int(self.rev.partition("-")[0])


def incoming(doc: Json) -> Union[Incoming, Refused]:
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
    generation = 1
    if base is not None:
        match = _REV.fullmatch(base) if isinstance(base, str) else None
        if match is None:
            raise _Bad("bad_request", "this is no revision: write back the _rev that was read")
        generation = int(match.group(1)) + 1
    for name in doc:
        # A dictionary that json would accept may have keys that are no text.
        if isinstance(name, str) and name.startswith("_") and name not in _TOLD:
            raise _Bad("doc_validation", f"a field may not begin with an underscore: {name}")
    new, kept = _attachments(doc.get("_attachments") or {})
    body = to_json({name: value for name, value in doc.items() if name not in _TOLD})
    deleted = doc.get("_deleted") is True
    rev = next_rev(base, f"{body}{deleted}{kept}", *(data for _, data in new.values()))
    return Incoming(doc_id, base, rev, (rev, *derived(doc), body), deleted, new, kept)


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
    generation = int(base.partition("-")[0]) + 1 if base else 1
    return f"{generation}-{digest.hexdigest()}"


def derived(doc: Json) -> tuple[str | None, str | None, int, str, float]:
    """Return the columns type, state, ready, batch, priority."""
    kind = doc.get("type")
    state = state_of(doc) if is_token(doc) else None
    batch = doc.get("batch")
    ready = state == TODO and claimable(doc)
    return kind if isinstance(kind, str) else None, state, int(ready), str(batch) if batch else "", _priority(doc)


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
            name: {key: value for key, value in stub.items() if key != "blob"} for name, stub in json.loads(stubs).items()
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


def merge_stubs(doc: Incoming, old: Stubs) -> Stubs | Refused:
    """Return what is attached after the write: new blobs have a number, kept ones stay, the rest is dropped."""
    missing = [name for name in doc.kept if name not in old]
    if missing:
        return Refused(doc.id, "missing_stub", f"there is no attachment {missing[0]!r} to keep")
    stubs = {name: old[name] for name in doc.kept}
    for name, (kind, data) in doc.new.items():
        digest = hashlib.md5(data, usedforsecurity=False)
        stubs[name] = make_stub(kind, doc.generation, digest.digest(), len(data))
    return stubs


def make_stub(content_type: str, revpos: int, digest: bytes, length: int) -> dict[str, Any]:
    """Describe an attachment as CouchDB does, with the number under which its bytes are kept."""
    return {
        "content_type": content_type,
        "revpos": revpos,
        "digest": "md5-" + base64.b64encode(digest).decode(),
        "length": length,
        "stub": True,
        # Drawn, not counted: a number that comes again after a deletion would show a reader foreign bytes.
        "blob": secrets.randbits(62),
    }


def blobs(stubs: Stubs) -> set[int]:
    """Return the numbers of the blobs that these attachments use."""
    return {stub["blob"] for stub in stubs.values()}

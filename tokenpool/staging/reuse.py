"""Finds an earlier token that did the same work with the same data, whose results can be taken instead of running it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .. import transitions
from ..backends.base import Backend, Json
from ..errors import NotFound
from .inputs import Found
from .transfers import Progress, Transfers

#: The field of a token by which others find what it did.
KEY = "reuse_key"
#: What says which work a token is; two that have the same here do the same with the same data.
WORK = ("image", "command", "executors", "workflow", "function", "params", "env", "container_options")
#: Earlier tokens that are looked at, the newest first.
MOST = 20


def work_of(token: Mapping[str, Any]) -> str:
    """Return what is the same for the same work on the same fields, whatever their data is now."""
    names = (*WORK, "input", "inputs", "outputs", "volumes", "secrets")
    return _digest({name: token[name] for name in names if token.get(name) is not None})


def key_of(token: Mapping[str, Any], found: Sequence[Found], work: str) -> str:
    """Return what is the same for the same work on the same data: where its results go does not count."""
    what = {name: token[name] for name in WORK if token.get(name) is not None}
    if not any(token.get(name) for name in ("command", "executors", "workflow", "function")):
        what["input"] = token.get("input")
    outputs = [{**each, "url": bool(each.get("url"))} for each in token.get("outputs") or ()]
    for each in outputs:
        each.pop("credentials", None)
    return _digest([what, outputs, sorted(map(json.dumps, (each.identity(work) for each in found)))])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def earlier(
    token: Mapping[str, Any],
    key: str,
    backend: Backend,
    transfers: Transfers,
    progress: Progress,
    stopped: Callable[[], bool],
) -> Json | None:
    """Return a done token whose results are those of `key` and are still there, None where there is none."""
    rows = backend.waiting("reuse", keys=[key])
    docs = [doc for doc in backend.get_many([doc_id for _, doc_id in rows][:MOST]) if doc is not None]
    docs = [doc for doc in docs if doc["_id"] != token["_id"] and doc.get(KEY) == key]
    docs = [
        doc for doc in docs if transitions.state_of(doc) == transitions.DONE and isinstance(doc.get("output"), dict)
    ]
    for doc in sorted(docs, key=lambda doc: float(doc["done"]), reverse=True):
        if _is_there(doc, token, transfers, progress, stopped):
            return doc
    return None


def _is_there(
    doc: Json, token: Mapping[str, Any], transfers: Transfers, progress: Progress, stopped: Callable[[], bool]
) -> bool:
    files = recorded(doc)
    credentials = next((str(each["credentials"]) for each in token.get("outputs") or () if each.get("credentials")), "")
    there = doc.get("_attachments") or {}

    def look(each: Mapping[str, Any]) -> bool:
        url = str(each.get("url") or "")
        if url.startswith("attachment:"):
            return url[len("attachment:") :] in there
        try:
            entry = transfers.storages.of(url, credentials).stat(url)
        except NotFound:
            return False
        sums = entry.checksum.startswith("sha256:") and entry.checksum != f"sha256:{each.get('sha256')}"
        return not sums and entry.size in (None, each.get("size"))

    return all(transfers.ask([partial(look, each) for each in files], progress, stopped))


def recorded(doc: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the files that a token says it made."""
    files = (doc.get("output") or {}).get("files")
    return [each for each in files if isinstance(each, Mapping)] if isinstance(files, list) else []


def is_same_place(token: Mapping[str, Any], doc: Mapping[str, Any]) -> bool:
    """Tell whether the results of an earlier token are already where this one's are to be."""
    return [each.get("url") for each in token.get("outputs") or ()] == [
        each.get("url") for each in doc.get("outputs") or ()
    ]

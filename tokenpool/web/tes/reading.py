"""Reads of the pool what tasks need beside their tokens: what workers do with them now, and the ends of their logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ... import transitions
from ...backends.base import Backend
from ...errors import NotFound
from ...steering import WORKER, documents_of
from .to_logs import Logs

Doc = Mapping[str, Any]

#: Bytes of the end of what an executor printed that are told, and of the largest log that is read for them.
TAIL, LARGEST = 10_000, 8 << 20


def running(backend: Backend, docs: Iterable[Doc]) -> dict[str, Mapping[str, Any]]:
    """Return what workers tell of those of these tokens that they run, by the claims."""
    holders = sorted({holder for doc in docs if (holder := transitions.holder_of(doc))})
    return _by_claim(worker for worker in backend.get_many(holders) if worker) if holders else {}


def all_running(backend: Backend) -> dict[str, Mapping[str, Any]]:
    """Return what all workers tell of the tokens that they run, by the claims."""
    return _by_claim(documents_of(backend, WORKER, "worker"))


def _by_claim(workers: Iterable[Doc]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for worker in workers:
        told = worker.get("running")
        for entry in told if isinstance(told, list) else ():
            if isinstance(entry, Mapping):
                found[str(entry.get("claim"))] = entry
    return found


def phase_of(doc: Doc, those: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what its worker does with a token, "" where it did not tell."""
    lease = doc.get("lease")
    entry = those.get(str(lease.get("claim"))) if isinstance(lease, Mapping) else None
    return str(entry.get("phase") or "") if entry is not None else ""


def logs_of(backend: Backend, doc: Doc) -> Logs:
    """Return what reads the logs of a token's attempts, each file once."""
    stubs = doc.get("_attachments")
    there = stubs if isinstance(stubs, Mapping) else {}
    read: dict[str, bytes] = {}

    def part(name: str, start: int, end: int | None) -> str:
        stub = there.get(name)
        if not isinstance(stub, Mapping) or start == end:
            return ""
        if name not in read:
            read[name] = _read(backend, str(doc["_id"]), name, stub)
        return _shown(read[name][start:end])

    return part


def _read(backend: Backend, doc_id: str, name: str, stub: Mapping[str, Any]) -> bytes:
    length = stub.get("length")
    if isinstance(length, int) and length > LARGEST:
        return f"the log has {length} bytes; read it from the pool: tokenpool logs {doc_id}\n".encode()
    try:
        return b"".join(backend.get_attachment(doc_id, name))
    except NotFound:  # the token was reset meanwhile
        return b""


def _shown(data: bytes) -> str:
    """Return the end of a log as text that JSON and XML can hold, NUL left out."""
    return data[-TAIL:].decode("utf-8", "replace").replace("\0", "")

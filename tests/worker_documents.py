"""Worker documents and tokens in all their situations, written by hand as a worker on another computer would have."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any

from tokenpool.backends.base import Backend, Json, Saved


def moment(seconds: float) -> str:
    """Return a time as RFC 3339 has it, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def worker(backend: Backend, name: str = "", silent_for: float = 0.0, **fields: Any) -> str:
    """Write the document of a worker that lives and waits; `fields` change it. Return its id."""
    now = backend.now()
    worker_id = "worker_" + (name or os.urandom(8).hex()).ljust(32, "0")
    doc = {
        "_id": worker_id, "type": "worker", "hostname": "n1", "pid": 7, "started": moment(now // 600 * 600 - 3600),
        "lease": 120.0, "renewed": moment(now - silent_for), "renewals": 3, "slots": 4, "drain": False, "stop": False,
        "fenced": False, "idle": False, "duty": True, "batches": [], "tags": {}, "load": 1.2, "note": "", "look": 0,
        "resources": {"cpu_cores": 4, "ram_gb": 8.0, "gpus": 0}, "follow": {}, "running": [], "ends": None, **fields,
    }  # fmt: skip
    save(backend, doc)
    return worker_id


def save(backend: Backend, doc: Json) -> Json:
    """Write a document whatever stands there; return it."""
    there = backend.get_many([doc["_id"]])[0]
    (result,) = backend.put_many([{**doc, "_rev": there["_rev"]} if there else doc])
    assert isinstance(result, Saved), result
    return doc


def token(backend: Backend, token_id: str, **fields: Any) -> Json:
    """Write a token that waits; `fields` change it."""
    doc = {
        "_id": token_id, "type": "token", "lock": 0, "done": 0, "hostname": "", "scrub_count": 0, "input": "true",
        "exit_code": "", "output": {}, "uploads": {}, "error": [], **fields,
    }  # fmt: skip
    return save(backend, doc)


def locked(backend: Backend, token_id: str, worker_id: str, since: float = 60.0, **fields: Any) -> Json:
    """Write a token that this worker holds under the claim ``claim-<token id>``."""
    lock = int(backend.now() - since)
    lease = {"worker": worker_id, "claim": f"claim-{token_id}", "lock": lock, "hostname": "n1"}
    return token(backend, token_id, **{"lock": lock, "hostname": "n1", "lease": lease, **fields})


def busy(backend: Backend, name: str, *tokens: str, **fields: Any) -> str:
    """Write a worker that runs these tokens, and the tokens; return its id."""
    me = worker(backend, name, running=[running(each, command=f"run {each}") for each in tokens], **fields)
    for each in tokens:
        locked(backend, each, me)
    return me


def running(token_id: str, **fields: Any) -> Json:
    """Return what a worker's document says of a token that it runs."""
    entry = {"token": token_id, "claim": f"claim-{token_id}", "batch": "", "since": moment(0), "phase": "run"}
    return {**entry, "command": "true", **fields}


def attempt(number: int, host: str = "n1", ended: float = 0.0, **fields: Any) -> Json:
    """Return an entry of a token's history: one that failed, unless `fields` say otherwise."""
    return {
        "claim": f"attempt-{number}", "worker": "worker_x", "hostname": host, "start_time": moment(ended - 5),
        "end_time": moment(ended), "exit_code": 1, "failure_class": "executor", "counted": True, **fields,
    }  # fmt: skip

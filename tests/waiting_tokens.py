"""Tokens that wait for others, and what tests do with them: push, finish, look."""

from __future__ import annotations

from typing import Any

from tokenpool import transitions
from tokenpool.backends.base import Backend, Json
from tokenpool.dependencies import release
from tokenpool.pool import Pool
from tokenpool.transitions import state_of

#: A time that no test will see.
LATER = 4_000_000_000


def push(pool: Pool, *tokens: str, **more: Any) -> None:
    """Push tokens that are written as ``child < parent parent``."""
    docs = []
    for token in tokens:
        name, _, parents = token.partition("<")
        docs.append({"_id": name.strip(), "depends_on": parents.split()} if parents else {"_id": name.strip()})
    pool.push(docs, **more)


def finish(backend: Backend, *ids: str, exit_code: int = 0) -> None:
    """Run todo tokens to their end."""
    docs = backend.get_many(ids)
    for doc in docs:
        assert doc is not None
        assert state_of(doc) == "todo", doc
        transitions.lock(doc)
        doc["exit_code"] = exit_code
        transitions.close(doc)
    backend.put_many(docs)  # type: ignore[arg-type]


def write(backend: Backend, *docs: Json) -> None:
    """Write tokens straight into the database, as no push would."""
    base = {"type": "token", "lock": -1, "done": 0, "exit_code": ""}
    assert all(hasattr(result, "rev") for result in backend.put_many([{**base, **doc} for doc in docs]))


def states(pool: Pool) -> dict[str, str]:
    return {token.id: token.state for token in pool.tokens()}


def last_attempt(pool: Pool, token_id: str) -> Any:
    return (pool.get(token_id).doc.get("attempts") or [None])[-1]


def settle(pool: Pool, **more: Any) -> None:
    """Make passes until there is nothing to do at once."""
    while True:
        found = release(pool.backend, **more)
        if not (found.released or found.closed):
            return

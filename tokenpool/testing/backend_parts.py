"""What the tests of a `Backend` share: the pool under test, a second handle on it, and short ways to write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ..backends.base import Backend, Json, Saved, Want
from ..designs import DEFAULT_DESIGNS, design_document

#: Threads that race.
RACERS = 16


class Parts:
    """The fixtures; `backend` is the subclass's."""

    @pytest.fixture
    def backend(self) -> Backend:
        """An opened Backend on an empty pool: every subclass has its own."""
        raise NotImplementedError("give the test class a fixture `backend`")

    def reopen(self, backend: Backend) -> Backend:
        """Return a second, independent Backend on the same pool; override it where that can be done."""
        return backend

    @pytest.fixture
    def pool(self, backend: Backend) -> Backend:
        """The pool with the default views, as `tokenpool init` leaves it."""
        backend.create([design_document(name) for name in DEFAULT_DESIGNS])
        return backend

    @pytest.fixture
    def other(self, pool: Backend) -> Iterator[Backend]:
        """Another process's handle on the pool, as far as one process can have it."""
        second = self.reopen(pool)
        yield second
        if second is not pool:
            second.close()


def token(name: str, **fields: Any) -> Json:
    """Return a token that waits."""
    return {"_id": name, "type": "token", "lock": 0, "done": 0, **fields}


def tokens(number: int, prefix: str = "token", **fields: Any) -> list[Json]:
    """Return tokens whose ids sort in the order of their numbers."""
    return [token(f"{prefix}_{i:04d}", **fields) for i in range(number)]


def saved(pool: Backend, *docs: Json) -> list[str]:
    """Write documents that nothing may refuse; return their revisions."""
    results = pool.put_many(docs)
    assert [result for result in results if not isinstance(result, Saved)] == []
    assert [result.id for result in results] == [doc["_id"] for doc in docs]
    return [result.rev for result in results if isinstance(result, Saved)]


def offered(pool: Backend, want: Want | None = None, limit: int = 50, start: float | None = None) -> list[Json]:
    """Return the documents that a worker is offered."""
    return pool.candidates(want or Want(), limit, start).tokens


def ids(docs: Sequence[Json | None]) -> list[str]:
    """Return the ids of documents that must be there."""
    return [doc["_id"] for doc in docs if doc is not None]


def race(number: int, act: Callable[[int], Any]) -> list[Any]:
    """Call `act` in so many threads that start at one moment; return what each returned."""
    gate = threading.Barrier(number)

    def run(i: int) -> Any:
        gate.wait()
        return act(i)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(run, range(number)))

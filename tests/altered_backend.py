"""A real backend whose answers a test alters: lost, doubted or forestalled, write by write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tokenpool.backends.base import Backend, Json, Saved, WriteResult
from tokenpool.errors import AnswerLost, ServerAway

#: What becomes of one write: it is given the real backend and the documents.
Act = Callable[[Backend, Sequence[Json]], list[WriteResult]]


class Altered:
    """Passes everything on to `real`; the next writes do what `script` says, then all is well again."""

    def __init__(self, real: Backend) -> None:
        self.real = real
        self.script: list[Act] = []
        self.written: list[list[str]] = []
        self.reads_away = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def put_many(self, docs: Sequence[Json]) -> list[WriteResult]:
        self.written.append([doc["_id"] for doc in docs])
        return self.script.pop(0)(self.real, docs) if self.script else self.real.put_many(docs)

    def get_many(self, ids: Sequence[str], conflicts: bool = False) -> list[Json | None]:
        if self.reads_away:
            self.reads_away -= 1
            raise ServerAway("no answer")
        return self.real.get_many(ids, conflicts=conflicts)


def lose_answer(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
    """Apply it, and say that nobody knows."""
    real.put_many(docs)
    raise AnswerLost("the line was cut")


def lose_request(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
    """Do nothing, and say that nobody knows."""
    raise AnswerLost("the line was cut")


def away(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
    """The server is not there."""
    raise ServerAway("no answer")


def accept(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
    """Apply it, but as a cluster without a quorum does: 202."""
    return [replace(result, accepted=True) if isinstance(result, Saved) else result for result in real.put_many(docs)]


def edit_first(token_id: str, **fields: Any) -> Act:
    """Somebody else changes this token just before."""

    def act(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
        edit(real, token_id, **fields)
        return real.put_many(docs)

    return act


def edit(real: Backend, token_id: str, **fields: Any) -> None:
    """Change a token as somebody else would."""
    (result,) = real.put_many([{**real.get(token_id), **fields}])
    assert isinstance(result, Saved)

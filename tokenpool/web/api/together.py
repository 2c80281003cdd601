"""Writes what many push at one moment in one go: a write costs the store the same, be it one token or fifty."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.datastructures import State

from ...backends.base import Json
from ...errors import BadInput, TokenpoolError
from ...pool import Pool
from ...pushes import Pushed

#: Tokens written in one go at most.
MOST = 500


@dataclass(eq=False)
class _Entry:
    """One token on its way, and what became of it."""

    doc: Json
    dedupe: bool
    result: Pushed | None = None
    error: TokenpoolError | None = None
    #: Its thread is to go on: it has its answer, or has to write for those that wait.
    go: threading.Event = field(default_factory=threading.Event)


class Together:
    """Pushes single tokens of many threads. One of them writes for all that came meanwhile, then another does."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._busy = False

    def push(self, doc: Json, dedupe: bool = False) -> Pushed:
        """Push one token, as `make_token` returns it; raises BadInput as `Pool.push_stream` does."""
        mine = _Entry(doc, dedupe)
        with self._lock:
            self._waiting.append(mine)
            leads, self._busy = not self._busy, True
        if not leads:
            mine.go.wait()
        if mine.result is None and mine.error is None:
            self._lead()
        if mine.error is not None:
            raise mine.error
        assert mine.result is not None
        return mine.result

    def _lead(self) -> None:
        """Write what waits, our own with it, and let the next thread write what came meanwhile."""
        with self._lock:
            some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        try:
            for dedupe in (False, True):
                self._write([entry for entry in some if entry.dedupe is dedupe], dedupe)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._busy = following is not None
            for entry in some:
                if entry.result is None and entry.error is None:
                    entry.error = TokenpoolError("the token was not pushed", "see the server's log")
                entry.go.set()
            if following is not None:
                following.go.set()

    def _write(self, entries: Sequence[_Entry], dedupe: bool) -> None:
        if not entries:
            return
        try:
            for entry, pushed in zip(entries, self._pool.push_stream([entry.doc for entry in entries], dedupe)):
                entry.result = pushed
        except BadInput as error:
            if len(entries) == 1:
                entries[0].error = error
                return
            # One of them makes no sense: nothing was written, and the others shall not suffer for it.
            for entry in entries:
                self._write([entry], dedupe)
        except TokenpoolError as error:
            for entry in entries:
                entry.error = error


def together_of(state: State, pool: Pool) -> Together:
    """Return the one of an application; two threads that ask first at one moment may get one each, which does no harm."""
    found: Together | None = getattr(state, "together", None)
    if found is None:
        found = state.together = Together(pool)
    return found

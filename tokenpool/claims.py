"""Claims tokens for one worker: candidates from a window read once, taken by compare-and-set."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from uuid import uuid4

from . import transitions
from .backends.base import Backend, Json, Want
from .commits import Outcome, Written, commit, settle_claims

#: Seconds after which a window is read anew: newer tokens of higher priority must not wait behind it.
WINDOW_AGE = 5.0
#: A window holds this many candidates for each slot that may take one, within the bounds.
WINDOW_PER_SLOT, WINDOW_LEAST, WINDOW_MOST = 8, 64, 1000
#: Claims tried before `claim` gives up: somebody else took every candidate so often.
ROUNDS = 10


def new_worker_id() -> str:
    """Return a name for a worker that nobody else has."""
    return f"worker_{uuid4().hex}"


class Claimer:
    """Takes tokens for one worker. Safe from several threads."""

    def __init__(self, backend: Backend, worker: str = "", want: Want | None = None, slots: int = 1) -> None:
        self.backend = backend
        self.worker = worker or new_worker_id()
        self.want = want or Want()
        self._size = min(WINDOW_MOST, max(WINDOW_LEAST, WINDOW_PER_SLOT * slots))
        # A signal may interrupt a claim and then have to give it back in the same thread.
        self._lock = threading.RLock()
        self._window: list[Json] = []
        self._read_at = 0.0
        # On SQLite writes queue up, so everyone starts at the head until somebody is in the way.
        self._spread = not backend.ordered
        self._empty = False
        self._unsure: list[Json] = []
        self._found: list[Json] = []

    def commit(self, n: int, outcomes: Sequence[Outcome] = ()) -> Written:
        """Record `outcomes` and claim up to `n` tokens in one write; fewer claimed does not mean an empty pool."""
        with self._lock:
            self._find_out()
            claims = self._pick(n - len(self._found))
            if not claims and not outcomes:
                return Written(self._take_found())
            try:
                now = commit(self.backend, claims, outcomes)
            except BaseException:
                # Lost answer or signal: they may be ours, so the server is asked before anything else is claimed.
                self._unsure = [*claims]
                raise
            self._learn(len(claims), len(now.claimed))
            return Written(self._take_found() + now.claimed, now.closed, now.superseded)

    def claim(self, n: int = 1) -> list[Json]:
        """Claim up to `n` tokens; an empty list means that nothing waits, or that others were faster ten times."""
        found: list[Json] = []
        for _ in range(ROUNDS):
            found += self.commit(n - len(found)).claimed
            if len(found) >= n or self.exhausted:
                break
        return found

    def refresh(self) -> None:
        """Forget that the pool was empty: a token went back to it."""
        self._empty = False

    def abandon(self) -> None:
        """Give back what a claim that was interrupted may have taken."""
        with self._lock:
            self._find_out()
            taken = self._take_found()
            commit(self.backend, (), [Outcome({**transitions.unlock({**d})}, d["lease"]["claim"]) for d in taken])

    def _find_out(self) -> None:
        """Ask the pool about claims in doubt; those that are ours are kept until they can be handed out."""
        if self._unsure:
            taken = Written()
            settle_claims(self.backend, self._unsure, taken)
            self._unsure = []
            self._found += taken.claimed

    def _take_found(self) -> list[Json]:
        found, self._found = self._found, []
        return found

    @property
    def exhausted(self) -> bool:
        """The last look at the pool found nothing to take."""
        return not self._window and self._empty

    def _pick(self, n: int) -> list[Json]:
        """Take up to `n` candidates out of the window and stamp them with claims of ours."""
        if n <= 0:
            return []
        if not self._window or time.monotonic() - self._read_at > WINDOW_AGE:
            self._read_window()
        picked, self._window = self._window[:n], self._window[n:]
        return [self._stamp(doc) for doc in picked]

    def _read_window(self) -> None:
        start = random.random() if self._spread else None
        self._window = self.backend.candidates(self.want, self._size, start)
        self._empty = not self._window
        self._read_at = time.monotonic()
        if self._spread:
            self._shuffle()

    def _shuffle(self) -> None:
        """Mix tokens of equal priority: a rival whose window overlaps would else be just ahead all the way."""
        ranked = [(-_priority(doc), random.random(), doc) for doc in self._window]
        self._window = [doc for _, _, doc in sorted(ranked, key=lambda entry: entry[:2])]

    def _learn(self, tried: int, won: int) -> None:
        """Read anew, from another place, when others take what we see."""
        if tried and won < tried:
            self._spread = True
            if won <= tried // 2:
                self._window = []
                self._empty = False

    def _stamp(self, doc: Json) -> Json:
        transitions.lock(doc, {"worker": self.worker, "claim": uuid4().hex})
        return doc


def _priority(doc: Json) -> float:
    value = doc.get("priority")
    return float(value) if isinstance(value, (int, float)) else 0.0

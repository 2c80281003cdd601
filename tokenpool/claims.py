"""Claims tokens for one worker: candidates from a window read once, taken by compare-and-set."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from . import chance, transitions
from .backends.base import Backend, Json, Want
from .commits import Outcome, Written, commit, settle_claims
from .leases import Lease

#: Seconds after which a window is read anew: newer tokens of higher priority must not wait behind it.
WINDOW_AGE = 5.0
#: A window holds this many candidates for each slot that may take one, within the bounds.
WINDOW_PER_SLOT, WINDOW_LEAST, WINDOW_MOST = 8, 64, 1000
#: Claims tried before `claim` gives up: somebody else took every candidate so often.
ROUNDS = 10


@dataclass(frozen=True)
class Places:
    """Where claimed tokens are to run: `take` a place for a stamped token (False: none now), `free` it by its claim."""

    take: Callable[[Json], bool] = lambda doc: True
    free: Callable[[str], None] = lambda claim: None


class Claimer:
    """Takes tokens for one worker. Safe from several threads."""

    def __init__(
        self,
        backend: Backend,
        lease: Lease | None = None,
        want: Want | None = None,
        slots: int = 1,
        places: Places | None = None,
    ) -> None:
        self.backend = backend
        self.lease = lease or Lease(backend)
        self.want = want or Want()
        self.places = places or Places()
        self._size = min(WINDOW_MOST, max(WINDOW_LEAST, WINDOW_PER_SLOT * slots))
        # A signal may interrupt a claim and then have to give it back in the same thread.
        self._lock = threading.RLock()
        self._window: list[Json] = []
        self._rooms: Mapping[str, int] = {}
        self._read_at = 0.0
        # On SQLite writes queue up, so everyone starts at the head until somebody is in the way.
        self._spread = not backend.ordered
        self._empty = self._crowded = False
        self._unsure: list[Json] = []
        self._found: list[Json] = []

    @property
    def worker(self) -> str:
        """The name under which tokens are claimed."""
        return self.lease.name

    def commit(self, n: int, outcomes: Sequence[Outcome] = ()) -> Written:
        """Record `outcomes` and claim up to `n` tokens in one write; fewer claimed does not mean an empty pool."""
        with self._lock:
            self._find_out()
            claims = self._pick(n - len(self._found))
            if not claims and not outcomes:
                return Written(self._take_found())
            opening = self.lease.opening() if claims else []
            try:
                now = commit(self.backend, claims, outcomes, opening)
            except BaseException:
                # Lost answer or signal: they may be ours, so the server is asked before anything else is claimed.
                self._unsure = [*claims]
                self.lease.contact.broken()
                raise
            self.lease.contact.ok()
            if opening:
                self.lease.written(now.companions[0] if now.companions else None)
            won = self._within_rooms(now.claimed)
            self._free_lost(claims, won)
            self._learn(len(claims), len(now.claimed))
            return Written(self._take_found() + won, now.closed, now.superseded)

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

    def look_anew(self) -> None:
        """Forget the window: somebody changed what may run, or in which order."""
        with self._lock:
            self._window = []
            self._empty = False

    def abandon(self) -> None:
        """Give back what a claim that was interrupted may have taken."""
        with self._lock:
            self._find_out()
            self.give_back(self._take_found())

    def give_back(self, docs: Sequence[Json]) -> None:
        """Return claimed tokens as if they had not been taken; raises as the backend does."""
        if docs:
            outcomes = [Outcome({**transitions.unlock({**doc})}, doc["lease"]["claim"]) for doc in docs]
            commit(self.backend, (), outcomes)

    def unknown(self, known: set[str]) -> list[Json]:
        """Return the tokens that carry this worker's name under claims that it does not know: they arrived late."""
        with self._lock:
            mine = known | {doc["lease"]["claim"] for doc in (*self._unsure, *self._found)}
            held = self.backend.scan(transitions.LOCKED, holder=self.worker)
            return [doc for doc in held if doc["lease"]["claim"] not in mine]

    def _find_out(self) -> None:
        """Ask the pool about claims in doubt; those that are ours are kept until they can be handed out."""
        if self._unsure:
            taken = Written()
            settle_claims(self.backend, self._unsure, taken)
            self._free_lost(self._unsure, taken.claimed)
            self._unsure = []
            self._found += taken.claimed
            # The document that told of this worker may have been lost with them.
            self.lease.renew_soon()

    def _take_found(self) -> list[Json]:
        found, self._found = self._found, []
        return found

    @property
    def exhausted(self) -> bool:
        """The last look at the pool found nothing to take."""
        return not self._window and self._empty

    @property
    def crowded(self) -> bool:
        """What the last look at the pool found has no place here until something of ours ends."""
        return self._crowded and bool(self._window)

    # --- the window --------------------------------------------------------------------------------------------------

    def _pick(self, n: int) -> list[Json]:
        """Take up to `n` candidates out of the window and stamp them with claims of ours; what has no place stays."""
        if n <= 0:
            return []
        if not self._window or time.monotonic() - self._read_at > WINDOW_AGE:
            self._read_window()
        picked: list[Json] = []
        left: list[Json] = []
        for place, doc in enumerate(self._window):
            if len(picked) >= n:
                left += self._window[place:]
                break
            stamped = self._stamp(dict(doc))
            if self.places.take(stamped):
                picked.append(stamped)
            else:
                left.append(doc)
        self._window = left
        self._crowded = not picked
        return picked

    def _read_window(self) -> None:
        start = chance.uniform(0, 1) if self._spread else None
        window = self.backend.candidates(self.want, self._size, start)
        self._window, self._rooms = window.tokens, window.rooms
        self._empty = not self._window
        self._read_at = time.monotonic()
        if self._spread:
            self._shuffle()

    def _shuffle(self) -> None:
        """Mix tokens of equal priority: a rival whose window overlaps would else be just ahead all the way."""
        runs: list[list[Json]] = []
        rank: object = None
        for doc in self._window:
            # Neighbours of one batch and priority: the order among those is the backend's, batch rules included.
            if (doc.get("batch"), _priority(doc)) != rank or not runs:
                rank = (doc.get("batch"), _priority(doc))
                runs.append([])
            runs[-1].append(doc)
        for run in runs:
            chance.shuffle(run)
        self._window = [doc for run in runs for doc in run]

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

    def _free_lost(self, claims: Sequence[Json], won: Sequence[Json]) -> None:
        kept = {doc["lease"]["claim"] for doc in won}
        for doc in claims:
            if doc["lease"]["claim"] not in kept:
                self.places.free(doc["lease"]["claim"])

    # --- batches that may run so many at once --------------------------------------------------------------------------

    def _within_rooms(self, claimed: list[Json]) -> list[Json]:
        """Give back what is too much for its batch: others may have claimed from it at the same moment."""
        limited = [doc for doc in claimed if str(doc.get("batch") or "") in self._rooms]
        if not limited:
            return claimed
        running: dict[str, int] = {}
        for (batch, _), number in self.backend.holders().items():
            running[batch] = running.get(batch, 0) + number
        excess = []
        for doc in reversed(limited):
            batch = str(doc.get("batch") or "")
            if running.get(batch, 0) > self._rooms[batch]:
                running[batch] -= 1
                excess.append(doc)
        if excess:
            self.give_back(excess)
            self._window = []
        too_many = {doc["_id"] for doc in excess}
        return [doc for doc in claimed if doc["_id"] not in too_many]


def _priority(doc: Json) -> float:
    value = doc.get("priority")
    return float(value) if isinstance(value, (int, float)) else 0.0

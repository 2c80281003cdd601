"""Finished tokens on their way to the pool: in memory, and on disk as soon as the pool is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from .backends.base import Backend, Json
from .commits import Outcome
from .lifecycle import Run
from .spool import Spool, deliver
from .transitions import attempts_of

log = logging.getLogger(__name__)


class Deliveries:
    """The runs whose outcome is not recorded yet, by their claim."""

    def __init__(self, spool: Path | None, pool_url: str, worker: str) -> None:
        self.waiting: dict[str, Run] = {}
        self._spool = Spool(spool, pool_url, worker) if spool is not None else None
        self._oldest = 0.0

    def __bool__(self) -> bool:
        return bool(self.waiting)

    @property
    def outcomes(self) -> list[Outcome]:
        """What is to be written."""
        return [run.outcome for run in self.waiting.values()]

    @property
    def age(self) -> float:
        """Seconds since the first of them ended."""
        return time.monotonic() - self._oldest

    def add(self, claim: str, run: Run) -> None:
        """Take in a run that ended."""
        if not self.waiting:
            self._oldest = time.monotonic()
        self.waiting[claim] = run

    def settle(self, docs: Iterable[Json]) -> list[tuple[Run, Json]]:
        """Take out the runs whose outcome stands in the pool now, with the document as it stands there."""
        by_id: dict[str, list[Run]] = {}
        for run in self.waiting.values():
            by_id.setdefault(run.outcome.doc["_id"], []).append(run)
        settled = []
        for doc in docs:
            runs = by_id.get(doc["_id"])
            if runs:
                run = _run_of(doc, runs)
                runs.remove(run)
                del self.waiting[run.outcome.claim]
                if self._spool is not None:
                    self._spool.forget(run.outcome.claim)
                settled.append((run, doc))
        return settled

    def save(self) -> None:
        """Write what cannot be delivered now to disk: it must outlive this process."""
        if self._spool is not None:
            for outcome in self.outcomes:
                self._spool.keep(outcome)

    def deliver_inherited(self, backend: Backend) -> None:
        """Deliver what workers before this one left here; what cannot be delivered stays for the next."""
        if self._spool is None:
            return
        self._spool.take_over()
        outcomes = (outcome for outcome in self._spool.stream() if outcome.claim not in self.waiting)
        delivered = deliver(backend, outcomes, self._spool.forget)
        if delivered.written:
            log.warning("delivered %d finished tokens that an earlier worker left here", delivered.written)

    def close(self) -> str:
        """Save what is left, let go of the spool; return its folder where something is in it."""
        self.save()
        if self._spool is None:
            return ""
        folder = str(self._spool.folder) if self._spool.undelivered else ""
        self._spool.close()
        return folder


def _run_of(doc: Json, runs: Sequence[Run]) -> Run:
    """Return the run that a document tells of: a token that was put back while it ran may have run here twice."""
    claims = [attempt.get("claim") for attempt in reversed(attempts_of(doc))]
    return min(runs, key=lambda run: claims.index(run.outcome.claim) if run.outcome.claim in claims else len(claims))

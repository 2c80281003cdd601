"""What `watch` remembers of the last minutes: what ended when, how busy each worker was, and what failed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..backends.base import Backend
from ..reports.failures import what_of
from ..reports.runs import FAILED, runs_of
from ..steering import WorkerInfo
from ..transitions import ERROR, state_of
from .output import one_line

#: Seconds that are remembered, failures that are, and tokens that are read in one look.
SPAN, MOST, AT_ONCE = 300.0, 50, 200
#: With more failed tokens than this nobody lists them again and again: then only those that were seen running are told.
LISTED = 500


@dataclass(frozen=True)
class Sample:
    """One look: tokens that were done and failed by then, and the share of its slots that each worker used."""

    when: float
    done: int
    failed: int
    busy: Mapping[str, float]


@dataclass(frozen=True)
class Fell:
    """A run that failed; `when` in seconds since 1970."""

    when: float
    token: str
    host: str
    worker: str
    why: str

    def as_json(self) -> dict[str, Any]:
        """Return it as an object."""
        return {"id": self.token, "time": self.when, "hostname": self.host, "why": self.why}


class History:
    """The last minutes of a pool, as far as somebody looked."""

    def __init__(self, backend: Backend, batch: str | None) -> None:
        self.samples: deque[Sample] = deque()
        self._backend, self._batch = backend, batch
        self._running: dict[tuple[str, str], str] = {}
        self._known: set[str] = set()
        self._errors = 0
        self._fell: dict[tuple[str, float], Fell] = {}

    def take(self, when: float, counts: Mapping[str, int], workers: Sequence[WorkerInfo]) -> None:
        """Remember one look, by the clock that `when` is of."""
        busy = {each.id: min(1.0, each.held / each.slots) if each.slots else 0.0 for each in workers if each.alive}
        if self.samples and counts["done"] + counts["error"] < self.samples[-1].done + self.samples[-1].failed:
            self.samples.clear()  # some were put back
        self.samples.append(Sample(when, counts["done"], counts["error"], busy))
        while self.samples[0].when < when - SPAN:
            self.samples.popleft()
        self._look(self._gone(workers), counts["error"])

    def _gone(self, workers: Sequence[WorkerInfo]) -> list[str]:
        """Return tokens that ran at the last look and do not run any more."""
        before = self._running
        self._running = {
            (str(entry.get("token")), str(entry.get("claim"))): worker.id
            for worker in workers
            for entry in worker.running
        }
        return [token for token, claim in before if (token, claim) not in self._running]

    def _look(self, gone: Iterable[str], errors: int) -> None:
        ids = list(islice(gone, AT_ONCE))
        if errors != self._errors and errors <= LISTED:
            listed = [
                str(doc["_id"]) for doc in islice(self._backend.scan(ERROR, self._batch, with_docs=False), LISTED)
            ]
            ids += [token for token in listed if token not in self._known][:AT_ONCE]
            self._known.intersection_update(listed)
        self._errors = errors
        for doc in self._backend.get_many(list(dict.fromkeys(ids))) if ids else []:
            if doc is not None and (self._batch is None or (doc.get("batch") or "") == self._batch):
                self._note(doc)
        newest = sorted(self._fell.values(), key=lambda each: each.when)[-MOST:]
        self._fell = {(each.token, each.when): each for each in newest}

    def _note(self, doc: dict[str, Any]) -> None:
        """Remember why a token failed, if its last run did."""
        if state_of(doc) == ERROR:
            self._known.add(str(doc["_id"]))
        ended = [run for run in runs_of(doc, self._backend.now()) if run.ended]
        if ended and ended[-1].kind == FAILED:
            run = ended[-1]
            why = f"{run.failure}: {what_of(run)}" if run.failure else what_of(run)
            self._fell[(run.token, run.end or 0.0)] = Fell(
                run.end or 0.0, run.token, run.host, run.worker, one_line(why)
            )

    @property
    def failures(self) -> list[Fell]:
        """The last failures, the newest first."""
        return sorted(self._fell.values(), key=lambda each: each.when, reverse=True)

    # --- for charts ------------------------------------------------------------------------------------------------

    def ended(self, columns: int) -> list[tuple[float, float]]:
        """Return the tokens that were done and that failed in each of so many pieces of the span, the last one now."""
        found = [[0.0, 0.0] for _ in range(columns)]
        for before, after in zip(self.samples, islice(self.samples, 1, None)):
            place = self._place(after, columns)
            found[place][0] += max(0, after.done - before.done)
            found[place][1] += max(0, after.failed - before.failed)
        return [(done, failed) for done, failed in found]

    def busy(self, worker: str, columns: int) -> list[float | None]:
        """Return how busy a worker was in each piece of the span, None before it was there."""
        found: list[float | None] = [None] * columns
        for sample in self.samples:
            share = sample.busy.get(worker)
            if share is not None:
                place = self._place(sample, columns)
                found[place] = max(found[place] or 0.0, share)
        for place in range(1, columns):
            if found[place] is None:
                found[place] = found[place - 1]  # nobody looked; at the left end it was not there
        return found

    def _place(self, sample: Sample, columns: int) -> int:
        """Return the piece that ends with a look, or in which it lies."""
        ago = self.samples[-1].when - sample.when
        return max(0, math.ceil((SPAN - ago) / SPAN * columns) - 1)

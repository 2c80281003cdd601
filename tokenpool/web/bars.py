"""Remembers what ran where and when: a bar for each run that was seen, until it is old."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from .. import transitions
from ..backends.base import Backend, Json
from ..selectors import parse_time

#: Bars that are kept, running tokens that are followed, and tokens read at one look.
KEPT, FOLLOWED, READ = 6_000, 2_000, 250
#: Bars that are kept over a restart.
SAVED = 2_000
KINDS = ("command", "container", "workflow", "function")
#: What became of a run; `lost`: it was put back, and is no failure of its own.
OUTCOMES = ("running", "done", "error", "lost")


@dataclass(frozen=True)
class Bar:
    """One run of a token by a worker; times in seconds since 1970, `end` None while it runs."""

    worker: str
    host: str
    token: str
    claim: str
    batch: str
    name: str
    kind: str
    start: float
    end: float | None
    state: str


class Bars:
    """The runs of a pool as they are seen from time to time; those shorter than the time between two looks may be missed."""

    def __init__(self) -> None:
        self._open: dict[str, Bar] = {}
        self._closed: deque[Bar] = deque(maxlen=KEPT)
        self._known: deque[str] = deque(maxlen=KEPT)

    def see(self, backend: Backend, now: float) -> None:
        """Look which tokens are locked now: new ones begin a bar, those that are no longer end theirs."""
        stream = backend.scan(transitions.LOCKED, with_docs=False)
        here = {doc["_id"] for doc in islice(stream, FOLLOWED)}
        fresh = sorted(here - set(self._open))[:READ]
        gone = sorted(set(self._open) - here)[:READ]
        for doc in backend.get_many(fresh) if fresh else ():
            if doc is not None and transitions.state_of(doc) == transitions.LOCKED:
                self._open[doc["_id"]] = _opened(doc, now)
        for token, doc in zip(gone, backend.get_many(gone)) if gone else ():
            self._close(self._open.pop(token), doc, now)

    def remember(self, docs: Iterable[Json], now: float) -> list[Bar]:
        """Take the runs that tokens had before the first look; return them by their end."""
        found = []
        for doc in docs:
            bar = _opened(doc, now)
            found += [_bar_of(bar, entry, now) for entry in transitions.attempts_of(doc)[-3:] if entry.get("end_time")]
        found.sort(key=lambda bar: bar.end or now)
        for bar in found:
            self._keep(bar)
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the last runs that ended, to be kept over a restart."""
        return {"bars": [asdict(bar) for bar in list(self._closed)[-SAVED:]]}

    def restore(self, told: Any) -> None:
        """Take what was kept, unless it is none of ours."""
        try:
            found = [Bar(**each) for each in told["bars"]]
            sound = all(bar.start <= (bar.end or 0.0) and isinstance(bar.token, str) for bar in found)
        except (LookupError, TypeError):
            return
        for bar in found if sound else ():
            self._keep(bar)

    def _close(self, bar: Bar, doc: Json | None, now: float) -> None:
        attempts = transitions.attempts_of(doc or {})
        for entry in attempts[-5:]:
            ended = _bar_of(bar, entry, now)
            if entry.get("claim") == bar.claim:
                continue
            if ended.start >= bar.start and ended.claim not in self._known:
                self._keep(ended)
        own = next((entry for entry in attempts if bar.claim and entry.get("claim") == bar.claim), None)
        if own is not None:
            self._keep(_bar_of(bar, own, now))
        else:
            state = transitions.state_of(doc) if doc is not None else "lost"
            self._keep(replace(bar, end=now, state=state if state in OUTCOMES else "lost"))

    def _keep(self, bar: Bar) -> None:
        self._closed.append(bar)
        self._known.append(bar.claim)

    def since(self, start: float) -> list[Bar]:
        """Return the bars that end after `start`, the running ones among them, by their beginning."""
        # Copies, as a look may change them meanwhile.
        closed, running = list(self._closed), list(self._open.values())
        found = [bar for bar in closed if bar.end is not None and bar.end >= start] + running
        return sorted(found, key=lambda bar: (bar.start, bar.token))


def kind_of(doc: Mapping[str, Any]) -> str:
    """Return what kind of thing a token runs."""
    if doc.get("workflow"):
        return "workflow"
    if doc.get("function"):
        return "function"
    return "container" if doc.get("image") or doc.get("executors") else "command"


def _opened(doc: Json, now: float) -> Bar:
    lease = doc.get("lease")
    told: Mapping[str, Any] = lease if isinstance(lease, dict) else {}
    lock = doc.get("lock")
    start = float(lock) if isinstance(lock, (int, float)) and lock > transitions.PICAS_ERROR else now
    return Bar(
        transitions.holder_of(doc),
        str(doc.get("hostname") or ""),
        doc["_id"],
        str(told.get("claim") or ""),
        str(doc.get("batch") or ""),
        str(doc.get("name") or doc.get("input") or doc["_id"])[:80],
        kind_of(doc),
        min(start, now),
        None,
        "running",
    )


def _bar_of(bar: Bar, entry: Mapping[str, Any], now: float) -> Bar:
    """Return the bar of an attempt of the token of `bar`."""
    start, end = parse_time(entry.get("start_time")), parse_time(entry.get("end_time"))
    lost = entry.get("superseded") or entry.get("failure_class") in ("lost", "preempted")
    state = "lost" if lost else "done" if transitions.means_success(entry.get("exit_code")) else "error"
    start = bar.start if start is None else start
    return replace(
        bar,
        worker=str(entry.get("worker") or bar.worker),
        host=str(entry.get("hostname") or bar.host),
        claim=str(entry.get("claim") or ""),
        start=start,
        end=max(start, now if end is None else end),
        state=state,
    )

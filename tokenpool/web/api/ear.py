"""Listens to the pool once for all who wait for changes, however many: one thread, and only while somebody waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Union

from starlette.datastructures import State

from ...backends.base import ALL_DOCS, Backend, Heard
from ...errors import TokenpoolError

#: Seconds of one look: who begins to wait is looked after from the next one on. A file is looked at quickly.
PATIENCE, ORDERED_PATIENCE = 2.0, 0.2
#: Seconds that the thread stays when nobody waits any more.
LINGER = 1.0

News = Union[Heard, TokenpoolError]


@dataclass(eq=False)
class Waiter:
    """Somebody who waits: which documents, their revisions as known, and whom to tell, once."""

    ids: tuple[str, ...]
    known: Mapping[str, str]
    tell: Callable[[News], None]


class Ear:
    """The ear of one pool. A marker is the revisions of the documents that one asked for, as JSON."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._patience = ORDERED_PATIENCE if backend.ordered else PATIENCE
        self._lock = threading.Lock()
        self._waiters: set[Waiter] = set()
        self._thread: threading.Thread | None = None

    def look(self, ids: Collection[str], since: str) -> Heard:
        """Return what changed since a marker, without waiting."""
        revs = self.revisions(ids)
        known = revisions_in(since) if since else revs
        return _heard(tuple(revs), known, revs)

    def revisions(self, ids: Collection[str]) -> dict[str, str]:
        """Return the revision of each document, "" where there is none."""
        names = sorted(set(ids))
        rows = self._backend.view(ALL_DOCS, "", {"keys": names}).rows if names else ()
        found = {str(row.key): str(row.value.get("rev") or "") for row in rows if isinstance(row.value, dict)}
        return {name: found.get(name, "") for name in names}

    def add(self, waiter: Waiter) -> None:
        """Tell this one when something changes, or at once if it has."""
        with self._lock:
            self._waiters.add(waiter)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tokenpool-ear", daemon=True)
                self._thread.start()

    def remove(self, waiter: Waiter) -> None:
        """Forget this one: it waits no more."""
        with self._lock:
            self._waiters.discard(waiter)

    def wait(self, ids: Collection[str], since: str, timeout: float, gone: threading.Event) -> Heard:
        """Wait in this thread as `Queue.listen` does; whoever sets `gone` ends it."""
        heard = self.look(ids, since)
        if heard.changed or not since:
            return heard
        news: list[News] = []
        ends = time.monotonic() + timeout
        told = threading.Event()

        def tell(what: News) -> None:
            news.append(what)
            told.set()

        waiter = Waiter(tuple(sorted(set(ids))), revisions_in(since), tell)
        self.add(waiter)
        try:
            while not gone.is_set() and time.monotonic() < ends and not told.wait(min(1.0, ends - time.monotonic())):
                pass
        finally:
            self.remove(waiter)
        if news and isinstance(news[0], TokenpoolError):
            raise news[0]
        return news[0] if news and isinstance(news[0], Heard) else Heard(frozenset(), since)

    # --- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        marker, listened, idle = "", frozenset[str](), time.monotonic()
        while True:
            waiters = self._present()
            if waiters:
                idle = time.monotonic()
            elif not self._stay(idle):
                return
            ids = frozenset(name for waiter in waiters for name in waiter.ids) or listened
            try:
                if ids != listened or not marker:
                    # In this order: what changes after the marker was taken is heard, what did before is seen.
                    marker, listened = self._backend.listen(ids).marker, ids
                    self._check(waiters)
                heard = self._backend.listen(ids, marker, self._patience)
                marker = heard.marker
                if heard.changed or self._present() != waiters:
                    self._check(self._present())
            except TokenpoolError as error:
                marker = ""
                self._fail(error)

    def _present(self) -> frozenset[Waiter]:
        with self._lock:
            return frozenset(self._waiters)

    def _stay(self, idle: float) -> bool:
        with self._lock:
            if self._waiters or time.monotonic() - idle < LINGER:
                return True
            self._thread = None
            return False

    def _check(self, waiters: Collection[Waiter]) -> None:
        """Compare what everybody knows with what is there, and tell those for whom something changed."""
        revs = self.revisions({name for waiter in waiters for name in waiter.ids})
        for waiter in waiters:
            heard = _heard(waiter.ids, waiter.known, revs)
            if heard.changed:
                self.remove(waiter)
                waiter.tell(heard)

    def _fail(self, error: TokenpoolError) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.tell(error)


def _heard(ids: tuple[str, ...], known: Mapping[str, str], revs: Mapping[str, str]) -> Heard:
    changed = frozenset(name for name in ids if revs[name] != known.get(name, ""))
    return Heard(changed, json.dumps({name: revs[name] for name in sorted(ids)}, separators=(",", ":")))


def revisions_in(marker: str) -> dict[str, str]:
    """Return the revisions in a marker; one of another server counts as knowing nothing."""
    try:
        told = json.loads(marker)
    except ValueError:
        return {}
    return {str(name): str(rev) for name, rev in told.items()} if isinstance(told, dict) else {}


def ear_of(state: State, backend: Backend) -> Ear:
    """Return the one ear of an application; called in its event loop only."""
    ear: Ear | None = getattr(state, "ear", None)
    if ear is None:
        ear = state.ear = Ear(backend)
    return ear

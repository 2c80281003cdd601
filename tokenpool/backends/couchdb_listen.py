"""Waits for changes of some documents of a CouchDB pool: holds a question while the pool is quiet, else looks at times.

After every write CouchDB looks anew for every question that it holds: a hundred of them take from a busy pool most of
what its server can do. So a question is held only while little is written.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .. import chance
from ..errors import AnswerLost
from .base import Heard
from .longpoll import LongPolls, Restless
from .transport import Answer

if TYPE_CHECKING:
    from .couchdb import CouchDBBackend

#: Milliseconds between two signs of life that the server is asked for.
HEARTBEAT = 25000
#: Writes a second into the whole pool up to which a question is held: one costs the server 0.5 ms for each, a look 2.5 ms.
QUIET = 2.0
#: Seconds until the first look at a busy pool, and between two looks in the end; doubled from one to the other.
FIRST_LOOK, LAST_LOOK = 0.5, 8.0
#: Seconds for which a pool that was busy counts as such.
REMEMBERED = 30.0
#: Seconds between two questions to a server that answers although nothing happened; doubled up to the limit.
PAUSE, PAUSE_LIMIT = 0.05, 0.5


class Listener:
    """The ear of one pool; safe from many threads, which share what they know of its pace."""

    def __init__(self, backend: CouchDBBackend, clock: Callable[[], float] = time.monotonic) -> None:
        self._backend, self._clock = backend, clock
        self._polls = LongPolls(backend.transport, QUIET)
        #: Writes a second, and when that was measured.
        self._pace, self._measured = 0.0, -math.inf

    def close(self) -> None:
        """End every wait."""
        self._polls.close()

    def listen(self, ids: Collection[str], since: str, timeout: float) -> Heard:
        """Wait until one of the documents changes; see `Queue.listen`."""
        if not since:
            return Heard(frozenset(), self._changes(self._request("GET", "since=now&limit=0"))[1])
        ends, asked = self._clock() + timeout, math.nan
        wanted, body = frozenset(ids), json.dumps({"doc_ids": list(ids)}).encode()
        look, pause = FIRST_LOOK, PAUSE
        while True:
            left = max(0.0, ends - self._clock())
            query = f"filter=_doc_ids&since={quote(since, safe='')}"
            held = left > 0 and not self._is_busy()
            if held:
                try:
                    path = f"{self._backend.path}/_changes?{query}&feed=longpoll&heartbeat={HEARTBEAT}"
                    answer = self._polls.ask(path, body, left)
                except Restless as restless:
                    self._pace, self._measured = restless.pace, self._clock()
                    continue
                if answer is None:
                    return Heard(frozenset(), since)
            else:
                self._polls.pause(min(left, look * chance.uniform(0.75, 1.25)))
                look = min(2 * look, LAST_LOOK)
                answer = self._request("POST", query, body)
            changed, marker = self._changes(answer)
            self._measure(since, marker, asked)
            since, asked = marker, self._clock()
            if changed & wanted or (not held and asked >= ends):
                return Heard(changed & wanted, since)
            if held:
                # A server that knows no filter, or answers for nothing, is not asked again and again at once.
                self._polls.pause(min(pause, max(0.0, ends - asked)))
                pause = min(2 * pause, PAUSE_LIMIT)

    def _request(self, method: str, query: str, body: bytes | None = None) -> Answer:
        headers = {"Content-Type": "application/json"}
        return self._backend.transport.request(
            method, f"{self._backend.path}/_changes?{query}", body, headers, reads=True
        )

    def _changes(self, answer: Answer) -> tuple[frozenset[str], str]:
        """Return the ids that changed, and the marker of now."""
        told = self._backend.expect(answer, f"database {self._backend.database!r}").json()
        try:
            last = told["last_seq"]
            changed = frozenset(str(row["id"]) for row in told["results"])
        except (KeyError, TypeError):
            raise AnswerLost(f"{self._backend.url} answered something else to _changes", "it is asked again") from None
        return changed, last if isinstance(last, str) else json.dumps(last)

    # --- how busy the pool is ----------------------------------------------------------------------------------------

    def _is_busy(self) -> bool:
        return self._pace > QUIET and self._clock() - self._measured < REMEMBERED

    def _measure(self, before: str, after: str, asked: float) -> None:
        """Learn the pace from two markers; `asked` is when the first one was true, NaN if nobody knows."""
        now = self._clock()
        writes = _count(after) - _count(before)
        if now > asked and writes >= 0:
            self._pace, self._measured = writes / (now - asked), now


def _count(marker: Any) -> float:
    """Return how many writes there were until a marker: CouchDB and PouchDB put that first. NaN for another server."""
    number = re.match(r"\d+", marker)
    return float(number.group()) if number else math.nan

"""Follows the logs of a token while it runs: asks its worker for their ends, and gives every byte once."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import chance, transitions
from .backends.base import Backend, Json
from .errors import NotFound, ServerAway
from .steering import steer_many

#: Seconds between two requests to the worker to go on; it does for 30 s.
ASK = 10.0
#: Seconds between two looks at least, and at most.
LEAST, MOST = 0.5, 60.0
#: What stands in a log in place of its middle.
_LEFT_OUT = re.compile(rb"\n\n\[tokenpool: (\d+) of \d+ bytes left out here\]\n\n")
#: Bytes of a log up to which it is read at once when its attempt is over.
LARGE = 8 << 20
STREAMS = {"out": "stdout", "err": "stderr"}


@dataclass(frozen=True)
class Piece:
    """Something new: bytes of ``out`` or ``err``, or a ``note`` of ours that is no part of the log."""

    stream: str
    data: bytes


@dataclass
class _Shown:
    """What was given of one attempt: its claim, and the bytes of each stream."""

    claim: str = ""
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))


class Follower:
    """Gives the logs of one token until it is finished; a token that waits, or is put back, is waited for.

    One that is not to give `whole` logs leaves out the rest of a large one whose attempt is over.
    """

    def __init__(
        self,
        backend: Backend,
        token_id: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        whole: bool = True,
    ) -> None:
        self._whole = whole
        self._backend, self._id, self._clock, self._sleep = backend, token_id, clock, sleep
        self._shown = _Shown()
        self._asked = (-ASK, "", -1)  # when, whom, and how often that one had renewed
        self._noted = ""
        self._ids = [token_id]
        self._marker = ""
        self._over = False

    def pieces(self) -> Iterator[Piece]:
        """Yield what is new until the token is finished; a server that is away meanwhile is waited for.

        Raises NotFound where there is no token of this id.
        """
        self._backend.get(self._id)
        while not self._over:
            try:
                yield from self._round()
            except ServerAway:
                yield from self._note("the pool is away, trying again")
                self._marker = ""
                self._sleep(chance.uniform(1.0, 5.0))

    def _round(self) -> Iterator[Piece]:
        """Look once, then wait until there may be something new."""
        looked = self._clock()
        self._marker = self._marker or self._backend.listen(self._ids, "").marker
        doc = self._backend.get_many([self._id])[0]
        if doc is None:
            yield from self._note("the token was deleted")
            self._over = True
            return
        state, worker = transitions.state_of(doc), transitions.holder_of(doc)
        yield from self._look(doc, state, worker)
        if state in (transitions.DONE, transitions.ERROR, transitions.INVALID):
            self._over = True
            return
        wanted = [self._id, *([worker] if worker else [])]
        if wanted != self._ids:
            self._ids, self._marker = wanted, ""  # what happens before it listens to both would go unheard
            return
        wait = self._asked[0] + ASK - looked if worker else MOST
        self._marker = self._backend.listen(self._ids, self._marker, max(LEAST, wait)).marker
        self._sleep(max(0.0, looked + LEAST - self._clock()))

    def _look(self, doc: Json, state: str, worker: str) -> Iterator[Piece]:
        """Yield what is new at this look."""
        claim = str(doc["lease"].get("claim") or "") if worker else ""
        before = self._shown.claim
        if before and claim != before:
            yield from self._rest(doc, before)
            self._shown = _Shown()
            if state not in transitions.FINAL:
                yield from self._note("that attempt is over")
        if state in transitions.FINAL and not (before and _last(doc).get("claim") == before):
            yield from self._rest(doc, "")
        if worker:
            self._shown.claim = claim
            yield from self._live(doc, worker)
        elif state == transitions.LOCKED:
            yield from self._note("no worker of ours runs it: its logs come when it is finished")
        elif state not in (*transitions.FINAL, transitions.INVALID):
            yield from self._note(f"it waits ({state})")

    def _note(self, text: str) -> Iterator[Piece]:
        """Yield a note, once until there is another one."""
        if text != self._noted:
            self._noted = text
            yield Piece("note", text.encode())

    # --- while it runs -----------------------------------------------------------------------------------------------

    def _live(self, doc: Json, worker: str) -> Iterator[Piece]:
        told = self._backend.get_many([worker])[0]
        if told is None:
            return
        self._ask(worker, told)
        running = told.get("running")
        entries = [entry for entry in running if isinstance(entry, dict)] if isinstance(running, list) else []
        entry = next((entry for entry in entries if entry.get("claim") == self._shown.claim), None)
        if entry is None:
            return  # claimed since the worker last renewed
        if entry.get("phase") == "wait":
            yield from self._note("it waits for its slot")
            return
        host = doc.get("hostname")
        yield from self._note(f"attempt {len(transitions.attempts_of(doc)) + 1} on {host}")
        for stream in STREAMS:
            yield from self._new(stream, entry.get(stream))

    def _ask(self, worker: str, told: Mapping[str, Any]) -> None:
        """Ask the worker to write the ends of the logs; one that has not renewed since is not to look alive by it."""
        now, renewals = self._clock(), told.get("renewals")
        count = renewals if isinstance(renewals, int) else 0
        if worker == self._asked[1] and (now - self._asked[0] < ASK or count == self._asked[2]):
            return
        self._asked = (now, worker, count)
        steer_many(self._backend, [worker], follow=self._id)

    def _new(self, stream: str, told: Any) -> Iterator[Piece]:
        """Yield what an end of a log has that was not given yet."""
        if not isinstance(told, dict) or not isinstance(told.get("size"), int):
            return
        size, tail = told["size"], tail_of(told)
        yield from self._from(stream, max(0, size - len(tail)), tail)

    def _from(self, stream: str, start: int, data: bytes) -> Iterator[Piece]:
        """Yield the part of `data`, which stands at `start` in the log, that was not given yet; tell of a gap."""
        shown = self._shown.bytes[stream]
        if start + len(data) <= shown:
            return
        if start > shown:
            yield Piece("note", f"{start - shown} bytes of {STREAMS[stream]} not shown".encode())
        yield Piece(stream, data[max(0, shown - start) :])
        self._shown.bytes[stream] = start + len(data)

    # --- when it is over -----------------------------------------------------------------------------------------------

    def _rest(self, doc: Json, claim: str) -> Iterator[Piece]:
        """Yield what the attachments of an attempt, by default of the last one, have more than was given."""
        attempt = _last(doc)
        if claim:
            attempt = next((entry for entry in transitions.attempts_of(doc) if entry.get("claim") == claim), {})
        there = doc.get("_attachments") or {}
        for stream, kind in STREAMS.items():
            names = [attempt.get(kind), *([] if claim else [f"logs_{self._id}.{stream}"])]
            name = next((name for name in names if isinstance(name, str) and name in there), None)
            if name is None:
                continue
            try:
                yield from self._attached(stream, name, there[name].get("length"))
            except NotFound:  # a reset took it away meanwhile
                continue

    def _attached(self, stream: str, name: str, size: Any) -> Iterator[Piece]:
        """Yield what a log that is an attachment has more than was given; a large one is never whole in memory."""
        if not isinstance(size, int) or size <= LARGE:
            for start, part in parts_of(b"".join(self._backend.get_attachment(self._id, name))):
                yield from self._from(stream, start, part)
        elif self._whole:
            at = 0
            for part in self._backend.get_attachment(self._id, name):
                yield from self._from(stream, at, part)
                at += len(part)
        else:
            yield from self._note(f"{STREAMS[stream]} has {size} bytes; they are in {name}")


def _last(doc: Json) -> Json:
    attempts = transitions.attempts_of(doc)
    return attempts[-1] if attempts else {}


def tail_of(told: Mapping[str, Any]) -> bytes:
    """Return the end of a log as a worker document holds it: text, or base64 where it is no UTF-8."""
    tail = told.get("tail")
    if not isinstance(tail, str):
        return b""
    return base64.b64decode(tail) if told.get("base64") else tail.encode("utf-8", "surrogatepass")


def parts_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return the parts of a log with their places in it: one that is too long for the pool lacks its middle.

    >>> parts_of(b"whole")
    [(0, b'whole')]
    >>> parts_of(b"head\\n\\n[tokenpool: 90 of 98 bytes left out here]\\n\\ntail")
    [(0, b'head'), (94, b'tail')]
    """
    found = _LEFT_OUT.search(data)
    if found is None:
        return [(0, data)]
    return [(0, data[: found.start()]), (found.start() + int(found.group(1)), data[found.end() :])]

"""Event streams: the pool as it changes, and a token's logs while they are written."""

from __future__ import annotations

import asyncio
import base64
import codecs
import contextlib
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Depends
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ...backends.base import Backend, Heard, Json
from ...errors import NotFound, ServerAway, TokenpoolError
from ...follow import Follower, Piece
from ..access import Person, Role, require
from ..hub import Snapshot
from ..site import site_of
from .answers import in_thread
from .ear import Ear, ear_of
from .steer import worker_json
from .tokens import token_of

router = APIRouter(tags=["events"])

_LOOKS = Depends(require(Role.VIEWER))
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
#: Seconds between two signs of life.
HEARTBEAT = 15.0
#: Logs that are followed at once, each by a thread; pieces that wait for a slow reader.
FOLLOWERS, WAITING = 200, 64


def event(name: str, data: Any) -> bytes:
    """Return one event as it is sent.

    >>> event("out", {"text": "hi"})
    b'event: out\\ndata: {"text":"hi"}\\n\\n'
    """
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


# --- the pool ----------------------------------------------------------------------------------------------------------


@router.get("/events")
async def events(request: Request, person: Person = _LOOKS) -> Response:
    """Stream the pool as it changes: counts, batches, workers, rates, as `snapshot` events."""
    return StreamingResponse(_snapshots(request), headers=HEADERS, media_type="text/event-stream")


async def _snapshots(request: Request) -> AsyncIterator[bytes]:
    changes = site_of(request).hub.changes()
    try:
        async for snapshot in changes:
            yield _spelled(request.app.state, snapshot)
    finally:
        await changes.aclose()


def _spelled(state: State, snapshot: Snapshot) -> bytes:
    """Return a snapshot as an event; it is spelled once for all who watch."""
    last: tuple[Snapshot | None, bytes] = getattr(state, "spelled", (None, b""))
    if last[0] is not snapshot:
        last = state.spelled = snapshot, event("snapshot", snapshot_json(snapshot))
    return last[1]


def snapshot_json(seen: Snapshot) -> Json:
    """Return what was seen at one look."""
    return {
        "schema": 1,
        "when": seen.when,
        "away": seen.away,
        "states": dict(seen.counts),
        "batches": {name: dict(counts) for name, counts in seen.batches.items()},
        "rate_per_minute": round(seen.rate, 3),
        "failing_per_minute": round(seen.failing, 3),
        "seconds_left": seen.eta,
        "workers": [worker_json(worker) for worker in seen.workers],
    }


# --- logs --------------------------------------------------------------------------------------------------------------


@router.get("/tokens/{token_id:path}/follow")
async def follow(request: Request, token_id: str, person: Person = _LOOKS) -> Response:
    """Stream a token's logs while they are written: events `out`, `err`, `note`; `end` when it is finished.

    `text` is what was written, `base64` what is no text. Who comes back gets all of it again, behind a `begin`.
    """
    site = site_of(request)
    await in_thread(request, token_of, site.pool, token_id)
    state = request.app.state
    count = state.followers = getattr(state, "followers", 0)
    if count >= FOLLOWERS:
        raise ServerAway(f"{count} logs are followed already", "try again later")
    ear = ear_of(state, site.pool.backend)
    return StreamingResponse(
        _followed(request, site.pool.backend, ear, token_id), headers=HEADERS, media_type="text/event-stream"
    )


async def _followed(request: Request, backend: Backend, ear: Ear, token_id: str) -> AsyncIterator[bytes]:
    loop, state = asyncio.get_running_loop(), request.app.state
    ready = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the server is ending
            loop.call_soon_threadsafe(ready.set)

    pipe = Pipe(backend, ear, token_id, wake)
    state.followers += 1
    yield event("begin", {"token": token_id})
    try:
        threading.Thread(target=pipe.run, name="tokenpool-follow", daemon=True).start()
        texts = {"out": _Text(), "err": _Text()}
        while True:
            for piece in pipe.taken():
                if piece is None:
                    yield event("end", {"token": token_id})
                    return
                yield _piece(piece, texts)
            try:
                await asyncio.wait_for(ready.wait(), HEARTBEAT)
            except asyncio.TimeoutError:
                yield b": still there\n\n"
            ready.clear()
    finally:
        state.followers -= 1
        pipe.gone.set()


class _Text:
    """Makes text of bytes that are cut anywhere."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def data(self, piece: bytes) -> Json:
        """Return a piece as text; as base64 from where it is none."""
        try:
            return {"text": self._decode(piece)}
        except UnicodeDecodeError:
            self._decode = codecs.getincrementaldecoder("utf-8")().decode
            return {"text": piece.decode("utf-8", "replace"), "base64": base64.b64encode(piece).decode("ascii")}


def _piece(piece: Piece, texts: dict[str, _Text]) -> bytes:
    text = texts.get(piece.stream)
    return event(piece.stream, text.data(piece.data) if text else {"text": piece.data.decode("utf-8", "replace")})


@dataclass
class Pipe:
    """A thread that follows one log, for a reader who may be slow, or leave."""

    backend: Backend
    ear: Ear
    token_id: str
    wake: Callable[[], None]
    gone: threading.Event = field(default_factory=threading.Event)
    _pieces: queue.Queue[Piece | None] = field(default_factory=lambda: queue.Queue(WAITING))

    def run(self) -> None:
        """Follow until the token is finished or the reader has left."""
        heard: Any = Shared(self.backend, self.ear, self.gone)
        follower = Follower(heard, self.token_id, sleep=lambda seconds: _nap(self.gone, seconds))
        try:
            for piece in follower.pieces():
                self._put(piece)
                if self.gone.is_set():
                    return
            self._put(None)
        except _Gone:
            return
        except NotFound:
            self._put(None)
        except TokenpoolError as error:
            self._put(Piece("note", error.message.encode()))
            self._put(None)

    def _put(self, piece: Piece | None) -> None:
        while not self.gone.is_set():
            try:
                self._pieces.put(piece, timeout=1.0)
            except queue.Full:
                continue
            self.wake()
            return

    def taken(self) -> list[Piece | None]:
        """Return what has come: at most what may wait, or a log that is read fast would be whole in memory."""
        found: list[Piece | None] = []
        with contextlib.suppress(queue.Empty):
            for _ in range(WAITING):
                found.append(self._pieces.get_nowait())
        return found


class _Gone(Exception):
    """The reader has left."""


def _nap(gone: threading.Event, seconds: float) -> None:
    if gone.wait(seconds):
        raise _Gone


class Shared:
    """A backend whose changes are heard by the one ear of the server, until somebody has gone."""

    def __init__(self, backend: Backend, ear: Ear, gone: threading.Event) -> None:
        self._backend, self._ear, self._gone = backend, ear, gone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def listen(self, ids: Collection[str], since: str = "", timeout: float = 60.0) -> Heard:
        """Wait as the backend does; raises where the reader has left."""
        heard = self._ear.wait(ids, since, timeout, self._gone)
        if self._gone.is_set():
            raise _Gone
        return heard

"""Event streams for pages: each change of the pool is drawn once, and sent to all who look at the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

from .hub import Hub, Snapshot

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
#: Seconds after which a stream ends, and its reader asks again: who may not look any more, or whose login is over, is
#: refused then.
LIFE = 900.0
#: Drawings that are kept.
KEPT = 16


def event(text: str) -> bytes:
    """Return a message of an event stream whose data is this text."""
    return b"".join(b"data: " + line.encode() + b"\n" for line in text.splitlines() or [""]) + b"\n"


class Drawings:
    """What was drawn of a snapshot last, by what it shows and for whom: many readers, one drawing."""

    def __init__(self) -> None:
        self._drawn: dict[Any, tuple[Snapshot, asyncio.Task[bytes]]] = {}

    async def of(self, key: Any, snapshot: Snapshot, draw: Callable[[Snapshot], str]) -> bytes:
        """Return the event for a snapshot, drawn in a thread if nobody had it drawn before."""
        before = self._drawn.get(key)
        if before is None or before[0] is not snapshot:
            # A task of its own: it goes on for the others where the reader that began it leaves.
            task = asyncio.ensure_future(run_in_threadpool(lambda: event(draw(snapshot))))
            before = self._drawn[key] = (snapshot, task)
            while len(self._drawn) > KEPT:
                self._drawn.pop(next(iter(self._drawn)))
        return await asyncio.shield(before[1])


def drawings_of(request: Request) -> Drawings:
    """Return the drawings that this server shares among its readers."""
    state = request.app.state
    found: Drawings | None = getattr(state, "drawings", None)
    if found is None:
        found = state.drawings = Drawings()
    return found


def stream(request: Request, hub: Hub, key: Any, draw: Callable[[Snapshot], str]) -> StreamingResponse:
    """Return an answer that sends what `draw` makes of every change, until its reader leaves."""
    drawings = drawings_of(request)

    async def events() -> AsyncIterator[bytes]:
        yield b": here\n\n"
        began, changes = time.monotonic(), hub.changes()
        try:
            async for snapshot in changes:
                yield await drawings.of(key, snapshot, draw)
                if time.monotonic() - began > LIFE:
                    return
        finally:
            await changes.aclose()

    return StreamingResponse(events(), media_type="text/event-stream", headers=HEADERS)

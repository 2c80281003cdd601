"""Runs the coroutines of fsspec in fsspec's own thread, and gives up where nothing moves any more."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .base import Stalled

T = TypeVar("T")


class Watched:
    """Waits for coroutines as long as bytes move; `tell` hears of them in the thread that waits."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stall: float, tell: Callable[[int], None] | None = None
    ) -> None:
        self._loop, self._stall, self._tell = loop, stall, tell
        self._moved = time.monotonic()
        self._sent: deque[int] = deque()

    def moves(self) -> None:
        """Say that something moved."""
        self._moved = time.monotonic()

    def went(self, count: int) -> None:
        """Say how many bytes are there for good."""
        self.moves()
        self._sent.append(count)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns. Raises Stalled where nothing moved for too long; it is cancelled then."""
        self.moves()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while not future.done():
                concurrent.futures.wait([future], timeout=min(0.2, self._stall / 4))
                self._pass_on()
                if not future.done() and time.monotonic() - self._moved > self._stall:
                    raise Stalled(f"nothing moved for {self._stall:.0f} s", "try again later; look at the server")
            self._pass_on()
            return future.result()
        finally:
            future.cancel()

    def _pass_on(self) -> None:
        while self._sent:
            sent = self._sent.popleft()
            if self._tell is not None:
                self._tell(sent)


class Body(io.BytesIO):
    """Bytes that are sent; each time some of them are taken, something moved."""

    def __init__(self, data: bytes, watched: Watched) -> None:
        super().__init__(data)
        self._watched = watched

    def read(self, size: int | None = -1, /) -> bytes:
        """Hand out bytes."""
        self._watched.moves()
        return super().read(size)


async def whole(read: Callable[[int], Coroutine[Any, Any, bytes]], size: int) -> bytes:
    """Read until there are that many bytes, or no more."""
    pieces: list[bytes] = []
    while size > 0 and (piece := await read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)

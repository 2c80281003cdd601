"""Sends what comes piece by piece from something that blocks, without a thread of its own in between."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

from starlette.requests import Request

from .answers import in_thread

#: Pieces are put together until they are so large: each piece that is sent costs a change of threads.
PIECE = 1 << 16


def opened(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Return the same pieces, the first of which has come: an error is raised before anything is sent."""
    first = next(pieces, None)
    return iter(()) if first is None else itertools.chain([first], _closing(pieces))


def _closing(pieces: Iterator[bytes]) -> Iterator[bytes]:
    with contextlib.ExitStack() as stack:
        close = getattr(pieces, "close", None)
        if close is not None:
            stack.callback(close)
        yield from pieces


async def in_pieces(request: Request, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the same bytes in large pieces; what blocks runs in threads."""
    try:
        while piece := await in_thread(request, _gather, pieces):
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _gather(pieces: Iterator[bytes]) -> bytes:
    found, size = [], 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size >= PIECE:
            break
    return b"".join(found)

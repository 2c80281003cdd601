"""The logs of a token: their end on the page, whole as a download, and live while it runs."""

from __future__ import annotations

import asyncio
import html
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response, StreamingResponse

from ...backends.base import Json
from ...errors import BadInput, NotFound, TokenpoolError
from ...follow import STREAMS, Follower, Piece
from ...pool import Pool
from ..access import Role, require
from ..api.files import send_file
from ..live import HEADERS, event
from ..site import site_of
from .asked import here

router = APIRouter()

#: Bytes of a log that a page shows, and the largest one that is read to find its end.
SHOWN, READ = 64 << 10, 32 << 20
#: Events: something about the token has changed; it is finished, and the page is to be made anew.
MOVED, OVER = b"event: moved\ndata: moved\n\n", b"event: over\ndata: over\n\n"
#: Readers of live logs at the same time; each costs a thread.
READERS = 100
#: Types that a browser may show itself; everything else is saved.
SAFE_TYPES = frozenset({"text/plain", "image/png", "image/jpeg", "image/gif", "image/webp"})


@dataclass(frozen=True)
class Log:
    """One log of an attempt: its attachment and size."""

    attempt: int
    stream: str
    name: str
    size: int
    last: bool


def logs_of(doc: Mapping[str, Any], attempts: list[Json]) -> list[Log]:
    """Return the logs that a token has, the last attempt's first."""
    there = doc.get("_attachments") or {}
    found: dict[str, Log] = {}
    for number, entry in reversed(list(enumerate(attempts, 1))):
        for stream, kind in STREAMS.items():
            name = entry.get(kind)
            if isinstance(name, str) and name in there and name not in found:
                found[name] = Log(number, stream, name, int(there[name].get("length") or 0), number == len(attempts))
    for stream in STREAMS:
        name = f"logs_{doc['_id']}.{stream}"
        if name in there and name not in found:
            found[name] = Log(0, stream, name, int(there[name].get("length") or 0), True)
    return list(found.values())


# --- their ends ------------------------------------------------------------------------------------------------------


@router.get("/tokens/{token_id:path}/tail", dependencies=[Depends(require(Role.VIEWER))])
def tail(request: Request, token_id: str, name: str) -> Response:
    """Return the end of a log as a part of a page."""
    here(request)
    pool = site_of(request).pool
    size = int(_stub(pool, token_id, name).get("length") or 0)
    text, left = _end(pool, token_id, name, size)
    note = f'<p class="small">{html.escape(left)}</p>' if left else ""
    body = html.escape(text) if text else '<span class="hint">(empty)</span>'
    return HTMLResponse(f'{note}<pre class="log" tabindex="0">{body}</pre>')


def _end(pool: Pool, token_id: str, name: str, size: int) -> tuple[str, str]:
    """Return the end of a log, and what is said of the rest; of a huge one the beginning where its end is far away."""
    if size > SHOWN and (there := pool.backend.attachment_from(token_id, name, size - SHOWN)) is not None:
        return readable(b"".join(there)), f"The last {SHOWN >> 10} kB of {size:,} bytes; download it to see all."
    kept, length = b"", 0
    for piece in pool.backend.get_attachment(token_id, name):
        length += len(piece)
        kept += piece
        if size > READ and length >= SHOWN:
            return readable(kept[:SHOWN]), f"The first {SHOWN >> 10} kB of {size:,} bytes; download it to see the rest."
        kept = kept[-SHOWN:]
    if length <= SHOWN:
        return readable(kept), ""
    return readable(kept), f"The last {SHOWN >> 10} kB of {length:,} bytes; download it to see all."


def readable(data: bytes) -> str:
    """Return bytes of a log as text; what is no text, or would not be seen, is shown as such."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    return "".join(each if each >= " " or each in "\n\t" else "\n" if each == "\r" else "\ufffd" for each in text)


def _stub(pool: Pool, token_id: str, name: str) -> Json:
    stub = (pool.backend.get(token_id).get("_attachments") or {}).get(name)
    if not isinstance(stub, dict):
        raise NotFound(f"token {token_id} has no attachment {name!r}", "a reset may have taken it away")
    return stub


@router.get("/tokens/{token_id:path}/files/{name:path}", dependencies=[Depends(require(Role.VIEWER))])
async def download(request: Request, token_id: str, name: str, view: str = "") -> Response:
    """Send an attachment, a part of it where one is asked for; a browser shows it only where it cannot run anything."""
    here(request)
    pool = site_of(request).pool
    stub = await run_in_threadpool(_stub, pool, token_id, name)
    kind = str(stub.get("content_type") or "").partition(";")[0].strip().lower()
    safe = kind if kind in SAFE_TYPES else "application/octet-stream"
    return await send_file(request, pool, token_id, name, stub, safe, inline=bool(view) and kind in SAFE_TYPES)


# --- while it runs ---------------------------------------------------------------------------------------------------


class _Gone(Exception):
    """The reader has left."""


class _Reading:
    """One reader of a live log: a thread that follows it, and what it found so far."""

    def __init__(self, pool: Pool, token_id: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._found: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._left = threading.Event()
        self._room = threading.Semaphore(256)
        self._follower = Follower(pool.backend, token_id, sleep=self._sleep, whole=False)
        threading.Thread(target=self._run, name="tokenpool-log", daemon=True).start()

    def _sleep(self, seconds: float) -> None:
        if self._left.wait(max(0.0, seconds)):
            raise _Gone

    def _put(self, piece: Piece | None) -> None:
        while not self._room.acquire(timeout=1):  # a reader that is slow makes it wait
            if self._left.is_set():
                raise _Gone
        self._loop.call_soon_threadsafe(self._found.put_nowait, piece)

    def _run(self) -> None:
        try:
            for piece in self._follower.pieces():
                self._put(piece)
        except (_Gone, RuntimeError):
            return
        except TokenpoolError as error:
            self._last(Piece("note", str(error).encode()))
        self._last(None)

    def _last(self, piece: Piece | None) -> None:
        try:
            self._put(piece)
        except (_Gone, RuntimeError):
            pass

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield what is found until the token is finished."""
        try:
            while (piece := await self._found.get()) is not None:
                self._room.release()
                yield piece
        finally:
            self._left.set()


@router.get("/tokens/{token_id:path}/live", dependencies=[Depends(require(Role.VIEWER))])
async def live(request: Request, token_id: str) -> Response:
    """Send what is new in the logs of a token, and its page's top again where it changed."""
    state = request.app.state
    if getattr(state, "log_readers", 0) >= READERS:
        raise BadInput(f"{READERS} live logs are open already", "close some, or look at the log when the token is done")
    pool = site_of(request).pool
    await run_in_threadpool(pool.backend.get, token_id)  # NotFound while it can still be answered

    async def events() -> AsyncIterator[bytes]:
        state.log_readers = getattr(state, "log_readers", 0) + 1
        reading = _Reading(pool, token_id)
        pieces = reading.pieces()
        try:
            # A reader who was cut off comes back, and is given all of it again.
            yield event(_partial("#log-out", "textContent", "") + _partial("#log-err", "textContent", ""))
            async for piece in pieces:
                yield event("".join(_fragments(piece)))
                if piece.stream == "note":
                    yield MOVED
            yield OVER
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
            state.log_readers -= 1

    return StreamingResponse(events(), media_type="text/event-stream", headers=HEADERS)


def _fragments(piece: Piece) -> Iterator[str]:
    if piece.stream == "note":
        yield _partial("#note", "textContent", piece.data.decode("utf-8", "replace"))
        return
    for at in range(0, len(piece.data), SHOWN):
        yield _partial(f"#log-{piece.stream}", "beforeend", readable(piece.data[at : at + SHOWN]))


def _partial(target: str, swap: str, text: str) -> str:
    # Line ends are written as references: an event stream splits its data at them, and joins them with others.
    safe = html.escape(text).replace("\n", "&#10;")
    return f'<hx-partial hx-target="{target}" hx-swap="{swap}">{safe}</hx-partial>'

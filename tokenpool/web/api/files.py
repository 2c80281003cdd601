"""Logs and attachments of tokens, streamed, a part of them where one is asked for; a log may hold anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ...backends.base import Json
from ...errors import NotFound
from ...follow import STREAMS
from ...pool import Pool
from ...transitions import LOCKED, attempts_of, state_of
from ..access import Person, Role, require
from ..site import site_of
from .answers import in_thread
from .streams import in_pieces
from .tokens import token_of

router = APIRouter(tags=["logs and files"])

_LOOKS = Depends(require(Role.VIEWER))
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
#: A browser shows these as they are; all others are only offered to be saved.
HARMLESS = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
#: Whatever a file holds, it runs nothing and loads nothing.
CLOSED = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}


@router.get("/tokens/{token_id:path}/logs/out")
async def out(request: Request, token_id: str, attempt: int = 0, person: Person = _LOOKS) -> Response:
    """Return what the last attempt, or attempt N, wrote to standard output; takes Range."""
    return await _log(request, token_id, "out", attempt)


@router.get("/tokens/{token_id:path}/logs/err")
async def err(request: Request, token_id: str, attempt: int = 0, person: Person = _LOOKS) -> Response:
    """Return what the last attempt, or attempt N, wrote to standard error; takes Range."""
    return await _log(request, token_id, "err", attempt)


async def _log(request: Request, token_id: str, stream: str, attempt: int) -> Response:
    pool = site_of(request).pool

    def find() -> tuple[str, Json]:
        doc = token_of(pool, token_id)
        name = log_name(doc, stream, attempt)
        return name, doc["_attachments"][name]

    name, stub = await in_thread(request, find)
    return await send_file(request, pool, token_id, name, stub, "text/plain; charset=utf-8", inline=True)


def log_name(doc: Json, stream: str, attempt: int = 0) -> str:
    """Return the attachment that has a log of a token; raises NotFound."""
    there = doc.get("_attachments") or {}
    attempts = attempts_of(doc)
    if attempt < 0 or attempt > len(attempts):
        raise NotFound(f"token {doc['_id']} has no attempt {attempt}: it had {len(attempts)}", "leave out ?attempt=")
    told = attempts[attempt - 1] if attempts else {}
    for name in (told.get(STREAMS[stream]), *([] if attempt else [f"logs_{doc['_id']}.{stream}"])):
        if isinstance(name, str) and name in there:
            return name
    runs = state_of(doc) == LOCKED
    hint = "it runs: see /follow" if runs else "it wrote nothing, or has not run"
    raise NotFound(f"token {doc['_id']} has no log {stream!r}", hint)


@router.get("/tokens/{token_id:path}/attachments/{name:path}")
async def attachment(request: Request, token_id: str, name: str, person: Person = _LOOKS) -> Response:
    """Return a file that is attached to a token, to be saved; takes Range."""
    pool = site_of(request).pool
    doc = await in_thread(request, token_of, pool, token_id)
    stub = (doc.get("_attachments") or {}).get(name)
    if not isinstance(stub, dict):
        raise NotFound(f"token {token_id} has no attachment {name!r}", "its _attachments tell what is there")
    kind = str(stub.get("content_type") or "")
    harmless = kind in HARMLESS
    kind = kind if harmless else "application/octet-stream"
    return await send_file(request, pool, token_id, name, stub, kind, harmless)


async def send_file(
    request: Request, pool: Pool, token_id: str, name: str, stub: Json, kind: str, inline: bool
) -> Response:
    """Return an attachment, or the part of it that is asked for, in pieces."""
    size = int(stub.get("length") or 0)
    disposition = "inline" if inline else "attachment"
    filename = quote(name.rpartition("/")[2] or "file", safe="")
    tag = f'"{quote(str(stub.get("digest") or ""), safe="=/+-")}"'
    headers = {
        **CLOSED,
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{filename}",
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Cache-Control": "private, no-cache",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range", "") if request.headers.get("if-range", tag) == tag else ""
    part = range_of(wanted, size)
    if part is None:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    first, last = part
    status = 206 if wanted and _RANGE.fullmatch(wanted) else 200
    if status == 206:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    pieces = await in_thread(request, _part, pool, token_id, name, first, last)
    return StreamingResponse(in_pieces(request, pieces), status, headers, kind)


def _part(pool: Pool, token_id: str, name: str, first: int, last: int) -> Iterator[bytes]:
    """Return the bytes from one place to another; what is before them is read only where the pool cannot leave it out."""
    pieces = pool.backend.attachment_from(token_id, name, first) if first else None
    if pieces is not None:
        return cut(pieces, 0, last - first)
    return cut(pool.backend.get_attachment(token_id, name), first, last)


def range_of(text: str, size: int) -> tuple[int, int] | None:
    """Return the first and last byte that a Range asks for, None where there is no such part.

    >>> range_of("bytes=2-3", 10), range_of("bytes=-3", 10), range_of("bytes=4-", 10), range_of("", 10)
    ((2, 3), (7, 9), (4, 9), (0, 9))
    >>> range_of("bytes=10-", 10) is None
    True
    """
    found = _RANGE.fullmatch(text)
    if found is None or found.groups() == ("", ""):
        return 0, size - 1
    begin, end = found.groups()
    if not begin:
        return (max(0, size - int(end)), size - 1) if int(end) and size else None
    first, last = int(begin), min(int(end), size - 1) if end else size - 1
    return (first, last) if first <= last else None


def cut(pieces: Iterator[bytes], first: int, last: int) -> Iterator[bytes]:
    """Yield the bytes from the place `first` to the place `last`.

    >>> b"".join(cut(iter([b"abc", b"def", b"ghi"]), 2, 6))
    b'cdefg'
    """
    at = 0
    try:
        for piece in pieces:
            if at > last:
                return
            if at + len(piece) > first:
                yield piece[max(0, first - at) : last + 1 - at]
            at += len(piece)
    finally:
        close: Any = getattr(pieces, "close", None)
        if close is not None:
            close()

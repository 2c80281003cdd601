"""Keeps attachments beside the documents of a pool's file: in pieces, so that none is ever whole in memory."""

from __future__ import annotations

import base64
import hashlib
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import BadInput, Conflict
from .sqlite_rows import generation

if TYPE_CHECKING:
    from .sqlite_views import Run

#: Bytes of an attachment in one row, and in one piece that is handed out.
PIECE = 65536

#: How a document's attachments are remembered: as CouchDB shows them, and with the number of the blob.
Stubs = dict[str, dict[str, Any]]


def make_stub(content_type: str, base: str | None, length: int, digest: str = "") -> dict[str, Any]:
    """Describe an attachment as CouchDB does, with the number under which its bytes are kept."""
    return {
        "content_type": content_type,
        "revpos": generation(base),
        "digest": digest,
        "length": length,
        "stub": True,
        # Drawn, not counted: a number that comes again after a deletion would show a reader foreign bytes.
        "blob": secrets.randbits(62),
    }


def merge(old: Stubs, kept: Collection[str], new: Mapping[str, tuple[str, bytes]], base: str | None) -> Stubs:
    """Return what is attached after a write: kept ones stay, new ones get a number, the rest is dropped."""
    stubs = {name: old[name] for name in kept}
    for name, (kind, data) in new.items():
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        stubs[name] = make_stub(kind, base, len(data), _spelled(digest))
    return stubs


def blobs(stubs: Stubs) -> set[int]:
    """Return the numbers of the blobs that these attachments use."""
    return {stub["blob"] for stub in stubs.values()}


def store(connection: sqlite3.Connection, blob: int, data: BinaryIO, size: int) -> str:
    """Write exactly `size` bytes as a new blob inside an open transaction; return their digest."""
    digest = hashlib.md5(usedforsecurity=False)
    left = size
    for part in range((size + PIECE - 1) // PIECE):
        piece = _read_exactly(data, min(PIECE, left))
        left -= len(piece)
        digest.update(piece)
        connection.execute("INSERT INTO pieces (blob, part, data) VALUES (?, ?, ?)", (blob, part, piece))
    if left or data.read(1):
        raise BadInput(f"the attachment is not {size} bytes long", "it was written while it was read; try again")
    return _spelled(digest.digest())


def _read_exactly(data: BinaryIO, size: int) -> bytes:
    piece = data.read(size)
    while 0 < len(piece) < size:
        # A pipe gives what it has.
        more = data.read(size - len(piece))
        if not more:
            break
        piece += more
    return piece


def pieces(run: Run, blob: int, length: int, what: str, start: int = 0) -> Iterator[bytes]:
    """Yield a blob from `start` on in pieces, each by a statement of its own: a slow reader holds nothing in the file."""
    first, skip = divmod(start, PIECE)
    for part in range(first, (length + PIECE - 1) // PIECE):
        rows = run("SELECT data FROM pieces WHERE blob = ? AND part = ?", (blob, part))
        if not rows:
            raise Conflict(f"{what} was replaced while it was read", "read it again")
        yield rows[0][0][skip:] if part == first else rows[0][0]


def drop(connection: sqlite3.Connection, numbers: Collection[int]) -> None:
    """Remove blobs that no document names any more."""
    connection.executemany("DELETE FROM pieces WHERE blob = ?", [(number,) for number in numbers])


def _spelled(digest: bytes) -> str:
    return "md5-" + base64.b64encode(digest).decode()

"""Reads tokens out of a body as it comes: one JSON object, a JSON array, a line for each, or plain commands."""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from ...errors import BadInput

#: The longest description of one token, in characters or bytes.
LONGEST = 16 << 20
LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
PLAIN = "text/plain"
_SPACE = " \t\r\n"
_SPACE_BYTES = b" \t\r\n"


class Broken(Exception):
    """One token that cannot be read; the others can."""


class Reader(ABC):
    """Turns pieces of a body into what is to become tokens; what cannot be read comes as `Broken`."""

    #: The body is one JSON object: one token.
    single = False

    @abstractmethod
    def feed(self, piece: bytes) -> Iterator[Any]:
        """Yield what is complete by now."""

    @abstractmethod
    def finish(self) -> Iterator[Any]:
        """Yield the rest; raises BadInput where the body ended too early."""


class Lines(Reader):
    """A line for each token: JSON, or a command."""

    def __init__(self, plain: bool = False) -> None:
        self._plain, self._rest, self._size, self._number = plain, [b""], 0, 0

    def feed(self, piece: bytes) -> Iterator[Any]:
        first, *others = piece.split(b"\n")
        self._rest.append(first)
        self._size += len(first)
        if self._size > LONGEST:
            raise BadInput(f"line {self._number + 1} is longer than {LONGEST} bytes", "keep large data elsewhere")
        for other in others:
            line, self._rest, self._size = b"".join(self._rest), [other], len(other)
            yield from self._read(line)

    def finish(self) -> Iterator[Any]:
        line, self._rest = b"".join(self._rest), [b""]
        yield from self._read(line)

    def _read(self, line: bytes) -> Iterator[Any]:
        self._number += 1
        line = line.strip(_SPACE_BYTES)
        if not line:
            return
        try:
            yield line.decode() if self._plain else json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Broken(f"line {self._number} cannot be read: {error}")


class Array(Reader):
    """A JSON array of tokens, of which never more than one is kept."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._begun, self._over, self._next = "", False, False, 0
        self._number = 0

    def feed(self, piece: bytes) -> Iterator[Any]:
        try:
            self._text += self._decode(piece)
        except UnicodeDecodeError as error:
            raise BadInput(f"the body is not UTF-8: {error}", "send JSON") from None
        # A long one is only tried again when there is twice as much of it.
        if len(self._text) >= self._next:
            yield from self._read()

    def finish(self) -> Iterator[Any]:
        yield from self._read()
        if not self._over:
            raise BadInput(
                f"the array cannot be read behind its {self._number} first tokens: {self._text[:40]!r}",
                "send a whole JSON array, or a line for each token as application/x-ndjson",
            )

    def _read(self) -> Iterator[Any]:
        at, text = 0, self._text
        while True:
            at = _behind(text, at, _SPACE if not self._begun or not self._number else _SPACE + ",")
            if not self._begun and at < len(text):
                self._begun, at = True, at + 1
                continue
            if self._over or at >= len(text):
                break
            if text[at] == "]":
                self._over, at = True, at + 1
                continue
            try:
                value, end = self._scan(text, at)
            except (ValueError, RecursionError):
                break
            self._number += 1
            yield value
            at = end
        self._text = text[at:]
        if self._over and self._text.strip(_SPACE):
            raise BadInput("something follows the array", "send one JSON array")
        self._next = 2 * len(self._text) if len(self._text) > 1 << 16 else 0
        if len(self._text) > LONGEST:
            raise BadInput(f"token {self._number + 1} cannot be read, or is too long", "send a JSON array of objects")


def _behind(text: str, at: int, skipped: str) -> int:
    while at < len(text) and text[at] in skipped:
        at += 1
    return at


class One(Reader):
    """A JSON object; several of them, one a line, are taken too."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._lines: Lines | None = None

    def feed(self, piece: bytes) -> Iterator[Any]:
        if self._lines is not None:
            yield from self._lines.feed(piece)
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > LONGEST:
            self._lines = Lines()
            body, self._pieces = b"".join(self._pieces), []
            yield from self._lines.feed(body)

    def finish(self) -> Iterator[Any]:
        if self._lines is not None:
            yield from self._lines.finish()
            return
        body = b"".join(self._pieces)
        try:
            value = json.loads(body)
            self.single = True
        except (ValueError, RecursionError) as error:
            if not str(error).startswith("Extra data"):
                raise BadInput(f"the body is not JSON: {error}", 'send for example {"input": "echo hi"}') from None
            lines = Lines()
            yield from lines.feed(body)
            yield from lines.finish()
            return
        yield value


def reader_of(content_type: str, beginning: bytes) -> Reader:
    """Return what reads a body of this type that begins so."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in LINES:
        return Lines()
    if kind == PLAIN:
        return Lines(plain=True)
    return Array() if beginning.lstrip(_SPACE_BYTES).startswith(b"[") else One()

"""Takes new tokens: one, a list, or a stream of any length; each is answered for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ...backends.base import Json
from ...backends.couchdb import encode
from ...edits import CORE
from ...errors import BadInput, Conflict, TokenpoolError
from ...pool import Pool
from ...pushes import CHUNK, Pushed, make_token
from ..access import Person, Role, require
from ..access.audit import audit
from ..access.people import LOCAL
from ..site import site_of
from .answers import answer, in_thread
from .intake import LINES, PLAIN, Broken, Reader, reader_of
from .streams import in_pieces
from .together import Together, together_of

router = APIRouter(tags=["tokens"])

_SUBMITS = Depends(require(Role.SUBMITTER))

#: Bytes that are gathered before they are read, and of answers that are kept in memory.
PIECE, IN_MEMORY = 1 << 18, 4 << 20
#: What comes with a token's past, and what is told of it, is not pushed.
REFUSED = (frozenset(CORE) - {"type", "paused"}) | {"state"}
#: Documents of the pool's own have such ids.
OWN = ("worker_", "batch_", "launch_")
_SCHEMA = {
    "oneOf": [{"type": "object"}, {"type": "array", "items": {"oneOf": [{"type": "object"}, {"type": "string"}]}}]
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _SCHEMA, "example": {"input": "echo hi", "batch": "night"}},
            LINES[0]: {"schema": {"type": "string"}, "example": '{"input": "echo 1"}\n{"input": "echo 2"}\n'},
            PLAIN: {"schema": {"type": "string"}, "example": "echo 1\necho 2\n"},
        },
    }
}


@router.post("/tokens", status_code=201, openapi_extra=_BODY)
async def push(request: Request, batch: str = "", dedupe: bool = False, person: Person = _SUBMITS) -> Response:
    """Push tokens: an object, an array, a line of JSON for each (application/x-ndjson), or commands (text/plain).

    One object is answered with its id. Of several each is answered for, in order: by `tokens` in one object, and where
    lines were sent, by lines; what is refused hinders none of the others. With `dedupe`, work that is there is `known`.
    """
    pool = site_of(request).pool
    together = together_of(request.app.state, pool)
    taker = Taker(pool, together, person, {"batch": batch} if batch else {}, dedupe)
    kind = request.headers.get("content-type", "")
    try:
        waiting, size = [], 0
        async for piece in request.stream():
            waiting.append(piece)
            size += len(piece)
            if size >= PIECE:
                await in_thread(request, taker.take, kind, b"".join(waiting))
                waiting, size = [], 0
        await in_thread(request, taker.finish, kind, b"".join(waiting))
    except BaseException as error:
        taker.answers.close()
        if taker.saved:
            audit(request, "push", "broke off", saved=taker.saved)
        if taker.saved and isinstance(error, TokenpoolError):
            raise type(error)(f"{error.message}; the first {taker.saved} tokens were saved", error.hint) from error
        raise
    if taker.reader is not None and taker.reader.single:
        return _one(request, taker)
    audit(request, "push", batch, saved=taker.saved, known=taker.known, refused=taker.refused)
    as_lines = kind.partition(";")[0].strip().lower() in (*LINES, PLAIN)
    return StreamingResponse(
        in_pieces(request, taker.lines() if as_lines else taker.whole()),
        200 if taker.refused else 201,
        media_type=LINES[0] if as_lines else "application/json",
    )


def _one(request: Request, taker: Taker) -> Response:
    with taker.answers:
        pushed = taker.last
    assert pushed is not None
    if pushed.reason == "a token of this id is there already":
        raise Conflict(f"there is a token {pushed.id!r} already", "give another id, or push with ?dedupe=true")
    if pushed.reason:
        raise BadInput(f"the token was not saved: {pushed.reason}", "see docs/reference: the fields of a token")
    if pushed.saved:
        audit(request, "push", pushed.id)
    return answer({"schema": 1, **_told(pushed)}, 200 if pushed.known else 201)


def _told(pushed: Pushed) -> Json:
    if pushed.reason:
        return {"id": pushed.id, "refused": pushed.reason}
    return {"id": pushed.id, **({"known": True} if pushed.known else {})}


@dataclass
class Taker:
    """Takes one body: pushes what is in it chunk by chunk, and keeps an answer for each token."""

    pool: Pool
    together: Together
    person: Person
    fields: Mapping[str, Any]
    dedupe: bool
    reader: Reader | None = None
    answers: IO[bytes] = field(default_factory=lambda: _kept())
    saved: int = 0
    known: int = 0
    refused: int = 0
    last: Pushed | None = None
    _waiting: list[Any] = field(default_factory=list)

    def take(self, kind: str, piece: bytes) -> None:
        """Read what came, and push what is complete."""
        if self.reader is None:
            self.reader = reader_of(kind, piece)
        self._gather(self.reader.feed(piece))

    def finish(self, kind: str, piece: bytes) -> None:
        """Push the rest."""
        self.take(kind, piece)
        assert self.reader is not None
        self._gather(self.reader.finish())
        self._push()

    def _gather(self, items: Iterator[Any]) -> None:
        for item in items:
            self._waiting.append(item)
            if len(self._waiting) >= CHUNK:
                self._push()

    # --- pushing -------------------------------------------------------------------------------------------------------

    def _push(self) -> None:
        waiting, self._waiting = self._waiting, []
        single = self.reader is not None and self.reader.single
        answers: dict[int, Pushed] = {}
        docs: dict[int, Json] = {}
        for number, item in enumerate(waiting):
            try:
                docs[number] = self._token(item)
            except BadInput as error:
                if single:
                    raise
                answers[number] = Pushed(_id_of(item), f"{error.message}; {error.hint}")
        answers.update(self._written(docs, single))
        for number in sorted(answers):
            self._note(answers[number])

    def _written(self, docs: Mapping[int, Json], single: bool) -> Iterator[tuple[int, Pushed]]:
        """Push tokens that make sense by themselves, one by one where some wait for what is not there."""
        if single:
            yield from ((number, self.together.push(doc, self.dedupe)) for number, doc in docs.items())
            return
        try:
            yield from zip(docs, list(self.pool.push_stream(docs.values(), self.dedupe)))
            return
        except BadInput:
            pass
        for number, doc in docs.items():
            try:
                yield number, next(self.pool.push_stream([doc], self.dedupe))
            except BadInput as error:
                yield number, Pushed(doc["_id"], f"{error.message}; {error.hint}")

    def _token(self, item: Any) -> Json:
        """Return the document of one token; raises BadInput for one that makes no sense or is not to be pushed so."""
        if isinstance(item, Broken):
            raise BadInput(str(item), "a JSON object a line")
        if not isinstance(item, (str, dict)):
            raise BadInput(f"a token cannot be made of {type(item).__name__}", "an object, or a command as text")
        fields = {**self.fields, **({"input": item} if isinstance(item, str) else item)}
        for name in fields:
            if name in REFUSED or (name.startswith("_") and name not in ("_id", "_attachments")):
                raise BadInput(f"{name!r} is written by the pool only", "leave it out")
        if fields.get("type", "token") != "token":
            raise BadInput(f"type {fields['type']!r} is no token", "leave it out")
        if not self.person.may(Role.OPERATOR) and str(fields.get("_id", "")).startswith((*OWN, "bell")):
            raise BadInput(f"{fields['_id']!r} cannot be the id of a token", "another one, or none")
        if self.person != LOCAL:
            fields["submitter"] = self.person.name
        return make_token(fields, {}, self.dedupe)

    # --- answers -------------------------------------------------------------------------------------------------------

    def _note(self, pushed: Pushed) -> None:
        self.saved += pushed.saved
        self.known += pushed.known
        self.refused += bool(pushed.reason)
        self.last = pushed
        self.answers.write(encode(_told(pushed)) + b"\n")

    @property
    def summary(self) -> Json:
        """What became of all of them."""
        return {"schema": 1, "saved": self.saved, "known": self.known, "refused": self.refused}

    def lines(self) -> Iterator[bytes]:
        """Yield a line for each token, and the summary as the last one; once."""
        with self.answers:
            self.answers.seek(0)
            yield from self.answers
        yield encode(self.summary) + b"\n"

    def whole(self) -> Iterator[bytes]:
        """Yield one object with all of it; once."""
        yield encode(self.summary)[:-1] + b',"tokens":['
        with self.answers:
            self.answers.seek(0)
            for number, line in enumerate(self.answers):
                yield (b"," if number else b"") + line.rstrip()
        yield b"]}"


def _kept() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(IN_MEMORY)


def _id_of(item: Any) -> str:
    found = item.get("_id") if isinstance(item, dict) else None
    return found if isinstance(found, str) else ""

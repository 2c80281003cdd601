"""A pool behind a tokenpool server: workers and clients need its address and a token of access, no database."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from ..errors import AnswerLost, BadInput, ServerAway
from . import remote_queue
from .base import Backend, Heard, Json, Refused, Row, Rows, Saved, Want, Window, WriteResult, check_kind
from .couchdb import bad_document, encode
from .longpoll import LongPolls
from .remote_errors import error_of
from .remote_transport import API, ServerTransport, named, parse_url, query

_JSON = {"Content-Type": "application/json"}
#: What both sides speak; another number where they would not understand each other.
PROTOCOL = 1
#: Documents named in one question.
CHUNK = 2000
#: The largest body that a server which does not say takes.
LIMIT = 8 << 20


class RemoteBackend(Backend):
    """``tokenpool+https://[user@]host[:port][/prefix]``; options: cafile, capath, cert, key, verify, timeout, insecure."""

    def __init__(self, url: str, password: str | None = None, create: bool = False) -> None:
        address, options = parse_url(url, password)
        self.transport = ServerTransport(address + API, options)
        self._polls = LongPolls(self.transport)
        self.url = named(address, options.username)
        if create:
            self.create()
        told = self.transport.expect(self.transport.request("GET", "/backend"))
        if told.get("protocol") != PROTOCOL:
            raise BadInput(f"{self.url} is a server of another version", "install the same tokenpool on both sides")
        self.ordered = bool(told.get("ordered"))
        self._limit = int(told.get("limit") or LIMIT)

    def close(self) -> None:
        self._polls.close()
        self.transport.close()

    def post(self, what: str, body: Json, reads: bool = True) -> Any:
        """Ask for something that changes nothing, or write with `reads` False; return the answer."""
        return self.transport.expect(
            self.transport.request("POST", f"/backend/{what}", encode(body), _JSON, reads=reads)
        )

    # --- documents -------------------------------------------------------------------------------------------------

    def create(self, designs: Sequence[Json] = ()) -> None:
        # Sent again where an answer was lost: what reads the same is not written again.
        self.post("create", {"designs": list(designs)})

    def get_many(self, ids: Sequence[str], conflicts: bool = False) -> list[Json | None]:
        found: list[Json | None] = []
        for at in range(0, len(ids), CHUNK):
            some = list(ids[at : at + CHUNK])
            docs = self.post("get", {"ids": some, "conflicts": conflicts})["docs"]
            if len(docs) != len(some):
                raise ServerAway(f"{self.url} answered {len(docs)} documents of {len(some)}", "try again")
            found += docs
        return found

    def revision(self, doc_id: str, rev: str) -> Json | None:
        doc: Json | None = self.post("revision", {"id": doc_id, "rev": rev})["doc"]
        return doc

    def put_many(self, docs: Sequence[Json]) -> list[WriteResult]:
        refused = {i: error for i, error in enumerate(map(bad_document, docs)) if error}
        sound = [doc for i, doc in enumerate(docs) if i not in refused]
        written = iter(self._put(sound) if sound else [])
        return [refused[i] if i in refused else next(written) for i in range(len(docs))]

    def _put(self, docs: list[Json]) -> list[WriteResult]:
        body = encode({"docs": docs})
        # A server that refuses a body may have cut the line before its answer is read, so it is not tried.
        if len(body) > self._limit:
            return self._put_less(docs)
        answer = self.transport.request("POST", "/backend/put", body, _JSON)
        if answer.status == 413:
            return self._put_less(docs)
        told = self.transport.expect(answer)
        results = told.get("results") if isinstance(told, dict) else None
        if not isinstance(results, list) or [row.get("id") for row in results] != [doc["_id"] for doc in docs]:
            raise AnswerLost(f"{self.url} answered something else than was asked", "it is read back")
        return [_result(row) for row in results]

    def _put_less(self, docs: list[Json]) -> list[WriteResult]:
        if len(docs) > 1:
            half = len(docs) // 2
            return self._put(docs[:half]) + self._put(docs[half:])
        return [Refused(docs[0]["_id"], "too_large", "the server takes no document of this size")]

    def view(self, design: str, view: str, params: Mapping[str, Any]) -> Rows:
        options = {
            name: list(value) if name == "keys" else value for name, value in params.items() if value is not None
        }
        told = self.post("view", {"design": design, "view": view, "params": options})
        return Rows(tuple(Row(*row) for row in told["rows"]), told["total"], told["offset"])

    # --- attachments -----------------------------------------------------------------------------------------------

    def put_attachment(self, doc_id: str, rev: str, name: str, data: BinaryIO, size: int, content_type: str) -> str:
        path = query("/backend/attachment", id=doc_id, name=name, rev=rev, type=content_type)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        told = self.transport.expect(self.transport.request("PUT", path, data, headers))
        return str(told["rev"])

    def get_attachment(self, doc_id: str, name: str, rev: str = "") -> Iterator[bytes]:
        answer, pieces = self.transport.stream(query("/backend/attachment", id=doc_id, name=name, rev=rev or None))
        if answer.status >= 300:
            self.transport.expect(answer)
        return pieces

    # --- tokens ----------------------------------------------------------------------------------------------------

    def candidates(self, want: Want, limit: int, start: float | None = None) -> Window:
        return remote_queue.candidates(self, want, limit, start)

    def scan(
        self, state: str | None = None, batch: str | None = None, with_docs: bool = True, holder: str | None = None
    ) -> Iterator[Json]:
        path = query("/backend/scan", state=state, batch=batch, holder=holder, docs=None if with_docs else "no")
        return remote_queue.scan(self, path)

    def counts(self) -> dict[tuple[str, str], int]:
        return {(row[0], row[1]): row[2] for row in self.post("counts", {})["counts"]}

    def holders(self) -> dict[tuple[str, str], int]:
        return {(row[0], row[1]): row[2] for row in self.post("holders", {})["holders"]}

    def waiting(
        self,
        kind: str,
        keys: Collection[str] | None = None,
        until: float | None = None,
        limit: int = 1000,
        after: Any = None,
    ) -> list[tuple[Any, str]]:
        check_kind(kind)
        asked = {"kind": kind, "keys": None if keys is None else list(keys), "until": until, "after": after}
        return [(row[0], row[1]) for row in self.post("waiting", {**asked, "limit": limit})["waiting"]]

    def listen(self, ids: Collection[str], since: str = "", timeout: float = 60.0) -> Heard:
        body = {"ids": list(ids), "since": since, "timeout": timeout}
        if not since:
            told = self.post("listen", body)
        else:
            answer = self._polls.ask("/backend/listen", encode(body), timeout + remote_queue.SPARE)
            if answer is None:
                return Heard(frozenset(), since)
            told = self.transport.expect(answer)
        error = error_of(told)
        if error is not None:
            raise error
        return Heard(frozenset(told["changed"]), told["marker"])

    def now(self) -> float:
        return time.time() + self.transport.clock_offset

    def lines(self, path: str) -> Iterator[Any]:
        """Yield the JSON values that an answer has, one a line, as they come."""
        answer, pieces = self.transport.stream(path)
        if answer.status >= 300:
            self.transport.expect(answer)
        return _lines(pieces)


def _lines(pieces: Iterator[bytes], read: Callable[[bytes], Any] = json.loads) -> Iterator[Any]:
    rest: list[bytes] = []
    for piece in pieces:
        first, *others = piece.split(b"\n")
        rest.append(first)
        for other in others:
            line = b"".join(rest)
            rest = [other]
            if line:
                yield read(line)


def _result(row: Mapping[str, Any]) -> WriteResult:
    if "rev" in row:
        return Saved(str(row["id"]), str(row["rev"]), bool(row.get("accepted")))
    return Refused(str(row["id"]), str(row.get("error", "")), str(row.get("reason", "")))

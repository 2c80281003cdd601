"""A pool in a CouchDB database, spoken to over plain HTTP."""

from __future__ import annotations

import json
import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ..errors import AnswerLost, BadInput, Conflict, NotFound, NotPermitted, OutOfSpace, TokenpoolError
from . import couchdb_lists, couchdb_queue
from .base import ALL_DOCS, Backend, Heard, Json, Refused, Row, Rows, Saved, Want, Window, WriteResult, check_kind
from .couchdb_listen import Listener
from .transport import Answer, Options, Transport

#: View options that CouchDB wants as JSON.
JSON_OPTIONS = frozenset({"key", "keys", "startkey", "endkey", "start_key", "end_key"})
_JSON = {"Content-Type": "application/json"}
_LOOPBACK = ("127.", "localhost", "[::1]", "::1")


class CouchDBBackend(Backend):
    """``couchdb+https://user@host:6984/database``; options: cafile, capath, cert, key, verify, timeout, insecure."""

    def __init__(self, url: str, password: str | None = None, create: bool = False) -> None:
        server, self.database, options = parse_url(url, password)
        self.transport = Transport(server, options)
        self._listener = Listener(self)
        #: By wanted batches: the last look found a queue that fits into one answer. A hint, so no lock.
        self.short_queues: dict[tuple[str, ...], bool] = {}
        self.url = f"couchdb+{server.replace('://', f'://{quote(options.username)}@' if options.username else '://')}"
        self.url += f"/{self.database}"
        self.path = "/" + quote(self.database, safe="")
        if create:
            self.create()
        else:
            self.expect(self.transport.request("GET", self.path), f"database {self.database!r}")

    def close(self) -> None:
        self._listener.close()
        self.transport.close()

    # --- documents -------------------------------------------------------------------------------------------------

    def create(self, designs: Sequence[Json] = ()) -> None:
        answer = self.transport.request("PUT", self.path)
        if answer.status in (401, 403):
            # Who may not make databases may well use one that is there.
            answer = self.transport.request("GET", self.path)
        if answer.status != 412:
            self.expect(answer, f"database {self.database!r}")
        present = self.get_many([design["_id"] for design in designs])
        for design, there in zip(designs, present):
            changed = there is None or {**design, "_rev": there["_rev"]} != there
            if changed:
                self._write_design({**design, "_rev": there["_rev"]} if there else design)

    def _write_design(self, design: Json) -> None:
        # Not by put_many: a design that does not compile is refused with a reason only in an answer of its own.
        answer = self.transport.request("PUT", f"{self.path}/{_quote_id(design['_id'])}", encode(design), _JSON)
        if answer.status == 403 or answer.status == 401:
            raise NotPermitted(
                f"you may not write {design['_id']} in {self.url}", "ask an admin of the database to run tokenpool init"
            )
        self.expect(answer, design["_id"])

    def get_many(self, ids: Sequence[str], conflicts: bool = False) -> list[Json | None]:
        if not ids:
            return []
        if len(ids) == 1:
            query = "?conflicts=true" if conflicts else ""
            answer = self.transport.request("GET", f"{self.path}/{_quote_id(ids[0])}{query}")
            if answer.status == 404:
                self._expect_database(answer)
                return [None]
            return [self.expect(answer, ids[0]).json()]
        query = "?include_docs=true" + ("&conflicts=true" if conflicts else "")
        rows = self._post(f"{self.path}/_all_docs{query}", {"keys": list(ids)}, reads=True)["rows"]
        # A deleted document has a row, with doc null.
        return [row.get("doc") for row in rows]

    def revision(self, doc_id: str, rev: str) -> Json | None:
        answer = self.transport.request("GET", f"{self.path}/{_quote_id(doc_id)}?rev={quote(rev)}")
        if answer.status == 404:
            self._expect_database(answer)
            return None
        doc: Json = self.expect(answer, f"{doc_id} at {rev}").json()
        return doc

    def put_many(self, docs: Sequence[Json]) -> list[WriteResult]:
        if not docs:
            return []
        refused = {i: error for i, error in enumerate(map(bad_document, docs)) if error}
        sound = [doc for i, doc in enumerate(docs) if i not in refused]
        written = iter(self._bulk(sound) if sound else [])
        return [refused[i] if i in refused else next(written) for i in range(len(docs))]

    def _bulk(self, docs: list[Json]) -> list[WriteResult]:
        answer = self.transport.request("POST", f"{self.path}/_bulk_docs", encode({"docs": docs}), _JSON)
        if answer.status == 413 and len(docs) > 1:
            half = len(docs) // 2
            return self._bulk(docs[:half]) + self._bulk(docs[half:])
        if answer.status == 413:
            return [Refused(docs[0]["_id"], "too_large", "the server takes no document of this size")]
        if answer.status in (400, 412) and len(docs) > 1:
            # One document that the server cannot read would hinder all the others.
            return [result for doc in docs for result in self._bulk([doc])]
        if answer.status in (400, 412):
            return [Refused(docs[0]["_id"], *answer.reason())]
        rows = self.expect(answer, "_bulk_docs").json()
        if sorted(str(row.get("id")) for row in rows) != sorted(doc["_id"] for doc in docs):
            raise AnswerLost(f"{self.url} answered {len(rows)} rows that are not those of the {len(docs)} documents")
        # Not every server answers in the order of the question, and a claim must not be taken for another's.
        found: defaultdict[str, deque[Json]] = defaultdict(deque)
        for row in rows:
            found[row["id"]].append(row)
        unsure = answer.status == 202
        return [_result(doc, found[doc["_id"]].popleft(), unsure) for doc in docs]

    # --- tokens ----------------------------------------------------------------------------------------------------

    def candidates(self, want: Want, limit: int, start: float | None = None) -> Window:
        return couchdb_queue.candidates(self, want, limit, start)

    def scan(
        self, state: str | None = None, batch: str | None = None, with_docs: bool = True, holder: str | None = None
    ) -> Iterator[Json]:
        try:
            yield from couchdb_lists.scan(self, state, batch, with_docs, holder)
        except NotFound:
            yield from couchdb_lists.scan_monitor(self, state, batch, holder)

    def counts(self) -> dict[tuple[str, str], int]:
        try:
            rows = self.view("tokenpool", "states", {"group_level": 2}).rows
        except NotFound:
            rows = self.view("Monitor", "overview_total", {"group": True}).rows
            return {(str(row.key), ""): int(row.value) for row in rows}
        return {(str(row.key[0]), str(row.key[1])): int(row.value) for row in rows}

    def holders(self) -> dict[tuple[str, str], int]:
        return couchdb_lists.holders(self)

    def waiting(
        self,
        kind: str,
        keys: Collection[str] | None = None,
        until: float | None = None,
        limit: int = 1000,
        after: Any = None,
    ) -> list[tuple[Any, str]]:
        check_kind(kind)
        return couchdb_lists.waiting(self, kind, keys, until, limit, after)

    def listen(self, ids: Collection[str], since: str = "", timeout: float = 60.0) -> Heard:
        return self._listener.listen(ids, since, timeout)

    def now(self) -> float:
        return time.time() + self.transport.clock_offset

    def view(self, design: str, view: str, params: Mapping[str, Any]) -> Rows:
        path = f"{self.path}/_all_docs"
        if design != ALL_DOCS:
            path = f"{self.path}/_design/{quote(design, safe='')}/_view/{quote(view, safe='')}"
        options = {name: value for name, value in params.items() if value is not None}
        keys = options.pop("keys", None)
        path += _query(options)
        if keys is not None:
            answer = self.transport.request("POST", path, encode({"keys": list(keys)}), _JSON, reads=True)
        else:
            answer = self.transport.request("GET", path)
        if answer.status == 404:
            self._expect_database(answer)
            raise NotFound(
                f"there is no view {design}/{view} in {self.url}", f"write it first: tokenpool init {self.url}"
            )
        told = self.expect(answer, f"view {design}/{view}").json()
        rows = tuple(
            Row(row.get("id"), row["key"], row.get("value"), row.get("doc")) for row in told["rows"] if "key" in row
        )
        return Rows(rows, told.get("total_rows", len(rows)), told.get("offset") or 0)

    # --- attachments -----------------------------------------------------------------------------------------------

    def put_attachment(self, doc_id: str, rev: str, name: str, data: BinaryIO, size: int, content_type: str) -> str:
        # Content-Length keeps a broken connection from storing half a file, as a chunked upload could.
        answer = self.transport.request(
            "PUT",
            f"{self.path}/{_quote_id(doc_id)}/{quote(name, safe='/')}?rev={quote(rev)}",
            data,
            {"Content-Type": content_type, "Content-Length": str(size)},
        )
        return str(self.expect(answer, doc_id).json()["rev"])

    def get_attachment(self, doc_id: str, name: str, rev: str = "") -> Iterator[bytes]:
        path = f"{self.path}/{_quote_id(doc_id)}/{quote(name, safe='/')}{_query({'rev': rev}) if rev else ''}"
        answer, pieces = self.transport.stream(path)
        self.expect(answer, f"attachment {name!r} of {doc_id}")
        return pieces

    # --- answers ---------------------------------------------------------------------------------------------------

    def _post(self, path: str, body: Any, reads: bool) -> Any:
        answer = self.transport.request("POST", path, encode(body), _JSON, reads=reads)
        return self.expect(answer, path).json()

    def _expect_database(self, answer: Answer) -> None:
        if (
            answer.status == 404 and "no_db_file" in answer.reason()[1]
        ) or "Database does not exist" in answer.reason()[1]:
            self.expect(answer, f"database {self.database!r}")

    def expect(self, answer: Answer, what: str) -> Answer:
        """Return the answer where it is a success, raise what it means where it is not."""
        if answer.status < 300:
            return answer
        error, reason = answer.reason()
        told = f"{reason or error or answer.status}"
        if answer.status == 404:
            raise NotFound(f"there is no {what} at {self.url}", f"make the pool first: tokenpool init {self.url}")
        if answer.status == 409:
            raise Conflict(f"{what} was changed by somebody else", "read it again")
        if answer.status in (401, 403):
            raise NotPermitted(
                f"{self.url}: {told}",
                "check user and password: TOKENPOOL_PASSWORD, TOKENPOOL_PASSWORD_FILE or ~/.netrc",
            )
        if answer.status == 507:
            raise OutOfSpace(f"the disk of {self.url} is full", "make room on the server, then try again")
        if answer.status == 413:
            raise BadInput(f"{what} is too large for {self.url}", "store large data elsewhere and keep its address")
        if answer.status == 400:
            raise BadInput(f"{self.url} refuses {what}: {told}", "names are a-z, 0-9, _$()+/- and start with a letter")
        raise TokenpoolError(f"{self.url} answers {answer.status} to {what}: {told}", "tokenpool doctor")


# --- words of the protocol ---------------------------------------------------------------------------------------------


def parse_url(url: str, password: str | None = None) -> tuple[str, str, Options]:
    """Return (server URL, database, how to reach it) of a pool's URL; raises BadInput."""
    scheme, _, rest = url.partition("://")
    protocol = scheme.rpartition("+")[2]
    try:
        parts = urlsplit(f"{protocol}://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadInput(
            f"{url!r} is not the URL of a pool: {error}", "couchdb+https://user@host:6984/database"
        ) from None
    prefix, _, database = parts.path.strip("/").rpartition("/")
    if not host or not database:
        raise BadInput(
            f"{_without_password(url)!r} names no {'database' if host else 'server'}",
            "write couchdb+https://user@host:6984/database",
        )
    options = dict(parse_qsl(parts.query))
    loopback = host.startswith(_LOOPBACK)
    if protocol == "http" and not loopback and options.get("insecure") != "true":
        raise BadInput(
            f"{host} would be sent your password in the clear", "use couchdb+https://, or add ?insecure=true to the URL"
        )
    server = f"{protocol}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    secret = unquote(parts.password) if parts.password else password or ""
    return (
        server + (f"/{prefix}" if prefix else ""),
        unquote(database),
        Options(username=unquote(parts.username or ""), password=secret, **reach(options)),
    )


def reach(options: Mapping[str, str]) -> dict[str, Any]:
    known = {"insecure", "cafile", "capath", "cert", "key", "verify", "timeout", "attempts"}
    strange = set(options) - known
    if strange:
        raise BadInput(
            f"unknown option in the pool's URL: {', '.join(sorted(strange))}", f"known: {', '.join(sorted(known))}"
        )
    reach: dict[str, Any] = {name: options[name] for name in ("cafile", "capath", "cert", "key") if name in options}
    try:
        if "timeout" in options:
            reach["read_timeout"] = float(options["timeout"])
        if "attempts" in options:
            reach["attempts"] = max(1, int(options["attempts"]))
    except ValueError as error:
        raise BadInput(f"not a number in the pool's URL: {error}", "for example …?timeout=60") from None
    reach["verify"] = options.get("verify") not in ("no", "false", "0")
    return reach


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", "@", 1) if parts.password else url


def encode(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _quote_id(doc_id: str) -> str:
    # The slash of a design document's id is part of its path; every other one belongs to the id.
    if doc_id.startswith("_design/"):
        return "_design/" + quote(doc_id[8:], safe="")
    return quote(doc_id, safe="")


def _query(options: Mapping[str, Any]) -> str:
    spelled = {
        name: json.dumps(value)
        if name in JSON_OPTIONS or isinstance(value, (bool, int, float, list, dict))
        else str(value)
        for name, value in options.items()
    }
    return "?" + urlencode(spelled, quote_via=quote) if spelled else ""


def bad_document(doc: Json) -> Refused | None:
    doc_id = doc.get("_id")
    if not isinstance(doc_id, str) or not doc_id:
        return Refused(str(doc_id), "bad_request", "the _id must be a text that is not empty")
    if doc_id in (".", ".."):
        return Refused(doc_id, "bad_request", "an _id of dots only is lost on its way through HTTP")
    if doc_id.startswith("_") and not doc_id.startswith(("_design/", "_local/")):
        return Refused(doc_id, "bad_request", "only reserved documents have an _id that starts with _")
    try:
        encode(doc)
    except (TypeError, ValueError) as error:
        return Refused(doc_id, "bad_request", f"not JSON: {error}")
    return None


def _result(doc: Json, row: Mapping[str, Any], unsure: bool) -> WriteResult:
    if "rev" in row:
        return Saved(str(row["id"]), str(row["rev"]), accepted=unsure or bool(row.get("accepted")))
    return Refused(
        str(row.get("id", doc["_id"])), str(row.get("error", row.get("name", ""))), str(row.get("reason", ""))
    )

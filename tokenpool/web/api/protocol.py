"""What `tokenpool+https://` speaks: every method of a backend as a request, for machines that work."""

from __future__ import annotations

import asyncio
import contextlib
import math
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import IO, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ...backends.base import Backend, Heard, Json, Saved, WriteResult
from ...backends.couchdb import encode
from ...backends.remote import PROTOCOL
from ...backends.remote_errors import told
from ...errors import AnswerLost, BadInput, NotPermitted, ServerAway, TokenpoolError
from ...pool import Pool
from ..access import Role, current, require
from ..site import site_of
from .answers import answer, answered, in_thread, read_object, refusal
from .ear import News, Waiter, ear_of, revisions_in
from .looking import look, only
from .streams import in_pieces, opened

router = APIRouter(prefix="/backend", dependencies=[Depends(require(Role.WORKER))], include_in_schema=False)

#: Seconds between two signs of life of a question that is held.
HEARTBEAT = 15.0
#: Seconds that a question is held at most.
LONGEST = 3600.0
#: An attachment up to this size is not written to a file on its way.
IN_MEMORY = 1 << 20


@router.get("")
async def hello(request: Request) -> Response:
    """Tell what kind of pool this is."""
    limit = site_of(request).options.upload_limit
    return await answered(
        request, lambda pool: {"protocol": PROTOCOL, "ordered": pool.backend.ordered, "limit": limit, "pool": pool.url}
    )


# --- documents ---------------------------------------------------------------------------------------------------------


@router.post("/create")
async def create(request: Request) -> Response:
    """Make the pool where it is missing; views are written by operators only."""
    body, may_write = await request.body(), current(request).role >= Role.OPERATOR

    def work(pool: Pool) -> Json:
        designs = _listed(read_object(body), "designs")
        if not may_write:
            _refuse_designs(pool.backend, designs)
        pool.backend.create(designs if may_write else ())
        return {}

    return await answered(request, work)


def _refuse_designs(backend: Backend, designs: list[Any]) -> None:
    there = backend.get_many([design["_id"] for design in designs])
    for design, doc in zip(designs, there):
        if doc is None or {**design, "_rev": doc["_rev"]} != doc:
            raise NotPermitted(f"you may not write {design['_id']}", "ask an operator to run tokenpool init")


@router.post("/get")
async def get(request: Request) -> Response:
    """Return documents in the order of their ids."""
    body = await request.body()

    def work(pool: Pool) -> Json:
        asked = read_object(body)
        return {"docs": pool.backend.get_many(_listed(asked, "ids"), bool(asked.get("conflicts")))}

    return await answered(request, work)


@router.post("/revision")
async def revision(request: Request) -> Response:
    """Return a document at one revision."""
    body = await request.body()

    def work(pool: Pool) -> Json:
        asked = read_object(body)
        return {"doc": pool.backend.revision(str(asked.get("id")), str(asked.get("rev")))}

    return await answered(request, work)


@router.post("/put")
async def put(request: Request) -> Response:
    """Write documents; what became of each is answered in their order."""
    body, may_write = await request.body(), current(request).role >= Role.OPERATOR

    def work(pool: Pool) -> Json:
        docs = _listed(read_object(body), "docs")
        if not all(isinstance(doc, dict) for doc in docs):
            raise BadInput("a document is no JSON object", "send {docs: [{...}]}")
        if not may_write and any(str(doc.get("_id")).startswith("_design/") for doc in docs):
            raise NotPermitted("you may not write views", "ask an operator to run tokenpool init")
        with _unsure():
            return {"results": [_told(result) for result in pool.backend.put_many(docs)]}

    return await answered(request, work)


@contextlib.contextmanager
def _unsure() -> Iterator[None]:
    """Of a write that was split, some may have been applied although the pool was away for the rest: say that."""
    try:
        yield
    except AnswerLost:
        raise
    except ServerAway as error:
        raise AnswerLost(error.message, error.hint) from error


def _told(result: WriteResult) -> Json:
    if isinstance(result, Saved):
        return {"id": result.id, "rev": result.rev, **({"accepted": True} if result.accepted else {})}
    return {"id": result.id, "error": result.error, "reason": result.reason}


@router.post("/view")
async def view(request: Request) -> Response:
    """Query a view."""
    body = await request.body()

    def work(pool: Pool) -> Json:
        asked = read_object(body)
        params = asked.get("params")
        rows = pool.backend.view(
            str(asked.get("design")), str(asked.get("view")), params if isinstance(params, dict) else {}
        )
        found = [[row.id, row.key, row.value, *([] if row.doc is None else [row.doc])] for row in rows.rows]
        return {"rows": found, "total": rows.total, "offset": rows.offset}

    return await answered(request, work)


# --- attachments -------------------------------------------------------------------------------------------------------


@router.put("/attachment")
async def put_attachment(request: Request, id: str, rev: str, name: str) -> Response:
    """Attach a file; it is here whole before the pool is asked."""
    length = request.headers.get("content-length", "")
    kind = request.query_params.get("type") or "application/octet-stream"
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as data:
        size = 0
        async for piece in request.stream():
            size += len(piece)
            await in_thread(request, data.write, piece) if size > IN_MEMORY else data.write(piece)
        if not length.isdigit() or int(length) != size:
            return refusal(BadInput(f"{size} bytes came, not {length or 'as many as announced'}", "send it again"))
        data.seek(0)
        return await answered(request, _attach, id, rev, name, data, size, kind)


def _attach(pool: Pool, doc_id: str, rev: str, name: str, data: IO[bytes], size: int, kind: str) -> Json:
    with _unsure():
        return {"rev": pool.backend.put_attachment(doc_id, rev, name, data, size, kind)}  # type: ignore[arg-type]


@router.get("/attachment")
async def get_attachment(request: Request, id: str, name: str, rev: str = "") -> Response:
    """Return an attachment in pieces."""
    backend = site_of(request).pool.backend
    try:
        pieces = await in_thread(request, lambda: opened(backend.get_attachment(id, name, rev)))
    except TokenpoolError as error:
        return refusal(error)
    return StreamingResponse(in_pieces(request, pieces), media_type="application/octet-stream")


# --- tokens ------------------------------------------------------------------------------------------------------------


@router.post("/candidates")
async def candidates(request: Request) -> Response:
    """Return what a worker could claim: a window, or with `look` what stands in the queue for it to choose from."""
    body = await request.body()

    def work(pool: Pool) -> Json:
        asked = read_object(body)
        return look(pool.backend, asked) if asked.get("look") else only(pool.backend, asked)

    return await answered(request, work)


@router.get("/scan")
async def scan(request: Request) -> Response:
    """Return tokens, one a line, and an end that tells that all came."""
    asked, backend = request.query_params, site_of(request).pool.backend
    docs = backend.scan(asked.get("state"), asked.get("batch"), asked.get("docs") != "no", asked.get("holder"))

    def lines() -> Iterator[bytes]:
        try:
            for doc in docs:
                yield encode(doc) + b"\n"
            yield encode(["end"]) + b"\n"
        except TokenpoolError as error:
            yield encode(["error", told(error)]) + b"\n"

    return StreamingResponse(in_pieces(request, lines()), media_type="application/x-ndjson")


@router.post("/counts")
async def counts(request: Request) -> Response:
    """Count tokens by state and batch."""
    return await answered(
        request, lambda pool: {"counts": [[*key, number] for key, number in pool.backend.counts().items()]}
    )


@router.post("/holders")
async def holders(request: Request) -> Response:
    """Count locked tokens by batch and worker."""
    return await answered(
        request, lambda pool: {"holders": [[*key, number] for key, number in pool.backend.holders().items()]}
    )


@router.post("/waiting")
async def waiting(request: Request) -> Response:
    """List what waits for something."""
    body = await request.body()

    def work(pool: Pool) -> Json:
        asked = read_object(body)
        keys = None if asked.get("keys") is None else _listed(asked, "keys")
        limit = int(asked.get("limit") or 1000)
        found = pool.backend.waiting(str(asked.get("kind")), keys, asked.get("until"), limit, asked.get("after"))
        return {"waiting": found}

    return await answered(request, work)


# --- changes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Question:
    """What somebody listens to, since when, and for how long."""

    ids: tuple[str, ...]
    since: str
    timeout: float


@router.post("/listen")
async def listen(request: Request) -> Response:
    """Answer when one of the documents changes: a line of nothing now and then, then what changed."""
    pool = site_of(request).pool
    ear = ear_of(request.app.state, pool.backend)
    try:
        question = _question(read_object(await request.body()))
        heard = await in_thread(request, ear.look, question.ids, question.since)
    except TokenpoolError as error:
        return refusal(error)
    if heard.changed or not question.since or question.timeout <= 0:
        return answer(_news(heard), pool=pool)
    return StreamingResponse(_held(request, question), media_type="application/json")


def _question(asked: Json) -> _Question:
    timeout = asked.get("timeout")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not math.isfinite(timeout):
        raise BadInput(f"timeout {timeout!r} is no number of seconds", "for example 60")
    ids = tuple(sorted({str(each) for each in _listed(asked, "ids")}))
    return _Question(ids, str(asked.get("since") or ""), min(float(timeout), LONGEST))


async def _held(request: Request, question: _Question) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[News] = loop.create_future()

    def note(news: News) -> None:
        if not heard.done():
            heard.set_result(news)

    def tell(news: News) -> None:
        with contextlib.suppress(RuntimeError):  # the server is ending
            loop.call_soon_threadsafe(note, news)

    ear = ear_of(request.app.state, site_of(request).pool.backend)
    waiter = Waiter(question.ids, revisions_in(question.since), tell)
    ends = loop.time() + question.timeout
    ear.add(waiter)
    try:
        while not heard.done() and loop.time() < ends:
            await asyncio.wait([heard], timeout=max(0.0, min(HEARTBEAT, ends - loop.time())))
            if not heard.done():
                yield b"\n"
    finally:
        ear.remove(waiter)
    yield encode(_news(heard.result() if heard.done() else Heard(frozenset(), question.since)))


def _news(news: News) -> Json:
    return told(news) if isinstance(news, TokenpoolError) else {"changed": sorted(news.changed), "marker": news.marker}


def _listed(asked: Json, name: str) -> list[Any]:
    found = asked.get(name)
    if not isinstance(found, list):
        raise BadInput(f"{name} is no list", f"send {{{name}: [...]}}")
    return found

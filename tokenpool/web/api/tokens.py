"""The tokens of a pool, as JSON: listed page by page, one by one, edited, and changed in bulk."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from ... import listing
from ...backends.base import Json
from ...errors import BadInput, NotFound
from ...pool import Pool
from ...transitions import is_token, state_of
from ..access import Person, Role, require
from ..access.audit import audit
from ..site import site_of
from . import changing
from .answers import answer, in_thread, read_object

router = APIRouter(tags=["tokens"])

#: Tokens of one page, if nobody says how many.
PAGE = 50
_LOOKS, _CHANGES = Depends(require(Role.VIEWER)), Depends(require(Role.SUBMITTER))
_STATES = Query(default=[], description="may be repeated")
_TAGS = Query(default=[], description="key:value; may be repeated")
_PREFIX = Query(default="", description="the first letters of the id")
_TEXT = Query(default="", description="in the id, name, command, tags and so on")
_AFTER = Query(default="", description="the `next` of the page before")
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


def shown(doc: Json) -> Json:
    """Return a token as it is answered: its document, and its state."""
    return {"state": state_of(doc), **doc}


@router.get("/tokens")
async def tokens(
    request: Request,
    state: list[str] = _STATES,
    batch: str = "",
    tag: list[str] = _TAGS,
    host: str = "",
    prefix: str = _PREFIX,
    text: str = _TEXT,
    submitter: str = "",
    sort: str = "",
    back: bool = False,
    limit: int = PAGE,
    after: str = _AFTER,
    person: Person = _LOOKS,
) -> Response:
    """List tokens, a page at a time: go on with `after`, as long as there is `more`."""
    wanted = listing.Filter(
        states=tuple(state),
        batch=batch if "batch" in request.query_params else None,
        tags=dict(map(_tag, tag)),
        host=host,
        prefix=prefix,
        text=text,
        also=(lambda doc: doc.get("submitter") == submitter) if submitter else None,
        sort=sort,
        back=back,
    )
    found = await in_thread(request, listing.page, site_of(request).pool.backend, wanted, after, limit)
    told = {"next": found.next, "more": found.more, "searched": found.searched}
    return answer({"schema": 1, "tokens": [shown(doc) for doc in found.tokens], **told})


def _tag(text: str) -> tuple[str, str]:
    key, separator, value = text.partition(":" if ":" in text else "=")
    if not key:
        raise BadInput(f"{text!r} is no tag", "write tag=key:value")
    return key, value if separator else ""


@router.post("/tokens/change", openapi_extra=_BODY)
async def change(request: Request, person: Person = _CHANGES) -> Response:
    """Apply a verb to many tokens: {"verb": "retry", "selection": ["state:error", "batch:x"], "dry_run": true}.

    Verbs: retry, reset, scrub, cancel, rm (with "running": true those too that run), pause, resume, edit (with "fields").
    """
    asked = read_object(await request.body())
    verb, dry_run = str(asked.get("verb")), bool(asked.get("dry_run"))
    selector, fields = changing.selected(asked.get("selection")), asked.get("fields")
    if fields is not None and not isinstance(fields, dict):
        raise BadInput("fields is no JSON object", 'for example {"priority": 5}')
    pool = site_of(request).pool
    done = await in_thread(
        request, changing.change, pool, person, verb, selector, dry_run, bool(asked.get("running")), fields
    )
    if not dry_run:
        audit(request, verb, str(asked.get("selection")), changed=done.changed)
    return answer(changing.as_json(done, verb, dry_run))


@router.get("/tokens/{token_id:path}/explain")
async def explain(request: Request, token_id: str, person: Person = _LOOKS) -> Response:
    """Say why a token does not run, who runs it, or how it ended."""
    found = await in_thread(request, site_of(request).pool.explain, token_id)
    return answer(found.as_json())


@router.get("/tokens/{token_id:path}")
async def token(request: Request, token_id: str, person: Person = _LOOKS) -> Response:
    """Return one token."""
    return answer(shown(await in_thread(request, token_of, site_of(request).pool, token_id)))


def token_of(pool: Pool, token_id: str) -> Json:
    """Return the document of a token; raises NotFound for what is none."""
    doc = pool.backend.get_many([token_id])[0]
    if doc is None or not is_token(doc):
        raise NotFound(f"there is no token {token_id!r}", "it was deleted, or never there")
    return doc


@router.patch("/tokens/{token_id:path}", openapi_extra=_BODY)
async def patch(request: Request, token_id: str, person: Person = _CHANGES) -> Response:
    """Change fields of a token that does not run: null removes one, an object is merged into one."""
    fields = read_object(await request.body())
    pool = site_of(request).pool

    def work() -> Json:
        token_of(pool, token_id)
        done = changing.change_one(pool, person, "edit", token_id, fields=fields)
        if not done.changed and fields:
            raise BadInput(f"token {token_id} runs, or makes no sense: it cannot be edited", "cancel it, or wait")
        return token_of(pool, token_id)

    doc = await in_thread(request, work)
    audit(request, "edit", token_id, fields=sorted(fields))
    return answer(shown(doc))


@router.delete("/tokens/{token_id:path}")
async def delete(request: Request, token_id: str, running: bool = False, person: Person = _CHANGES) -> Response:
    """Delete a token; one that runs only with ?running=true."""
    pool = site_of(request).pool

    def work() -> Any:
        state = state_of(token_of(pool, token_id))
        done = changing.change_one(pool, person, "rm", token_id, running=running)
        if not done.changed:
            raise BadInput(f"token {token_id} is {state}", "cancel it first, or delete it with ?running=true")
        return changing.as_json(done, "rm", False)

    done = await in_thread(request, work)
    audit(request, "rm", token_id)
    return answer(done)

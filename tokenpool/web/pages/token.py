"""One token's page: where it stands and why, its attempts, what it runs, what goes in and comes out; and its verbs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from ... import edits, transitions
from ...backends.base import Json
from ...errors import BadInput, NotFound, NotPermitted, TokenpoolError
from ...jobid import JOB_ID_FIELDS
from ...selectors import Selector, parse_time
from .. import deeds
from ..access import Person, Role, audit, require
from ..bars import kind_of
from ..charts import attempts_line
from ..deeds import Chosen
from ..rendering import page
from ..site import site_of
from .asked import Said, form_of, here
from .logs import logs_of

router = APIRouter()

#: What is shown in a place of its own, or is no business of who edits.
HIDDEN = frozenset({*edits.CORE, *JOB_ID_FIELDS, "creation_time", "submitter"})
#: Which verbs are offered for a token in a state; deleting one that runs is asked for elsewhere.
OFFERED = {
    "todo": ("pause", "cancel", "rm"),
    "held": ("resume", "cancel", "reset", "rm"),
    "locked": ("cancel", "reset"),
    "done": ("reset", "rm"),
    "error": ("retry", "reset", "rm"),
    "invalid": ("reset", "rm"),
}
#: Verbs that are done without another question.
DIRECT = frozenset({"retry", "pause", "resume", "cancel"})


def shown(request: Request, doc: Json, said: Said | None = None) -> dict[str, Any]:
    """Return what the page of a token is filled with."""
    site = site_of(request)
    person: Person = request.state.person
    state = transitions.state_of(doc)
    attempts = transitions.attempts_of(doc)
    may = person.may_change(doc)
    return {
        "doc": doc,
        "token_id": doc["_id"],
        "state": state,
        "kind": kind_of(doc),
        "said": said,
        "may": may,
        "verbs": [(verb, deeds.VERBS[verb][0]) for verb in OFFERED[state] if _makes_sense(verb, doc)] if may else [],
        "direct": DIRECT,
        "reasons": _reasons(site.pool, doc["_id"]),
        "attempts": list(enumerate(attempts, 1)),
        "line": attempts_line(_spans(doc, attempts, state), f"{len(attempts)} attempts"),
        "logs": logs_of(doc, attempts),
        "files": _files(doc),
        "editable": may and state in edits.STATES,
        "live": state not in (*transitions.FINAL, transitions.INVALID),
    }


def _makes_sense(verb: str, doc: Mapping[str, Any]) -> bool:
    return verb != "resume" or changes_resume(doc)


def changes_resume(doc: Mapping[str, Any]) -> bool:
    """Tell whether a held token would go on by `resume`: it is paused, or waits for nothing."""
    return bool(doc.get("paused")) or not transitions.waits(doc)


def _reasons(pool: Any, token_id: str) -> list[Any]:
    """Return why the token is where it is; a page is shown without, rather than not at all."""
    try:
        return list(pool.explain(token_id).reasons)
    except TokenpoolError:
        return []


def _spans(doc: Mapping[str, Any], attempts: list[Json], state: str) -> list[tuple[float, float, str]]:
    spans = []
    for entry in attempts:
        start, end = parse_time(entry.get("start_time")), parse_time(entry.get("end_time"))
        if start is not None and end is not None:
            good = transitions.means_success(entry.get("exit_code"))
            lost = entry.get("superseded") or entry.get("failure_class") in ("lost", "preempted")
            spans.append((start, max(start, end), "lost" if lost else "done" if good else "error"))
    lock = doc.get("lock")
    if state == transitions.LOCKED and isinstance(lock, (int, float)):
        spans.append((float(lock), max(float(lock), time.time()), "running"))
    return spans


def _files(doc: Mapping[str, Any]) -> list[tuple[str, Json]]:
    """Return what is attached, but for logs, which stand for themselves."""
    there = doc.get("_attachments") or {}
    front = f"logs_{doc['_id']}."
    return sorted((name, stub) for name, stub in there.items() if not name.startswith(front))


# --- the page ------------------------------------------------------------------------------------------------------


@router.get("/tokens/{token_id:path}/edit", dependencies=[Depends(require(Role.SUBMITTER))])
def edit_form(request: Request, token_id: str) -> Response:
    """Show the fields of a token in a form."""
    here(request)
    doc = site_of(request).pool.backend.get(token_id)
    _expect_own(request, doc)
    return page(
        request, "edit.html", {"token_id": token_id, "text": fields_text(doc), "problem": None, "rev": doc["_rev"]}
    )


@router.post("/tokens/{token_id:path}/edit")
def edit(
    request: Request,
    token_id: str,
    form: FormData = Depends(form_of),
    person: Person = Depends(require(Role.SUBMITTER)),
) -> Response:
    """Write the fields that were changed in the form; show it again where they make no sense."""
    here(request)
    pool = site_of(request).pool
    doc = pool.backend.get(token_id)
    _expect_own(request, doc)
    text = str(form.get("text") or "")
    try:
        patch = edits.difference(_editable(doc), _read(text))
        if form.get("rev") != doc["_rev"]:
            raise BadInput("the token was changed by somebody else meanwhile", "compare with its page, then save again")
        done = pool.edit(Selector(ids=(token_id,)), patch) if patch else None
        if done is not None and not done.changed:
            raise BadInput("the token runs, or is gone: nothing was changed", "cancel it first, or wait for its end")
    except BadInput as problem:
        values = {"token_id": token_id, "text": text, "problem": problem, "rev": doc["_rev"]}
        return page(request, "edit.html", values, 400)
    audit(request, "edit", token_id, fields=sorted(patch))
    return _to(request, token_id, "edited" if patch else "unchanged")


@router.post("/tokens/{token_id:path}/change")
def change(
    request: Request,
    token_id: str,
    form: FormData = Depends(form_of),
    person: Person = Depends(require(Role.SUBMITTER)),
) -> Response:
    """Do one verb to this token."""
    here(request)
    pool, name = site_of(request).pool, str(form.get("verb") or "")
    _expect_own(request, pool.backend.get(token_id))
    done = deeds.apply(pool.backend, Chosen((token_id,)), deeds.verb_of(name, person), person, lambda n: None)
    site_of(request).hub.stir()
    audit(request, name, token_id, changed=done.changed)
    if name == "rm" and done.changed:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/tokens", 303)
    return _to(request, token_id, name if done.changed else "not")


@router.get("/tokens/{token_id:path}", dependencies=[Depends(require(Role.VIEWER))])
def token(request: Request, token_id: str) -> Response:
    """Show one token."""
    here(request)
    doc = site_of(request).pool.backend.get_many([token_id])[0]
    if doc is None or str(token_id).startswith("_design/"):
        raise NotFound(f"there is no token {token_id!r} in this pool", "it was deleted, or the id is misspelled")
    return page(request, "token.html", shown(request, doc, SAID.get(request.query_params.get("said", ""))))


SAID: Mapping[str, Said] = {
    "retry": Said("It was put back to run again."),
    "reset": Said("It was put back as if it had never run."),
    "cancel": Said("It was cancelled; where it runs, its worker ends it as soon as it sees that."),
    "pause": Said("It is held until somebody resumes it."),
    "resume": Said("It may run again."),
    "edited": Said("The changes are saved."),
    "unchanged": Said("Nothing was different, so nothing was written.", "warn"),
    "pushed": Said("It is in the pool."),
    "not": Said("It was left as it is: it is not in a state for that any more.", "warn"),
}


def _to(request: Request, token_id: str, said: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/tokens/{quote(token_id, safe='')}?said={said}", 303)


def _expect_own(request: Request, doc: Json) -> None:
    person: Person = request.state.person
    if not person.may_change(doc):
        raise NotPermitted(f"{person.name!r} may not change this token: it is not theirs", "ask an operator")


# --- editing ---------------------------------------------------------------------------------------------------------


def _editable(doc: Mapping[str, Any]) -> Json:
    return {name: value for name, value in doc.items() if not name.startswith("_") and name not in HIDDEN}


def fields_text(doc: Mapping[str, Any]) -> str:
    """Return the fields of a token that people may edit, as JSON."""
    return json.dumps(_editable(doc), indent=2, ensure_ascii=False)


def _read(text: str) -> Json:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"this is not JSON: {error}", "texts in double quotes, a comma between fields") from None
    if not isinstance(found, dict):
        raise BadInput("the fields of a token are one object", "begin with { and end with }")
    return found

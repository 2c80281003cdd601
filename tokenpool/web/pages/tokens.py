"""The list of tokens: filtered, searched, sorted, page by page; and the same changes to many of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from ... import edits, listing
from ...changes import Changed
from ...errors import BadInput, NotFound
from ...transitions import STATES
from .. import deeds
from ..access import Person, Role, audit, require
from ..deeds import Chosen, Deeds
from ..filters import number
from ..rendering import page
from ..site import site_of
from .asked import PUSHED, Said, filter_of, form_of, here, hidden, query_of

router = APIRouter()

LIMITS = (25, 50, 100, 250)
#: Batches and hosts that are offered while somebody types.
OFFERED = 200
#: Seconds that a change may take before its reader is shown how far it is.
SOON = 1.5


@router.get("/tokens", dependencies=[Depends(require(Role.VIEWER))])
def tokens(request: Request) -> Response:
    """Show a page of tokens."""
    snapshot, backend = here(request), site_of(request).pool.backend
    given = request.query_params
    wanted = filter_of(given)
    if wanted.text and backend.get_many([wanted.text])[0] is not None and not given.get("after"):
        return RedirectResponse(f"{request.scope.get('root_path', '')}/tokens/{quote(wanted.text, safe='')}", 303)
    limit = next((each for each in LIMITS if str(each) == given.get("limit")), 50)
    found = listing.page(backend, wanted, given.get("after", ""), limit, snapshot.raw)
    counts = {state: listing.counted(snapshot.raw, listing.Filter((state,), wanted.batch)) for state in STATES}
    values: dict[str, Any] = {
        "wanted": wanted,
        "found": found,
        "limit": limit,
        "limits": LIMITS,
        "counts": counts,
        "total": listing.counted(snapshot.raw, wanted),
        "batches": [name for name in snapshot.batches if name][:OFFERED],
        "hosts": sorted({worker.hostname for worker in snapshot.workers if worker.hostname})[:OFFERED],
        "tag_text": given.get("tag", ""),
        "batch_text": given.get("batch", ""),
        "after": given.get("after", ""),
        "next": query_of(given, after=found.next) if found.more else "",
        "first": query_of(given, leave=("after",)),
        "tabs": {state: query_of(given, leave=("after",), state=state) for state in ("", *STATES)},
        "sorts": {name: _sort_link(request, wanted, name) for name in listing.SORTS},
        "hidden": hidden(given),
        "sortable": listing.SORTABLE,
        "verbs": deeds.VERBS,
        "said": _said(given.get(PUSHED, "")),
    }
    return page(request, "tokens.html", values)


def _said(pushed: str) -> Said | None:
    return Said(f"{number(int(pushed))} tokens are in the pool.") if pushed.isdecimal() and len(pushed) < 10 else None


def _sort_link(request: Request, wanted: listing.Filter, name: str) -> str:
    turn = wanted.sort == name and not wanted.back
    return query_of(request.query_params, leave=("after",), sort=name, back="1" if turn else "")


# --- many at once ----------------------------------------------------------------------------------------------------


@router.post("/tokens/preview")
def preview(
    request: Request, form: FormData = Depends(form_of), person: Person = Depends(require(Role.SUBMITTER))
) -> Response:
    """Show how many tokens a change would change, and ask."""
    snapshot, backend = here(request), site_of(request).pool.backend
    name, chosen = str(form.get("verb") or ""), _chosen(form)
    verb = deeds.verb_of(name, person)
    told = deeds.preview(backend, chosen, verb, person, snapshot.raw)
    carried = [("ids", each) for each in chosen.ids] if chosen.filter is None else [("all", "1"), *hidden(form)]
    values = {"verb": name, "words": deeds.VERBS[name], "told": told, "carried": carried, "back": _back(form)}
    return page(request, "preview.html", {**values, "states": verb.states, "chosen": chosen})


@router.post("/tokens/change")
def change(
    request: Request, form: FormData = Depends(form_of), person: Person = Depends(require(Role.SUBMITTER))
) -> Response:
    """Change the chosen tokens; show the result, or how far it is."""
    here(request)
    backend = site_of(request).pool.backend
    name, chosen = str(form.get("verb") or ""), _chosen(form)
    verb = deeds.verb_of(name, person)
    what = " ".join(chosen.ids[:50]) if chosen.filter is None else str(hidden(form) or "all tokens")
    patch = _patch(form) if name == "edit" else {}
    audit(request, name, what, ids=len(chosen.ids), **({"fields": sorted(patch)} if patch else {}))

    def work(progress: Callable[[int], None]) -> Changed:
        if name == "edit":
            return deeds.apply_edit(backend, chosen, patch, verb, person, progress)
        return deeds.apply(backend, chosen, verb, person, progress)

    deed = deeds_of(request).begin(name, person.name, work)
    deed.ended.wait(SOON)
    site_of(request).hub.stir()
    return RedirectResponse(f"{request.scope.get('root_path', '')}/deeds/{deed.id}?{_back(form)}", 303)


@router.get("/deeds/{deed_id}", dependencies=[Depends(require(Role.VIEWER))])
def deed_page(request: Request, deed_id: str) -> Response:
    """Show what became of a change, or how far it is."""
    deed = deeds_of(request).get(deed_id)
    if deed is None:
        raise NotFound("this change is not known any more", "see the tokens themselves")
    back = query_of(request.query_params)
    return page(request, "deed.html", {"deed": deed, "words": deeds.VERBS[deed.verb], "back": back})


def deeds_of(request: Request) -> Deeds:
    """Return the changes that were begun lately by anybody."""
    state = request.app.state
    found: Deeds | None = getattr(state, "deeds", None)
    if found is None:
        found = state.deeds = Deeds()
    return found


def _chosen(form: FormData) -> Chosen:
    """Return which tokens a form means; raises BadInput where it means none."""
    if form.get("all"):
        return Chosen(filter=filter_of(form))
    ids = tuple(dict.fromkeys(str(each) for each in form.getlist("ids") if each))
    if not ids:
        raise BadInput("no tokens were chosen", "tick some, or choose all that match")
    return Chosen(ids)


def _patch(form: FormData) -> dict[str, Any]:
    """Return the fields that are to be set; raises BadInput before the first token is touched."""
    try:
        found = json.loads(str(form.get("patch") or ""))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the fields are not JSON: {error}", 'for example {"priority": 5, "timeout": null}') from None
    if not isinstance(found, dict) or not found:
        raise BadInput("no field is to be set", 'for example {"priority": 5, "timeout": null}')
    edits.refuse_core(found)
    return found


def _back(form: FormData) -> str:
    return query_of(form, leave=("ids", "verb", "all", "csrf_token", "patch"))

"""Who may come in: the people and API tokens of a server's own file; operators make API tokens and revoke them."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from ...errors import BadInput, NotFound
from ..access import ROLES, Role, audit, require
from ..access.roster import Roster
from ..rendering import page
from ..site import site_of
from .asked import Said, form_of, whole

router = APIRouter()

#: Days that an API token may hold at most, where it is not to hold until it is revoked.
LONGEST = 3660


@router.get("/access", dependencies=[Depends(require(Role.OPERATOR))])
def access(request: Request) -> Response:
    """Show who may come in."""
    revoked = request.query_params.get("revoked", "")
    said = Said(f"The API token {revoked[:100]} opens nothing any more.") if revoked else None
    return _page(request, said)


@router.post("/access/tokens")
def make_token(
    request: Request, form: FormData = Depends(form_of), person: Any = Depends(require(Role.OPERATOR))
) -> Response:
    """Make an API token, and show it: this once."""
    roster = _roster(request)
    name, role = str(form.get("name") or "").strip(), str(form.get("role") or "")
    if not name or len(name) > 100 or not name.isprintable():
        raise BadInput(f"{name[:100]!r} is no name of an API token", "say what it is for, for example node7")
    days = whole(form.get("days"), "the number of days", 1)
    if days is not None and days > LONGEST:
        raise BadInput(f"{days} days are too many", f"{LONGEST} at most; empty: until it is revoked")
    secret = roster.new_token(name, role, None if days is None else days * 86400.0)
    audit(request, "access token", name, role=role, days=days)
    return _page(request, None, secret, name)


@router.post("/access/revoke")
def revoke(
    request: Request, form: FormData = Depends(form_of), person: Any = Depends(require(Role.OPERATOR))
) -> Response:
    """Let an API token hold no more."""
    identity = str(form.get("id") or "")
    token = _roster(request).revoke(identity)
    audit(request, "access revoke", token.name, id=identity)
    return RedirectResponse(f"{request.scope.get('root_path', '')}/access?revoked={identity}", 303)


def _roster(request: Request) -> Roster:
    roster = site_of(request).access.roster
    if roster is None:
        raise NotFound("this server has no file of people", "tokenpool serve --users FILE")
    return roster


def _page(request: Request, said: Said | None, secret: str = "", name: str = "") -> Response:
    people, now = _roster(request).people(), time.time()
    tokens = sorted(people.tokens.values(), key=lambda token: -token.created)
    shown = {
        "said": said,
        "secret": secret,
        "name": name,
        "users": sorted(people.users.values(), key=lambda user: user.name),
        "tokens": [(token, token.expired(now)) for token in tokens],
        "roles": ROLES,
    }
    return page(request, "access.html", shown)

"""The pages by which people come in and leave."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from ..errors import NotKnown, TooOften, told_of
from ..rendering import page
from ..site import site_of
from .audit import address_of, audit
from .gate import require
from .people import Person, Role

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def form(request: Request, next: str = "/") -> Response:
    """Show the form."""
    site = site_of(request)
    if site.options.open or request.state.person is not None:
        return _to(request, next)
    return page(request, "login.html", {"next": _local(next), "told": None, "name": ""})


@router.post("/login")
async def log_in(request: Request, name: str = Form(""), password: str = Form(""), next: str = Form("/")) -> Response:
    """Begin a session, or show the form again with what was wrong."""
    access = site_of(request).access
    if access.options.open:
        return _to(request, "/")
    try:
        known = await access.check(name[:200], password, address_of(request))
    except (NotKnown, TooOften) as error:
        told = told_of(error)
        return page(
            request, "login.html", {"next": _local(next), "told": told, "name": name[:200]}, told.status, told.headers
        )
    secret, _ = await run_in_threadpool(access.sessions.begin, name, known.role, known.stamp)
    answer = _to(request, next)
    answer.set_cookie(
        access.cookie,
        secret,
        path=request.scope.get("root_path") or "/",
        secure=access.options.secure or request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    access.trail.write(
        {"name": name, "role": known.role, "address": address_of(request), "verb": "login", "what": "accepted"}
    )
    return answer


@router.post("/logout")
async def log_out(request: Request, _: Annotated[Person, Depends(require(Role.VIEWER))]) -> Response:
    """End the session."""
    access = site_of(request).access
    await run_in_threadpool(access.sessions.end, request.cookies.get(access.cookie, ""))
    audit(request, "logout", "")
    answer = _to(request, "/login")
    answer.delete_cookie(access.cookie, path=request.scope.get("root_path") or "/")
    return answer


def _to(request: Request, path: str) -> RedirectResponse:
    return RedirectResponse(f"{request.scope.get('root_path', '')}{_local(path)}", 303)


def _local(path: str) -> str:
    r"""Return a path of this server; where another site is named, the first page.

    >>> _local("/tokens?state=error"), _local("//evil.example"), _local("https://evil.example"), _local("/\\evil")
    ('/tokens?state=error', '/', '/', '/')
    """
    odd = not path.startswith("/") or path[1:2] in ("/", "\\") or any(ord(c) < 32 for c in path)
    return "/" if odd else path

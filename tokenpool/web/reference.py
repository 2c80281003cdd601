"""The description of both APIs, for programs and on a page where each route can be tried; no part comes from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import JSONResponse, Response

from .access import Role, require
from .access.gate import Requirement
from .rendering import page
from .site import site_of

router = APIRouter(include_in_schema=False, dependencies=[Depends(require(Role.VIEWER))])

#: How a request of no browser says who sends it.
SCHEMES = {
    "apiToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token, `tp_…`: an operator makes one by `tokenpool access token NAME`.",
    },
    "password": {
        "type": "http",
        "scheme": "basic",
        "description": "Somebody's name and password; or any name, with an API token as the password.",
    },
}


@router.get("/openapi.json")
def openapi(request: Request) -> JSONResponse:
    """Return the description as OpenAPI; its paths begin where this server is served."""
    described = {**request.app.openapi(), "servers": [{"url": request.scope.get("root_path") or "/"}]}
    asks = not site_of(request).options.open
    if asks:
        described["components"] = {**described.get("components", {}), "securitySchemes": SCHEMES}
    roles = dict(_roles(request.app))
    described["paths"] = {
        path: {method: _with_role(told, roles[path, method], asks) for method, told in item.items()}
        for path, item in described["paths"].items()
    }
    return JSONResponse(described)


@router.get("/docs")
def docs(request: Request) -> Response:
    """Show the description."""
    return page(request, "docs.html", {})


def _with_role(told: dict[str, Any], role: Role, asks: bool) -> dict[str, Any]:
    """Return what is told of a route, and who may use it, as OpenAPI 3.1 has it: the role stands where others have scopes."""
    about = told.get("description", "")
    summary = re.split(r"[.;:](?:\s|$)|\n", about, maxsplit=1)[0] or told.get("summary", "")
    described = {**told, "summary": summary, "description": f"{about}\n\nNeeds the role {role.word}.".strip()}
    return {**described, **({"security": [{name: [role.word]} for name in SCHEMES]} if asks else {})}


def _roles(app: FastAPI) -> Iterator[tuple[tuple[str, str], Role]]:
    """Yield the role that each route asks for, by its path as it is described and its method."""
    for route in _routes(app):
        role = max(_asked(getattr(route, "dependant", None)), default=None)
        if role is not None:
            for method in route.methods:
                yield (re.sub(r":\w+}", "}", route.path), method.lower()), role


def _routes(app: FastAPI) -> Iterable[Any]:
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:  # older versions copy the routes of a router that is included
        return app.routes
    return iter_route_contexts(app.routes)


def _asked(dependant: Any) -> Iterator[Role]:
    """Yield the roles that a route and what it depends on ask for."""
    if dependant is None:
        return
    if isinstance(dependant.call, Requirement):
        yield dependant.call.role
    for each in dependant.dependencies:
        yield from _asked(each)

"""The description of both APIs, for programs and on a page where each route can be tried; no part comes from elsewhere."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from .access import Role, require
from .rendering import page

router = APIRouter(include_in_schema=False, dependencies=[Depends(require(Role.VIEWER))])


@router.get("/openapi.json")
def openapi(request: Request) -> JSONResponse:
    """Return the description as OpenAPI; its paths begin where this server is served."""
    described = dict(request.app.openapi())
    described["servers"] = [{"url": request.scope.get("root_path") or "/"}]
    return JSONResponse(described)


@router.get("/docs")
def docs(request: Request) -> Response:
    """Show the description."""
    return page(request, "docs.html", {})

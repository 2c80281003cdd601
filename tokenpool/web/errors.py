"""Turns errors into answers: a status, and words in the form that who asked can read."""

from __future__ import annotations

import html
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from ..errors import (
    BadInput,
    Conflict,
    NotFound,
    NotPermitted,
    OutOfSpace,
    ServerAway,
    TokenpoolError,
    TokenTimeout,
)
from .headers import HEADERS

log = logging.getLogger(__name__)

#: Seconds after which it is worth asking a pool again that was away.
AWAY_RETRY = 5
#: Paths whose callers are programs, and of those the ones that are told in the words of GA4GH.
MACHINES = ("/api/", "/ga4gh/", "/metrics", "/openapi.json", "/healthz", "/readyz")
TES = "/ga4gh/"


class NotKnown(NotPermitted):
    """Nobody is logged in: 401."""


class Forged(NotPermitted):
    """The request was not sent from a page of ours: 403."""


class TooOften(NotPermitted):
    """Too many failed logins: 429."""

    def __init__(self, message: str, hint: str, wait: float) -> None:
        super().__init__(message, hint)
        self.wait = wait


#: The first class that fits counts.
STATUS: tuple[tuple[type[BaseException], int, str], ...] = (
    (NotKnown, 401, "not_logged_in"),
    (TooOften, 429, "too_often"),
    (Forged, 403, "forged"),
    (NotPermitted, 403, "not_permitted"),
    (BadInput, 400, "bad_input"),
    (NotFound, 404, "not_found"),
    (Conflict, 409, "conflict"),
    (OutOfSpace, 507, "out_of_space"),
    (ServerAway, 503, "pool_away"),
    (TokenTimeout, 504, "timeout"),
    (TokenpoolError, 500, "error"),
)
CODES = {400: "bad_input", 401: "not_logged_in", 403: "not_permitted", 404: "not_found", 405: "method_not_allowed",
         409: "conflict", 413: "too_large", 415: "wrong_type", 422: "bad_input", 429: "too_often", 503: "pool_away"}  # fmt: skip


#: What is told where there is no such route.
ROUTES = {
    404: ("there is nothing at this address", "/docs lists the routes; is the path of a proxy right?"),
    405: ("this address does not take that method", "/docs says which it takes"),
}


@dataclass(frozen=True)
class Told:
    """An error as it is told: status, a word for programs, two lines for people."""

    status: int
    code: str
    message: str
    hint: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def told_of(error: BaseException) -> Told:
    """Return what is told of an error; nothing of one that is a fault of ours."""
    if isinstance(error, RequestValidationError):
        return Told(400, "bad_input", *_first_fault(error))
    if isinstance(error, HTTPException):
        message, hint = ROUTES.get(error.status_code, (str(error.detail), ""))
        return Told(error.status_code, CODES.get(error.status_code, "error"), message, hint, error.headers or {})
    for kind, status, code in STATUS:
        if isinstance(error, kind):
            assert isinstance(error, TokenpoolError)
            return Told(status, code, error.message, error.hint, _headers(error))
    return Told(500, "error", "the server failed at this", "it is written in the server's log; please report it")


def _headers(error: TokenpoolError) -> dict[str, str]:
    if isinstance(error, ServerAway):
        return {"Retry-After": str(AWAY_RETRY)}
    if isinstance(error, TooOften):
        return {"Retry-After": str(max(1, round(error.wait)))}
    return {}


def _first_fault(error: RequestValidationError) -> tuple[str, str]:
    """Return where a request does not fit what a route takes, and what fits."""
    faults = error.errors()
    if not faults:
        return "the request makes no sense", "see /docs"
    fault: Mapping[str, Any] = faults[0]
    where = ".".join(str(part) for part in fault.get("loc", ()))
    return f"{where}: {fault.get('msg', 'does not fit')}", "see /docs for what is taken"


# --- the form of answers -----------------------------------------------------------------------------------------------


def answer(connection: HTTPConnection, error: BaseException) -> Response:
    """Return the answer to a request that failed: JSON for programs, a page or a part of one for people."""
    told = told_of(error)
    path = path_of(connection)
    headers = dict(told.headers)
    if told.status == 401 and path.startswith(("/api/", "/ga4gh/", "/metrics")):
        headers["WWW-Authenticate"] = _ways_in(connection)
    if path.startswith(TES):
        body: Any = {"status_code": told.status, "msg": told.message + (f"; {told.hint}" if told.hint else "")}
        return JSONResponse(body, told.status, headers)
    if path.startswith(MACHINES) or not wants_page(connection):
        error_json = {"code": told.code, "message": told.message, "hint": told.hint}
        return JSONResponse({"error": error_json}, told.status, headers)
    if told.status == 401:
        return _to_login(connection, path)
    if "hx-request" in connection.headers:
        return HTMLResponse(_lines(told), told.status, headers)
    from .rendering import page

    return page(connection, "error.html", {"told": told}, told.status, headers)


def _ways_in(connection: HTTPConnection) -> str:
    """Return how one may log in; a browser's own password window should not open over a page."""
    from_page = "sec-fetch-mode" in connection.headers and connection.headers["sec-fetch-mode"] != "navigate"
    return 'Bearer realm="tokenpool"' + ("" if from_page else ', Basic realm="tokenpool", charset="UTF-8"')


def _to_login(connection: HTTPConnection, path: str) -> Response:
    """Send a person to the login page, and back here after it."""
    from urllib.parse import urlencode

    query = connection.url.query
    wanted = path + (f"?{query}" if query else "") if connection.scope.get("method", "GET") == "GET" else "/"
    place = f"{connection.scope.get('root_path', '')}/login?{urlencode({'next': wanted})}"
    if "hx-request" in connection.headers:
        return HTMLResponse("", 401, {"HX-Redirect": f"{connection.scope.get('root_path', '')}/login"})
    return Response(status_code=303, headers={"Location": place})


def _lines(told: Told) -> str:
    hint = f'<p class="hint">{html.escape(told.hint)}</p>' if told.hint else ""
    return f'<div class="error" role="alert"><p>{html.escape(told.message)}</p>{hint}</div>'


def path_of(connection: HTTPConnection) -> str:
    """Return the path of a request below the one that a reverse proxy serves us under."""
    path, root = str(connection.scope["path"]), str(connection.scope.get("root_path", ""))
    return path[len(root) :] or "/" if root and (path == root or path.startswith(root + "/")) else path


def wants_page(connection: HTTPConnection) -> bool:
    """Tell whether a person with a browser asked."""
    return "text/html" in connection.headers.get("accept", "") or "hx-request" in connection.headers


def add_handlers(app: FastAPI) -> None:
    """Let the application answer all errors in these forms."""

    async def expected(request: Request, error: Exception) -> Response:
        return answer(request, error)

    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        told = answer(request, error)
        # This one is made outside of the middleware that adds them to all others.
        told.headers.update(HEADERS)
        return told

    for kind in (TokenpoolError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, expected)
    app.add_exception_handler(Exception, unexpected)

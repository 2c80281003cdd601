"""Bounds what a request may send: its body, by what is declared and by what really comes."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import answer, path_of
from .options import WebOptions

#: Routes that pass a body on as it comes, so that its size costs no memory.
STREAMS = re.compile(r"/api/v1/(tokens|backend/.*)")
STREAMED = ("application/x-ndjson", "application/octet-stream")


class BodyLimit:
    """Middleware that refuses (413) a body larger than the options allow."""

    def __init__(self, app: ASGIApp, options: WebOptions) -> None:
        self.app, self.options = app, options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose body is small enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        limit = self._limit(connection)
        declared = connection.headers.get("content-length", "")
        if declared and (not declared.isdigit() or int(declared) > limit):
            await answer(connection, too_large(limit))(scope, receive, send)
            return
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > limit:
                raise too_large(limit)
            return message

        await self.app(scope, counted, send)

    def _limit(self, connection: HTTPConnection) -> int:
        kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
        streamed = kind in STREAMED and STREAMS.fullmatch(path_of(connection))
        return self.options.stream_limit if streamed else self.options.upload_limit


def too_large(limit: int) -> HTTPException:
    """Return the refusal of a body; of this kind because frameworks pass it on while they read one."""
    size = f"{limit / 1e6:g} MB" if limit >= 1e6 else f"{limit} bytes"
    return HTTPException(413, f"the request is larger than {size}", {"Connection": "close"})

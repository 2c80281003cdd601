"""Ends event streams when the server is to stop: each of them sees its reader leave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

GONE: Message = {"type": "http.disconnect"}


class Closing:
    """Whether the server is about to stop; waited for by every request that is still open."""

    def __init__(self) -> None:
        self.begun = False
        self._event: asyncio.Event | None = None

    def begin(self) -> None:
        """Let all open requests know; called in the server's own loop."""
        self.begun = True
        self._wanted().set()

    async def wait(self) -> None:
        """Return when the server is about to stop."""
        await self._wanted().wait()

    def _wanted(self) -> asyncio.Event:
        # Made inside the loop: on Python 3.9 an event belongs to the loop of its making.
        if self._event is None:
            self._event = asyncio.Event()
            if self.begun:
                self._event.set()
        return self._event


class EndsWithServer:
    """Middleware that tells a request which only waits for its reader to leave that it has."""

    def __init__(self, app: ASGIApp, closing: Closing) -> None:
        self.app, self.closing = app, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; its body is passed on as it comes, what comes after may be the end of the server."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        whole = False

        async def until_closing() -> Message:
            nonlocal whole
            if whole:
                return await self._first(receive)
            message = await receive()
            whole = not message.get("more_body", False)
            return message

        await self.app(scope, until_closing, send)

    async def _first(self, receive: Receive) -> Message:
        """Return what the reader does next, or that they have gone, whichever comes first."""
        waits = [_task(receive()), _task(self.closing.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[0].result() if waits[0].done() else GONE
        finally:
            for wait in waits:
                if not wait.done():
                    wait.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await wait


def _task(coroutine: Any) -> asyncio.Task[Any]:
    made: Coroutine[Any, Any, Any] = coroutine
    return asyncio.ensure_future(made)

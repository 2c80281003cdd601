"""Tells watchers of servers that this one lives, and whether its pool answers."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from ..errors import TokenpoolError
from .errors import AWAY_RETRY
from .site import site_of

router = APIRouter(include_in_schema=False)

#: Seconds that a pool may take to answer.
PATIENCE = 5.0


@router.get("/healthz")
async def healthz() -> JSONResponse:
    """Say that the server lives; its pool may be away all the same."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """Say whether the pool answers: 200 or 503."""
    try:
        await asyncio.wait_for(asyncio.shield(_asked(request)), PATIENCE)
    except (TokenpoolError, asyncio.TimeoutError):
        return JSONResponse({"status": "pool away"}, 503, {"Retry-After": str(AWAY_RETRY)})
    return JSONResponse({"status": "ok"})


def _asked(request: Request) -> asyncio.Task[Any]:
    """Return the question that is on its way, or ask: nobody is let in here, so many may ask at once."""
    state = request.app.state
    asked: asyncio.Task[Any] | None = getattr(state, "asked_pool", None)
    if asked is None or asked.done():
        asked = asyncio.ensure_future(run_in_threadpool(site_of(request).pool.backend.get_many, ["bell"]))
        # Whoever waits may have given up when it fails.
        asked.add_done_callback(lambda done: done.cancelled() or done.exception())
        state.asked_pool = asked
    return asked

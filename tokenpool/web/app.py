"""Puts the server together: one application of pages, JSON API and TES over one pool."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..pool import Pool
from . import api, health, hub, metrics, pages, reference, tes
from .access import Access, Gate, login
from .closing import Closing, EndsWithServer
from .errors import add_handlers
from .headers import SecurityHeaders
from .limits import BodyLimit
from .options import WebOptions
from .site import Site
from .under_path import UnderPath

#: Requests that may wait for the pool at once; where it is away, they wait for long.
THREADS = 100
STATIC = Path(__file__).parent / "static"


def make_app(pool: Pool, options: WebOptions) -> FastAPI:
    """Return the application; the pool may be away, now or later."""
    site = Site(
        pool, options, Access(options, pool.backend), hub.Hub(pool, options.every, folder=options.folder), Closing()
    )
    app = FastAPI(
        title="tokenpool",
        version=_version(),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=_middleware(site),
        lifespan=_lifespan,
    )
    app.state.site = site
    add_handlers(app)
    app.include_router(health.router)
    app.include_router(login.router)
    app.include_router(reference.router)
    app.include_router(metrics.router)
    app.include_router(api.router)
    app.include_router(tes.router)
    app.mount("/static", Assets(directory=STATIC), name="static")
    app.include_router(pages.router)
    return app


class Assets(StaticFiles):
    """Files of a folder; what can be no name of one is not there, also on Pythons that raise for it."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Return a file's path and what is known of it."""
        return ("", None) if "\0" in path else super().lookup_path(path)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Look at the pool no more, and keep what should survive, when the server has stopped."""
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield
    site: Site = app.state.site
    site.hub.close()
    await run_in_threadpool(site.access.close)


def _middleware(site: Site) -> list[Middleware]:
    """Return what every request passes, the outermost first."""
    options = site.options
    outermost = [Middleware(SecurityHeaders, secure=options.secure)]
    if options.trusted_proxies:
        outermost.insert(0, Middleware(ProxyHeadersMiddleware, trusted_hosts=list(options.trusted_proxies)))
    return [
        *outermost,
        Middleware(UnderPath, root=options.root_path),
        Middleware(EndsWithServer, closing=site.closing),
        Middleware(BodyLimit, options=options),
        Middleware(Gate, access=site.access),
    ]


def _version() -> str:
    from ..metadata import __getattr__ as told

    return str(told("version"))

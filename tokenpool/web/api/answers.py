"""Makes answers of what the pool says: JSON, errors in one form, and the pool's clock with each."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from ...backends.couchdb import encode
from ...backends.remote_errors import status_of, told
from ...backends.remote_transport import CLOCK
from ...errors import BadInput, TokenpoolError
from ...pool import Pool
from ..site import site_of

Result = TypeVar("Result")

#: Threads that work for machines; people's pages have others, so a pool that is away does not take them all.
THREADS = 32


def answer(content: Any, status: int = 200, pool: Pool | None = None) -> Response:
    """Return JSON; with a pool, its time goes along."""
    headers = {} if pool is None else {CLOCK: repr(pool.backend.now())}
    return Response(encode(content), status, headers, "application/json")


def refusal(error: TokenpoolError) -> Response:
    """Return an error as the API spells it."""
    status = status_of(error)
    return Response(encode(told(error)), status, {"Retry-After": "5"} if status == 503 else {}, "application/json")


def read_json(body: bytes) -> Any:
    """Return what a body says; raises BadInput where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is not JSON: {error}", "send application/json") from None


def read_object(body: bytes) -> dict[str, Any]:
    """Return the object that a body is; raises BadInput where it is something else."""
    found = read_json(body or b"{}")
    if not isinstance(found, dict):
        raise BadInput("the body is no JSON object", 'send for example {"slots": 4}')
    return found


async def in_thread(request: Request, work: Callable[..., Result], *values: Any) -> Result:
    """Call what blocks in one of the threads for machines."""
    state = request.app.state
    limiter = getattr(state, "api_threads", None)
    if limiter is None:
        limiter = state.api_threads = anyio.CapacityLimiter(THREADS)
    return await anyio.to_thread.run_sync(functools.partial(work, *values), limiter=limiter)


async def answered(request: Request, work: Callable[..., Any], *values: Any, status: int = 200) -> Response:
    """Return what `work` returns for the pool and these values as an answer, or why it could not be done."""
    pool = site_of(request).pool

    def act() -> Response:
        try:
            return answer(work(pool, *values), status, pool)
        except TokenpoolError as error:
            return refusal(error)

    return await in_thread(request, act)

"""The pool as a whole, its batches and its workers, as JSON; operators steer them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from ... import batch_rules
from ...backends.base import Json
from ...errors import BadInput
from ...steering import WorkerInfo
from ..access import Person, Role, require
from ..access.audit import audit
from ..site import site_of
from .answers import answer, in_thread, read_object

router = APIRouter(tags=["pool"])

_LOOKS, _STEERS = Depends(require(Role.VIEWER)), Depends(require(Role.OPERATOR))
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
RULES = frozenset({"paused", "priority", "max_running"})
ORDERS: dict[str, type] = {"slots": int, "prefetch": int, "drain": bool, "stop": bool}


@router.get("/status")
async def status(request: Request, person: Person = _LOOKS) -> Response:
    """Count tokens by state and batch, and name the workers."""
    return answer(await in_thread(request, site_of(request).pool.status))


@router.get("/batches")
async def batches(request: Request, person: Person = _LOOKS) -> Response:
    """List the batches: their rules, and their tokens by state."""
    found = await in_thread(request, batch_rules.batches, site_of(request).pool.backend)
    return answer({"schema": 1, "batches": [each.as_json() for each in found]})


@router.patch("/batches/{name:path}", openapi_extra=_BODY)
async def patch_batch(request: Request, name: str, create: bool = False, person: Person = _STEERS) -> Response:
    """Change the rule of a batch: paused, priority, max_running (null: no limit); with ?create=true one that is new."""
    fields = read_object(await request.body())
    strange = sorted(set(fields) - RULES)
    if strange:
        raise BadInput(f"a batch has no {strange[0]!r}", ", ".join(sorted(RULES)))
    pool = site_of(request).pool
    rule = await in_thread(request, lambda: pool.set_batch(name, create, **fields))
    audit(request, "batch", name, **fields)
    return answer({"schema": 1, **asdict(rule)})


@router.get("/workers")
async def workers(request: Request, person: Person = _LOOKS) -> Response:
    """List the workers and what they run."""
    found = await in_thread(request, site_of(request).pool.workers)
    return answer({"schema": 1, "workers": [worker_json(each) for each in found]})


@router.patch("/workers/{worker_id:path}", openapi_extra=_BODY)
async def patch_worker(request: Request, worker_id: str, person: Person = _STEERS) -> Response:
    """Give a worker orders: slots, prefetch (claim N more), drain (claim no more, leave at the end), stop (leave now)."""
    orders = read_object(await request.body())
    _check(orders)
    pool = site_of(request).pool
    worker = await in_thread(request, lambda: pool.steer_worker(worker_id, **orders))
    audit(request, "worker", worker.id, **orders)
    return answer({"schema": 1, **worker_json(worker)})


def _check(orders: Json) -> None:
    for name, value in orders.items():
        if name not in ORDERS:
            raise BadInput(f"a worker takes no order {name!r}", ", ".join(ORDERS))
        if not isinstance(value, ORDERS[name]):
            kind = "number" if ORDERS[name] is int else "true or false"
            raise BadInput(f"{name} {value!r} is no {kind}", '{"slots": 4}')


def worker_json(worker: WorkerInfo) -> Json:
    """Return a worker as JSON, which knows no infinite age."""
    told: dict[str, Any] = worker.as_json()
    return {**told, "age": told["age"] if math.isfinite(told["age"]) else None}

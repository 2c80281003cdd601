"""The workers: where they are, how full, what they run; and the orders that an operator gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from ... import steering
from ...errors import BadInput
from ...selectors import parse_time
from ...steering import WorkerInfo, doing
from ..access import Role, audit, require
from ..hub import Snapshot
from ..live import stream
from ..rendering import common, environment, page
from ..site import site_of
from .asked import Said, form_of, here, whole

router = APIRouter()

#: Workers that one page shows, and running tokens that are named of each.
MOST, NAMED = 200, 6
#: What may be ordered besides numbers of slots and of tokens claimed ahead.
ORDERS: Mapping[str, tuple[dict[str, Any], str]] = {
    "drain": ({"drain": True}, "is told to take no more, and to leave when what it runs has ended"),
    "go": ({"drain": False}, "may take tokens again"),
    "stop": ({"stop": True}, "is told to leave now; what it runs goes back to the others"),
}


@router.get("/workers", dependencies=[Depends(require(Role.VIEWER))])
def workers(request: Request) -> Response:
    """Show the workers."""
    known = common(request)
    snapshot = site_of(request).hub.snapshot()
    said = _said(request, snapshot)
    return page(request, "workers.html", {"said": said, **values(snapshot, known["person"].may(Role.OPERATOR))})


@router.get("/workers/live", dependencies=[Depends(require(Role.VIEWER))])
async def live(request: Request) -> Response:
    """Send the workers again whenever something about them changes."""
    known = common(request)
    steers = known["person"].may(Role.OPERATOR)
    # The proof of a form belongs to one reader: what is drawn for all has none, and a script fills it in.
    filled = {"root": known["root"], "pool_url": known["pool_url"], "csrf": ""}

    def draw(snapshot: Snapshot) -> str:
        return environment().get_template("workers_live.html").render({**filled, **values(snapshot, steers)})

    return stream(request, site_of(request).hub, ("workers", steers, known["root"]), draw)


def values(now: Snapshot, steers: bool) -> dict[str, Any]:
    """Return what the page of workers is filled with."""
    alive = [worker for worker in now.workers if worker.alive]
    rows = sorted(now.workers, key=lambda each: (not each.alive, each.hostname, each.id))
    return {
        "now": now,
        "steers": steers,
        "workers": [(worker, _runs(worker, now.when)) for worker in rows[:MOST]],
        "more": max(0, len(rows) - MOST),
        "busy": sum(worker.slots - worker.free for worker in alive),
        "slots": sum(worker.slots for worker in alive),
        "alive": len(alive),
    }


def _runs(worker: WorkerInfo, now: float) -> list[dict[str, Any]]:
    """Return what a worker told of the tokens that it runs."""
    found = []
    for entry in worker.running[:NAMED]:
        since = parse_time(entry.get("since"))
        told = {
            "token": str(entry.get("token") or ""),
            "command": str(entry.get("command") or entry.get("token") or ""),
        }
        found.append({**told, "doing": doing(entry), "since": None if since is None else max(0.0, now - since)})
    return found


def _said(request: Request, now: Snapshot) -> Said | None:
    order, worker = request.query_params.get("said", ""), request.query_params.get("worker", "")
    if not order:
        return None
    host = next((each.hostname for each in now.workers if each.id == worker), "") or "the worker"
    if order in ORDERS:
        return Said(f"{host} {ORDERS[order][1]}.")
    slots, ahead = (request.query_params.get(name, "")[:6] for name in ("slots", "prefetch"))
    more = f", and claims {ahead} more ahead," if ahead else ""
    return Said(f"{host} gets {slots} slots{more} as soon as it looks.")


@router.post("/workers")
def steer(
    request: Request, form: FormData = Depends(form_of), person: Any = Depends(require(Role.OPERATOR))
) -> Response:
    """Give one worker an order."""
    here(request)
    backend, worker, order = site_of(request).pool.backend, str(form.get("worker") or ""), str(form.get("order") or "")
    numbers: dict[str, int] = {}
    if not worker.startswith(steering.WORKER):
        raise BadInput(f"{worker!r} is no worker", "choose one on the page of workers")
    query = f"said={order}&worker={worker}"
    if order == "slots":
        numbers = _numbers(form)
        steering.steer(backend, worker, **numbers)
        query += "".join(f"&{name}={number}" for name, number in numbers.items())
    elif order in ORDERS:
        steering.steer(backend, worker, **ORDERS[order][0])
    else:
        raise BadInput(f"there is no order {order!r}", f"slots, {', '.join(ORDERS)}")
    site_of(request).hub.stir()
    audit(request, f"worker {order}", worker, **numbers)
    return RedirectResponse(f"{request.scope.get('root_path', '')}/workers?{query}", 303)


def _numbers(form: FormData) -> dict[str, int]:
    """Return how many slots a form gives a worker, and how many tokens it is to claim ahead where the form says so."""
    slots = whole(form.get("slots"), "the number of slots", 1)
    if slots is None:
        raise BadInput("the number of slots is empty", "1 or more")
    prefetch = whole(form.get("prefetch"), "the number of tokens to claim ahead", 0)
    return {"slots": slots, **({} if prefetch is None else {"prefetch": prefetch})}

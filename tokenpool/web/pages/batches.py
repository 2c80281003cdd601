"""The batches: how far each is, how long its tokens take; pause, resume, priority, and how many may run."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from ... import batch_rules
from ...batch_rules import BatchRule
from ...errors import BadInput, TokenpoolError
from ..access import Role, audit, require
from ..charts import share_bar
from ..durations import Durations
from ..hub import Snapshot
from ..live import stream
from ..rendering import common, environment, page
from ..site import Site, site_of
from .asked import Said, form_of, here, whole

router = APIRouter()

#: Batches that one page shows.
MOST = 200


@router.get("/batches", dependencies=[Depends(require(Role.VIEWER))])
def batches(request: Request, find: str = "") -> Response:
    """Show the batches."""
    site = site_of(request)
    steers = common(request)["person"].may(Role.OPERATOR)
    filled = values(site, durations_of(request), site.hub.snapshot(), steers, find)
    return page(request, "batches.html", {"said": _said(request), **filled})


@router.get("/batches/live", dependencies=[Depends(require(Role.VIEWER))])
async def live(request: Request, find: str = "") -> Response:
    """Send the batches again whenever something about them changes."""
    site, known, durations = site_of(request), common(request), durations_of(request)
    steers = known["person"].may(Role.OPERATOR)
    filled = {"root": known["root"], "csrf": ""}

    def draw(snapshot: Snapshot) -> str:
        told = values(site, durations, snapshot, steers, find)
        return environment().get_template("batches_live.html").render({**filled, **told})

    return stream(request, site.hub, ("batches", steers, known["root"], find), draw)


def values(site: Site, durations: Durations, now: Snapshot, steers: bool, find: str) -> dict[str, Any]:
    """Return what the page of batches is filled with."""
    chosen = {name: counts for name, counts in now.batches.items() if find.casefold() in name.casefold()}
    shown = dict(list(chosen.items())[:MOST])
    try:
        took = {} if now.away else durations.of(site.pool.backend, shown)
    except TokenpoolError:  # it went away just now: the next look says so
        took = {}
    rows = [
        {
            "name": name,
            "counts": dict(counts),
            "total": sum(counts.values()),
            "ended": counts["done"] + counts["error"],
            "bar": share_bar(counts, name or "no batch"),
            "rule": now.rules.get(name, BatchRule(name)),
            "took": took.get(name),
        }
        for name, counts in shown.items()
    ]
    return {"now": now, "rows": rows, "steers": steers, "more": len(chosen) - len(shown), "find": find}


def durations_of(request: Request) -> Durations:
    """Return what this server knows of how long tokens take."""
    state = request.app.state
    found: Durations | None = getattr(state, "durations", None)
    if found is None:
        found = state.durations = Durations()
    return found


def _said(request: Request) -> Said | None:
    order, name = request.query_params.get("said", ""), request.query_params.get("batch", "")[:100]
    told = {
        "pause": f"Batch {name} is paused: no more of its tokens are taken; those that run end.",
        "resume": f"Batch {name} goes on.",
        "set": f"Batch {name} is treated so from now on.",
    }
    return Said(told[order]) if order in told else None


@router.post("/batches")
def steer(
    request: Request, form: FormData = Depends(form_of), person: Any = Depends(require(Role.OPERATOR))
) -> Response:
    """Change how a batch is treated."""
    here(request)
    backend, name, order = site_of(request).pool.backend, str(form.get("batch") or ""), str(form.get("order") or "")
    if order in ("pause", "resume"):
        fields: dict[str, Any] = {"paused": order == "pause"}
    elif order == "set":
        fields = {
            "priority": _number(form.get("priority")),
            "max_running": whole(form.get("max_running"), "the most that may run", 1),
        }
    else:
        raise BadInput(f"there is no order {order!r}", "pause, resume, set")
    batch_rules.set_batch(backend, name, **fields)
    site_of(request).hub.stir()
    audit(request, f"batch {order}", name, **fields)
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/batches?said={order}&batch={quote(name, safe='')}", 303)


def _number(text: Any) -> float:
    word = str(text or "0").strip()
    try:
        value = float(word)
    except ValueError:
        raise BadInput(f"priority {word[:40]!r} is not a number", "for example 5, or -1") from None
    return int(value) if value.is_integer() else value

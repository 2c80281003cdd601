"""The first page: how many tokens are where, what ended when, what ran where, live."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from ...transitions import STATES
from ..access import Role, require
from ..charts import gantt, share_bar, throughput
from ..hub import Hub, Snapshot
from ..live import stream
from ..rendering import common, environment, page
from ..site import site_of

router = APIRouter()

#: What a reader may choose to see, in seconds.
SPANS = {"10m": 600.0, "1h": 3600.0, "6h": 6 * 3600.0, "24h": 24 * 3600.0}
#: Batches and workers that are named here; their own pages have all of them.
NAMED = 12
WORDS = {
    "todo": "waiting",
    "held": "held back",
    "locked": "running",
    "done": "done",
    "error": "failed",
    "invalid": "invalid",
}


@router.get("/", dependencies=[Depends(require(Role.VIEWER))])
def overview(request: Request, span: str = "") -> Response:
    """Show the overview."""
    hub = site_of(request).hub
    snapshot = hub.snapshot()
    span = span if span in SPANS else _fitting(hub)
    return page(request, "overview.html", values(hub, snapshot, span, common(request)["root"]))


def _fitting(hub: Hub) -> str:
    """Return the time that is shown where nobody chose one: a campaign that has just begun fills its charts too."""
    begun = [bar.start for bar in hub.bars(SPANS["1h"])]
    begun += [point.when for point in hub.series(SPANS["1h"]) if point.done or point.failed]
    return "10m" if all(each > time.time() - SPANS["10m"] for each in begun) else "1h"


@router.get("/overview/live", dependencies=[Depends(require(Role.VIEWER))])
async def live(request: Request, span: str = "1h") -> Response:
    """Send the overview again whenever it changes."""
    hub = site_of(request).hub
    span = span if span in SPANS else "1h"
    known = {name: value for name, value in common(request).items() if name in ("root", "pool_url")}

    def draw(snapshot: Snapshot) -> str:
        filled = {**known, **values(hub, snapshot, span, known["root"])}
        return environment().get_template("overview_live.html").render(filled)

    return stream(request, hub, ("overview", span, known["root"]), draw)


def values(hub: Hub, now: Snapshot, span: str, root: str) -> dict[str, Any]:
    """Return what the overview is filled with."""
    seconds = SPANS[span]
    batches = sorted(now.batches.items(), key=_importance)
    points = hub.series(seconds)
    workers = sorted(now.workers, key=lambda each: (-each.held, each.hostname, each.id))
    return {
        "now": now,
        "span": span,
        "words": WORDS,
        "share": share_bar(now.counts, "All tokens"),
        "throughput": throughput(points, seconds),
        "gantt": gantt(hub.bars(seconds), time.time(), seconds, root, points[0].when),
        "batches": [(name, dict(counts), share_bar(counts, name or "no batch")) for name, counts in batches[:NAMED]],
        "more_batches": max(0, len(batches) - NAMED),
        "workers": workers[:NAMED],
        "more_workers": max(0, len(workers) - NAMED),
    }


def _importance(item: tuple[str, Any]) -> tuple[bool, int, str]:
    """What runs or waits comes first, the largest first."""
    name, counts = item
    open_ones = sum(counts[state] for state in STATES[:3])
    return not open_ones, -open_ones, name

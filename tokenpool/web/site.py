"""What all parts of the server share: the pool, who may do what, and what was seen lately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from .options import WebOptions

if TYPE_CHECKING:
    from ..pool import Pool
    from .access import Access
    from .closing import Closing
    from .hub import Hub


@dataclass(frozen=True)
class Site:
    """One server over one pool. Pool and backend block: call them in threads (`def` routes, `run_in_threadpool`)."""

    pool: Pool
    options: WebOptions
    access: Access
    hub: Hub
    closing: Closing


def site_of(connection: HTTPConnection) -> Site:
    """Return the site that a request came to; a dependency of routes too."""
    site: Site = connection.app.state.site
    return site

"""Fills the templates of pages: everything is escaped, and every page knows who looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse

from .filters import FILTERS

TEMPLATES = Path(__file__).parent / "templates"


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Return the templates, each read once; a name that is not given is an error, not an empty place."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    return made


def page(
    connection: HTTPConnection,
    template: str,
    values: Mapping[str, Any],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Return a template filled with `values` and with what every page is given: see `common`."""
    text = environment().get_template(template).render({**common(connection), **values})
    return HTMLResponse(text, status, dict(headers or {}))


def common(connection: HTTPConnection) -> dict[str, Any]:
    """Return what every template has: `root` (before every path), `person` (or None), `csrf`, `open`, `pool_url`, `path`.

    `lets_in`: this person may see who may come in, and there is a file that says so.
    """
    from .access import Role
    from .errors import path_of
    from .site import site_of

    site, known = site_of(connection), getattr(connection.state, "person", None)
    return {
        "root": connection.scope.get("root_path", ""),
        "path": path_of(connection),
        "person": known,
        "csrf": getattr(connection.state, "csrf", ""),
        "open": site.options.open,
        "lets_in": site.access.roster is not None and known is not None and known.may(Role.OPERATOR),
        # Who is not known is not told where the pool is.
        "pool_url": site.pool.url if known else "",
    }

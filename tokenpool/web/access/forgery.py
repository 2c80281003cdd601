"""Tells requests of our own pages from those that another page made a browser send."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from ..errors import Forged
from ..options import LOOPBACK

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HEADER, FIELD = "x-csrf-token", "csrf_token"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

RELOAD = "reload the page and try again"
#: Programs get here too: what curl sends without a type is a form.
TYPED = f"{RELOAD}; a program says what it sends: Content-Type: application/json"


def check_host(connection: HTTPConnection) -> None:
    """Refuse a request that names us by a strange name, where nobody logs in.

    Else a page of that name, whose address was changed to ours, could read and write everything.
    """
    host = connection.headers.get("host", "")
    name = urlsplit(f"//{host}").hostname or ""
    if name not in LOOPBACK and not name.startswith("127."):
        raise Forged(f"this server is not {name or 'nameless'!r}", "http://127.0.0.1, or start it with --users")


def check_origin(connection: HTTPConnection) -> None:
    """Refuse what a browser says to come from another site; who is no browser says nothing of that."""
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Forged("the request comes from another site", RELOAD)
        return
    origin = connection.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != connection.headers.get("host", "").lower():
        raise Forged("the request comes from another site", RELOAD)


def check_token(connection: HTTPConnection, wanted: str, needed: bool) -> bool:
    """Check the token of a request's header; return whether a form has to bring it instead."""
    given = connection.headers.get(HEADER)
    if given is not None:
        _compare(given, wanted)
        return False
    kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in FORMS:
        return True
    if needed:
        raise Forged("the request does not prove that it comes from a page of this server", RELOAD)
    return False


def check_field(given: object, wanted: str) -> None:
    """Check the token of a form."""
    _compare(given if isinstance(given, str) else "", wanted)


def _compare(given: str, wanted: str) -> None:
    if not wanted or not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
        raise Forged("the page is too old, or the request is forged", TYPED)

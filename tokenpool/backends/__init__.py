"""Where documents live: one file per kind of store, chosen by the scheme of the pool's URL."""

from __future__ import annotations

from ..errors import BadInput
from ..plugins import load
from .base import Backend

BUILTIN = {
    "sqlite": "tokenpool.backends.sqlite:SQLiteBackend",
    "couchdb+http": "tokenpool.backends.couchdb:CouchDBBackend",
    "couchdb+https": "tokenpool.backends.couchdb:CouchDBBackend",
    "tokenpool+http": "tokenpool.backends.remote:RemoteBackend",
    "tokenpool+https": "tokenpool.backends.remote:RemoteBackend",
}


def open_backend(url: str, password: str | None = None, create: bool = False) -> Backend:
    """Return the backend that `url` names; with `create` the pool is made where it is missing.

    Raises BadInput for a URL that names none, NotFound where there is no such pool.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise BadInput(
            f"{url!r} is not the URL of a pool",
            "write sqlite:///tokenpool.db, couchdb+https://user@host:6984/database or tokenpool+https://host",
        )
    kind = load("backends", scheme, BUILTIN)
    backend: Backend = kind(url, password=password, create=create)
    return backend

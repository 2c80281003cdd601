"""Our errors that are python-couchdb's as well, so that a picas script's ``except`` clauses catch them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .. import errors

with warnings.catch_warnings():
    # python-couchdb asks pkg_resources for its own version, which warns of its end on every import.
    warnings.simplefilter("ignore")
    import couchdb
    import couchdb.http


class ResourceConflict(errors.Conflict, couchdb.http.ResourceConflict):  # type: ignore[misc]
    """The document changed since it was read."""


class ResourceNotFound(errors.NotFound, couchdb.http.ResourceNotFound):  # type: ignore[misc]
    """There is no such document, view or database."""


class Unauthorized(errors.NotPermitted, couchdb.http.Unauthorized):  # type: ignore[misc]
    """The server wants another user or password."""


class ServerError(errors.ServerAway, couchdb.http.ServerError):  # type: ignore[misc]
    """The server did not do what was asked."""


_TWINS: tuple[tuple[type[errors.TokenpoolError], type[errors.TokenpoolError]], ...] = (
    (errors.Conflict, ResourceConflict),
    (errors.NotFound, ResourceNotFound),
    (errors.NotPermitted, Unauthorized),
    (errors.ServerAway, ServerError),
)


@contextmanager
def picas_errors() -> Iterator[None]:
    """Raise, instead of an error of ours, the one that is also python-couchdb's."""
    try:
        yield
    except errors.TokenpoolError as error:
        for ours, twin in _TWINS:
            if isinstance(error, ours) and not isinstance(error, (couchdb.http.HTTPError, IndexError)):
                raise twin(error.message, error.hint) from error
        raise


__all__ = ["ResourceConflict", "ResourceNotFound", "ServerError", "Unauthorized", "couchdb", "picas_errors"]

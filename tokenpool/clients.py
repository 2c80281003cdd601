"""The clients that scripts hold: `connect(url)` for the pool, and picas' `CouchDB` as a face of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import chance
from .backends import open_backend
from .backends.base import ALL_DOCS, Json, Refused, Rows, Saved
from .documents import Document, Task
from .errors import BadInput, ClaimFailed, Conflict, NotFound, PoolEmpty, TokenpoolError
from .picaslogger import picaslogger
from .pool import Pool
from .pool import connect as connect

if TYPE_CHECKING:
    import couchdb


class CouchDB:
    """picas' client of one database; `pool` is the same database with tokenpool's verbs.

    A `url` that begins with ``sqlite:`` opens a file, one with ``tokenpool+`` the pool behind a server of ours.
    """

    def __init__(
        self,
        url: str = "http://localhost:5984",
        db: str = "test",
        username: str | None = None,
        password: str = "",
        ssl_verification: bool = True,
        create: bool = False,
    ) -> None:
        self._arguments = (url, db, username, password, ssl_verification)
        with _picas_errors():
            self.pool = Pool(open_backend(pool_url(url, db, username, ssl_verification), password or None, create))

    @cached_property
    def db(self) -> couchdb.Database:
        """The database as python-couchdb has it, on our transport."""
        from .backends.couch_errors import couchdb
        from .backends.couchdb import CouchDBBackend
        from .backends.session import PoolSession

        backend = self.pool.backend
        if not isinstance(backend, CouchDBBackend):
            raise BadInput(f"{backend.url} is no CouchDB", "use the client's own methods: get, save, view, …")
        server = couchdb.Server(backend.transport.url, session=PoolSession(backend.transport))
        options = backend.transport.options
        if options.username:
            server.resource.credentials = (options.username, options.password)
        return couchdb.Database(server.resource(backend.database), backend.database)

    def copy(self) -> CouchDB:
        """Return a new connection to the same database, with the same credentials and the same TLS settings."""
        url, db, username, password, verify = self._arguments
        return CouchDB(url, db, username, password, verify)

    # --- documents -------------------------------------------------------------------------------------------------

    def __getitem__(self, idx: str) -> Any:
        if self.pool.url.startswith("couchdb"):
            return self.db[idx]
        with _picas_errors():
            return self.pool.backend.get(idx)

    def get(self, id: str) -> Document:
        """Return a document; ValueError where there is none."""
        try:
            with _picas_errors():
                return Document(self.pool.backend.get(id))
        except NotFound:
            raise ValueError(f"{id} is not a document ID in the database") from None

    def save(self, doc: Any) -> Any:
        """Write one document and give it its new `_rev`; ``couchdb.http.ResourceConflict`` on a stale one."""
        plain = _plain(doc)
        if "_id" not in plain:
            plain["_id"] = Task().id
        with _picas_errors():
            result = self.pool.backend.put_many([plain])[0]
            if isinstance(result, Refused):
                raise _refusal(result)
        doc["_rev"], doc["_id"] = result.rev, result.id
        return doc

    def save_documents(self, docs: Sequence[Any]) -> list[bool]:
        """Write documents in one request; True for each that was saved, and its `_rev` is the new one then."""
        plain = [_plain(doc) for doc in docs]
        for each in plain:
            each.setdefault("_id", Task().id)
        with _picas_errors():
            results = self.pool.backend.put_many(plain)
        for doc, result in zip(docs, results):
            if isinstance(result, Saved):
                doc["_rev"], doc["_id"] = result.rev, result.id
        return [isinstance(result, Saved) for result in results]

    def delete(self, doc: Any) -> None:
        """Delete a document; ``couchdb.http.ResourceConflict`` where it was changed since it was read."""
        plain = _plain(doc)
        with _picas_errors():
            result = self.pool.backend.put_many([{"_id": plain["_id"], "_rev": plain["_rev"], "_deleted": True}])[0]
            if isinstance(result, Refused):
                raise _refusal(result)

    def delete_documents(self, docs: Sequence[Any]) -> list[bool]:
        """Delete documents; True for each that is gone now."""
        return [self._deleted(doc) for doc in docs]

    def _deleted(self, doc: Any) -> bool:
        try:
            self.delete(doc)
        except (TokenpoolError, KeyError) as error:
            picaslogger.info("could not delete %s: %s", _plain(doc).get("_id"), error)
            return False
        return True

    def read_attachment(self, doc_id: str, name: str) -> bytes:
        """Return an attachment of a document."""
        with _picas_errors():
            return self.pool.attachment(doc_id, name)

    def doc_count(self) -> int:
        """Return the number of documents, design documents included."""
        with _picas_errors():
            return self.pool.backend.view(ALL_DOCS, "", {"limit": 0}).total

    # --- views -----------------------------------------------------------------------------------------------------

    def view(self, view: str, design_doc: str = "Monitor", **view_params: Any) -> Any:
        """Return the rows of a view: iterable, ``len``, `.rows` with `.id .key .value`, `.total_rows`, `.offset`."""
        if self.pool.url.startswith("couchdb"):
            return self.db.view(f"{design_doc}/{view}", **view_params)
        return ViewRows(lambda: self.pool.backend.view(design_doc, view, view_params))

    def get_from_view(self, view: str, **view_params: Any) -> list[Document]:
        """Return the documents that a view lists, read together; those that vanished meanwhile are left out."""
        ids = [row.id for row in self.view(view, **view_params)]
        with _picas_errors():
            return [Document(doc) for doc in self.pool.backend.get_many(ids) if doc is not None]

    def get_single_from_view(self, view: str, window_size: int = 1, **view_params: Any) -> Document:
        """Return a random document of the first `window_size` rows; IndexError where the view is empty."""
        rows = self.view(view, limit=window_size, **view_params).rows
        if not rows:
            raise PoolEmpty("no token waits in this view", "push some: tokenpool push FILE")
        return self.get(chance.choice(rows).id)

    def delete_from_view(self, view: str, design_doc: str = "Monitor") -> list[bool]:
        """Delete every document that a view lists; True for each that is gone now."""
        return self.delete_documents(self.get_from_view(view, design_doc=design_doc))

    def is_view_nonempty(self, view: str, **view_params: Any) -> bool:
        """Tell whether a view lists anything; a view that is not there lists nothing."""
        design = view_params.pop("design_doc", "Monitor")
        try:
            with _picas_errors():
                found = self.pool.backend.view(design, view, {**view_params, "limit": 1, "reduce": False}).rows
        except NotFound:
            picaslogger.info("there is no view %s/%s", design, view)
            return False
        picaslogger.info("view %s/%s is %s", design, view, "not empty" if found else "empty")
        return bool(found)

    def add_view(
        self,
        view: str,
        map_fun: str,
        *args: Any,
        reduce_fun: str | None = None,
        design_doc: str = "Monitor",
        **kwargs: Any,
    ) -> None:
        """Write a view into a design document, as python-couchdb's ViewDefinition does."""
        from couchdb.design import ViewDefinition

        ViewDefinition(design_doc, view, map_fun, reduce_fun, *args, **kwargs).sync(self.db)

    def set_users(
        self,
        admins: list[str] | None = None,
        members: list[str] | None = None,
        admin_roles: list[str] | None = None,
        member_roles: list[str] | None = None,
    ) -> None:
        """Set who may use the database; what is not given stays."""
        security = self.db.resource.get_json("_security")[2]
        for who, kind, names in (
            ("admins", "names", admins),
            ("members", "names", members),
            ("admins", "roles", admin_roles),
            ("members", "roles", member_roles),
        ):
            if names is not None:
                security.setdefault(who, {})[kind] = names
        self.db.resource.put("_security", security)


class ViewRows:
    """The rows of a view, asked for when first looked at, as python-couchdb's ViewResults."""

    def __init__(self, query: Any) -> None:
        self._query = query

    @cached_property
    def _answer(self) -> Rows:
        with _picas_errors():
            answer: Rows = self._query()
        return answer

    @property
    def rows(self) -> list[Any]:
        """All rows."""
        return list(self._answer.rows)

    @property
    def total_rows(self) -> int:
        """The number of rows of the whole view."""
        return self._answer.total

    @property
    def offset(self) -> int:
        """The number of rows before the first."""
        return self._answer.offset

    def __iter__(self) -> Iterator[Any]:
        return iter(self._answer.rows)

    def __len__(self) -> int:
        return len(self._answer.rows)


def pool_url(url: str, db: str, username: str | None, ssl_verification: bool) -> str:
    """Return the URL of a pool for picas' arguments.

    >>> pool_url("http://localhost:5984", "test", "me", True)
    'couchdb+http://me@localhost:5984/test'
    """
    if url.startswith(("sqlite:", "tokenpool+")):
        return url
    scheme, separator, rest = url.replace("couchdb+", "", 1).rstrip("/").partition("://")
    if not separator:
        raise BadInput(f"{url!r} is not the address of a server", "for example https://picas.example.org:6984")
    user = f"{quote(username, safe='')}@" if username is not None and "@" not in rest else ""
    options = [] if ssl_verification else ["verify=no"]
    if scheme == "http":
        # picas never asked; the password goes in the clear as it did there.
        options.append("insecure=true")
    query = f"?{'&'.join(options)}" if (options and "localhost" not in rest) or not ssl_verification else ""
    return f"couchdb+{scheme}://{user}{rest}/{quote(db, safe='')}{query}"


def _plain(doc: Any) -> Json:
    value: Json = doc.value if isinstance(doc, Document) else doc
    return value


def _refusal(result: Refused) -> TokenpoolError:
    if result.conflict:
        return Conflict(f"document {result.id} exists with another revision or was deleted", "read it again")
    return BadInput(f"document {result.id} was not saved: {result.error} {result.reason}", "change it and save again")


def _picas_errors() -> Any:
    from .backends.couch_errors import picas_errors

    return picas_errors()


__all__ = ["ClaimFailed", "CouchDB", "Pool", "ViewRows", "connect", "pool_url"]

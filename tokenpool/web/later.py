"""A pool that was away when the server started: opened as soon as somebody asks and it is there again."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from ..backends import open_backend
from ..backends.base import Backend, Heard, Json, Rows, Want, Window, WriteResult
from ..errors import ServerAway, TokenpoolError

#: Seconds after a failure until the pool is tried again.
AGAIN = 1.0


class LaterBackend(Backend):
    """Passes everything on to the pool that a URL names; raises ServerAway, or why it cannot be opened, until then."""

    def __init__(self, url: str, password: str | None) -> None:
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        account, at, host = parts.netloc.rpartition("@")
        self.url = parts._replace(netloc=account.partition(":")[0] + at + host, query="").geturl()
        self.place, self.password = url, password
        self._lock = threading.Lock()
        self._opened: Backend | None = None
        self._failed = (-AGAIN, "", "")
        self._closed = False

    def _there(self) -> Backend:
        with self._lock:
            if self._closed:
                raise TokenpoolError("the pool is closed")
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> Backend:
        when, why, hint = self._failed
        if time.monotonic() - when < AGAIN:
            # Who waited for the lock need not try for as long again.
            raise ServerAway(why, hint)
        try:
            return open_backend(self.place, self.password)
        except ServerAway as error:
            self._failed = time.monotonic(), error.message, error.hint
            raise

    def inner(self) -> Backend:
        """Return the pool itself; raises what opening it raises."""
        return self._there()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()

    def create(self, designs: Sequence[Json] = ()) -> None:
        self._there().create(designs)

    def get_many(self, ids: Sequence[str], conflicts: bool = False) -> list[Json | None]:
        return self._there().get_many(ids, conflicts)

    def put_many(self, docs: Sequence[Json]) -> list[WriteResult]:
        return self._there().put_many(docs)

    def view(self, design: str, view: str, params: Mapping[str, Any]) -> Rows:
        return self._there().view(design, view, params)

    def put_attachment(self, doc_id: str, rev: str, name: str, data: BinaryIO, size: int, content_type: str) -> str:
        return self._there().put_attachment(doc_id, rev, name, data, size, content_type)

    def get_attachment(self, doc_id: str, name: str, rev: str = "") -> Iterator[bytes]:
        return self._there().get_attachment(doc_id, name, rev)

    def attachment_from(self, doc_id: str, name: str, start: int) -> Iterator[bytes] | None:
        return self._there().attachment_from(doc_id, name, start)

    def revision(self, doc_id: str, rev: str) -> Json | None:
        return self._there().revision(doc_id, rev)

    def now(self) -> float:
        return self._there().now()

    def candidates(self, want: Want, limit: int, start: float | None = None) -> Window:
        return self._there().candidates(want, limit, start)

    def scan(
        self, state: str | None = None, batch: str | None = None, with_docs: bool = True, holder: str | None = None
    ) -> Iterator[Json]:
        return self._there().scan(state, batch, with_docs, holder)

    def counts(self) -> dict[tuple[str, str], int]:
        return self._there().counts()

    def holders(self) -> dict[tuple[str, str], int]:
        return self._there().holders()

    def waiting(
        self,
        kind: str,
        keys: Collection[str] | None = None,
        until: float | None = None,
        limit: int = 1000,
        after: Any = None,
    ) -> list[tuple[Any, str]]:
        return self._there().waiting(kind, keys, until, limit, after)

    def listen(self, ids: Collection[str], since: str = "", timeout: float = 60.0) -> Heard:
        return self._there().listen(ids, since, timeout)

"""The interface of a place where documents live: nine methods, compare-and-set on every write.

This file imports nothing of the package but its errors; `tokenpool.testing.backends` holds every implementation to
the contracts written here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Union

from ..errors import NotFound

Json = dict[str, Any]

#: Passed to `Backend.view` as the design: every document by its id.
ALL_DOCS = "_all_docs"


@dataclass(frozen=True)
class Saved:
    """A write that was applied; `accepted` marks one that a cluster took without a quorum (202)."""

    id: str
    rev: str
    accepted: bool = False


@dataclass(frozen=True)
class Refused:
    """A write that was not applied: `error` is ``conflict`` or the server's word, `reason` is for people."""

    id: str
    error: str
    reason: str = ""

    @property
    def conflict(self) -> bool:
        """The document was changed by somebody else, or exists already."""
        return self.error == "conflict"


WriteResult = Union[Saved, Refused]


@dataclass(frozen=True)
class Row:
    """One row of a view; `doc` only where the query asked for documents."""

    id: str | None
    key: Any
    value: Any
    doc: Json | None = None


@dataclass(frozen=True)
class Rows:
    """The answer of a view; `total` counts the rows of the whole view, or of the answer where it is reduced."""

    rows: tuple[Row, ...]
    total: int
    offset: int = 0


@dataclass(frozen=True)
class Want:
    """What a worker would take: any token, or those of some batches, or those that a user's view lists."""

    batches: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    design: str = ""
    view: str = ""
    view_params: Mapping[str, Any] = field(default_factory=dict)


class Backend(ABC):
    """One pool. Documents are plain JSON dicts with `_id` and `_rev`; all methods are safe from many threads."""

    #: The pool's URL without a password.
    url: str = ""
    #: Writes are applied one after another, so claims may start at the head of the queue without colliding much.
    ordered: bool = False

    @abstractmethod
    def create(self, designs: Sequence[Json] = ()) -> None:
        """Make the pool where it is missing and write each design document that differs, once.

        A design document that reads the same is left alone: writing it would index the whole database again.
        """

    @abstractmethod
    def get_many(self, ids: Sequence[str], conflicts: bool = False) -> list[Json | None]:
        """Return the documents in the order of `ids`, None where there is none.

        With `conflicts`, a document that has conflicting revisions lists them in `_conflicts`.
        """

    @abstractmethod
    def put_many(self, docs: Sequence[Json]) -> list[WriteResult]:
        """Write each document if its `_rev` is still the current one (none: if there is no such document).

        One answer for each document, in order; a refused one never hinders the others. ``_deleted: true`` deletes.
        Attachments inside (`data`, base64) are stored; stubs keep what is there; what is not named is dropped.
        Raises AnswerLost where nobody can know what was applied; nothing is sent twice blindly.
        """

    @abstractmethod
    def candidates(self, want: Want, limit: int, start: float | None = None) -> list[Json]:
        """Return up to `limit` whole documents that could be claimed now, highest priority first.

        `start` in [0, 1) begins at that place of the queue and wraps around, so that many workers spread; None begins
        at its head. A document may be stale: only the write decides. Raises NotFound where a user's view is missing.
        """

    @abstractmethod
    def scan(self, state: str | None = None, batch: str | None = None, with_docs: bool = True) -> Iterator[Json]:
        """Yield tokens of a state and batch, streaming, in constant memory; without docs only their `_id`.

        Tokens that change during the scan may be seen in either state; none that stays is missed.
        """

    @abstractmethod
    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of tokens by (state, batch), from an index, never by reading the tokens."""

    @abstractmethod
    def view(self, design: str, view: str, params: Mapping[str, Any]) -> Rows:
        """Query a view (or `ALL_DOCS`) with CouchDB's options; raises NotFound where there is no such view."""

    @abstractmethod
    def put_attachment(self, doc_id: str, rev: str, name: str, data: BinaryIO, size: int, content_type: str) -> str:
        """Stream an attachment of `size` bytes to a document at revision `rev`; return the new revision.

        Raises Conflict where the document changed, AnswerLost where nobody can know.
        """

    @abstractmethod
    def get_attachment(self, doc_id: str, name: str) -> Iterator[bytes]:
        """Yield an attachment in pieces; raises NotFound where it is not there."""

    def get(self, doc_id: str, conflicts: bool = False) -> Json:
        """Return one document; raises NotFound."""
        doc = self.get_many([doc_id], conflicts=conflicts)[0]
        if doc is None:
            raise NotFound(f"there is no document {doc_id!r} in {self.url}", "list what is there: tokenpool list all")
        return doc

    def close(self) -> None:
        """Let go of connections; the object is not used afterwards."""

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

"""The interface of a pool: where documents live, compare-and-set on every write, and the queue that is read of them.

This file imports nothing of the package but its errors; `tokenpool.testing.backends` holds every implementation to
the contracts written here.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Union

from ..errors import BadInput, NotFound

Json = dict[str, Any]

#: Passed to `Backend.view` as the design: every document by its id.
ALL_DOCS = "_all_docs"
#: What `Queue.waiting` lists.
WAITS = ("due", "parent", "closed", "conflict", "reuse")


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
    """What a worker would take: any token, or those of some batches, or those that a user's view lists.

    `fits` leaves out the tokens for which it is False: those that a worker could not run, or not now.
    """

    batches: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    design: str = ""
    view: str = ""
    view_params: Mapping[str, Any] = field(default_factory=dict)
    fits: Callable[[Json], bool] = field(default=lambda doc: True, compare=False)


@dataclass(frozen=True)
class Window:
    """Some of the queue, in its order; `rooms` has the `max_running` of each batch that has one and is in it."""

    tokens: list[Json] = field(default_factory=list)
    rooms: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Heard:
    """Which documents changed since a marker (none: it was the time that passed), and the marker of now."""

    changed: frozenset[str]
    marker: str


def check_kind(kind: str) -> None:
    """Raise BadInput where `kind` is nothing that `Queue.waiting` lists."""
    if kind not in WAITS:
        raise BadInput(f"nothing waits as {kind!r}", f"known: {', '.join(WAITS)}")


class Documents(ABC):
    """Plain JSON dicts with `_id` and `_rev`, and attachments; all methods are safe from many threads."""

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
    def view(self, design: str, view: str, params: Mapping[str, Any]) -> Rows:
        """Query a view (or `ALL_DOCS`) with CouchDB's options; raises NotFound where there is no such view."""

    @abstractmethod
    def put_attachment(self, doc_id: str, rev: str, name: str, data: BinaryIO, size: int, content_type: str) -> str:
        """Stream an attachment of `size` bytes to a document at revision `rev`; return the new revision.

        Raises Conflict where the document changed, AnswerLost where nobody can know.
        """

    @abstractmethod
    def get_attachment(self, doc_id: str, name: str, rev: str = "") -> Iterator[bytes]:
        """Yield an attachment in pieces, as it is at revision `rev` if given; raises NotFound where it is not there."""

    def attachment_from(self, doc_id: str, name: str, start: int) -> Iterator[bytes] | None:
        """Yield an attachment from its byte `start` on; None: this pool reads attachments from their beginning only."""
        return None

    def get(self, doc_id: str, conflicts: bool = False) -> Json:
        """Return one document; raises NotFound."""
        doc = self.get_many([doc_id], conflicts=conflicts)[0]
        if doc is None:
            raise NotFound(f"there is no document {doc_id!r} in {self.url}", "list what is there: tokenpool list all")
        return doc

    def revision(self, doc_id: str, rev: str) -> Json | None:
        """Return a document at one given revision, a conflicting one for example; None where it is not kept."""
        doc = self.get_many([doc_id])[0]
        return doc if doc is not None and doc["_rev"] == rev else None

    def now(self) -> float:
        """Return the seconds since 1970 by the pool's own clock, as near as it is known here."""
        return time.time()

    def close(self) -> None:
        """Let go of connections and end every `listen`; the object is not used afterwards."""


class Queue(ABC):
    """The tokens of a pool as its workers and its people see them; all methods are safe from many threads."""

    @abstractmethod
    def candidates(self, want: Want, limit: int, start: float | None = None) -> Window:
        """Return up to `limit` whole documents that could be claimed now.

        Highest priority first: that of the token's batch, then its own. Those of a paused batch are not shown; of a
        batch with `max_running` no more than may be locked besides those that are. `start` in [0, 1) begins at that
        place of the queue, wraps around, and mixes what is of equal priority, so that many workers spread; None begins
        at its head. A document may be stale: only the write decides. Raises NotFound where a user's view is missing.
        """

    @abstractmethod
    def scan(
        self, state: str | None = None, batch: str | None = None, with_docs: bool = True, holder: str | None = None
    ) -> Iterator[Json]:
        """Yield tokens of a state and batch, streaming, in constant memory; without docs only their `_id`.

        `holder`: only locked tokens whose valid lease names this worker, "" for those that have none. Tokens that
        change during the scan may be seen in either state; none that stays is missed.
        """

    @abstractmethod
    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of tokens by (state, batch), from an index, never by reading the tokens."""

    @abstractmethod
    def holders(self) -> dict[tuple[str, str], int]:
        """Return the number of locked tokens by (batch, worker), from an index; worker "" has no valid lease."""

    @abstractmethod
    def waiting(
        self,
        kind: str,
        keys: Collection[str] | None = None,
        until: float | None = None,
        limit: int = 1000,
        after: Any = None,
    ) -> list[tuple[Any, str]]:
        """Return up to `limit` pairs of (key, token id), ordered by key; `kind` is one of `WAITS`.

        ``due``: held tokens by their `not_before`, those up to `until` (None: all). ``parent``: held tokens by each id
        of their `depends_on`. ``closed``: tokens in error whose last attempt has the failure class "dependency", the
        same way. ``conflict``: tokens that have conflicting revisions, by their own id. ``reuse``: done tokens by their
        `reuse_key`. With `keys`: those of these keys only. Else those of keys behind `after`, which is how one goes on
        after a full answer. A pool without the view lists nothing.
        """

    @abstractmethod
    def listen(self, ids: Collection[str], since: str = "", timeout: float = 60.0) -> Heard:
        """Return as soon as one of the documents changed after the marker `since`, or after `timeout` seconds.

        Without `since` it returns at once, with the marker of now. A document that was deleted or made has changed
        too; one may be named that did not change. Raises ServerAway, and TokenpoolError after `close`.
        """


class Backend(Documents, Queue):
    """One pool: its documents and its queue."""

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

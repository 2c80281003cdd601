"""Settles conflicting revisions: a cluster may let two workers win one race, or take two writes while it is torn.

The survivor is written first and the others are deleted only then, each at the revision that was read. So a revision
that moved on meanwhile is never lost, and whatever breaks in between, the next pass finishes it.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence

from . import precedence, transitions
from .backends.base import Backend, Json, Refused, Saved
from .errors import AnswerLost, NotFound
from .precedence import Move, Settled

log = logging.getLogger(__name__)

#: Rounds of reading one document anew because others write to it, before it is left to the next pass.
ROUNDS = 8
#: Attachments of a revision that loses are kept up to this size, and all of them up to that, in bytes.
LARGEST, LARGEST_SUM = 2_000_000, 8_000_000


def resolve(
    backend: Backend, doc_id: str, unused: str = "", displaced: Callable[[str], None] = lambda worker: None
) -> bool:
    """Settle the conflicting revisions of one document; True if it had some, and has none any more.

    Any number of resolvers may work on it at once. `unused` is a claim of ours that was never acted upon. `displaced`
    is told the name of each worker that may still run the token, and has lost it to another claim.

    False where nothing conflicts, where it is not ours to decide (documents of others, tokens that picas runs), and
    where others were faster ROUNDS times. Raises ServerAway, AnswerLost; calling it again does no harm.
    """
    met, lost = False, None
    workers: frozenset[str] = frozenset()
    for _ in range(ROUNDS):
        leaves = _read(backend, doc_id)
        if met and len(leaves) < 2:
            break
        settled = precedence.settle(leaves, unused)
        if settled is None:
            return False
        met, workers = True, workers | settled.displaced
        try:
            if _write(backend, settled):
                break
            lost = None
        except AnswerLost as error:
            lost = error
    else:
        if lost is not None:
            raise lost
        log.info("%s has conflicting revisions; others write to it, so it is left for later", doc_id)
        return False
    log.info("%s had conflicting revisions; one stands", doc_id)
    for worker in sorted(workers):
        displaced(worker)
    return True


def resolve_all(
    backend: Backend,
    limit: int = 100,
    also: Sequence[str] = (),
    displaced: Callable[[str], None] = lambda worker: None,
) -> int:
    """Settle the tokens that have conflicts, up to `limit`, and the documents named in `also`; return how many."""
    ids = [token_id for _, token_id in backend.waiting("conflict", limit=limit)]
    docs = backend.get_many(also, conflicts=True) if also else []
    ids += [doc["_id"] for doc in docs if doc is not None and doc.get("_conflicts")]
    return sum(resolve(backend, each, displaced=displaced) for each in dict.fromkeys(ids))


def _read(backend: Backend, doc_id: str) -> list[Json]:
    """Return every revision that stands beside the others; what cannot be read is not among them, and stays."""
    now = backend.get_many([doc_id], conflicts=True)[0]
    if now is None:
        return []
    others = [backend.revision(doc_id, rev) for rev in now.pop("_conflicts", None) or ()]
    return [now, *(doc for doc in others if doc is not None and not doc.get("_deleted"))]


def _write(backend: Backend, settled: Settled) -> bool:
    """Write the survivor, then delete the others; False where somebody else wrote first."""
    doc_id = settled.doc["_id"]
    if settled.touch and not _save(backend, settled):
        return False
    gone = [{"_id": doc_id, "_rev": rev, "_deleted": True} for rev in settled.losers]
    return all(isinstance(backend.put_many([each])[0], Saved) for each in gone)


def _save(backend: Backend, settled: Settled) -> bool:
    """Write the survivor, always: a resolver that saw an older state could else delete it while we delete the others."""
    result = backend.put_many([_with_attachments(backend, settled, LARGEST_SUM)])[0]
    if isinstance(result, Refused) and not result.conflict:
        log.warning("logs of %s are not kept: %s %s", result.id, result.error, result.reason)
        result = backend.put_many([_with_attachments(backend, settled, 0)])[0]
    # Without a quorum the write may be gone when a node is: what it holds must stay where it is.
    return isinstance(result, Saved) and not result.accepted


def _with_attachments(backend: Backend, settled: Settled, room: int) -> Json:
    """Return the surviving document with the attachments that it takes over, up to `room` bytes of them."""
    kept: Json = {}
    for move in settled.moves:
        size = move.stub.get("length", 0)
        data = _data(backend, settled.doc["_id"], move) if size <= min(LARGEST, room) else None
        if data is not None:
            kept[move.to] = {"content_type": move.stub.get("content_type", "text/plain"), "data": data}
            room -= size
    doc = {**settled.doc}
    if kept:
        doc["_attachments"] = {**(doc.get("_attachments") or {}), **kept}
    left_out = {move.to for move in settled.moves} - set(kept)
    if left_out:
        doc["attempts"] = [
            {
                name: value
                for name, value in attempt.items()
                if name not in ("stdout", "stderr") or value not in left_out
            }
            for attempt in transitions.attempts_of(doc)
        ]
    return doc


def _data(backend: Backend, doc_id: str, move: Move) -> str | None:
    try:
        data = b"".join(backend.get_attachment(doc_id, move.name, rev=move.rev))
    except NotFound:
        return None
    return base64.b64encode(data).decode("ascii")

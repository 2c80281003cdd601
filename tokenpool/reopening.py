"""Makes tokens wait again that were closed because a parent failed: the parent was put back, so it may yet succeed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from .backends.base import Backend, Saved
from .errors import AnswerLost
from .parents import DONE, OPEN, PAGE, Verdicts, is_closed_with_parent, reopened

#: Ids named in one request.
KEYS = 200
#: Times that a token which changed under our hands is read and tried again.
ROUNDS = 6


def reopen(backend: Backend, parents: Sequence[str]) -> list[str]:
    """Make the tokens wait again that were closed because of these, or of one of those; return their ids."""
    opened: list[str] = []
    queue = deque(dict.fromkeys(parents))
    while queue:
        keys = [queue.popleft() for _ in range(min(KEYS, len(queue)))]
        for ids in pages(backend, "closed", keys):
            back = _reopen_all(backend, ids)
            opened += back
            queue.extend(back)
    return opened


def closed_with(backend: Backend, parents: Sequence[str]) -> Iterator[str]:
    """Yield the ids of the tokens that `reopen` would make wait again."""
    known: set[str] = set()
    queue = deque(dict.fromkeys(parents))
    while queue:
        keys = [queue.popleft() for _ in range(min(KEYS, len(queue)))]
        for ids in pages(backend, "closed", keys):
            fresh = [each for each in ids if each not in known]
            known.update(fresh)
            queue.extend(fresh)
            yield from fresh


def _reopen_all(backend: Backend, ids: Sequence[str]) -> list[str]:
    opened: list[str] = []
    left, unsure = list(ids), set[str]()
    for _ in range(ROUNDS):
        docs = [doc for doc in backend.get_many(left) if doc is not None and is_closed_with_parent(doc)] if left else []
        names = [doc["_id"] for doc in docs]
        # Written after all, or by somebody who had the same in mind: its children are to follow.
        opened += unsure.difference(names)
        unsure = set()
        if not docs:
            break
        try:
            results = backend.put_many([reopened(doc) for doc in docs])
        except AnswerLost:
            left, unsure = names, set(names)
            continue
        opened += [result.id for result in results if isinstance(result, Saved)]
        left = [each for each, result in zip(names, results) if not isinstance(result, Saved)]
    return opened


def confirm(backend: Backend, parents: Iterable[str]) -> None:
    """Look once more at parents whose children were closed just now.

    Somebody may have retried one between our look and our write; who did saw its children open still, so it is on us to
    open them again.
    """
    names = list(dict.fromkeys(parents))
    again = Verdicts(backend)
    again.learn(names)
    revived = [each for each in names if again[each] in (OPEN, DONE)]
    if revived:
        reopen(backend, revived)


def pages(
    backend: Backend, kind: str, keys: Sequence[str] | None = None, until: float | None = None
) -> Iterator[list[str]]:
    """Yield the ids of tokens that wait so, each once; what was yielded may leave the list meanwhile, or stay in it."""
    seen: set[str] = set()
    size = PAGE
    while True:
        rows = backend.waiting(kind, keys=keys, until=until, limit=size)
        fresh = [each for each in dict.fromkeys(doc_id for _, doc_id in rows) if each not in seen]
        seen.update(fresh)
        if fresh:
            yield fresh
        if len(rows) < size:
            return
        if 2 * len(fresh) < size:
            size *= 4

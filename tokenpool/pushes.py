"""Puts new tokens into a pool: streamed in constant memory, each one answered for."""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import Any, Union

from .backends.base import Backend, Json, Refused, Saved
from .documents import Document, new_token
from .errors import AnswerLost, BadInput
from .runners import equivalent_input

Item = Union[str, Mapping[str, Any], Document]

#: Tokens sent in one request.
CHUNK = 1000
#: Rounds of asking a server what it holds of a chunk whose answer was lost.
ROUNDS = 8
#: Fields that say when and by whom, not what: they do not make two tokens different.
NOT_CONTENT = frozenset({"_id", "_rev", "creation_time", "submitter", "batch", "priority"})


@dataclass(frozen=True)
class Pushed:
    """What became of one token: `reason` is empty where it was saved, `known` where it was there already."""

    id: str
    reason: str = ""
    known: bool = False

    @property
    def saved(self) -> bool:
        """It is in the pool, put there by this push."""
        return not self.reason and not self.known


def push(backend: Backend, items: Iterable[Item], defaults: Mapping[str, Any], dedupe: bool) -> Iterator[Pushed]:
    """Write tokens chunk by chunk; yield one answer for each, in order.

    With `dedupe` the id is made of the content, and a token that is there already is no error.
    """
    stamp = {
        "creation_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "submitter": user_name(),
        **defaults,
    }
    docs = (make_token(item, stamp, dedupe) for item in items)
    while True:
        chunk = list(islice(docs, CHUNK))
        if not chunk:
            return
        yield from _push_chunk(backend, chunk, dedupe)


def make_token(item: Item, defaults: Mapping[str, Any], dedupe: bool = False) -> Json:
    """Return the document of one token: a string is a shell command, a mapping its fields; raises BadInput."""
    if isinstance(item, str):
        fields: Json = {**defaults, "input": item}
    elif isinstance(item, (Mapping, Document)):
        fields = {**defaults, **item}
    else:
        raise BadInput(f"a token cannot be made of {type(item).__name__}", "give a command, a dict, or a Task")
    if dedupe and "_id" not in fields:
        fields["_id"] = content_id(fields)
    _check(fields)
    return new_token(fields)


def content_id(fields: Mapping[str, Any]) -> str:
    """Return an id that is the same for the same work."""
    content = {name: value for name, value in fields.items() if name not in NOT_CONTENT}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "task_" + hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _check(fields: Json) -> None:
    """Refuse what no worker could run, and write what picas' workers need to run it too."""
    doc_id = fields.get("_id")
    if doc_id is not None and (
        not isinstance(doc_id, str) or not doc_id or doc_id.startswith("_") or doc_id in (".", "..")
    ):
        raise BadInput(f"{doc_id!r} cannot be the id of a token", "use a text that does not start with _")
    if "command" in fields:
        fields.setdefault("input", equivalent_input(fields))


def user_name() -> str:
    """Return who we are, empty where the machine does not know."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _push_chunk(backend: Backend, chunk: list[Json], dedupe: bool) -> Iterator[Pushed]:
    answers: dict[int, Pushed] = {}
    waiting = dict(enumerate(chunk))
    for _ in range(ROUNDS):
        numbers, docs = list(waiting), list(waiting.values())
        try:
            results = backend.put_many(docs)
        except AnswerLost:
            # Ids are ours and new, so what the server holds of them by now is what it took.
            there = backend.get_many([doc["_id"] for doc in docs])
            taken = {n for n, doc, now in zip(numbers, docs, there) if now is not None and _same(doc, now)}
            answers.update({n: Pushed(waiting.pop(n)["_id"]) for n in taken})
        else:
            for number, doc, result in zip(numbers, docs, results):
                answers[number] = _answer(doc, result, dedupe)
            waiting = {}
        if not waiting:
            break
    else:
        raise AnswerLost("the server lost the answer again and again", "push once more with --dedupe when it is well")
    yield from (answers[number] for number in range(len(chunk)))


def _answer(doc: Json, result: Saved | Refused, dedupe: bool) -> Pushed:
    if isinstance(result, Saved):
        return Pushed(result.id)
    if result.conflict and dedupe:
        return Pushed(doc["_id"], known=True)
    reason = "a token of this id is there already" if result.conflict else f"{result.error}: {result.reason}"
    return Pushed(doc["_id"], reason)


def _same(doc: Json, now: Json) -> bool:
    return all(now.get(name) == value for name, value in doc.items() if name != "_attachments")

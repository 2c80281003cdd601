"""Puts new tokens into a pool: streamed in constant memory, each one answered for."""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import Any, Union

from . import transitions
from .backends.base import Backend, Json, Refused, Saved
from .bell import Bell
from .checks import check, moment
from .cycles import cycles, sort
from .documents import Document, new_token
from .errors import AnswerLost, BadInput
from .parents import MISSING, Verdicts, close_with_parent, decide, parents_of, verdict
from .reopening import confirm
from .runners import equivalent_input
from .runners.equivalent import command_of as inner_command

Item = Union[str, Mapping[str, Any], Document]

#: Tokens sent in one request.
CHUNK = 1000
#: Rounds of asking a server what it holds of a chunk whose answer was lost.
ROUNDS = 8
#: Fields that say when and by whom, not what: they do not make two tokens different.
NOT_CONTENT = frozenset({"_id", "_rev", "creation_time", "submitter", "batch", "priority", "not_before", "paused"})


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


@dataclass(frozen=True)
class PushError:
    """A token that was not saved, and why."""

    id: str
    reason: str


class NotAllSaved(BadInput):
    """Some tokens of a push were refused; the others are in the pool."""

    def __init__(self, ids: list[str], refused: list[PushError]) -> None:
        first = refused[0]
        super().__init__(
            f"{len(refused)} of {len(refused) + len(ids)} tokens were not saved, first {first.id}: {first.reason}",
            "the others are saved; give new ids, or push with dedupe",
        )
        self.ids, self.refused = ids, refused


def push(
    backend: Backend,
    items: Iterable[Item],
    defaults: Mapping[str, Any],
    dedupe: bool,
    as_they_are: bool = False,
    bell: Bell | None = None,
) -> Iterator[Pushed]:
    """Write tokens chunk by chunk; yield one answer for each, in order.

    With `dedupe` the id is made of the content, and a token that is there already is no error. A token that has to wait
    is held, unless tokens are written `as_they_are`. Raises BadInput where a parent is neither in the pool nor pushed
    before, or in the same chunk: nothing of that chunk is written then. Workers are woken by `bell`, or by an own one.
    """
    stamp = {
        "creation_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "submitter": user_name(),
        **defaults,
    }
    docs = (make_token(item, stamp, dedupe) for item in items)
    own_bell = bell or Bell(backend)
    sent = 0
    try:
        while chunk := list(islice(docs, CHUNK)):
            failed = [] if as_they_are else _hold_back(backend, chunk, sent)
            answers = _push_chunk(backend, chunk, dedupe)
            sent += len(chunk)
            own_bell.ring()
            confirm(backend, failed)
            yield from answers
    finally:
        if bell is None:
            own_bell.flush()


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
    if isinstance(fields.get("not_before"), str):
        fields["not_before"] = moment(fields["not_before"])
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
    if not fields.get("done"):  # the past of a token that is carried over is nobody's mistake now
        check(fields)
    if fields.get("image") and "command" not in fields and isinstance(inner_command(fields), str):
        fields["command"] = fields.pop("input")
    is_ours = "command" in fields or fields.get("image") or fields.get("executors") or fields.get("function")
    if is_ours and "input" not in fields:
        fields["input"] = equivalent_input(fields)


def user_name() -> str:
    """Return who we are, empty where the machine does not know."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


# --- order ---------------------------------------------------------------------------------------------------------


def _hold_back(backend: Backend, chunk: Sequence[Json], sent: int) -> list[str]:
    """Hold the tokens of a chunk that have to wait, close those that wait in vain; return the parents that failed."""
    waiting = [doc for doc in chunk if doc.get("depends_on") or doc.get("not_before") is not None or doc.get("paused")]
    waiting = [doc for doc in waiting if transitions.state_of(doc) == transitions.TODO]
    if not waiting:
        return []
    verdicts = Verdicts(backend)
    # Of two with one id the first is saved.
    own = {doc["_id"]: doc for doc in reversed(chunk)}
    _find_parents(verdicts, waiting, own, sent)
    now = backend.now()
    failed = []
    for doc in _parents_first(waiting):
        verdicts.update((each, verdict(own[each])) for each in parents_of(doc) if verdicts[each] == MISSING)
        move, parent = decide(doc, verdicts, now)
        if doc.get("paused") or move == "wait":
            transitions.hold(doc)
        elif move == "close":
            close_with_parent(doc, parent)
            failed.append(parent)
    return [each for each in failed if each not in own]


def _find_parents(verdicts: Verdicts, waiting: Sequence[Json], own: Mapping[str, Json], sent: int) -> None:
    """Read all parents; raises BadInput for one that is neither in the pool nor in this chunk."""
    verdicts.learn(each for doc in waiting for each in parents_of(doc))
    for doc in waiting:
        for each in parents_of(doc):
            if verdicts[each] == MISSING and each not in own:
                raise BadInput(
                    f"token {doc['_id']} depends on {each}, which is neither in the pool nor pushed before it",
                    "parents are pushed first"
                    + (f"; the first {sent} tokens were pushed, the rest not" if sent else ""),
                )


def _parents_first(waiting: Sequence[Json]) -> list[Json]:
    """Return the tokens in an order that has parents first; raises BadInput where there is none."""
    known = {doc["_id"]: doc for doc in reversed(waiting)}
    graph = {name: parents_of(doc) for name, doc in known.items()}
    order, rest = sort(graph)
    if rest:
        cycle = next(cycles(rest))
        raise BadInput(
            f"these tokens wait for one another: {' → '.join([*reversed(cycle), cycle[-1]])}",
            "each depends on the next; take one of them out of the other's depends_on",
        )
    return [known[name] for name in order] + [doc for doc in waiting if known[doc["_id"]] is not doc]


# --- writing -------------------------------------------------------------------------------------------------------


def _push_chunk(backend: Backend, chunk: list[Json], dedupe: bool) -> list[Pushed]:
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
    return [answers[number] for number in range(len(chunk))]


def _answer(doc: Json, result: Saved | Refused, dedupe: bool) -> Pushed:
    if isinstance(result, Saved):
        return Pushed(result.id)
    if result.conflict and dedupe:
        return Pushed(doc["_id"], known=True)
    reason = "a token of this id is there already" if result.conflict else f"{result.error}: {result.reason}"
    return Pushed(doc["_id"], reason)


def _same(doc: Json, now: Json) -> bool:
    return all(now.get(name) == value for name, value in doc.items() if name != "_attachments")

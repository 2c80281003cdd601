"""Says why a token does not run: what it waits for, who holds it, which worker could take it, what stands before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from . import transitions
from .backends.base import Backend, Json
from .parents import parents_of
from .prospects import Reason, asker, prospects, spoken
from .selectors import parse_time
from .steering import WorkerInfo, doing, number_of, worker_info

#: Parents that are named one by one.
PARENTS = 10
#: Later times than this, in seconds since 1970, are no times.
YEAR_9999 = 253_370_000_000


@dataclass(frozen=True)
class Explanation:
    """Why a token is where it is; the first reason is the one that counts most."""

    id: str
    state: str
    reasons: list[Reason] = field(default_factory=list)

    def as_json(self) -> Json:
        """Return it in the stable form of ``explain --json``."""
        return {"schema": 1, **asdict(self)}


def explain(backend: Backend, token_id: str) -> Explanation:
    """Return why a token does not run, or who runs it, or how it ended. Raises NotFound."""
    doc = backend.get(token_id)
    state = transitions.state_of(doc)
    tellers: dict[str, Callable[[Backend, Json], Iterator[Reason]]] = {
        transitions.TODO: prospects,
        transitions.HELD: _held,
        transitions.LOCKED: _locked,
        transitions.DONE: _ended,
        transitions.ERROR: _ended,
        transitions.INVALID: _invalid,
    }
    return Explanation(token_id, state, list(tellers[state](backend, doc)))


# --- finished ------------------------------------------------------------------------------------------------------


def _ended(backend: Backend, doc: Json) -> Iterator[Reason]:
    attempts = [entry for entry in transitions.attempts_of(doc) if not entry.get("superseded")]
    last: Mapping[str, Any] = attempts[-1] if attempts else {}
    when = parse_time(last.get("end_time")) or _moment(doc.get("done"))
    ago = f", {spoken(backend.now() - when)} ago" if when is not None else ""
    host = last.get("hostname") or doc.get("hostname")
    where = f" on {host}" if host else ""
    if transitions.state_of(doc) == transitions.DONE:
        number = f"attempt {len(attempts)} " if attempts else "it "
        yield Reason("done", f"{number}ended well{where}{ago}", f"tokenpool logs {doc['_id']}")
        return
    failure = last.get("failure_class")
    if failure == "dependency":
        yield Reason("parent_failed", _message(doc) or "a token that it depends on failed", _retry_parent(doc))
        yield from _parents(backend, doc)
        return
    if doc.get("cancel"):
        yield Reason("cancelled", f"it was cancelled{asker(doc)}{ago}", _retry(doc))
        return
    code = doc.get("exit_code")
    how = f"failed with exit code {code}" + (f" ({failure})" if failure else "")
    told = f"attempt {len(attempts)} {how}{where}{ago}" if attempts else f"it {how}{where}{ago}"
    message = _message(doc)
    yield Reason("failed", told + (f": {message}" if message else ""), f"tokenpool logs {doc['_id']}")
    allowed = doc.get("max_retries")
    if isinstance(allowed, int) and not isinstance(allowed, bool) and allowed > 0:
        counted = sum(bool(entry.get("counted", True)) for entry in attempts)
        yield Reason("no_retries", f"it has used {counted} of {allowed + 1} attempts", _retry(doc))


def _retry(doc: Json) -> str:
    return f"to run it again: tokenpool retry {doc['_id']}"


def _message(doc: Json) -> str:
    """Return the last line of what the last error said."""
    errors = doc.get("error")
    last = errors[-1] if isinstance(errors, list) and errors else None
    told = last.get("message") or last.get("exception") if isinstance(last, dict) else None
    lines = str(told or "").strip().splitlines()
    return lines[-1] if lines else ""


# --- held ----------------------------------------------------------------------------------------------------------


def _held(backend: Backend, doc: Json) -> Iterator[Reason]:
    found = False
    if doc.get("paused"):
        found = True
        yield Reason("paused", "it is paused itself", f"tokenpool resume {doc['_id']}")
    for reason in _parents(backend, doc):
        found = True
        yield reason
    due, now = _moment(doc.get("not_before"), least=-math.inf), backend.now()
    if due is not None and due > now:
        found = True
        text = f"it is not due before {_clock(due)}, in {spoken(due - now)}"
        yield Reason("not_due", text, f"to run it now: tokenpool edit {doc['_id']} not_before=")
    if not found and (due is not None or doc.get("depends_on")):
        yield Reason(
            "released_soon",
            "it waits for nothing any more; the next look of any worker, or of `tokenpool wait`, opens it",
            "tokenpool work, where no worker is alive",
        )
    elif not found:
        yield Reason("held", "it was put aside by hand (lock -1)", f"tokenpool reset {doc['_id']}")


def _parents(backend: Backend, doc: Json) -> Iterator[Reason]:
    """Yield a reason for each parent that is not done."""
    ids = parents_of(doc)
    open_ones = [
        (each, parent)
        for each, parent in zip(ids, backend.get_many(ids) if ids else [])
        if parent is None or not _counts_as_done(parent, doc)
    ]
    for each, parent in open_ones[:PARENTS]:
        state = "missing" if parent is None else transitions.state_of(parent)
        if parent is None:
            yield Reason("parent_missing", f"it depends on {each}, which is not there", f"tokenpool push --id {each}")
        elif state in (transitions.ERROR, transitions.INVALID):
            told = "failed" if state == transitions.ERROR else "is invalid"
            code = f" with exit code {parent.get('exit_code')}" if state == transitions.ERROR else ""
            yield Reason("parent_failed", f"it depends on {each}, which {told}{code}", f"tokenpool explain {each}")
        else:
            yield Reason("parent", f"it depends on {each}, which is {state}", f"tokenpool explain {each}")
    if len(open_ones) > PARENTS:
        yield Reason("parent", f"it depends on {len(open_ones) - PARENTS} more that are not done")


def _counts_as_done(parent: Json, child: Json) -> bool:
    state = transitions.state_of(parent)
    return state == transitions.DONE or (bool(child.get("accept_failure")) and state == transitions.ERROR)


# --- locked --------------------------------------------------------------------------------------------------------


def _locked(backend: Backend, doc: Json) -> Iterator[Reason]:
    if doc.get("cancel"):
        yield Reason("cancel_asked", f"it was cancelled{asker(doc)}; its worker ends it as soon as it sees that")
    now, since = backend.now(), _moment(doc.get("lock"))
    ago = f" for {spoken(now - since)}" if since is not None else ""
    holder = transitions.holder_of(doc)
    if not holder:
        host = doc.get("hostname") or "an unknown host"
        text = f"picas, or a person, holds it on {host}{ago}; nobody here brings it back"
        yield Reason(
            "foreign", text, f"if that died: tokenpool scrub {doc['_id']}, or tokenpool work --adopt-picas-after"
        )
        return
    found = backend.get_many([holder])[0]
    if found is None:
        text = f"its worker {holder[:15]} on {doc.get('hostname')} is gone without having closed it"
        yield Reason("no_lease", text, "any worker, or `tokenpool wait`, brings it back at its next look")
        return
    yield from _by_worker(doc, worker_info(found, now), ago)


def _by_worker(doc: Json, worker: WorkerInfo, ago: str) -> Iterator[Reason]:
    claim = doc["lease"].get("claim")
    entry = next((entry for entry in worker.running if entry.get("claim") == claim), None)
    if worker.state == "fenced":
        yield Reason("fenced", f"{worker.name} lost its lease; the token comes back at once")
    elif worker.age > worker.lease:
        left = worker.lease * 2 - worker.age
        when = (
            f"in about {spoken(left)}" if left > 0 else "as soon as another worker, or `tokenpool wait`, has seen that"
        )
        text = f"{worker.name} holds it, and has not been heard of for {spoken(worker.age)}; it comes back {when}"
        yield Reason("silent", text, "nothing is to be done while a worker lives")
    elif entry is not None and entry.get("phase") == "wait":
        yield Reason("claimed", f"{worker.name} has claimed it{ago} and starts it when a slot is free")
    else:
        data = doing(entry) if entry is not None else ""
        if data:
            yield Reason("running", f"{worker.name} has it{ago}, and {data}", "tokenpool watch shows how far it is")
        else:
            yield Reason("running", f"{worker.name} runs it{ago}", f"tokenpool logs -f {doc['_id']}")
    if worker.state == "stopping":
        yield Reason("worker_stops", f"{worker.name} is told to leave, and gives it back")


# --- invalid -------------------------------------------------------------------------------------------------------


def _invalid(backend: Backend, doc: Json) -> Iterator[Reason]:
    mend = "tokenpool doctor --fix, or: tokenpool reset " + str(doc["_id"])
    if not transitions.is_token(doc):
        kind = doc.get("type")
        yield Reason("no_token", f"it is no token: its type is {kind!r}", "it is none of the pool's business")
        return
    for name in ("lock", "done"):
        if name not in doc:
            yield Reason("invalid", f"it has no {name!r}", mend)
        elif number_of(doc[name], None) is None:
            yield Reason("invalid", f"{name} is {doc[name]!r}, which is no number", mend)
    if None not in [number_of(doc.get(name), None) for name in ("lock", "done")]:
        yield Reason("invalid", f"lock {doc['lock']} and done {doc['done']} mean no state together", mend)


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")


def _moment(value: Any, least: float = transitions.PICAS_ERROR) -> float | None:
    """Return a time in seconds since 1970; picas' 99 is none."""
    moment: float | None = number_of(value, None)
    return moment if moment is not None and least < moment < YEAR_9999 else None


def _retry_parent(doc: Json) -> str:
    """A child that is retried alone is closed again, as its parent has still failed."""
    parents = [each for each in doc.get("depends_on") or () if isinstance(each, str)]
    return f"tokenpool retry {parents[0]}" if len(parents) == 1 else "retry the parent: its children wait again then"

"""Looks at the workers of a pool and steers them: each is one small document, changed by compare-and-set."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import transitions
from .backends.base import Backend, Json, Saved
from .backends.slices import documents_named
from .changes import Verb
from .errors import AnswerLost, BadInput, Conflict, NotFound, TokenpoolError
from .selectors import parse_time

WORKER = "worker_"
#: Times that a document which changed under our hands is read and tried again.
ROUNDS = 10
#: Seconds of a lease, where a worker document does not say.
LEASE = 120.0
#: Worker states in which tokens may be claimed; `silent` is one that did not renew for two leases.
CLAIMING = frozenset({"working", "idle"})
HINT = "tokenpool worker list"


@dataclass(frozen=True)
class WorkerInfo:
    """One worker as its document tells; times in seconds, `age` since it last renewed, by the pool's clock.

    `state` is working, idle, draining, stopping, fenced, or silent: it did not renew for two leases. `held` tokens carry
    its name now; `running` says more of them, as it was when the worker last renewed.
    """

    id: str
    hostname: str
    state: str
    slots: int
    held: int
    running: tuple[Json, ...]
    age: float
    lease: float
    renewed: str
    started: str
    note: str = ""
    pid: int = 0
    load: float | None = None
    batches: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    #: GB of memory and scratch disk that are free, and that there are: ram_gb, ram_total_gb, disk_gb, disk_total_gb.
    free_room: Mapping[str, Any] = field(default_factory=dict)
    #: When it has to leave, in seconds since 1970, if it knows.
    ends: float | None = None
    #: The order that started it, if a launcher did.
    job: str = ""
    #: Tokens that it claims beyond its free slots.
    prefetch: int = 0

    @property
    def name(self) -> str:
        """What people call it: the first letters of its id, and its host."""
        return f"{self.id[: len(WORKER) + 8]} on {self.hostname or 'an unknown host'}"

    @property
    def alive(self) -> bool:
        """It renews its lease, as far as can be seen in one look."""
        return self.state not in ("silent", "fenced")

    @property
    def claims(self) -> bool:
        """It takes tokens."""
        return self.state in CLAIMING and self.slots > 0

    @property
    def free(self) -> int:
        """Slots that run nothing."""
        return max(0, self.slots - self.held)

    def summary(self) -> Json:
        """Return it in the stable form of ``status --json``."""
        told = {name: getattr(self, name) for name in ("id", "hostname", "slots")}
        return {**told, "running": self.held, "state": self.state, "renewed": self.renewed, "note": self.note}

    def as_json(self) -> Json:
        """Return all of it, in the stable form of ``worker list --json``."""
        words = ("token", "claim", "batch", "since", "phase", "progress", "command")
        running = [{name: entry.get(name) for name in words if name in entry} for entry in self.running]
        more = {"pid": self.pid, "started": self.started, "age": round(self.age, 1), "lease": self.lease}
        chosen = {"load": self.load, "batches": list(self.batches), "resources": dict(self.resources)}
        return {**self.summary(), "prefetch": self.prefetch, **more, **chosen, "tokens": running}


def doing(entry: Json) -> str:
    """Return what a worker does with a token that it has, "" where it simply runs it.

    >>> doing({"phase": "stage_in", "progress": {"files": 2, "files_done": 1, "bytes_total": 4e6, "bytes_done": 1e6}})
    'fetches its inputs, 1 of 2 files, 1.0 of 4.0 MB'
    """
    told = _PHASES.get(str(entry.get("phase")), "")
    progress = entry.get("progress")
    if not told or not isinstance(progress, dict):
        return told
    files, done, total, moved = (
        number_of(progress.get(name), 0) for name in ("files", "files_done", "bytes_total", "bytes_done")
    )
    parts = [told, *([f"{done:.0f} of {files:.0f} files"] if files else [])]
    parts += [f"{moved / 1e6:.1f} of {total / 1e6:.1f} MB"] if total else []
    note = progress.get("note")
    return ", ".join([*parts, *([note] if isinstance(note, str) and note else [])])


_PHASES = {"stage_in": "fetches its inputs", "stage_out": "brings its outputs away"}


# --- workers -------------------------------------------------------------------------------------------------------


def workers(backend: Backend) -> list[WorkerInfo]:
    """Return all workers that have a document, by host and start."""
    now, docs = backend.now(), documents_of(backend, WORKER, "worker")
    held: Counter[str] = Counter()
    for (_, worker), number in (backend.holders() if docs else {}).items():
        held[worker] += number
    found = [worker_info(doc, now, held[doc["_id"]]) for doc in docs]
    return sorted(found, key=lambda worker: (worker.hostname, worker.started, worker.id))


def worker_info(doc: Json, now: float, held: int | None = None) -> WorkerInfo:
    """Return what a worker document tells at the time `now`, whatever somebody may have written into it.

    `held` is the number of tokens that carry its name; by default, as many as it says.
    """
    told = doc.get("running")
    running = tuple(entry for entry in told if isinstance(entry, dict)) if isinstance(told, list) else ()
    held = len(running) if held is None else held
    lease = number_of(doc.get("lease"), LEASE)
    renewed = _time(doc.get("renewed"))
    age = math.inf if renewed is None else max(0.0, now - renewed)
    batches, tags, resources = doc.get("batches"), doc.get("tags"), doc.get("resources")
    return WorkerInfo(
        id=doc["_id"],
        hostname=str(doc.get("hostname") or ""),
        state=_state(doc, age > 2 * lease, held),
        slots=int(number_of(doc.get("slots"), 0)),
        held=held,
        running=running if held else (),
        age=age,
        lease=lease,
        renewed=str(doc.get("renewed") or ""),
        started=str(doc.get("started") or ""),
        note=str(doc.get("note") or ""),
        pid=int(number_of(doc.get("pid"), 0)),
        load=number_of(doc.get("load"), None),
        batches=tuple(map(str, batches)) if isinstance(batches, list) else (),
        tags={str(key): str(value) for key, value in tags.items()} if isinstance(tags, dict) else {},
        resources=resources if isinstance(resources, dict) else {},
        free_room=doc["free"] if isinstance(doc.get("free"), dict) else {},
        ends=_time(doc.get("ends")),
        job=str(doc.get("job") or ""),
        prefetch=int(number_of(doc.get("prefetch"), 0)),
    )


def _state(doc: Mapping[str, Any], silent: bool, held: int) -> str:
    if doc.get("fenced"):
        return "fenced"
    if silent:
        return "silent"
    if doc.get("stop"):
        return "stopping"
    return "draining" if doc.get("drain") else "working" if held else "idle"


def choose(found: Sequence[WorkerInfo], words: Iterable[str]) -> list[WorkerInfo]:
    """Return the workers that these words name: ``all``, ``host:NAME``, or the first letters of one's id.

    Raises NotFound for a word that names none, BadInput for one that could mean several.
    """
    chosen: dict[str, WorkerInfo] = {}
    for word in words:
        chosen.update((worker.id, worker) for worker in _named(found, word))
    return list(chosen.values())


def choose_one(found: Sequence[WorkerInfo], word: str) -> WorkerInfo:
    """Return the one worker that a word names; raises NotFound, or BadInput where it names several."""
    chosen = choose(found, [word])
    if len(chosen) != 1:
        raise BadInput(f"{word!r} names {len(chosen)} workers, not one", "write the beginning of its id")
    return chosen[0]


def _named(found: Sequence[WorkerInfo], word: str) -> list[WorkerInfo]:
    if word == "all":
        return list(found)
    kind, colon, host = word.partition(":")
    if colon and kind == "host":
        there = [worker for worker in found if worker.hostname == host]
        if not there:
            close = difflib.get_close_matches(host, {worker.hostname for worker in found}, 1)
            raise NotFound(
                f"there is no worker on host {host!r}", f"did you mean 'host:{close[0]}'?" if close else HINT
            )
        return there
    letters = word[len(WORKER) :] if word.startswith(WORKER) else word
    there = [worker for worker in found if letters and worker.id.startswith(WORKER + letters)]
    if not there:
        on = any(worker.hostname == word for worker in found)
        raise NotFound(f"there is no worker {word!r}", f"did you mean 'host:{word}'?" if on else HINT)
    if len(there) > 1:
        raise BadInput(
            f"{word!r} could be {len(there)} workers",
            f"write more of its id, for example {min(each.id for each in there)[:19]}",
        )
    return there


def steer(backend: Backend, worker_id: str, **orders: Any) -> Json:
    """Give one worker orders, see `steer_many`; return its document as it now stands. Raises NotFound if it has left."""
    written = steer_many(backend, [worker_id], **orders)
    if not written:
        raise NotFound(f"worker {worker_id} is not there any more", HINT)
    return written[0]


def steer_many(
    backend: Backend,
    ids: Iterable[str],
    slots: int | None = None,
    drain: bool | None = None,
    stop: bool | None = None,
    look: bool = False,
    follow: str = "",
    prefetch: int | None = None,
) -> list[Json]:
    """Write orders into worker documents, one write each; return those that are there, as they now stand.

    `slots` tokens at a time from now on, and `prefetch` more claimed ahead; `drain`: claim no more, leave when what runs
    has ended; `stop`: leave now; `look` at the tokens now, one may be cancelled; `follow` this token: write the ends of
    its logs for some seconds.
    """
    if slots is not None and (isinstance(slots, bool) or not isinstance(slots, int) or slots < 1):
        raise BadInput(f"{slots!r} is no number of slots", "1 or more; to run nothing: tokenpool worker drain")
    if prefetch is not None and (isinstance(prefetch, bool) or not isinstance(prefetch, int) or prefetch < 0):
        raise BadInput(f"{prefetch!r} is no number of tokens to claim ahead", "0 or more")
    orders = {"slots": slots, "prefetch": prefetch, "drain": drain, "stop": stop}

    def change(doc: Json) -> None:
        doc.update((name, value) for name, value in orders.items() if value is not None)
        if look:
            doc["look"] = int(number_of(doc.get("look"), 0)) + 1
        if follow:
            doc["follow"] = _followed(doc, follow)

    return _change_all(backend, list(dict.fromkeys(ids)), change)


def noting_holders(verb: Verb, holders: set[str]) -> Verb:
    """Return the verb so that it puts the workers whose running tokens it changes into `holders`: they are to look."""

    def change(doc: Json) -> None:
        holder = transitions.holder_of(doc)
        if holder:
            holders.add(holder)
        verb.change(doc)

    return replace(verb, change=change)


def _followed(doc: Mapping[str, Any], token_id: str) -> dict[str, int]:
    """Return `follow` with one token raised, and without those that the worker runs no more."""
    before, running = doc.get("follow"), doc.get("running")
    known: Mapping[str, Any] = before if isinstance(before, dict) else {}
    here = {entry.get("token") for entry in running if isinstance(entry, dict)} if isinstance(running, list) else set()
    kept = {name: int(number_of(count, 0)) for name, count in known.items() if name in here}
    return {**kept, token_id: int(number_of(known.get(token_id), 0)) + 1}


def _change_all(backend: Backend, ids: list[str], change: Callable[[Json], None]) -> list[Json]:
    """Apply a change to each document that is there, again where somebody else was faster; nothing is written twice."""
    written: dict[str, Json] = {}
    for _ in range(ROUNDS):
        docs = [doc for doc in backend.get_many(ids) if doc is not None] if ids else []
        for doc in docs:
            before = dict(doc)
            change(doc)
            if doc == before:
                written[doc["_id"]] = doc
        todo = [doc for doc in docs if doc["_id"] not in written]
        if not todo:
            return list(written.values())
        try:
            results = backend.put_many(todo)
        except AnswerLost:
            continue  # an order that is given twice does no harm
        for doc, result in zip(todo, results):
            if isinstance(result, Saved):
                written[doc["_id"]] = {**doc, "_rev": result.rev}
            elif not result.conflict:
                raise TokenpoolError(f"the pool refuses {doc['_id']}: {result.reason}", "tokenpool doctor")
        ids = [doc["_id"] for doc in todo if doc["_id"] not in written]
        if not ids:
            return list(written.values())
    raise Conflict(f"{ids[0]} is written by others all the time", "try again")


# --- what they share -----------------------------------------------------------------------------------------------


def documents_of(backend: Backend, prefix: str, kind: str) -> list[Json]:
    """Return the documents whose id begins so; a token may be named like that too, and is left out."""
    return [doc for doc in documents_named(backend, prefix) if doc.get("type") == kind]


def number_of(value: Any, default: Any) -> Any:
    """Return a number that is one; anything else was written by hand."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else default


def _time(value: Any) -> float | None:
    """Return a time in seconds since 1970, written as such or as RFC 3339."""
    number: float | None = parse_time(value) if isinstance(value, str) else number_of(value, None)
    return number

"""The Python face of a pool: push, look, claim, wait, change; the command line and the web use nothing else."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Union

from . import batch_rules, chance, changes, edits, explain, follow, steering, transitions
from .attendance import Attendance
from .backends import open_backend
from .backends.base import Backend, Json, Saved, Want
from .batch_rules import BatchRule
from .bell import Bell
from .changes import Changed
from .claims import Claimer
from .commits import Outcome, commit
from .designs import DEFAULT_DESIGNS, design_document
from .documents import Task, Token
from .errors import Conflict, NotFound, ServerAway
from .explain import Explanation
from .follow import Piece
from .janitor import Janitor
from .leases import LEASE, Contact
from .pushes import Item, NotAllSaved, Pushed, PushError, push, user_name
from .selectors import Selector, parse
from .steering import WorkerInfo

log = logging.getLogger(__name__)

Selection = Union[str, Selector, Iterable[str]]


@dataclass(frozen=True)
class Logs:
    """Standard output and error of a token's last attempt, as bytes."""

    out: bytes = b""
    err: bytes = b""


@dataclass
class Pool:
    """One pool; a context manager. Made by `connect`."""

    backend: Backend
    _claimers: dict[str, Claimer] = field(default_factory=dict, repr=False)
    _attendance: Attendance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._bell = Bell(self.backend)

    @property
    def url(self) -> str:
        """The pool's URL, without a password."""
        return self.backend.url

    def init(self, designs: Iterable[str] = DEFAULT_DESIGNS) -> None:
        """Make the pool where it is missing, and write each design document once."""
        self.backend.create([design_document(name) for name in designs])

    # --- put in ----------------------------------------------------------------------------------------------------

    def push(self, items: Item | Iterable[Item], dedupe: bool = False, **fields: Any) -> list[str]:
        """Push tokens and return their ids; a string is a shell command, a dict the fields of a token.

        `fields` are given to every token that has none of its own. Raises NotAllSaved (with `.ids` and `.refused`).

        >>> with connect("sqlite:////tmp/tokenpool-doctest.db", create=True) as pool:
        ...     len(pool.push(["echo one", "echo two"], batch="demo"))
        2
        """
        answers = list(self.push_stream(items, dedupe, fields))
        ids = [answer.id for answer in answers if not answer.reason]
        refused = [PushError(answer.id, answer.reason) for answer in answers if answer.reason]
        if refused:
            raise NotAllSaved(ids, refused)
        return ids

    def push_stream(
        self, items: Item | Iterable[Item], dedupe: bool = False, fields: Mapping[str, Any] | None = None
    ) -> Iterator[Pushed]:
        """Push any number of tokens in constant memory; yield what became of each, in order."""
        one = isinstance(items, (str, Mapping))
        tokens = [items] if one else items
        return push(self.backend, tokens, fields or {}, dedupe, bell=self._bell)  # type: ignore[arg-type]

    # --- look ------------------------------------------------------------------------------------------------------

    def get(self, token_id: str) -> Task:
        """Return one token; raises NotFound."""
        return Token(self.backend.get(token_id))

    def tokens(self, selection: Selection = "all") -> Iterator[Task]:
        """Yield the chosen tokens, streaming."""
        return (Token(doc) for doc in changes.select(self.backend, selector_of(selection)))

    def counts(self, batch: str | None = None) -> dict[str, int]:
        """Return the number of tokens in every state, of one batch or of all."""
        totals = dict.fromkeys(transitions.STATES, 0)
        for (state, of), number in self.backend.counts().items():
            if batch is None or of == batch:
                totals[state] += number
        return totals

    def batches(self) -> dict[str, dict[str, int]]:
        """Return the counts of every batch that has tokens."""
        found: dict[str, dict[str, int]] = {}
        for (state, batch), number in sorted(self.backend.counts().items()):
            found.setdefault(batch, dict.fromkeys(transitions.STATES, 0))[state] += number
        return found

    def status(self) -> Json:
        """Return states and batches in the stable form of ``status --json``."""
        return {
            "schema": 1,
            "pool": self.url,
            "states": self.counts(),
            "batches": {name: counts for name, counts in self.batches().items() if name},
            "workers": [worker.summary() for worker in self.workers()],
        }

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are known, by host."""
        return steering.workers(self.backend)

    def explain(self, token_id: str) -> Explanation:
        """Return why a token does not run, who runs it, or how it ended. Raises NotFound."""
        return explain.explain(self.backend, token_id)

    def attachment(self, token_id: str, name: str) -> bytes:
        """Return one attachment; raises NotFound."""
        return b"".join(self.backend.get_attachment(token_id, name))

    def logs(self, token_id: str) -> Logs:
        """Return the logs of a token's last attempt; empty where there are none. Raises NotFound for the token."""
        doc = self.backend.get(token_id)
        names = doc.get("_attachments") or {}
        attempts = doc.get("attempts")
        last = attempts[-1] if isinstance(attempts, list) and attempts and isinstance(attempts[-1], dict) else {}
        found = {}
        for kind, field_name in (("out", "stdout"), ("err", "stderr")):
            for name in (f"logs_{token_id}.{kind}", last.get(field_name)):
                if isinstance(name, str) and name in names:
                    found[kind] = self.attachment(token_id, name)
                    break
        return Logs(**found)

    def follow(self, token_id: str) -> Iterator[Piece]:
        """Yield the logs of a token as they are written, until it is finished. Raises NotFound."""
        return follow.Follower(self.backend, token_id).pieces()

    # --- work by hand ----------------------------------------------------------------------------------------------

    def claim(self, n: int = 1, batch: str | None = None, tags: Mapping[str, str] | None = None) -> list[Task]:
        """Take up to `n` tokens for this process; give each back with `close` or `release`."""
        want = Want(batches=() if batch is None else (batch,), tags=tags or {})
        key = str((want.batches, sorted(want.tags.items())))
        claimer = self._claimers.setdefault(key, Claimer(self.backend, self.attendance.lease, want, n))
        claimer.lease = self.attendance.lease
        return [Token(doc) for doc in claimer.claim(n)]

    @property
    def attendance(self) -> Attendance:
        """This process as a worker: its claims hold as long as it lives and this pool is not closed."""
        if self._attendance is None or not self._attendance.is_ours:
            self._attendance = Attendance(self.backend)
        return self._attendance

    def leave(self) -> None:
        """Claim no more for now: whatever this process still holds goes back to the others after a while."""
        if self._attendance is not None:
            self._attendance.close()

    def close(self, token: Task, exit_code: int = 0, **fields: Any) -> Task:
        """Record the outcome of a claimed token; `fields` (``output=…``) are written with it.

        Raises Conflict where the token is not ours any more: nothing was changed then but its history.
        """
        return self._finish(token, lambda doc: transitions.close({**doc}), {"exit_code": exit_code, **fields})

    def release(self, token: Task) -> Task:
        """Give a claimed token back to todo, uncounted."""
        return self._finish(token, lambda doc: transitions.unlock({**doc}), {})

    def _finish(self, token: Task, move: Callable[[Json], Any], fields: Mapping[str, Any]) -> Task:
        claim = (token.doc.get("lease") or {}).get("claim", "")
        token.doc.update(fields)
        written = commit(self.backend, (), [Outcome(move(token.doc), claim)])
        if not written.closed:
            raise Conflict(f"token {token.id} is not ours any more", "another worker or a person has changed it")
        token.doc.clear()
        token.doc.update(written.closed[0])
        return token

    # --- wait ------------------------------------------------------------------------------------------------------

    def wait(
        self,
        selection: Selection = "all",
        timeout: float | None = None,
        poll: float = 0.5,
        progress: Callable[[dict[str, int]], None] = lambda counts: None,
    ) -> dict[str, int]:
        """Return the counts of the chosen tokens once none of them waits or runs; raises TimeoutError (seconds)."""
        chosen = selector_of(selection)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.looked_after():
            while True:
                counts = self._count_patiently(chosen)
                progress(counts)
                if not (counts["todo"] or counts["held"] or counts["locked"]):
                    return counts
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"tokens still wait or run after {timeout:g} s")
                time.sleep(poll)
                poll = min(poll * 1.2, 5.0)

    def _count_patiently(self, chosen: Selector) -> dict[str, int]:
        """Count, however long the server is away: who waits for days should not miss the end for a minute's outage."""
        while True:
            try:
                return self.count(chosen)
            except ServerAway as error:
                log.warning("the pool is away, trying again: %s", error)
                time.sleep(chance.uniform(1.0, 5.0))

    @contextmanager
    def looked_after(self) -> Iterator[None]:
        """Bring back what dead workers held and open what waits, in the background, as long as the body runs."""
        janitor = Janitor(self.backend, LEASE, Contact(LEASE))
        janitor.start()
        try:
            yield
        finally:
            janitor.close()

    def count(self, selection: Selection) -> dict[str, int]:
        """Return the number of chosen tokens by state; whole batches and states come from an index."""
        chosen = selector_of(selection)
        if not (
            chosen.ids
            or chosen.hosts
            or chosen.tags
            or chosen.older_than is not None
            or chosen.younger_than is not None
        ):
            totals = dict.fromkeys(transitions.STATES, 0)
            for (state, batch), number in self.backend.counts().items():
                if (not chosen.batches or batch in chosen.batches) and (not chosen.states or state in chosen.states):
                    totals[state] += number
            return totals
        docs = list(changes.select(self.backend, chosen))
        missing = set(chosen.ids) - {doc["_id"] for doc in docs}
        if missing:
            raise NotFound(f"there is no token {min(missing)!r} in {self.url}", "tokenpool list all")
        states = [transitions.state_of(doc) for doc in docs]
        return {state: states.count(state) for state in transitions.STATES}

    # --- change ----------------------------------------------------------------------------------------------------

    def retry(self, selection: Selection, dry_run: bool = False) -> Changed:
        """Put failed tokens back to todo; logs and history stay."""
        return self.change("retry", selection, dry_run)

    def reset(self, selection: Selection, dry_run: bool = False) -> Changed:
        """Put tokens back to todo, their results and logs forgotten."""
        return self.change("reset", selection, dry_run)

    def scrub(self, selection: Selection, dry_run: bool = False) -> Changed:
        """Put locked or failed tokens back to todo, counted, as picas does."""
        return self.change("scrub", selection, dry_run)

    def cancel(self, selection: Selection, dry_run: bool = False) -> Changed:
        """End waiting tokens; ask the workers of running ones to stop them."""
        return self.change("cancel", selection, dry_run)

    def rm(self, selection: Selection, dry_run: bool = False, running: bool = False) -> Changed:
        """Delete tokens; running ones only when asked to."""
        return self.change("rm", selection, dry_run, running=running)

    def pause(self, selection: Selection, dry_run: bool = False) -> Changed:
        """Hold waiting tokens until `resume`; a whole batch is paused in one write by `set_batch`."""
        return self.change("pause", selection, dry_run)

    def resume(self, selection: Selection, dry_run: bool = False) -> Changed:
        """Let paused tokens run."""
        return self.change("resume", selection, dry_run)

    def edit(self, selection: Selection, fields: Mapping[str, Any], dry_run: bool = False) -> Changed:
        """Change fields of tokens that do not run; None removes one, an object is merged into one."""
        return edits.edit(self.backend, selector_of(selection), fields, dry_run)

    def change(
        self,
        verb: str,
        selection: Selection,
        dry_run: bool = False,
        running: bool = False,
        progress: Callable[[int], None] = lambda n: None,
    ) -> Changed:
        """Apply a bulk verb by its name: retry, reset, scrub, cancel, rm, pause, resume."""
        if verb == "cancel":
            chosen = changes.cancel_verb(user_name())
        else:
            chosen = changes.REMOVE_RUNNING if verb == "rm" and running else changes.VERBS[verb]
        holders: set[str] = set()
        chosen = steering.noting_holders(chosen, holders)
        done = changes.apply(self.backend, selector_of(selection), chosen, dry_run, progress)
        steering.steer_many(self.backend, sorted(holders), look=True)
        return done

    # --- steer -----------------------------------------------------------------------------------------------------

    def steer_worker(self, worker: str, **orders: Any) -> WorkerInfo:
        """Give a worker orders: `slots`, `prefetch`, `drain`, `stop`; raises NotFound if it has left.

        `worker` is its id, or the beginning of it.
        """
        chosen = steering.choose_one(self.workers(), worker)
        return steering.worker_info(steering.steer(self.backend, chosen.id, **orders), self.backend.now())

    def batch(self, name: str) -> BatchRule:
        """Return how a batch is to be treated: `paused`, `priority`, `max_running`."""
        return batch_rules.batch_rule(self.backend, name)

    def set_batch(self, name: str, create: bool = False, **fields: Any) -> BatchRule:
        """Change how a batch is treated, in one write: `paused`, `priority`, `max_running` (None: no limit).

        Raises NotFound where nobody knows the batch, unless `create`.
        """
        return batch_rules.set_batch(self.backend, name, create, **fields)

    # --- carry -----------------------------------------------------------------------------------------------------

    def export(self, selection: Selection = "all") -> Iterator[Json]:
        """Yield whole token documents with their attachments inside, ready for `restore`; streaming."""
        for doc in changes.select(self.backend, selector_of(selection)):
            for name, stub in (doc.get("_attachments") or {}).items():
                data = base64.b64encode(self.attachment(doc["_id"], name)).decode("ascii")
                doc["_attachments"][name] = {"content_type": stub.get("content_type", "text/plain"), "data": data}
            yield doc

    def restore(self, docs: Iterable[Mapping[str, Any]]) -> Iterator[Pushed]:
        """Write exported documents as they are, state and history included; ids that are taken are refused."""
        fresh = ({name: value for name, value in doc.items() if name != "_rev"} for doc in docs)
        return push(self.backend, fresh, {}, False, as_they_are=True)

    def delete_unchanged(self, docs: Iterable[Json]) -> list[str]:
        """Delete each document if its `_rev` is still the current one; return the ids that are gone."""
        gone = [{"_id": doc["_id"], "_rev": doc["_rev"], "_deleted": True} for doc in docs]
        return [result.id for result in self.backend.put_many(gone) if isinstance(result, Saved)]

    # --- end -------------------------------------------------------------------------------------------------------

    def copy(self) -> Pool:
        """Return this pool: its connections are shared by all threads and made anew by themselves."""
        return self

    def close_connections(self) -> None:
        """Let go of claims, files and connections."""
        self.leave()
        self._bell.flush()
        self.backend.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close_connections()


def selector_of(selection: Selection) -> Selector:
    """Return the selector that a user gave as words or as itself."""
    if isinstance(selection, Selector):
        return selection
    return parse([selection] if isinstance(selection, str) else selection)


def connect(url: str | None = None, password: str | None = None, create: bool = False) -> Pool:
    """Open a pool by its URL; without one, the pool of the settings (`tokenpool config list`).

    `create` makes the pool and its views where they are missing. Raises BadInput, NotFound, NotPermitted, ServerAway.
    """
    from .config import load

    settings = load(pool=url)
    pool = Pool(open_backend(settings.pool, password or settings.password(), create))
    if create:
        pool.init()
    return pool

"""Tokens that do nothing, without a process: what tokenpool adds to the writes that the store itself does."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from measuring import Options, Server, Table

from tokenpool import transitions
from tokenpool.actors import RunActor
from tokenpool.backends.base import Json, Want
from tokenpool.claims import Claimer
from tokenpool.commits import Outcome
from tokenpool.pool import Pool, connect

#: Tokens of one run, where each costs a write of its own, and where many share one; so many then.
FEW, MANY, TOGETHER = 400, 4000, 64
ROUNDS = 3
Make = Callable[[], Any]
Work = Callable[[Pool], None]


def measure(options: Options, table: Table) -> None:
    table.section("Tokens that do nothing, no process: share of the claims and closes that the store writes by itself")
    _on("SQLite", sqlite_pool, table)
    if options.couchdb:
        server = Server(options.couchdb)
        _on("CouchDB", lambda: couch_pool(server), table)
    else:
        table.skip("CouchDB", "no server was named")


@contextmanager
def sqlite_pool() -> Iterator[Pool]:
    with tempfile.TemporaryDirectory() as folder, connect(f"sqlite:///{folder}/pool.db", create=True) as pool:
        yield pool


@contextmanager
def couch_pool(server: Server) -> Iterator[Pool]:
    with server.database() as database, connect(server.pool_url(database), create=True) as pool:
        yield pool


def _on(store: str, make: Make, table: Table) -> None:
    def row(what: str, tokens: int, work: Work, raw: Work, told: str) -> None:
        # In turn, so that both meet the same disturbances.
        pairs = [(_rate(make, tokens, work), _rate(make, tokens, raw)) for _ in range(ROUNDS)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs))
        table.row(f"{store}: {what}", f"{ours:,.0f}/s", f"{ours / theirs:.2f} of {theirs:,.0f}/s", f"raw: {told}")

    one = partial(raw_writes, size=1, together=False)
    row("RunActor, empty process_task", FEW, run_actor, one, "claim, then close, one by one")
    for size in (10, 100):
        raw = partial(raw_writes, size=size, together=False)
        told = f"claim {size} at once, close one by one"
        row(f"Pool.claim({size}), Pool.close", FEW, partial(claim_and_close, size=size), raw, told)
    work, raw = partial(commit_together, size=TOGETHER), partial(raw_writes, size=TOGETHER, together=True)
    row("the engine's group commit", MANY, work, raw, f"{TOGETHER} claims and {TOGETHER} closes a write")


def _rate(make: Make, tokens: int, work: Work) -> float:
    """Fill a fresh pool, warm its index, and return the tokens a second that `work` takes through it."""
    with make() as pool:
        pool.push(["true"] * tokens)
        warm(pool)
        began = time.perf_counter()
        work(pool)
        took = time.perf_counter() - began
        if pool.counts()["done"] != tokens:
            raise SystemExit("not all tokens were closed: this figure would be wrong")
        return tokens / took


def warm(pool: Pool) -> None:
    """Have all indexes built: done during a measurement, that would measure the server only."""
    pool.counts()
    pool.backend.candidates(Want(), 1)
    pool.backend.view("Monitor", "todo", {"limit": 1})


def raw_writes(pool: Pool, size: int, together: bool) -> None:
    """Write each token twice, as claiming and closing do; the tokens are known beforehand and nothing is looked at.

    `together`: what is closed goes out with what is claimed next.
    """
    put = pool.backend.put_many
    docs = list(pool.backend.scan("todo"))
    closing: list[Json] = []
    for at in range(0, len(docs), size):
        claiming = [transitions.lock(doc, {"worker": "worker_0", "claim": "0"}) for doc in docs[at : at + size]]
        written = put([*closing, *claiming])[len(closing) :]
        closing = []
        for doc, saved in zip(claiming, written):
            closing.append(dict(transitions.close({**doc, "_rev": saved.rev, "exit_code": 0})))
        if not together:
            for doc in closing:
                put([doc])
            closing = []
    put(closing)


def claim_and_close(pool: Pool, size: int) -> None:
    """Do the same through the pool, which also finds the tokens."""
    while tokens := pool.claim(size):
        for token in tokens:
            pool.close(token)


def commit_together(pool: Pool, size: int) -> None:
    """Do it as a worker does: closes with their history travel with the next claims."""
    claimer = Claimer(pool.backend, slots=size)
    outcomes: list[Outcome] = []
    while True:
        claimed = claimer.commit(size, outcomes).claimed
        if not claimed and not outcomes:
            return
        outcomes = []
        for doc in claimed:
            claim = doc["lease"]["claim"]
            closed = {**doc, "exit_code": 0, "attempts": [{"claim": claim, "exit_code": 0}]}
            outcomes.append(Outcome(dict(transitions.close(closed)), claim))


class _Client:
    """What an actor needs of a client of ours."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool


class _Nothing(RunActor):
    """Closes each token as soon as it has it."""

    def process_task(self, task: Any) -> None:
        task["exit_code"] = 0
        task.done()


def run_actor(pool: Pool) -> None:
    _Nothing(_Client(pool)).run()

"""R13: any order of pushes, claims, renewals, lost leases, late results and people's changes: both backends do as the model."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from couch_server import Couch
from figures import Figures
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import LOCKED, Attempt, ModelToken
from scale import Scale

from tokenpool.backends.base import Json
from tokenpool.claims import Claimer
from tokenpool.commits import Outcome, commit
from tokenpool.janitor import Janitor
from tokenpool.leases import Contact, Lease
from tokenpool.pool import Pool, connect
from tokenpool.retries import apply, is_counted, judge
from tokenpool.transitions import attempts_of, holder_of, state_of
from tokenpool.util import timestamp

#: Seconds of a lease by the clock of this test, which moves only where the test says so. No thread renews meanwhile.
LEASE = 1e6
WORKERS = ("anna", "bert", "cleo")
#: Steps without which a search has shown nothing.
NEEDED = {"claim", "finish", "expire", "cancel"}


class Clock:
    """A monotonic clock that stands still."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class RealWorker:
    """A worker made of the engine's own parts, one step at a time."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.held: dict[str, Json] = {}
        self.new_identity()

    def new_identity(self) -> None:
        """Begin under a new name, as a worker does whose lease was ended."""
        self.lease = Lease(self.pool.backend, LEASE)
        self.claimer = Claimer(self.pool.backend, self.lease)

    def claim(self, n: int, anew: bool) -> list[Json]:
        if anew:
            self.claimer.look_anew()
        docs = self.claimer.claim(n)
        self.held.update({doc["lease"]["claim"]: doc for doc in docs})
        return docs

    def finish(self, claim: str, ok: bool) -> None:
        """Record the end of a run, as a slot and the worker's loop do it."""
        doc = self.held.pop(claim)
        code, failure = (0, "") if ok else (1, "executor")
        attempt = {
            "claim": claim, "worker": doc["lease"]["worker"], "hostname": doc["hostname"], "start_time": timestamp(),
            "end_time": timestamp(), "exit_code": code, "failure_class": failure or None,
            "counted": is_counted(code, failure),
        }  # fmt: skip
        closed = {**doc, "attempts": [*attempts_of(doc), attempt], "exit_code": code}
        apply(closed, judge(closed, code, failure), self.pool.backend.now())
        commit(self.pool.backend, (), [Outcome(closed, claim)])

    def give_back(self, claim: str) -> None:
        self.claimer.give_back([self.held.pop(claim)])


class PoolMachine(RuleBasedStateMachine):
    """A pool and its model side by side."""

    make_pool: Callable[[], Pool]
    drop_pool: Callable[[Pool], None]
    steps: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.pool = type(self).make_pool()
        self.model: dict[str, ModelToken] = {}
        self.clock = Clock()
        contact = Contact(LEASE, self.clock)
        self.janitor = Janitor(self.pool.backend, LEASE, contact, clock=self.clock)
        self.workers = {name: RealWorker(self.pool) for name in WORKERS}

    def teardown(self) -> None:
        for worker in self.workers.values():
            worker.lease.close()
        type(self).drop_pool(self.pool)

    def pick(self, index: int) -> str:
        return sorted(self.model)[index % len(self.model)]

    @property
    def beliefs(self) -> list[tuple[str, str, str]]:
        """Worker, claim and token of everything that a worker believes to hold, rightly or not."""
        return [(name, claim, doc["_id"]) for name in WORKERS for claim, doc in self.workers[name].held.items()]

    # --- rules ---------------------------------------------------------------------------------------------------------

    @initialize(count=some.integers(1, 4))
    def begin(self, count: int) -> None:
        for _ in range(count):
            self.push(0, 1)

    @rule(priority=some.integers(0, 2), max_retries=some.integers(0, 1))
    def push(self, priority: int, max_retries: int) -> None:
        self.steps["push"] += 1
        token = f"t{len(self.model):03}"
        self.pool.push({"_id": token, "input": "true", "priority": priority, "max_retries": max_retries})
        self.model[token] = ModelToken(priority, max_retries)

    @rule(name=some.sampled_from(WORKERS), n=some.integers(1, 3), anew=some.booleans())
    def claim(self, name: str, n: int, anew: bool) -> None:
        self.steps["claim"] += 1
        free = sorted((token.priority for token in self.model.values() if token.is_free), reverse=True)
        docs = self.workers[name].claim(n, anew)
        if anew:  # a window of earlier may know less; what it takes is right all the same
            assert sorted((self.model[doc["_id"]].priority for doc in docs), reverse=True) == free[:n]
        for doc in docs:
            self.model[doc["_id"]].claimed(doc["lease"]["claim"], name)

    @precondition(lambda self: self.beliefs)
    @rule(index=some.integers(0, 9), ok=some.booleans())
    def finish(self, index: int, ok: bool) -> None:
        name, claim, token = self.beliefs[index % len(self.beliefs)]
        late = self.model[token].claim != claim
        self.steps["late result" if late else "finish"] += 1
        self.model[token].finished(claim, ok)
        self.workers[name].finish(claim, ok)

    @precondition(lambda self: self.beliefs)
    @rule(index=some.integers(0, 9))
    def give_back(self, index: int) -> None:
        name, claim, token = self.beliefs[index % len(self.beliefs)]
        self.steps["give back"] += 1
        self.model[token].given_back(claim)
        self.workers[name].give_back(claim)

    @rule(name=some.sampled_from(WORKERS))
    def renew(self, name: str) -> None:
        worker = self.workers[name]
        if worker.lease.is_open:
            self.steps["renew"] += 1
            assert worker.lease.renew()

    @rule(silent=some.sets(some.sampled_from(WORKERS), min_size=1))
    def expire(self, silent: set[str]) -> None:
        """Let more than one lease pass in which some workers say nothing."""
        self.steps["expire"] += 1
        for _ in range(6):
            for name, worker in self.workers.items():
                if name not in silent and worker.lease.is_open:
                    assert worker.lease.renew()
            self.janitor.sweep()
            self.clock.now += LEASE / 4
        self.janitor.sweep()
        for name in silent:
            for token in self.model.values():
                if token.state == LOCKED and token.worker == name:
                    token.lost()
            if self.workers[name].lease.is_open:
                # It comes back, learns that it was given up, and has its late results still.
                assert not self.workers[name].lease.renew()
                assert self.workers[name].lease.is_lost
                self.workers[name].new_identity()

    @precondition(lambda self: self.model)
    @rule(verb=some.sampled_from(["cancel", "retry", "reset", "pause", "resume"]), index=some.integers(0, 9))
    def change(self, verb: str, index: int) -> None:
        token = self.pick(index)
        self.steps[verb] += 1
        changed = getattr(self.model[token], verb)()
        assert getattr(self.pool, verb)(token).changed == changed, f"{verb} {token}"

    @precondition(lambda self: self.beliefs)
    @rule(verb=some.sampled_from(["cancel", "reset"]), index=some.integers(0, 9))
    def change_what_runs(self, verb: str, index: int) -> None:
        self.change(verb, sorted(self.model).index(self.beliefs[index % len(self.beliefs)][2]))

    @precondition(lambda self: self.model)
    @rule(index=some.integers(0, 9), priority=some.integers(0, 2))
    def edit(self, index: int, priority: int) -> None:
        token = self.pick(index)
        self.steps["edit"] += 1
        changed = self.model[token].edit(priority)
        assert self.pool.edit(token, {"priority": priority}).changed == changed

    # --- what must hold after every step ---------------------------------------------------------------------------------

    @invariant()
    def every_token_is_as_in_the_model(self) -> None:
        for token, doc in zip(sorted(self.model), self.pool.backend.get_many(sorted(self.model), conflicts=True)):
            meant = self.model[token]
            assert doc is not None
            assert "_conflicts" not in doc
            assert (token, state_of(doc), doc["priority"]) == (token, meant.state, meant.priority)
            assert bool(doc.get("cancel")) == meant.cancelled
            assert holder_of(doc) == (self.workers[meant.worker].lease.name if meant.state == LOCKED else "")
            assert (doc.get("lease") or {}).get("claim", "") == meant.claim
            # Where late results stand among the others is not told by the model.
            assert _sorted(told(doc)) == _sorted(meant.attempts), f"{token}: {doc.get('attempts')}"

    @invariant()
    def what_the_index_counts_is_there(self) -> None:
        wanted = Counter(token.state for token in self.model.values())
        assert {state: number for state, number in self.pool.counts().items() if number} == dict(wanted)


def told(doc: Json) -> list[Attempt]:
    """Return a token's history in the words of the model."""
    found = []
    for entry in attempts_of(doc):
        kind = "superseded" if entry.get("superseded") else entry.get("failure_class") or "ok"
        kind = {"executor": "failed", "cancelled": "lost"}.get(kind, kind)
        found.append(Attempt(entry["claim"], kind, bool(entry.get("counted"))))
    return found


def _sorted(attempts: list[Attempt]) -> list[Attempt]:
    return sorted(attempts, key=lambda attempt: attempt.claim)


class Bench:
    """Makes machines on one backend, each with an empty pool of its own."""

    def __init__(self, server: Couch | None, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.steps: Counter[str] = Counter()
        self.pools = 0
        self._urls: dict[int, str] = {}
        members: dict[str, Any] = {
            "make_pool": staticmethod(self._make), "drop_pool": staticmethod(self._drop), "steps": self.steps,
        }  # fmt: skip
        self.machine: type[PoolMachine] = type("Machine", (PoolMachine,), members)

    def _make(self) -> Pool:
        self.pools += 1
        url = f"sqlite:///{tempfile.mkdtemp(dir=self.folder)}/pool.db"
        if self.server is not None:
            url = self.server.create_database("model")
        pool = connect(url, create=True)
        self._urls[id(pool)] = url
        return pool

    def _drop(self, pool: Pool) -> None:
        pool.close_connections()
        if self.server is not None:
            self.server.delete_database(self._urls.pop(id(pool)))


@pytest.fixture(params=["sqlite", "couchdb"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Bench:
    """Each backend in turn."""
    caplog.set_level(logging.CRITICAL, "tokenpool")  # thousands of lost leases
    return Bench(request.getfixturevalue("couch_server") if request.param == "couchdb" else None, tmp_path)


def test_both_backends_do_as_the_model(bench: Bench, scale: Scale, report: Callable[[Figures], None]) -> None:
    wanted = settings(
        max_examples=scale.tokens // (2 if bench.server is None else 10), stateful_step_count=40, deadline=None,
        database=None, suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip
    # Twenty pools, all that there is time for on a server, may by chance leave a step out: then there are some more.
    for _ in range(5):
        run_state_machine_as_test(bench.machine, settings=wanted)
        if set(bench.steps) >= NEEDED:
            break
    late = bench.steps["late result"]
    report(Figures("", notes=f"{bench.pools} pools, {sum(bench.steps.values())} steps, {late} late results"))
    assert set(bench.steps) >= NEEDED


#: Interleavings that broke an earlier engine, or a simpler one.
STORIES: dict[str, list[tuple[Any, ...]]] = {
    "cancelled, then it failed": [("claim", "anna", 1, True), ("change", "cancel", 0), ("finish", 0, False)],
    "cancelled, then given back": [("claim", "anna", 1, True), ("change", "cancel", 0), ("give_back", 0)],
    "cancelled, then lost": [("claim", "anna", 1, True), ("change", "cancel", 0), ("expire", {"anna"})],
    "cancelled, but it had ended well": [("claim", "anna", 1, True), ("change", "cancel", 0), ("finish", 0, True)],
    "late failures use up retries": [
        ("claim", "anna", 1, True), ("expire", {"anna"}), ("claim", "bert", 1, True), ("finish", 1, False),
        ("finish", 0, False),
    ],
    "late, and in todo again": [("claim", "anna", 1, True), ("expire", {"anna"}), ("finish", 0, True)],
    "late, while another runs it": [
        ("claim", "anna", 1, True), ("expire", {"anna"}), ("claim", "bert", 1, True), ("finish", 0, True),
        ("finish", 0, False),
    ],
    "late, when another has closed it": [
        ("claim", "anna", 1, True), ("expire", {"anna"}), ("claim", "bert", 1, True), ("finish", 1, True),
        ("finish", 0, False),
    ],
    "late, while it is paused": [
        ("claim", "anna", 1, True), ("expire", {"anna"}), ("change", "pause", 0), ("finish", 0, True),
        ("change", "resume", 0), ("claim", "bert", 1, True), ("finish", 0, True),
    ],
    "lost five times": [(step, *words) for _ in range(5) for step, *words in (
        ("claim", "anna", 1, True), ("expire", {"anna", "bert", "cleo"}))],
    "reset while it runs, and late": [
        ("claim", "anna", 1, True), ("change", "reset", 0), ("claim", "bert", 1, True), ("finish", 0, True),
        ("finish", 0, True),
    ],
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_stories(bench: Bench, story: str) -> None:
    machine = bench.machine()
    try:
        machine.begin(1)
        for step, *words in STORIES[story]:
            getattr(machine, step)(*words)
            machine.every_token_is_as_in_the_model()
            machine.what_the_index_counts_is_there()
    finally:
        machine.teardown()

"""R2, R5: workers that stand still or are cut off for longer than a lease, and come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from couch_server import Couch
from figures import Figures
from fleet import Fleet, Member
from history import History
from scale import Scale
from tcp_proxy import HANG, REFUSE, TcpProxy
from waits import all_ended, no_bearer, wait_for

from tokenpool.pool import Pool

Judge = Callable[..., Figures]

STOP = "stop"


class Trouble:
    """One way to keep a worker from its pool while its tokens run on."""

    def __init__(self, kind: str, fleet: Fleet, proxy: TcpProxy | None) -> None:
        self.kind, self.fleet, self.proxy = kind, fleet, proxy

    def worker(self, slots: int) -> Member:
        """Start the worker that will have it."""
        url = self.proxy.pool_url(self.fleet.url, timeout=2) if self.proxy else self.fleet.url
        return self.fleet.start(url=url, slots=slots)

    def begin(self, member: Member) -> None:
        """Keep it from its pool."""
        if self.proxy:
            self.fleet.note(member, self.kind, lets_overlap=True)
            self.proxy.split(self.kind)
        else:
            self.fleet.stop(member)

    def end(self, member: Member) -> None:
        """Let it go on, or through."""
        if self.proxy:
            self.proxy.heal()
        else:
            self.fleet.go_on(member)


@pytest.fixture(params=[f"{STOP}-sqlite", f"{STOP}-couchdb", f"{HANG}-couchdb", f"{REFUSE}-couchdb"])
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of trouble, and the backend on which there can be such."""
    found: str = request.param
    return found


@pytest.fixture
def pool_url(request: pytest.FixtureRequest, kind: str) -> str:
    """The pool of the trouble."""
    fixture = "sqlite_url" if kind.endswith("sqlite") else "couch_db"
    found: str = request.getfixturevalue(fixture)
    return found


@pytest.fixture
def trouble(request: pytest.FixtureRequest, kind: str, fleet: Fleet) -> Iterator[Trouble]:
    """The trouble, not begun."""
    what = kind.partition("-")[0]
    with ExitStack() as stack:
        proxy = None
        if what != STOP:
            server: Couch = request.getfixturevalue("couch_server")
            proxy = stack.enter_context(TcpProxy(server.url))
        yield Trouble(what, fleet, proxy)


def test_late_results_are_refused_and_kept(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, trouble: Trouble, scale: Scale
) -> None:
    # Given a worker whose tokens all run, and whose first attempts end by themselves, later ones when they may
    count = scale.kills
    ids = pool.push(history.tokens(count, seconds=1.0, gate="go", gated=2))
    zombie = trouble.worker(slots=count)
    wait_for(lambda: len(history.runs()) == count, "all tokens run")
    # When it is kept from the pool until another worker has taken all of them over
    trouble.begin(zombie)
    fleet.start(slots=count)
    wait_for(lambda: len(history.runs()) == 2 * count and history.ended() == count, "the other worker runs them all")
    first = {run.token: run for run in history.runs() if run.end is not None}
    trouble.end(zombie)

    # Then every one of its results is refused, and kept as an attempt that decides nothing, with its logs
    def superseded() -> list[str]:
        docs = [pool.get(each) for each in ids]
        return [d.id for d in docs if any(a.get("superseded") for a in d.get("attempts", ()))]

    wait_for(lambda: len(superseded()) == count, "all late results are kept as attempts")
    assert pool.counts()["locked"] == count
    history.open_gate("go")
    all_ended(pool, count)
    for each in ids:
        doc = pool.get(each)
        (late,) = [attempt for attempt in doc["attempts"] if attempt.get("superseded")]
        assert late["claim"] == first[each].claim != doc["attempts"][-1]["claim"]
        assert not late["counted"]
        assert pool.attachment(each, late["stdout"]) == history.log(each, late["claim"], "out")
    fleet.nobody_left()
    fleet.leave()
    figures = judge(fleet, pool, ids, notes=f"{count} late results refused")
    assert pool.counts()["done"] == count
    assert (figures.share(0.95) or 0) <= scale.recovery()


def test_who_was_fenced_ends_its_children_and_works_on(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, trouble: Trouble
) -> None:
    # Given a worker whose tokens were taken over while it was away, and whose children still run
    ids = pool.push(history.tokens(4, gate="go", long_each=0))
    zombie = trouble.worker(slots=4)
    wait_for(lambda: len(history.runs()) == 4, "all tokens run")
    old = [run.claim for run in history.runs()]
    trouble.begin(zombie)
    other = fleet.start(slots=4)
    wait_for(lambda: len(history.runs()) == 8, "the other worker runs them all")
    # When it comes back, then it ends its children, and leaves those of the other alone
    trouble.end(zombie)
    took = no_bearer([f"TOKENPOOL_CLAIM={claim}" for claim in old], 20)
    assert pool.counts()["locked"] == 4
    # And under a new name it takes what comes next: also what that other one leaves behind
    fleet.kill(other)
    history.open_gate("go")
    more = pool.push(history.tokens(4, name="more"))
    all_ended(pool, 8)
    assert {run.worker for run in history.runs() if run.token in more} == {zombie.pid}
    assert zombie.runs()
    fleet.leave()
    judge(fleet, pool, [*ids, *more], notes=f"children gone after {took:.1f}s")
    assert pool.counts()["done"] == 8

"""Two winners of one race, as a CouchDB cluster can have them: forced with `new_edits=false`, settled by whoever lives."""

from __future__ import annotations

import base64
from collections.abc import Callable
from uuid import uuid4

import pytest
from couch_server import Couch, raw_couch
from figures import Figures
from fleet import Fleet
from history import History
from processes import alive
from scale import LEASE
from waits import all_ended, parent_of, wait_for

from tokenpool.backends.base import Json
from tokenpool.pool import Pool
from tokenpool.util import seconds, timestamp

Judge = Callable[..., Figures]

#: Claims that win and lose against any other: among locked revisions the smallest stands.
SMALLEST, LARGEST = "0" * 32, "f" * 32
ELSEWHERE = "elsewhere.example.org"


@pytest.fixture
def pool_url(couch_db: str) -> str:
    """SQLite has one writer at a time."""
    return couch_db


class Partition:
    """The other side of a torn cluster: it writes revisions of its own beside those that are there."""

    def __init__(self, server: Couch, pool: Pool, url: str) -> None:
        self.server, self.pool, self.name = server, pool, raw_couch(url).name

    def write(self, base: Json, *steps: Json) -> None:
        """Write states of a token, each on the one before, the first on `base`."""
        hashes = [base["_rev"].partition("-")[2]]
        number = int(base["_rev"].partition("-")[0])
        docs = []
        for step in steps:
            number, hashes = number + 1, [uuid4().hex, *hashes]
            revisions = {"start": number, "ids": list(hashes)}
            docs.append({**base, **step, "_rev": f"{number}-{hashes[0]}", "_revisions": revisions})
        status, answer = self.server.call("POST", f"/{self.name}/_bulk_docs", {"docs": docs, "new_edits": False})
        assert (status, answer) == (201, [])

    def locked(self, claim: str, worker: str = "") -> Json:
        """Return the fields of a token that a worker over there has claimed."""
        lock = seconds()
        lease = {"worker": worker or f"worker_{uuid4().hex}", "claim": claim, "lock": lock, "hostname": ELSEWHERE}
        return {"lock": lock, "done": 0, "hostname": ELSEWHERE, "lease": lease}

    def closed(self, claim: str, done: int, log: bytes) -> Json:
        """Return the fields of a token that a worker over there has run and closed."""
        name = "logs_over_there.out"
        attempt = {
            "claim": claim, "worker": f"worker_{uuid4().hex}", "hostname": ELSEWHERE, "start_time": timestamp(),
            "end_time": timestamp(), "exit_code": 0, "failure_class": None, "counted": True, "stdout": name,
        }  # fmt: skip
        data = {"content_type": "text/plain", "data": base64.b64encode(log).decode()}
        return {
            "lock": done, "done": done, "hostname": ELSEWHERE, "exit_code": 0, "attempts": [attempt],
            "_attachments": {name: data},
        }  # fmt: skip


@pytest.fixture
def other_side(couch_server: Couch, pool: Pool, pool_url: str) -> Partition:
    return Partition(couch_server, pool, pool_url)


def conflicts(pool: Pool, token: str) -> list[str]:
    """Return the revisions that stand beside the winner."""
    found: list[str] = pool.backend.get(token, conflicts=True).get("_conflicts", [])
    return found


@pytest.mark.parametrize("rival", [LARGEST, SMALLEST], ids=["ours-stands", "theirs-stands"])
def test_two_workers_hold_one_token(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, other_side: Partition, rival: str
) -> None:
    # Given a token that our worker runs, and that another one, who dies soon, has claimed on the other side
    (token,) = pool.push(history.tokens(1, gate="go", long_each=0))
    base = dict(pool.get(token).doc)
    worker = fleet.start()
    wait_for(lambda: history.runs(), "ours runs it")
    (ours,) = history.runs()
    other_side.write(base, other_side.locked(rival))
    # When the sides see each other, then one claim stands, whoever looks
    wait_for(lambda: not conflicts(pool, token), "the conflict is settled")
    if rival == SMALLEST:
        # It is not ours: our child ends, and as nobody renews that other lease, the token comes back
        fleet.note(worker, "conflict", lets_overlap=True)
        wait_for(lambda: not alive(ours.pid), "our child ends")
        wait_for(lambda: len(history.runs()) == 2, "it is run again", 4 * LEASE + 20)
    history.open_gate("go")
    all_ended(pool, 1)
    # Then the token is done once, by a claim that held it, and the other one is in its history
    fleet.nobody_left()
    fleet.leave()
    # (Until it is settled CouchDB shows either side, so our child may be ended in any case: one run for nothing.)
    judge(fleet, pool, [token], excused=[ours.claim])
    doc = pool.get(token)
    assert doc.state == "done"
    assert doc["attempts"][-1]["claim"] == history.runs()[-1].claim
    assert {ours.claim, rival} <= {attempt["claim"] for attempt in doc["attempts"]}


def test_closed_here_and_claimed_there(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, other_side: Partition
) -> None:
    # Given a token that is done here, while a claim of the other side comes to light
    (token,) = pool.push(history.tokens(1, long_each=0))
    base = dict(pool.get(token).doc)
    fleet.start()
    all_ended(pool, 1)
    other_side.write(base, other_side.locked(SMALLEST))
    # Then closed beats locked: it stays done and is not run again
    wait_for(lambda: not conflicts(pool, token), "the conflict is settled")
    fleet.leave()
    figures = judge(fleet, pool, [token])
    assert (pool.get(token).state, figures.reruns) == ("done", 0)


def test_running_here_and_closed_there(
    pool: Pool, fleet: Fleet, history: History, other_side: Partition, report: Callable[[Figures], None]
) -> None:
    # Given a token that runs here, and was run and closed on the other side
    (token,) = pool.push(history.tokens(1, gate="go", long_each=0))
    base = dict(pool.get(token).doc)
    fleet.start()
    wait_for(lambda: history.runs(), "it runs here")
    (ours,) = history.runs()
    assert alive(parent_of(ours.pid))
    other_side.write(base, other_side.locked(LARGEST), other_side.closed(LARGEST, seconds(), b"over there\n"))
    # Then that outcome stands, our child ends, and nothing is run again
    wait_for(lambda: not conflicts(pool, token), "the conflict is settled")
    wait_for(lambda: not alive(ours.pid), "our child ends")
    fleet.nobody_left()
    fleet.leave()
    doc = pool.get(token)
    accepted = [attempt["claim"] for attempt in doc["attempts"] if not attempt.get("superseded")]
    assert (doc.state, accepted, len(history.runs())) == ("done", [LARGEST], 1)
    assert pool.logs(token).out == b"over there\n"
    report(Figures("", tokens=1, reruns=1))


def test_closed_on_both_sides(
    pool: Pool, fleet: Fleet, history: History, other_side: Partition, report: Callable[[Figures], None]
) -> None:
    # Given two outcomes of one token, of which that of the other side is the earlier one
    (token,) = pool.push(history.tokens(1, long_each=0))
    base = dict(pool.get(token).doc)
    fleet.start()
    all_ended(pool, 1)
    (ours,) = history.runs()
    earlier = pool.get(token)["done"] - 5
    other_side.write(base, other_side.locked(LARGEST), other_side.closed(LARGEST, earlier, b"over there\n"))
    # Then the earlier one stands, and the later one is an attempt that decides nothing, with its logs
    wait_for(lambda: not conflicts(pool, token), "the conflict is settled")
    fleet.nobody_left()
    fleet.leave()
    doc = pool.get(token)
    told = {attempt["claim"]: attempt for attempt in doc["attempts"]}
    assert (doc.state, doc["done"], set(told)) == ("done", earlier, {LARGEST, ours.claim})
    assert told[ours.claim]["superseded"]
    assert not told[LARGEST].get("superseded")
    assert pool.attachment(token, told[ours.claim]["stdout"]) == history.log(token, ours.claim, "out")
    assert pool.logs(token).out == b"over there\n"
    report(Figures("", tokens=1))

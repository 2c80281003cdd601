"""The lease of a worker and what janitors make of it, on every backend: no clock of another computer is ever trusted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from processes import until

from tokenpool import transitions
from tokenpool.backends import open_backend
from tokenpool.backends.base import Backend
from tokenpool.claims import Claimer
from tokenpool.janitor import ON_DUTY, Janitor
from tokenpool.leases import Contact, Lease
from tokenpool.pool import Pool, connect

LEASE = 120.0


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with connect(pool_url, create=True) as opened:
        yield opened


@pytest.fixture
def backend(pool: Pool) -> Backend:
    return pool.backend


def observer(backend: Backend, clock: Clock, me: str = "", **options: Any) -> Janitor:
    return Janitor(backend, LEASE, Contact(LEASE, clock), lambda: me, clock=clock, **options)


def worker_with_token(backend: Backend, pool: Pool, **fields: Any) -> tuple[Lease, dict[str, Any]]:
    """A worker whose lease thread never ran: it looks as if it had died right after its claim."""
    pool.push(["true"], **fields)
    lease = Lease(backend, LEASE)
    lease._closed = True  # no thread: the test says when it renews
    (doc,) = Claimer(backend, lease).claim()
    return lease, doc


def pass_time(clock: Clock, janitor: Janitor, seconds: float, step: float = LEASE / 3) -> int:
    """Let time pass with the janitor looking at every step; return how many tokens it brought back."""
    back, end = 0, clock.now + seconds
    while clock.now < end:
        clock.now = min(end, clock.now + step)
        back += janitor.sweep()
    return back


# --- the document -----------------------------------------------------------------------------------------------------


def test_a_claim_writes_the_workers_document_in_the_same_request(backend: Backend, pool: Pool) -> None:
    lease, doc = worker_with_token(backend, pool)
    there = backend.get(lease.name)
    assert (there["type"], there["fenced"], there["lease"]) == ("worker", False, LEASE)
    assert transitions.holder_of(backend.get(doc["_id"])) == lease.name


def test_a_renewal_meets_orders_and_takes_them_in(backend: Backend, pool: Pool) -> None:
    # given a worker whose slots somebody changed
    orders: list[dict[str, Any]] = []
    lease = Lease(backend, LEASE, slots=2, tell=lambda: {"note": "here"}, obey=orders.append)
    assert lease.renew()
    there = backend.get(lease.name)
    backend.put_many([{**there, "slots": 7, "drain": True}])
    # when it renews
    assert lease.renew()
    # then it heard of it once, and both stand in the document: its own words and theirs
    assert [(doc["slots"], doc["drain"]) for doc in orders] == [(7, True)]
    now = backend.get(lease.name)
    assert (now["slots"], now["drain"], now["note"]) == (7, True, "here")
    lease.close()
    assert backend.get_many([lease.name]) == [None]


def test_a_fenced_worker_learns_it_at_its_next_renewal_and_never_writes_again(backend: Backend) -> None:
    lost: list[bool] = []
    lease = Lease(backend, LEASE, lost=lambda: lost.append(True))
    lease.renew()
    there = backend.get(lease.name)
    backend.put_many([{**there, "fenced": True}])
    assert not lease.renew()
    assert not lease.renew()
    assert lost == [True]
    assert backend.get(lease.name)["fenced"]


def test_a_worker_whose_document_was_deleted_has_lost_its_lease(backend: Backend) -> None:
    lease = Lease(backend, LEASE)
    lease.renew()
    backend.put_many([{"_id": lease.name, "_rev": lease.rev, "_deleted": True}])
    assert not lease.renew()
    assert lease.is_lost


# --- dead workers -------------------------------------------------------------------------------------------------------


def test_a_dead_workers_token_comes_back_within_two_leases(backend: Backend, pool: Pool) -> None:
    # given a worker that died with a token
    lease, doc = worker_with_token(backend, pool)
    clock = Clock()
    janitor = observer(backend, clock)
    # when somebody looks on for less than a lease
    assert pass_time(clock, janitor, 0.9 * LEASE) == 0
    assert transitions.state_of(backend.get(doc["_id"])) == transitions.LOCKED
    # then nothing happens, and soon after a lease the token is back, uncounted, and the worker forgotten
    assert pass_time(clock, janitor, 0.9 * LEASE) == 1
    back = backend.get(doc["_id"])
    assert transitions.state_of(back) == transitions.TODO
    assert (back["attempts"][-1]["failure_class"], back["attempts"][-1]["counted"]) == ("lost", False)
    assert back["attempts"][-1]["worker"] == lease.name
    assert backend.get_many([lease.name]) == [None]


def test_a_worker_that_renews_keeps_its_tokens_for_ever(backend: Backend, pool: Pool) -> None:
    lease, doc = worker_with_token(backend, pool)
    clock = Clock()
    janitor = observer(backend, clock)
    for _ in range(12):
        assert pass_time(clock, janitor, 0.9 * LEASE) == 0
        assert lease.renew()
    assert transitions.holder_of(backend.get(doc["_id"])) == lease.name


def test_an_outage_of_any_length_ends_no_lease(backend: Backend, pool: Pool) -> None:
    # given an observer that saw a worker for nearly a lease
    _, doc = worker_with_token(backend, pool)
    clock = Clock()
    janitor = observer(backend, clock)
    pass_time(clock, janitor, 0.9 * LEASE)
    # when the server is away for three leases, and then a request succeeds again
    janitor.contact.broken()
    clock.now += 3 * LEASE
    # then the lease begins anew for this observer: the worker could not renew either
    assert janitor.sweep() == 0
    assert pass_time(clock, janitor, 0.9 * LEASE) == 0
    assert transitions.state_of(backend.get(doc["_id"])) == transitions.LOCKED
    assert pass_time(clock, janitor, 0.5 * LEASE) == 1


def test_an_observer_that_was_stopped_and_continued_does_not_trust_its_clock(backend: Backend, pool: Pool) -> None:
    # given an observer that slept for an hour between two looks, and noticed nothing of an outage meanwhile
    _, doc = worker_with_token(backend, pool)
    clock = Clock()
    janitor = observer(backend, clock)
    janitor.sweep()
    clock.now += 3600
    # when it looks again
    assert janitor.sweep() == 0
    # then the token is still its worker's
    assert transitions.state_of(backend.get(doc["_id"])) == transitions.LOCKED


def test_two_janitors_bring_a_token_back_once(backend: Backend, pool: Pool) -> None:
    _, doc = worker_with_token(backend, pool)
    clock = Clock()
    one, two = observer(backend, clock), observer(backend, clock)
    back = 0
    for _ in range(6):
        clock.now += LEASE / 3
        back += one.sweep() + two.sweep()
    assert back == 1
    assert backend.get(doc["_id"])["scrub_count"] == 1


def test_a_janitor_that_dies_after_the_fence_is_followed_by_another(backend: Backend, pool: Pool) -> None:
    # given a worker that was fenced, and nothing after it
    lease, _ = worker_with_token(backend, pool)
    there = backend.get(lease.name)
    backend.put_many([{**there, "fenced": True}])
    # when another looks on
    clock = Clock()
    assert pass_time(clock, observer(backend, clock), 2 * LEASE) == 1


def test_tokens_of_a_worker_without_a_document_come_back(backend: Backend, pool: Pool) -> None:
    # given a claim whose worker has left: it arrived when nobody waited for it any more
    lease, doc = worker_with_token(backend, pool)
    there = backend.get(lease.name)
    backend.put_many([{"_id": lease.name, "_rev": there["_rev"], "_deleted": True}])
    clock = Clock()
    janitor = observer(backend, clock)
    # then it comes back after a lease, not before: the document may be on its way
    assert pass_time(clock, janitor, 0.9 * LEASE) == 0
    assert pass_time(clock, janitor, 0.5 * LEASE) == 1
    assert transitions.state_of(backend.get(doc["_id"])) == transitions.TODO


def test_a_token_that_picas_holds_is_never_brought_back_unless_told(backend: Backend, pool: Pool) -> None:
    # given a token that a picas pilot locked over our claim: another lock, another host, our lease field left in it
    lease, doc = worker_with_token(backend, pool)
    there = backend.get(doc["_id"])
    backend.put_many([{**there, "lock": there["lock"] - 7 * 86400, "hostname": "pilot"}])
    worker = backend.get(lease.name)
    backend.put_many([{"_id": lease.name, "_rev": worker["_rev"], "_deleted": True}])
    clock = Clock()
    # when janitors look on for long
    assert pass_time(clock, observer(backend, clock), 5 * LEASE) == 0
    assert backend.get(doc["_id"])["hostname"] == "pilot"
    # then only one that was told to adopt takes it
    assert observer(backend, clock, adopt_picas_after=8 * 86400).sweep() == 0
    assert observer(backend, clock, adopt_picas_after=6 * 86400).sweep() == 1
    assert transitions.state_of(backend.get(doc["_id"])) == transitions.TODO


def test_a_late_claim_is_given_back_by_the_worker_whose_name_it_carries(backend: Backend, pool: Pool) -> None:
    # given a worker that gave up on a claim which then arrived all the same
    pool.push(["true"])
    lease = Lease(backend, LEASE)
    claimer = Claimer(backend, lease)
    (doc,) = claimer.claim()
    # when it counts what carries its name, and knows of nothing
    late = claimer.unknown(set())
    assert [each["_id"] for each in late] == [doc["_id"]]
    claimer.give_back(late)
    # then the token waits again, uncounted
    back = backend.get(doc["_id"])
    assert (transitions.state_of(back), back["scrub_count"], back.get("attempts", [])) == (transitions.TODO, 0, [])
    lease.close()


# --- duty and idleness ---------------------------------------------------------------------------------------------------


def test_on_a_large_fleet_only_the_first_are_on_duty(backend: Backend) -> None:
    leases = [Lease(backend, LEASE) for _ in range(ON_DUTY + 4)]
    for lease in leases:
        lease.renew()
    clock = Clock()
    janitors = {lease.name: observer(backend, clock, lease.name) for lease in leases}
    for janitor in janitors.values():
        janitor.sweep()
    assert [name for name in sorted(janitors) if janitors[name].on_duty] == sorted(janitors)[:ON_DUTY]


def test_when_all_on_duty_die_others_take_their_place(backend: Backend) -> None:
    # given a fleet whose first workers never renew again
    leases = sorted((Lease(backend, LEASE) for _ in range(ON_DUTY + 1)), key=lambda lease: lease.name)
    for lease in leases:
        lease.renew()
    clock = Clock()
    last = observer(backend, clock, leases[-1].name)
    last.sweep()
    assert not last.on_duty
    # when the last one looks on
    for _ in range(5):
        clock.now += LEASE / 3
        leases[-1].renew()
        last.sweep()
    # then it is on duty
    assert last.on_duty


def test_an_idle_worker_renews_seldom_and_is_not_taken_for_dead(backend: Backend, pool: Pool) -> None:
    # given a worker that told that it is idle
    lease = Lease(backend, LEASE)
    lease.renew()
    lease.idle()
    lease._begin()
    lease.renew_soon()
    until(lambda: backend.get(lease.name)["idle"])
    clock = Clock()
    janitor = observer(backend, clock)
    # when others look on for ten leases
    pass_time(clock, janitor, 10 * LEASE)
    # then it stands; and with its next claim it is awake again
    assert not backend.get(lease.name)["fenced"]
    pool.push(["true"])
    (doc,) = Claimer(backend, lease).claim()
    assert not backend.get(lease.name)["idle"]
    assert transitions.holder_of(doc) == lease.name
    lease.close()


def test_a_token_under_an_idle_document_comes_back(backend: Backend, pool: Pool) -> None:
    # given a worker that died between its claim and the word that it is awake
    lease, doc = worker_with_token(backend, pool)
    there = backend.get(lease.name)
    backend.put_many([{**there, "idle": True, "lease": 30 * LEASE}])
    clock = Clock()
    assert pass_time(clock, observer(backend, clock), 2 * LEASE) == 1
    assert transitions.state_of(backend.get(doc["_id"])) == transitions.TODO


# --- contact ----------------------------------------------------------------------------------------------------------


def test_contact_counts_from_the_last_interruption() -> None:
    clock = Clock()
    contact = Contact(LEASE, clock)
    contact.ok()
    began = clock.now
    for _ in range(9):
        clock.now += LEASE / 3
        contact.ok()
    assert contact.since == began
    contact.broken()
    assert contact.since == clock.now
    clock.now += 1
    contact.ok()
    assert contact.since == clock.now


def test_a_silence_interrupts_contact_but_not_while_a_request_stands_open() -> None:
    clock = Clock()
    contact = Contact(LEASE, clock)
    contact.ok()
    clock.now += 0.6 * LEASE
    contact.ok()
    assert contact.since == clock.now
    began = clock.now
    contact.hold()
    clock.now += 5 * LEASE
    contact.ok()
    assert contact.since == began
    contact.let_go()
    assert contact.since == began


@pytest.mark.parametrize("pool_url", ["sqlite"], indirect=True)
def test_opening_a_second_backend_sees_the_same_leases(pool: Pool, backend: Backend) -> None:
    lease = Lease(backend, LEASE)
    lease.renew()
    with open_backend(pool.url) as other:
        assert other.get(lease.name)["renewals"] == 1
    lease.close()

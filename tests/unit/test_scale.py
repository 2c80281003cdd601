"""How many workers are wanted: decided without a pool or a batch system, and never to anybody's harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenpool.launchers.base import ENDED, RUNNING, UNKNOWN, WAITING, Job
from tokenpool.scale import Decision, Demand, Memory, Order, Rules, decide, refused
from tokenpool.steering import WorkerInfo

NOW = 1_000_000.0
RULES = Rules(minimum=0, maximum=10, backlog=10, patience=60.0)


def worker(name: str, held: int = 0, job: str = "", state: str = "", slots: int = 1, ends: float = NOW) -> WorkerInfo:
    state = state or ("working" if held else "idle")
    times = {"age": 1.0, "lease": 120.0, "renewed": "", "started": ""}
    return WorkerInfo(f"worker_{name}", "n1", state, slots, held, running=(), job=job, ends=ends, **times)  # type: ignore[arg-type]


def job(name: str, state: str = RUNNING, submitted: float = NOW - 500) -> Job:
    return Job("slurm", f"id-{name}", name, state, running=int(state == RUNNING), submitted=submitted)


def decision(
    waiting: int = 0,
    workers: tuple[WorkerInfo, ...] = (),
    jobs: tuple[Job, ...] = (),
    memory: Memory | None = None,
    rules: Rules = RULES,
    running: int = 0,
    ended: int = 0,
    now: float = NOW,
) -> Decision:
    return decide(rules, Demand(waiting, running, ended), workers, jobs, memory or Memory(), now)


# ── more ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("waiting", "wanted"), [(0, 0), (1, 1), (10, 1), (11, 2), (95, 10), (5000, 10)])
def test_there_is_a_worker_for_each_portion_of_tokens_and_never_more_than_the_maximum(
    waiting: int, wanted: int
) -> None:
    assert decision(waiting).start == wanted


def test_the_minimum_is_started_for_nothing() -> None:
    answer = decision(rules=replace(RULES, minimum=3))
    assert answer.start == 3
    assert "the minimum" in answer.reasons[-1]


def test_workers_that_are_still_to_come_are_not_started_again() -> None:
    jobs = (job("a", WAITING), job("b", RUNNING))  # one in the queue, one that boots
    assert decision(25, jobs=jobs).start == 1


def test_the_workers_of_others_count_but_are_never_let_go() -> None:
    others = (worker("x"), worker("y"))
    assert decision(30, others).start == 1
    long_ago = Memory(surplus=NOW - 3600)
    assert decision(0, others, memory=long_ago).drain == ()


def test_those_that_leave_still_take_the_place_of_new_ones() -> None:
    leaving = worker("a", held=1, job="a", state="draining")
    answer = decision(1000, (leaving,), (job("a"),), rules=replace(RULES, maximum=1))
    assert answer.start == 0
    assert answer.reasons[-1].startswith("wait for 1 worker to leave")


def test_a_worker_whose_job_has_ended_is_dead_whatever_its_document_says() -> None:
    assert decision(10, (worker("a", job="a"),), (job("a", ENDED),)).start == 1


# ── fewer ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_idle_workers_go_when_there_were_too_many_for_a_while() -> None:
    # given two workers with nothing to do
    workers, jobs = (worker("a", job="a"), worker("b", held=1, job="b")), (job("a"), job("b"))
    # when that is new, then nobody goes
    first = decision(0, workers, jobs, running=1)
    assert (first.drain, first.cancel) == ((), ())
    assert first.reasons[-1].startswith("1 too many, let go in 60 s")
    # when it lasts, then the idle one goes, and only that
    later = decision(0, workers, jobs, first.memory, running=1, now=NOW + 60)
    assert later.drain == ("worker_a",)


def test_work_that_comes_meanwhile_keeps_everybody() -> None:
    workers, jobs = (worker("a", job="a"),), (job("a"),)
    first = decision(0, workers, jobs)
    between = decision(1, workers, jobs, first.memory, now=NOW + 30)
    last = decision(0, workers, jobs, between.memory, now=NOW + 61)
    assert (between.drain, last.drain) == ((), ())


def test_jobs_that_never_started_go_before_workers() -> None:
    memory = Memory(surplus=NOW - 61)
    answer = decision(10, (worker("a", job="a"),), (job("a"), job("b", WAITING)), memory)
    assert [each.name for each in answer.cancel] == ["b"]
    assert answer.drain == ()


def test_of_several_idle_workers_the_one_goes_first_that_has_to_leave_first() -> None:
    workers = (worker("a", job="a", ends=NOW + 900), worker("b", job="b", ends=NOW + 300))
    assert decision(1, workers, (job("a"), job("b")), Memory(surplus=NOW - 61)).drain == ("worker_b",)


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_is_followed_by_a_pause_that_grows() -> None:
    memory, line = refused(Memory(), "the quota is reached", NOW)
    assert line == "no more workers for 30 s: the quota is reached"
    assert decision(50, memory=memory, now=NOW + 29).start == 0
    assert decision(50, memory=memory, now=NOW + 31).start == 5
    memory, line = refused(memory, "again", NOW)
    assert line.startswith("no more workers for 60 s")
    for _ in range(50):
        memory, line = refused(memory, "again", NOW)
    assert line.startswith("no more workers for 1800 s")


def test_jobs_that_end_before_their_worker_shows_itself_are_not_repeated_at_once() -> None:
    memory = Memory(orders={"a": Order(NOW - 5, ended=7)})
    answer = decision(10, jobs=(job("a", ENDED, NOW - 5),), memory=memory, ended=7)
    assert answer.start == 0
    assert answer.forget == ("a",)
    assert answer.reasons[0].startswith("1 order ended before a worker showed itself")
    assert decision(10, memory=answer.memory, ended=7, now=NOW + 31).start == 1


@pytest.mark.parametrize(("seen", "ended"), [(True, 7), (False, 8)])
def test_a_job_that_was_short_because_its_work_was_is_no_failure(seen: bool, ended: int) -> None:
    memory = Memory(orders={"a": Order(NOW - 5, ended=7, seen=seen)})
    assert decision(10, jobs=(job("a", ENDED, NOW - 5),), memory=memory, ended=ended).start == 1


def test_the_first_worker_that_comes_ends_the_pause() -> None:
    memory = Memory(3, NOW + 600, orders={"a": Order(NOW - 5)})
    assert decision(50, (worker("a", job="a"),), (job("a"),), memory).start == 4


def test_a_job_that_its_system_does_not_know_counts_for_a_limited_time() -> None:
    # given a job that counts as there
    jobs = (job("a", UNKNOWN),)
    first = decision(10, jobs=jobs)
    assert (first.start, first.forget) == (0, ())
    # when it stays unknown for too long, then it is given up and replaced
    last = decision(10, jobs=jobs, memory=first.memory, now=NOW + 600)
    assert (last.start, last.forget) == (1, ("a",))
    assert last.reasons[0].startswith("a is given up")


def test_tokens_that_no_such_worker_can_run_are_told_and_not_waited_for() -> None:
    demand = Demand(unfit=3, why_unfit="64 GB of memory where there are 8")
    answer = decide(RULES, demand, [], [], Memory(), NOW)
    assert answer.start == 0
    assert answer.reasons[0] == "3 tokens can never run on such workers: 64 GB of memory where there are 8"


# ── whatever happens ─────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = [f"job{number}" for number in range(12)]
JOBS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([WAITING, RUNNING, UNKNOWN, ENDED]))
WORKERS = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from([*NAMES, "", "other"]),
        st.sampled_from(["", "", "draining", "stopping", "silent"]),
    ),
    max_size=15,
)  # fmt: skip
MEMORIES = st.builds(
    Memory,
    st.integers(0, 5),
    st.sampled_from([0.0, NOW + 60]),
    st.sampled_from([0.0, NOW - 10, NOW - 900]),
    st.just({}),
)


@given(
    waiting=st.integers(0, 500), minimum=st.integers(0, 4), more=st.integers(1, 10), backlog=st.integers(1, 50),
    states=JOBS, told=WORKERS, memory=MEMORIES,
)  # fmt: skip
def test_nothing_makes_it_go_above_the_maximum_or_touch_a_worker_that_is_busy_or_not_ours(
    waiting: int, minimum: int, more: int, backlog: int, states: Mapping[str, str], told: list[tuple[int, str, str]],
    memory: Memory,
) -> None:  # fmt: skip
    rules = Rules(minimum, minimum + more, backlog)
    jobs = [job(name, state) for name, state in states.items()]
    workers = [worker(str(number), held, name, state) for number, (held, name, state) in enumerate(told)]
    answer = decide(rules, Demand(waiting, 0, 0), workers, jobs, memory, NOW)

    there = sum(state != ENDED for state in states.values())
    assert answer.start == 0 or there + answer.start <= rules.maximum
    assert not (answer.start and (answer.drain or answer.cancel))
    by_id = {each.id: each for each in workers}
    assert all(by_id[name].held == 0 and by_id[name].job in states for name in answer.drain)
    assert all(each.state == WAITING for each in answer.cancel)
    assert len(answer.drain) + len(answer.cancel) <= max(0, answer.have - rules.minimum)
    assert answer.reasons
    assert all("\n" not in line for line in answer.reasons)

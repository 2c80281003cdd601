"""`scale` over hours of a made-up world: it gets there, harms nobody, keeps its limits, and does not flap."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenpool.scale import Rules
from tokenpool.simulation import Outcome, Simulation, World


def play(world: World, rules: Rules) -> Outcome:
    return Simulation(world, rules).play()


def test_a_hundred_thousand_tokens_are_done_by_no_more_workers_than_allowed_and_nobody_is_left() -> None:
    outcome = play(World(tokens=100_000), Rules(maximum=50, backlog=100))
    assert outcome.ended == 100_000
    assert outcome.most_jobs == 50
    assert outcome.harmed == 0
    assert outcome.frames[-1].jobs == 0


def test_a_hundred_thousand_tokens_are_done_although_workers_die_jobs_are_stillborn_and_the_quota_is_small() -> None:
    world = World(tokens=100_000, stillborn=0.1, dies=0.2, quota=30)
    outcome = play(world, Rules(maximum=50, backlog=100))
    assert outcome.ended == 100_000
    assert outcome.lost > 0
    assert outcome.refusals > 0
    assert outcome.most_jobs <= 30
    assert outcome.harmed == 0


def test_refusals_are_few_because_the_pauses_grow() -> None:
    outcome = play(World(tokens=20_000, quota=5), Rules(maximum=50, backlog=100))
    rounds = len(outcome.frames)
    assert outcome.ended == 20_000
    assert outcome.refusals < rounds / 10


def test_jobs_that_all_die_at_once_do_not_fill_the_batch_system() -> None:
    simulation = Simulation(World(tokens=1000, stillborn=1.0), Rules(maximum=10, backlog=10))
    outcome = simulation.play(most=86400.0)
    assert outcome.ended == 0
    assert outcome.started < 10 * 60  # a round each 15 s would start 57 600


def test_workers_come_and_go_with_the_tokens_and_not_more_often() -> None:
    # given four portions of work, an hour apart, of which each keeps ten workers busy for half of it
    world = World(tokens=4 * 1800, portions=4, pause=3600.0, takes=10.0, walltime=86400.0)
    # when it is played
    outcome = play(world, Rules(maximum=10, backlog=100))
    # then each portion starts its workers once, and lets them go once
    assert outcome.ended == world.tokens
    assert outcome.started <= 4 * 10
    assert outcome.harmed == 0
    assert min(frame.jobs for frame in outcome.frames) == 0


def test_the_minimum_stays() -> None:
    outcome = play(World(tokens=500, walltime=86400.0), Rules(minimum=2, maximum=5, backlog=10))
    assert outcome.frames[-1].workers == 2
    assert outcome.started == 5


@settings(max_examples=30)
@given(
    tokens=st.integers(1, 3000), slots=st.integers(1, 8), maximum=st.integers(1, 30), backlog=st.integers(1, 200),
    dies=st.sampled_from([0.0, 0.3]), stillborn=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_every_world_comes_to_its_end_without_harm(
    tokens: int, slots: int, maximum: int, backlog: int, dies: float, stillborn: float, seed: int
) -> None:
    world = World(tokens=tokens, slots=slots, dies=dies, stillborn=stillborn, seed=seed)
    outcome = play(world, Rules(maximum=maximum, backlog=backlog))
    assert outcome.ended == tokens
    assert outcome.most_jobs <= maximum
    assert outcome.harmed == 0
    assert outcome.frames[-1].jobs == 0

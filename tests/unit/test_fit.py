"""Tokens get what they ask for, a machine is never given out twice, and a big token comes to its turn."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from control_groups import machine, version_1, version_2
from hypothesis import given
from hypothesis import strategies as st

from tokenpool.errors import BadInput
from tokenpool.fit import (
    AMOUNTS,
    LAPSE,
    Packing,
    Placement,
    Resources,
    capacity,
    cpu_ids,
    gpu_ids,
    lacking,
    own_cpus,
    wanted,
)

FOUR = Resources(cpu_cores=4, ram_gb=8, gpus=2, disk_gb=100)


class Clock:
    """A clock that stands until it is set forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def token(*classes: str, **resources: Any) -> dict[str, Any]:
    return {"resources": resources, "attempts": [{"failure_class": name} for name in classes]}


# ── what a token asks for ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_asks_for_nothing_gets_the_default() -> None:
    for doc in ({}, {"resources": None}, {"resources": {}}, {"resources": {"cpu_cores": None}}):
        assert wanted(doc, default_cpus=1.5) == Resources(cpu_cores=1.5)
        assert wanted(doc, default_cpus=1.5).by_default


def test_a_token_gets_what_it_asks_for() -> None:
    found = wanted(token(cpu_cores=2, ram_gb=1.5, gpus=1, disk_gb=10), default_cpus=4)
    assert found == Resources(cpu_cores=2, ram_gb=1.5, gpus=1, disk_gb=10)
    assert not found.by_default


@pytest.mark.parametrize(
    ("classes", "ram"),
    [
        ((), 2),
        (("executor", "staging", "lost", "preempted"), 2),
        (("oom",), 4),
        (("executor", "timeout"), 4),
        (("oom", "executor", "timeout"), 8),
        (("oom",) * 4, 8),
    ],
)
def test_a_list_moves_on_only_when_memory_or_time_ran_out(classes: tuple[str, ...], ram: float) -> None:
    found = wanted(token(*classes, ram_gb=[2, 4, 8], cpu_cores=1))
    assert (found.ram_gb, found.cpu_cores) == (ram, 1)


def test_attempts_that_are_no_attempts_are_passed_over() -> None:
    assert wanted({"resources": {"ram_gb": [2, 4]}, "attempts": "no list"}).ram_gb == 2
    assert wanted({"resources": {"ram_gb": [2, 4]}, "attempts": [None, {"failure_class": "oom"}]}).ram_gb == 4


@pytest.mark.parametrize(
    "resources",
    [
        [], "4", {"cpu_cores": -1}, {"cpu_cores": 0}, {"ram_gb": "4"}, {"ram_gb": True}, {"ram_gb": []}, {"gpus": 0.5},
        {"ram_gb": [1, -1]}, {"ram_gb": math.nan}, {"disk_gb": math.inf},
    ],
)  # fmt: skip
def test_what_no_machine_can_give_is_refused(resources: Any) -> None:
    with pytest.raises(BadInput) as refused:
        wanted({"resources": resources})
    assert refused.value.hint


# ── what a machine has ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_machine_without_limits_is_all_there(tmp_path: Path) -> None:
    found = capacity({}, version_2(tmp_path), cpus=range(8), folder=tmp_path)
    assert (found.cpu_cores, found.ram_gb, found.gpus) == (8, 16, 0)
    assert found.disk_gb > 0


def test_the_cpus_are_those_that_this_process_may_use() -> None:
    assert capacity({}, Path("/nonexistent")).cpu_cores == len(cpu_ids())


def test_cpus_are_ones_own_where_the_machine_has_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: len(cpu_ids()))
    assert own_cpus() == ()
    monkeypatch.setattr(os, "cpu_count", lambda: len(cpu_ids()) + 1)
    assert own_cpus() == cpu_ids()


def test_a_control_group_of_version_2_limits(tmp_path: Path) -> None:
    root = version_2(tmp_path, "/job/step", cpu__max="150000 100000", memory__max="max")
    machine(root, {"sys/fs/cgroup/job/memory.max": str(4 << 30), "sys/fs/cgroup/job/cpu.max": "max 100000"})
    found = capacity({}, root, cpus=range(8))
    assert (found.cpu_cores, found.ram_gb) == (1.5, 4)


def test_a_control_group_of_version_1_limits(tmp_path: Path) -> None:
    root = version_1(
        tmp_path, "/job", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000", memory__limit_in_bytes=str(6 << 30)
    )
    machine(root, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})
    found = capacity({}, root, cpus=range(8))
    assert (found.cpu_cores, found.ram_gb) == (2, 6)


def test_no_quota_is_no_limit(tmp_path: Path) -> None:
    root = version_1(tmp_path, "/job", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert capacity({}, root, cpus=range(8)).cpu_cores == 8


@pytest.mark.parametrize(
    ("environ", "cpus", "ram"),
    [
        ({"SLURM_CPUS_ON_NODE": "2", "SLURM_MEM_PER_NODE": "2048"}, 2, 2),
        ({"SLURM_CPUS_ON_NODE": "2", "SLURM_MEM_PER_CPU": "1024"}, 2, 2),
        ({"SLURM_CPUS_ON_NODE": "64", "SLURM_MEM_PER_NODE": "0"}, 8, 16),
        ({"SLURM_CPUS_ON_NODE": "many"}, 8, 16),
    ],
)
def test_a_slurm_job_limits(tmp_path: Path, environ: dict[str, str], cpus: float, ram: float) -> None:
    found = capacity(environ, version_2(tmp_path), cpus=range(8))
    assert (found.cpu_cores, found.ram_gb) == (cpus, ram)


def test_the_disk_is_that_of_a_folder_which_may_come_later(tmp_path: Path) -> None:
    here, later = (capacity({}, tmp_path, folder=tmp_path / name).disk_gb for name in (".", "later/on"))
    assert later == pytest.approx(here, rel=0.1)
    assert here > 0


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("0,2", ("0", "2")),
        ("GPU-8932f937,MIG-GPU-1/2/0", ("GPU-8932f937", "MIG-GPU-1/2/0")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("1,-1,2", ("1",)),
    ],
)
def test_the_gpus_are_those_that_cuda_would_see(visible: str, names: tuple[str, ...], tmp_path: Path) -> None:
    root = machine(tmp_path, {"dev/nvidia0": "", "dev/nvidia1": ""})
    assert gpu_ids({"CUDA_VISIBLE_DEVICES": visible}, root) == names


def test_without_a_word_from_cuda_the_devices_count(tmp_path: Path) -> None:
    root = machine(tmp_path, {f"dev/nvidia{name}": "" for name in ("2", "3", "ctl", "-uvm", "3x")})
    assert gpu_ids({}, root) == ("0", "1")
    assert capacity({}, root).gpus == 2


# ── what is given out ────────────────────────────────────────────────────────────────────────────────────────────────


def packing(clock: Clock | None = None, **options: Any) -> Packing:
    return Packing(FOUR, range(4), ("0", "1"), clock=clock or Clock(), **options)


def test_whole_cores_are_bound_and_told() -> None:
    place = packing().take("a", Resources(cpu_cores=2, ram_gb=1.5))
    assert place == Placement(
        (0, 1), (), {"CPU": "2", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "", "TOKENPOOL_RAM_GB": "1.5"}
    )


def test_parts_of_cores_are_not_bound() -> None:
    place = packing().take("a", Resources(cpu_cores=1.5))
    assert place is not None
    assert place.cpus == ()
    assert place.environment["OMP_NUM_THREADS"] == "1"


def test_cores_that_nobody_asked_for_are_not_bound() -> None:
    place = packing().take("a", Resources(cpu_cores=2, by_default=True))
    assert place is not None
    assert place.cpus == ()
    assert place.environment == {"CPU": "2", "CUDA_VISIBLE_DEVICES": ""}


def test_no_two_tokens_have_the_same_core_or_gpu() -> None:
    both = packing()
    first = both.take("a", Resources(cpu_cores=1, gpus=1))
    second = both.take("b", Resources(cpu_cores=2, gpus=1))
    assert first is not None
    assert second is not None
    assert (first.cpus, second.cpus) == ((0,), (1, 2))
    assert (first.gpus, second.gpus) == (("0",), ("1",))
    assert second.environment["CUDA_VISIBLE_DEVICES"] == "1"
    both.free("a")
    third = both.take("c", Resources(cpu_cores=2))
    assert third is not None
    assert third.cpus == (0, 3)


def test_a_machine_that_claims_more_cores_than_it_has_binds_as_long_as_there_are_some() -> None:
    three = Packing(Resources(cpu_cores=4), cpus=range(3), clock=Clock())
    places = [three.take(key, Resources(cpu_cores=2)) for key in "ab"]
    assert [place and place.cpus for place in places] == [(0, 1), ()]


def test_without_gpus_nothing_is_said_of_them() -> None:
    place = Packing(Resources(cpu_cores=1)).take("a", Resources())
    assert place == Placement()


def test_gpus_without_names_cannot_be_given() -> None:
    unnamed = Packing(Resources(gpus=4), gpus=("0",))
    assert unnamed.total.gpus == 1
    assert not unnamed.fits_ever(Resources(gpus=2))


def test_a_token_has_one_place() -> None:
    one = packing()
    assert one.take("a", Resources(cpu_cores=1))
    assert one.take("a", Resources(cpu_cores=1)) is None
    one.free("a")
    one.free("a")
    assert one.available == FOUR


def test_what_lacks_is_said() -> None:
    assert lacking(FOUR, FOUR) == ""
    assert lacking(FOUR, Resources(cpu_cores=8, gpus=3)) == "8 CPUs where there are 4, 3 GPUs where there are 2"


AMOUNT = st.one_of(st.sampled_from([0, 0.1, 0.2, 0.3, 1, 2, 4]), st.floats(0, 6))
WANT = st.builds(Resources, cpu_cores=AMOUNT, ram_gb=AMOUNT, gpus=st.integers(0, 3), disk_gb=AMOUNT)
STEP = st.tuples(st.integers(0, 9), WANT, st.integers(-1, 1), st.floats(0, 50))


@given(st.lists(STEP, max_size=40))
def test_never_more_is_given_than_there_is_and_all_comes_back(steps: list[tuple[int, Resources, int, float]]) -> None:
    # Given a machine, and tokens that come and go in whatever order
    clock = Clock()
    some = packing(clock, patience=20)
    taken: dict[str, tuple[Resources, Placement]] = {}
    for number, want, priority, pause in steps:
        clock.now += pause
        key = str(number)
        if key in taken:
            some.free(key)
            del taken[key]
            continue
        room = some.available
        place = some.take(key, want, priority)
        if place is not None:
            taken[key] = (want, place)
        # Then a token that had no room was refused, and one that can never fit too
        if lacking(room, want) or not some.fits_ever(want):
            assert place is None
        # And all together have no more than there is, and no CPU or GPU twice
        for name in AMOUNTS:
            assert sum(getattr(each, name) for each, _ in taken.values()) <= getattr(FOUR, name) + 1e-6
        for lent in ([c for _, p in taken.values() for c in p.cpus], [g for _, p in taken.values() for g in p.gpus]):
            assert len(lent) == len(set(lent))
    # And when all are gone it is as in the beginning, to the last bit
    for key in list(taken):
        some.free(key)
    assert some.available == FOUR
    fresh = packing().take("last", FOUR)
    assert some.take("last", FOUR, priority=9) == fresh


# ── a big token comes to its turn ────────────────────────────────────────────────────────────────────────────────────

SMALL, BIG = Resources(cpu_cores=1), Resources(cpu_cores=4)


def full(clock: Clock) -> Packing:
    """Return a machine with four small tokens, and a big one that was refused."""
    some = packing(clock, patience=60)
    assert all(some.take(f"small {number}", SMALL) for number in range(4))
    assert some.take("big", BIG) is None
    return some


def test_small_tokens_go_first_as_long_as_there_is_patience() -> None:
    clock = Clock()
    some = full(clock)
    clock.now += 59
    some.free("small 0")
    assert some.take("small 4", SMALL)
    assert some.reserved == ""


def test_room_is_kept_for_a_big_token_that_waited() -> None:
    clock = Clock()
    some = full(clock)
    clock.now += 60
    for number in range(4):
        some.free(f"small {number}")
        assert some.take("small 4", SMALL) is None
        assert some.reserved == "big"
    assert some.take("big", BIG)
    # And once it runs, the next one begins to wait from the start
    some.free("big")
    assert some.take("small 4", SMALL)


def test_more_urgent_tokens_are_not_held_up() -> None:
    clock = Clock()
    some = full(clock)
    clock.now += 60
    some.free("small 0")
    assert some.take("urgent", SMALL, priority=1)


def test_what_the_big_one_does_not_wait_for_is_given() -> None:
    clock = Clock()
    some = full(clock)
    clock.now += 60
    assert some.take("gpu", Resources(gpus=1))
    assert some.take("nothing", Resources())
    assert some.take("memory", Resources(ram_gb=2))


def test_another_one_as_big_is_as_good() -> None:
    clock = Clock()
    some = full(clock)
    clock.now += 60
    for number in range(4):
        some.free(f"small {number}")
    assert some.take("as big", BIG)


def test_a_big_token_that_is_gone_holds_nobody_up() -> None:
    clock = Clock()
    some = full(clock)
    clock.now += 60
    some.free("small 0")
    # When others ask, and it does not any more
    assert not some.fits("small 4", SMALL)
    clock.now += LAPSE + 1
    # Then they get the room; and at once where somebody says so
    assert some.fits("small 4", SMALL)
    some.reserve("big", BIG)
    assert not some.fits("small 4", SMALL)
    some.forget("big")
    assert some.fits("small 4", SMALL)


def test_waiting_goes_on_from_the_first_time_that_it_was_refused() -> None:
    clock = Clock()
    some = full(clock)
    for _ in range(6):
        clock.now += 10
        assert not some.fits("big", BIG)
        assert not some.fits("as big", BIG)
    assert some.reserved == "big"


def test_who_asks_again_is_not_gone() -> None:
    clock = Clock()
    some = full(clock)
    clock.now += 60
    some.free("small 0")
    for _ in range(4):
        assert not some.fits("small 4", SMALL)
        clock.now += LAPSE - 1
        assert not some.fits("big", BIG)
    assert some.reserved == "big"
    # And nor is one that would have room now, and is claimed by nobody yet
    for number in range(1, 4):
        some.free(f"small {number}")
    for _ in range(4):
        assert not some.fits("small 4", SMALL)
        clock.now += LAPSE - 1
        assert some.fits("big", BIG)
    assert some.reserved == "big"


def test_a_more_urgent_big_token_takes_the_place_in_the_line() -> None:
    clock = Clock()
    some = full(clock)
    clock.now += 60
    assert not some.fits("urgent", BIG, priority=1)
    assert some.reserved == "urgent"
    assert not some.fits("big", BIG)
    assert some.reserved == "urgent"


def test_the_next_big_token_inherits_the_place_of_one_that_is_gone() -> None:
    # Given a big token that others took, before its time had come
    clock = Clock()
    some = full(clock)
    assert not some.fits("small 4", SMALL)
    clock.now += LAPSE + 1
    # When another one is refused: big tokens have been refused since then
    assert not some.fits("next big", BIG)
    clock.now += 60 - LAPSE - 1
    assert some.reserved == "next big"


def test_a_reservation_outlives_a_time_in_which_nobody_asks() -> None:
    clock = Clock()
    some = full(clock)
    clock.now += 3600
    some.free("small 0")
    assert not some.fits("small 4", SMALL)
    assert some.reserved == "big"


def test_who_can_never_fit_gets_no_reservation() -> None:
    clock = Clock()
    some = packing(clock, patience=0)
    some.reserve("huge", Resources(cpu_cores=5))
    assert some.take("huge", Resources(cpu_cores=5)) is None
    assert some.reserved == ""


def test_a_sketch_changes_nothing_but_who_waits() -> None:
    clock = Clock()
    some = packing(clock, patience=60)
    some.take("small", SMALL)
    sketch = some.sketch()
    assert sketch.take("other", Resources(cpu_cores=3))
    assert sketch.take("big", BIG) is None
    assert some.available.cpu_cores == 3
    clock.now += 60
    assert some.reserved == "big"
    # And a big token that found its place in a sketch still has its turn, should the claim be lost
    some.free("small")
    sketch = some.sketch()
    assert sketch.take("big", BIG)
    assert sketch.reserved == ""
    assert some.reserved == "big"

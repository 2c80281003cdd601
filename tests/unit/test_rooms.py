"""What tokens ask for, taken from what a worker has."""

from __future__ import annotations

from typing import Any

from tokenpool.fit import Resources
from tokenpool.rooms import Rooms


def token(claim: str, **resources: Any) -> dict[str, Any]:
    return {"_id": f"t{claim}", "lease": {"claim": claim}, **({"resources": resources} if resources else {})}


def test_tokens_that_ask_share_what_is_there() -> None:
    # given four CPUs
    rooms = Rooms(Resources(cpu_cores=4, ram_gb=8), slots=8)
    # when tokens of three and two CPUs come
    first, second = token("1", cpu_cores=3), token("2", cpu_cores=2)
    # then the second waits until the first is gone
    assert rooms.take(first)
    assert not rooms.take(second)
    rooms.free("1")
    assert rooms.take(second)


def test_what_can_never_fit_is_left_to_others() -> None:
    rooms = Rooms(Resources(cpu_cores=4, ram_gb=8), slots=2)
    assert not rooms.fits(token("1", cpu_cores=5))
    assert not rooms.fits(token("1", ram_gb=9))
    assert not rooms.fits(token("1", gpus=1))
    assert rooms.fits(token("1", cpu_cores=4, ram_gb=8))
    assert rooms.fits(token("1"))


def test_what_makes_no_sense_fits_so_that_it_can_end_with_the_reason() -> None:
    rooms = Rooms(Resources(cpu_cores=4), slots=2)
    assert rooms.fits(token("1", cpu_cores="many"))
    assert rooms.take(token("1", cpu_cores="many"))


def test_tokens_that_ask_for_nothing_fill_the_slots_and_may_be_claimed_ahead() -> None:
    rooms = Rooms(Resources(cpu_cores=2), slots=2)
    assert all(rooms.take(token(str(n))) for n in range(5))
    for n in range(5):
        rooms.free(str(n))
    assert rooms.take(token("9", cpu_cores=2))


def test_a_big_token_and_small_ones_never_exceed_the_machine() -> None:
    rooms = Rooms(Resources(cpu_cores=2), slots=2)
    assert rooms.take(token("1"))
    assert not rooms.take(token("2", cpu_cores=2))


def test_each_gpu_goes_to_one_token() -> None:
    rooms = Rooms(Resources(cpu_cores=4, gpus=2), slots=4)
    assert rooms.take(token("1", gpus=1))
    assert rooms.take(token("2", gpus=1))
    given = [rooms.placement(claim).environment["CUDA_VISIBLE_DEVICES"] for claim in ("1", "2")]
    assert sorted(given) == ["0", "1"]
    assert not rooms.take(token("3", gpus=1))

"""`scale` with a real OpenStack: machines come with the tokens and go with them, whoever is killed in between."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_tools import command, environment, ok
from cut_line import CutLine
from guests import Guests
from openstack_server import OpenStack, until

from tokenpool.pool import Pool

PLAN = ("--", "--flavor", "small", "--image", "debian")
SCALE = ("scale", "--launcher", "cloud", "--max", 2, "--backlog", 1)
LOOP = ("--every", "1s", "--patience", "1s")
PROGRAM = ("--program", "python3 /opt/tokenpool/tokenpool.pyz")


@contextmanager
def scaling(told: Path, *more: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `scale` in a process of its own."""
    with told.open("ab") as file:
        process = subprocess.Popen(
            command(*SCALE, *LOOP, *more), env=environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


@contextmanager
def worker_of(order: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker that says that it was started by this order, as one on its machine would."""
    environ = {**environment(), "TOKENPOOL_LAUNCH": order}
    with (folder / "worker").open("ab") as said:
        process = subprocess.Popen(command("work", "--lease", "2s"), env=environ, stdout=said, stderr=said)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_machines_come_with_the_tokens_and_go_with_them(
    cloud: OpenStack, pool: Pool, sandbox: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    with Guests(cloud, tmp_path / "guests", sandbox) as guests:
        with scaling(told, *PROGRAM, "--idle-timeout", "10m", *PLAN, "--swap-percent", "0") as scale:
            # Given a pool without work, then there is no machine
            until("a first decision", lambda: b"keep 0 workers" in told.read_bytes())
            assert cloud.machines() == []
            # When tokens come, then two machines come and run them
            pool.push(["hostname; sleep 1"] * 6)
            until("the end of all tokens", lambda: pool.counts()["done"] == 6)
            assert len(guests.machines) == 2
            # When they are done, then the machines power off and are removed
            until("an empty cloud", lambda: not cloud.machines())
            scale.terminate()
            assert scale.wait(60) == 0, told.read_text()
    # And the tokens have run there, each once, and each decision has its reason
    hosts = {token["hostname"] for token in pool.tokens()}
    assert hosts <= {machine.name for machine in guests.machines.values()}
    assert all(len(token["attempts"]) == 1 for token in pool.tokens())
    lines = told.read_text()
    assert "start 2 workers: 6 open tokens want 2" in lines
    assert "removed machine scale-" in lines


def test_a_quota_makes_it_wait_and_what_is_there_stays(cloud: OpenStack, pool: Pool) -> None:
    pool.push(["true"] * 3)
    cloud.quota(instances=1)
    # When it wants two and gets one, then it says so, and tries later
    told = ok(*SCALE, "--once", *PLAN).err
    assert "start 2 workers" in told
    assert "no more workers for 30 s: the cloud makes no machine:" in told
    assert len(cloud.machines()) == 1
    assert "before the next try, 1 lacking" in ok(*SCALE, "--once", *PLAN).err
    assert len(cloud.machines()) == 1


def test_a_scale_that_is_killed_right_after_a_machine_was_made_leaves_no_orphan(
    cloud: OpenStack, second_line: CutLine, pool: Pool, tmp_path: Path
) -> None:
    # Given a line that kills who has asked for a machine as soon as the cloud has taken the order
    pool.push(["true"] * 2)
    region = (*PLAN, "--region", "There")
    with scaling(tmp_path / "told", *region) as scale:
        second_line.victim, second_line.armed = scale.pid, True
        assert scale.wait(90) == -signal.SIGKILL, (tmp_path / "told").read_text()
    [lost] = cloud.machines()
    # When it is started again, then the lost one is found by its order, and only one more is made
    told = ok(*SCALE, "--once", *region).err
    assert "start 1 worker: 2 open tokens want 2" in told
    until("the second", lambda: len(cloud.machines()) == 2)
    # And when nobody comes on either, both are removed after their time to boot
    until(
        "the end of the lost one",
        lambda: (ok(*SCALE, "--once", *region, "--boot-timeout", "1"), lost["id"] not in ids(cloud))[1],
    )


def ids(cloud: OpenStack) -> set[str]:
    """Return the machines there are."""
    return {machine["id"] for machine in cloud.machines()}


def test_a_machine_goes_when_the_lease_of_its_worker_has_ended(cloud: OpenStack, pool: Pool, tmp_path: Path) -> None:
    told = tmp_path / "told"
    pool.push(["sleep 600"])
    with scaling(told, "--max", 1, *PLAN):
        until("a machine", lambda: cloud.machines())
        [machine] = cloud.machines()
        order = machine["metadata"]["tokenpool_order"]
        # Given a worker on it that runs a token
        with worker_of(order, tmp_path) as worker:
            until("a token that runs", lambda: pool.counts()["locked"] == 1)
            until("a look at it", lambda: "1 busy" in told.read_text())
            assert ids(cloud) == {machine["id"]}
            # When the worker dies without a word
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
        # Then its machine is removed, and another one comes for the token
        until("the end of the machine", lambda: machine["id"] not in ids(cloud))
        until("another machine", lambda: ids(cloud))
    assert f"removed machine {machine['name']}: its worker's lease has ended" in told.read_text()
    assert pool.counts()["todo"] == 1


def test_a_machine_that_never_gets_a_worker_is_replaced(cloud: OpenStack, pool: Pool, tmp_path: Path) -> None:
    told = tmp_path / "told"
    pool.push(["true"])
    with scaling(told, "--max", 1, *PLAN, "--boot-timeout", "3"):
        until("a machine", lambda: cloud.machines())
        [machine] = cloud.machines()
        until("its end", lambda: machine["id"] not in ids(cloud))
    assert f"removed machine {machine['name']}: no worker is there after" in told.read_text()


def test_ceilings_hold_for_scale_too(cloud: OpenStack, pool: Pool) -> None:
    pool.push(["true"] * 2)
    told = ok(*SCALE, "--once", *PLAN, "--max-price", "1.5", "--price", "1").err
    assert "one more costs 2 an hour, above --max-price 1.5" in told
    assert len(cloud.machines()) == 1


@pytest.mark.parametrize("words", [("--flavor", "smal"), ("--image", "debia")])
def test_a_mistake_ends_it_at_once(cloud: OpenStack, pool: Pool, words: tuple[str, str], tmp_path: Path) -> None:
    pool.push(["true"])
    with scaling(tmp_path / "told", *PLAN, *words) as scale:
        assert scale.wait(60) != 0
    told = (tmp_path / "told").read_text()
    assert f"there is no {words[0][2:]} {words[1]!r} in this region" in told
    assert cloud.machines() == []

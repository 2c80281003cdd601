"""What a machine is given, run here as a new machine runs it: the real cloud-init, a blank disk, another user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import new_machine
import pytest
from cli_tools import ok
from guests import user_data
from new_machine import NewMachine
from openstack_config import POOL_PASSWORD
from openstack_server import OpenStack

from tokenpool.pool import Pool

LAUNCH = (
    "launch",
    "cloud",
    "--flavor",
    "small",
    "--image",
    "debian",
    "--program",
    "python3 /opt/tokenpool/tokenpool.pyz",
)


@pytest.fixture
def new(tmp_path: Path, sandbox: Path) -> Iterator[NewMachine]:
    """A machine with a blank disk whose image has tokenpool."""
    why = new_machine.missing()
    if why and os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail(why, pytrace=False)
    if why:
        pytest.skip(why)
    with NewMachine(tmp_path / "machine", "worker-17") as machine:
        shutil.copytree(sandbox, machine.folder / "image" / "opt" / "tokenpool")
        yield machine


def test_a_machine_prepares_itself_drains_the_pool_and_powers_off(
    cloud: OpenStack, pool: Pool, new: NewMachine
) -> None:
    # Given tokens, and a machine with a disk for them
    pool.push(["id -un; pwd; echo $GREETING; stat -c %a /scratch/.swap; cat /scratch/.swap || true"] * 4)
    setup = "test ! -e /etc/greeting; echo 'it'\"'\"'s up' >/etc/greeting"
    words = ("--scratch", new.disk, "--setup", setup, "--env", 'GREETING=a "b" c', "--idle-timeout", "1s")
    ok(*LAUNCH, *words)
    # When it boots with what nova was told to give it
    new.boot(user_data(cloud.machines()[0]))
    # Then cloud-init had no complaint, the disk has swap that nobody else reads, and it powered off at the end
    assert [line.split()[0] for line in new.noted()] == ["iptables", "ip6tables", "swapon", "sysctl", "poweroff"], (
        new.said("boot")[-3000:]
    )
    assert "swapon /scratch/.swap" in new.noted()
    # And all tokens were run, by an account of their own, on the disk, under the name of the machine
    assert pool.counts()["done"] == 4, new.said("tokenpool.log")
    for token in pool.tokens():
        said = ok("logs", token["_id"]).out
        assert "tokenpool\n/scratch" in said
        assert 'a "b" c' in said
        assert "\n600\n" in said
        assert token["hostname"] == "worker-17"
    # And its console, which the cloud keeps, tells how it went
    assert "left: 4 done, 0 failed" in new.console()
    assert "the worker left with 0" in new.console()


def test_a_machine_that_cannot_work_powers_off_and_says_why(cloud: OpenStack, pool: Pool, new: NewMachine) -> None:
    pool.push(["true"])
    ok(*LAUNCH, "--swap-percent", 0, "--setup", "apt-get install of-nothing-that-there-is 2>&1")
    new.boot(user_data(cloud.machines()[0]))
    assert "poweroff" in [line.strip() for line in new.noted()]
    assert "the worker left with 100" in new.console()
    assert pool.counts()["todo"] == 1


def test_a_machine_that_is_kept_stays_on(cloud: OpenStack, pool: Pool, new: NewMachine) -> None:
    ok(*LAUNCH, "--swap-percent", 0, "--quit", "--on-idle", "keep")
    new.boot(user_data(cloud.machines()[0]))
    assert "poweroff" not in "".join(new.noted())
    assert "the worker left with 0" in new.console()


def test_the_pools_password_is_the_workers_alone(cloud: OpenStack, guarded_pool: Pool, new: NewMachine) -> None:
    # Given a pool that asks for a password, which is in a file here
    guarded_pool.push(["stat -c '%U %a' /run/tokenpool; cat /proc/*/cmdline | tr '\\0' ' '; env"])
    # When a machine gets it by its user-data
    ok(*LAUNCH, "--swap-percent", 0, "--quit", "--password-in-user-data")
    new.boot(user_data(cloud.machines()[0]))
    # Then its worker gets in, only its account can read the file, and nothing that is told has it
    assert guarded_pool.counts()["done"] == 1, new.said("tokenpool.log")
    [token] = guarded_pool.tokens()
    said = ok("logs", token["_id"]).out
    assert "tokenpool 700" in said
    assert POOL_PASSWORD not in said + new.console() + new.said("tokenpool.log")
    file = new.folder / "log" / "run-tokenpool" / "password"
    assert file.read_text() == POOL_PASSWORD
    assert oct(file.stat().st_mode & 0o777) == "0o400"

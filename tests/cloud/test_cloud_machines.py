"""`launch cloud` with a real OpenStack: machines are made, listed, tagged and removed; refusals leave nothing unseen."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_tools import call, ok
from couch_server import Couch
from cut_line import CutLine
from guests import user_data
from openstack_config import PASSWORD, POOL_PASSWORD
from openstack_server import OpenStack, until

from tokenpool.pool import Pool

LAUNCH = ("launch", "cloud", "--flavor", "small", "--image", "debian")
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ6pS4J0mUmHk0qO2oSxjFQkZbZAjzUtb8i4bCqYqPz me@here\n"


def listed(*words: str) -> list[dict[str, Any]]:
    """Return what `launch list` tells."""
    return list(ok("--json", "launch", "list", *words).json["jobs"])


def notes() -> str:
    """Return everything that was noted on this machine, whole."""
    folder = Path(os.environ["HOME"])
    return "".join(path.read_text() for path in folder.rglob("*.json"))


def account() -> str:
    """Return who the machines belong to."""
    import getpass

    return getpass.getuser()


def test_machines_are_made_listed_tagged_and_removed(cloud: OpenStack, pool: Pool, tmp_path: Path) -> None:
    key = tmp_path / "id.pub"
    key.write_text(PUBLIC_KEY)
    # When two machines are launched, with a key that the cloud does not have
    told = ok("--json", *LAUNCH, "-n", 2, "--name", "mine-12345678", "--key", key, "--price", 0.25).json["jobs"]
    # Then they are there, and say whose they are and what for
    there = cloud.machines()
    assert sorted(machine["name"] for machine in there) == ["mine-12345678-1", "mine-12345678-2"]
    assert {job["id"] for job in told} == {machine["id"] for machine in there}
    for machine in there:
        tags = machine["metadata"]
        assert tags["tokenpool_pool"] == os.environ["TOKENPOOL_POOL"]
        assert tags["tokenpool_owner"] == account()
        assert (tags["tokenpool_order"], tags["tokenpool_price"]) == ("mine-12345678", "0.25")
        assert machine["key_name"] in cloud.key_names()
        assert b"tokenpool work --slots 1 --idle-timeout 120s" in user_data(machine)
    # And they are listed until they are cancelled, one by its id and the rest by their name
    until("two that run", lambda: [job["state"] for job in listed()] == ["running"] * 2)
    ok("launch", "cancel", told[0]["id"])
    assert [job["id"] for job in listed()] == [told[1]["id"]]
    ok("launch", "cancel", "mine-12345678")
    until("an empty cloud", lambda: not cloud.machines())
    assert listed() == []
    # And the key is not brought there twice
    ok(*LAUNCH, "--key", key)
    assert len(cloud.key_names()) == 1


def test_a_quota_stops_it_and_what_was_made_before_is_listed(cloud: OpenStack) -> None:
    # Given a project that may have two machines
    cloud.quota(instances=2)
    # When three are wanted
    answer = call(*LAUNCH, "-n", 3)
    # Then it says so in two lines, after those that it has made
    assert answer.code == 1
    *made, error, hint = answer.err.splitlines()
    assert len([line for line in made if line.startswith("launched 1 worker: cloud job")]) == 2, answer
    assert error.startswith("error: machine 3 of 3: ")
    assert "uota" in error
    assert hint.startswith("hint: ")
    # And nothing is lost: both are listed, and go when they are told to
    assert {job["id"] for job in listed()} == {machine["id"] for machine in cloud.machines()}
    assert len(listed()) == 2
    ok("launch", "cancel", "all")
    until("an empty cloud", lambda: not cloud.machines())


def test_a_second_region_is_taken_when_the_first_is_full(cloud: OpenStack, second_line: CutLine) -> None:
    # Both regions are one cloud here, so that the quota of the one is the quota of the other.
    cloud.quota(instances=1)
    made = second_line.made
    answer = call(*LAUNCH, "-n", 2, "--region", "There", "--region", "Here")
    assert answer.code == 1
    assert second_line.made == made + 1
    # The one that was made is found in its own region, and removed there
    [job] = listed()
    ok("launch", "cancel", job["id"])
    until("an empty cloud", lambda: not cloud.machines())


def test_a_lost_answer_loses_no_machine(cloud: OpenStack, second_line: CutLine) -> None:
    # Given a line that breaks as soon as the cloud has taken the order
    second_line.armed = True
    # When a machine is launched, then nobody knows whether it was
    answer = call(*LAUNCH, "--region", "There")
    assert "the cloud does not answer" in answer.error
    # But it is found by its order, and can be removed
    [machine] = cloud.machines()
    assert [job["id"] for job in listed()] == [machine["id"]]
    ok("launch", "cancel", "all")
    until("an empty cloud", lambda: not cloud.machines())


MISTAKES: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "password": ({"OS_PASSWORD": "guessed"}, (), "the cloud does not know these credentials"),
    "project": ({"OS_PROJECT_NAME": "nobody's"}, (), "the cloud does not know these credentials"),
    "no address": ({"OS_AUTH_URL": ""}, (), "nothing says where the OpenStack is"),
    "nobody there": ({"OS_AUTH_URL": "http://127.0.0.1:9/v3"}, (), "the cloud does not answer: [Errno 111]"),
    "clouds.yaml": ({}, ("--cloud", "other"), "there is no cloud 'other' in clouds.yaml"),
    "region": ({}, ("--region", "Nowhere"), "the cloud has no machines there, or no such region"),
    "flavor": ({}, ("--flavor", "smal"), "there is no flavor 'smal' in this region"),
    "image": ({}, ("--image", "debian-99"), "there is no image 'debian-99' in this region"),
    "network": ({}, ("--network", "lan"), "there is no network 'lan' in this region"),
    "key": ({}, ("--key", "mine"), "there is no key 'mine' in this region"),
    "private key": ({}, ("--key", "./key"), "./key is no public key"),
    "provider": ({}, ("--provider", "stratus"), "there is no cloud provider 'stratus'"),
    "mount": ({}, ("--mount", "vdb"), "--mount vdb makes no sense"),
    "words": ({}, ("--", "--flavour", "small"), "--flavour says nothing to a cloud"),
    "price": ({}, ("--max-price", "1"), "the cloud does not tell what this flavor costs"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_two_lines_and_nothing_is_made(
    cloud: OpenStack, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ, words, error = MISTAKES[mistake]
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    Path("key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    answer = call(*LAUNCH, *words)
    assert error in answer.error
    assert answer.code != 0
    assert cloud.machines() == []
    assert '"jobs"' not in notes()


def test_a_dry_run_tells_the_price_and_makes_nothing(cloud: OpenStack, tmp_path: Path) -> None:
    key = tmp_path / "id.pub"
    key.write_text(PUBLIC_KEY)
    words = (*LAUNCH, "-n", 3, "--key", key, "--price", 0.5, "--dry-run")
    told = ok(*words).err
    assert "would make 3 machines" in told
    assert "small (512 MB) with debian in Here, 0.5 each an hour; 0 of yours are there now" in told
    assert ok("--json", *words).json["offers"][0]["price"] == 0.5
    # What the ceilings do not allow is told as well
    assert "machine 2 of 3: one more costs 1 an hour" in call(*words, "--max-price", 0.9).error
    assert (cloud.machines(), cloud.key_names(), '"jobs"' in notes()) == ([], [], False)


def test_ceilings_hold_for_all_machines_of_a_pool_together(cloud: OpenStack) -> None:
    # Given one machine, when two more are wanted and two are allowed, then one more is made
    ok(*LAUNCH, "--price", 1.5)
    answer = call(*LAUNCH, "-n", 2, "--max-machines", 2)
    assert "machine 2 of 2: 2 machines are there, and --max-machines is 2" in answer.err
    assert len(cloud.machines()) == 2
    # And a price: the first says what it costs, the second counts as the new one
    answer = call(*LAUNCH, "--max-price", 2.5, "--price", 0.5)
    assert answer.code == 0, answer
    assert "one more costs 3 an hour, above --max-price 2.5" in call(*LAUNCH, "--max-price", 2.5, "--price", 0.5).error
    # Machines of another pool do not count
    assert len(cloud.machines()) == 3


def test_a_machine_that_could_not_start_is_told_and_swept(cloud: OpenStack) -> None:
    # Given a flavor that no host has room for
    cloud.flavor("huge", ram=10**6, vcpus=1)
    ok("launch", "cloud", "--flavor", "huge", "--image", "debian")
    until("its end", lambda: cloud.machines()[0]["status"] == "ERROR")
    [job] = listed("-a")
    assert (job["state"], job["running"]) == ("ended", 0)
    assert job["reason"].startswith("No valid host was found"), job
    # When it is swept, then it is gone
    words = (*LAUNCH, "--sweep")
    assert f"would remove machine {job['name']}: No valid host" in ok(*words, "--dry-run").err
    assert len(cloud.machines()) == 1
    ok(*words)
    until("an empty cloud", lambda: not cloud.machines())
    assert "every machine has its worker" in ok(*words).err


def test_a_sweep_takes_those_that_never_booted_and_leaves_other_peoples(cloud: OpenStack, couch_server: Couch) -> None:
    # Given a machine of ours, one of another pool, and one that we have not made
    ok(*LAUNCH, "--name", "ours-12345678")
    other = couch_server.create_database("other")
    ok("-p", other, *LAUNCH, "--name", "theirs-12345678")
    cloud.make("somebody")
    # When its time to boot is not over, then it stays
    assert "every machine has its worker" in ok(*LAUNCH, "--sweep").err
    # When it is, then it goes, and nothing else
    until("its time", lambda: "would remove" in ok(*LAUNCH, "--sweep", "--dry-run", "--boot-timeout", 1).err)
    assert "removed machine ours-12345678: no worker is there after" in ok(*LAUNCH, "--sweep", "--boot-timeout", 1).err
    until("the others", lambda: {each["name"] for each in cloud.machines()} == {"theirs-12345678", "somebody"})


def test_who_is_somebody_else_today_does_not_take_his_machines_for_gone(
    cloud: OpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(*LAUNCH)
    monkeypatch.setenv("OS_PROJECT_NAME", "service")
    [job] = listed()
    assert (job["state"], job["reason"][:24]) == ("unknown", "it was made as admin of ")
    assert "it was made as admin of admin" in call("launch", "cancel", "all").error
    # With the right credentials it is there
    monkeypatch.setenv("OS_PROJECT_NAME", "admin")
    assert [job["state"] in ("waiting", "running") for job in listed()] == [True]


def test_clouds_yaml_says_the_same_as_the_environment(
    cloud: OpenStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in cloud.environment():
        monkeypatch.delenv(name)
    entry = {"auth": {"auth_url": cloud.auth_url, "username": "admin", "project_name": "admin"}, "region_name": "Here"}
    Path("clouds.yaml").write_text(json.dumps({"clouds": {"site": entry}}))
    Path("secure.yaml").write_text(json.dumps({"clouds": {"site": {"auth": {"password": PASSWORD}}}}))
    ok(*LAUNCH, "--cloud", "site")
    assert len(cloud.machines()) == 1
    # Who lists it later needs no words
    assert [job["state"] in ("waiting", "running") for job in listed()] == [True]
    ok("launch", "cancel", "all")
    until("an empty cloud", lambda: not cloud.machines())


# ── passwords ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_password_goes_nowhere_by_itself(cloud: OpenStack, guarded_pool: Pool) -> None:
    # Given a pool with a password, then it has to be said how it gets there
    assert "nothing says how the pool's password gets to the machine" in call(*LAUNCH).error
    assert cloud.machines() == []
    # When the image has it, then the machine is told where
    ok(*LAUNCH, "--password-path", "/etc/pool-password")
    [machine] = cloud.machines()
    data = user_data(machine).decode()
    assert "export TOKENPOOL_PASSWORD_FILE=/etc/pool-password" in data
    for text in (data, json.dumps(machine), notes()):
        assert POOL_PASSWORD not in text
        assert base64.b64encode(POOL_PASSWORD.encode()).decode() not in text
    # And nothing of the cloud's own secrets is noted either
    assert PASSWORD not in notes()


def test_user_data_has_the_password_only_if_somebody_says_so(cloud: OpenStack, guarded_pool: Pool) -> None:
    told = base64.b64encode(POOL_PASSWORD.encode()).decode()
    printed = ok(*LAUNCH, "--password-in-user-data", "--print").out
    assert "@TOKENPOOL_PASSWORD@" in printed
    assert told not in printed
    ok(*LAUNCH, "--password-in-user-data")
    data = user_data(cloud.machines()[0]).decode()
    assert told in data
    assert (told in notes(), POOL_PASSWORD in notes()) == (False, False)

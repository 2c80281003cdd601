"""What needs no cloud: the words that describe one, which machines are to go, and faults of clouds in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_cloud import SmallCloud

from tokenpool.errors import BadInput, NotPermitted
from tokenpool.launchers.base import ENDED, RUNNING, WAITING, LaunchFailed, Left, Order, QuotaReached
from tokenpool.launchers.cloud import CloudLauncher, over
from tokenpool.launchers.cloud_init import script_of
from tokenpool.launchers.cloud_machines import Machine
from tokenpool.launchers.cloud_places import open_places, told
from tokenpool.launchers.cloud_plan import Plan, parse, plan_at
from tokenpool.launchers.launching import launch
from tokenpool.launchers.ledger import Ledger
from tokenpool.steering import WorkerInfo

SMALL = ("--flavor", "small", "--image", "debian")
OPENRC = {
    "OS_AUTH_URL": "https://keystone.example.org:5000/v3",
    "OS_USERNAME": "me",
    "OS_PASSWORD": "secret",
    "OS_PROJECT_NAME": "ours",
    "OS_REGION_NAME": "A",
}


def launcher_of(**regions: SmallCloud) -> CloudLauncher:
    """Return a launcher for clouds in memory, by region."""

    def opened(plan: Plan, environ: Mapping[str, str]) -> dict[str, Any]:
        return {name: regions[name] for name in plan.regions or tuple(regions)}

    return CloudLauncher(opened)


def order(jobs: int = 1, *words: str, name: str = "tp-12345678") -> Order:
    """Return an order of small machines."""
    return Order(pool="couchdb+http://host/pool", jobs=jobs, name=name, extra=(*SMALL, *words))


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_words_and_plans_are_the_same() -> None:
    words = [
        "--provider", "ec2", "--region", "A", "--region", "B", "--mount", "/dev/vdb:/work", "--swap-percent", "20",
        "--max-price", "2.5", "--on-idle", "keep", "--password-in-user-data", "--option", "a=b", "--security-group", "web",
    ]  # fmt: skip
    plan = parse(words)
    assert (plan.regions, plan.max_price, plan.keep, plan.groups) == (("A", "B"), 2.5, True, ("web",))
    assert parse(plan.words()) == plan
    # What is noted of a machine is how its cloud is reached, and nothing more
    assert plan_at(plan.place("A")) == Plan(provider="ec2", regions=("A", "B"), options=("a=b",))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--flavor"], "--flavor lacks its value"),
        (["--max-machines", "many"], "--max-machines many is not a number"),
        (["--max-price", "-1"], "--max-price -1 makes no sense"),
        (["--mount", "vdb:/work"], "--mount vdb:/work makes no sense"),
        (["--scratch", "vdb"], "--scratch vdb is no path"),
        (["--swap-percent", "95"], "--swap-percent 95 leaves no room"),
        (["--on-idle", "stay"], "--on-idle stay makes no sense"),
        (["--option", "a"], "--option a makes no sense"),
        (["m1.small"], "m1.small says nothing to a cloud"),
    ],
)
def test_words_that_make_no_sense(words: list[str], error: str) -> None:
    with pytest.raises(BadInput, match=error):
        parse(words)


# ── which cloud ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_region_gets_its_own_driver_and_the_first_is_preferred() -> None:
    found = open_places(parse(["--region", "B", "--region", "A"]), OPENRC)
    assert list(found) == ["B", "A"]
    assert list(open_places(parse([]), OPENRC)) == ["A"]
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
    plan = parse(["--provider", "ec2", "--region", "eu-west-1", "--endpoint", "http://ec2.example.org:8788"])
    [driver] = open_places(plan, keys).values()
    assert (driver.connection.host, driver.connection.port) == ("ec2.example.org", 8788)


def test_application_credentials_and_other_domains(tmp_path: Path) -> None:
    entry = {"auth_type": "v3applicationcredential", "region_name": "A"}
    auth = {"auth_url": "https://k/v3", "application_credential_id": "i", "application_credential_secret": "s"}
    Path("clouds.yaml").write_text(json.dumps({"clouds": {"site": {**entry, "auth": auth}}}))
    assert list(open_places(parse(["--cloud", "site"]), {})) == ["A"]
    with pytest.raises(BadInput, match="the id of the project's domain 'theirs' is needed"):
        open_places(parse([]), {**OPENRC, "OS_PROJECT_DOMAIN_NAME": "theirs"})
    assert open_places(parse([]), {**OPENRC, "OS_PROJECT_DOMAIN_NAME": "theirs", "OS_PROJECT_DOMAIN_ID": "1a"})


@pytest.mark.parametrize(
    ("words", "environ", "error"),
    [
        ([], {"OS_AUTH_URL": "https://k"}, "OS_USERNAME is not set"),
        (["--provider", "ec2"], {}, "AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not set"),
        (["--provider", "gce"], {}, "nothing says who we are for gce"),
        (["--provider", "ec2", "--endpoint", "ec2"], {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "k"}, "no address"),
    ],
)  # fmt: skip
def test_credentials_that_are_missing_are_named(words: list[str], environ: dict[str, str], error: str) -> None:
    with pytest.raises(BadInput, match=error):
        open_places(parse(words), environ)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("InstanceLimitExceeded: You have requested more instances", QuotaReached),
        ("403 Forbidden Quota exceeded for cores", QuotaReached),
        ("InsufficientInstanceCapacity: none left", QuotaReached),
        ("AuthFailure: AWS was not able to validate", NotPermitted),
        ("InvalidParameterValue: no such thing", LaunchFailed),
    ],
)
def test_what_clouds_say_becomes_an_error_of_ours(said: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, told("the cloud makes no machine"):
        raise Exception(said)
    assert type(caught.value) is kind


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_next_region_is_taken_when_one_is_full_and_the_rest_is_told(tmp_path: Path) -> None:
    # Given two regions with room for three machines together
    one, two = SmallCloud(room=1), SmallCloud(room=2)
    launcher, ledger = launcher_of(A=one, B=two), Ledger(tmp_path / "ledger")
    wanted = order(4)
    # When four are wanted, then three are made, the fourth is refused, and none is lost
    with pytest.raises(QuotaReached, match="machine 4 of 4: the cloud makes no machine: 413 Quota exceeded") as caught:
        launch("cloud", launcher, wanted, launcher.script(wanted), ledger)
    assert [job.place["region"] for job in caught.value.jobs] == ["A", "B", "B"]
    assert [job.id for job in ledger.jobs()] == [job.id for job in caught.value.jobs]
    # And each is asked for, and removed, where it is
    assert [job.state for job in launcher.status(ledger.jobs())] == [RUNNING] * 3
    launcher.cancel(ledger.jobs())
    assert one.nodes + two.nodes == []
    assert [job.state for job in launcher.status(ledger.jobs())] == [ENDED] * 3


def test_a_region_that_lacks_what_the_other_has_loses_nothing(tmp_path: Path) -> None:
    one, two = SmallCloud(room=1), SmallCloud()
    two.list_images = list  # type: ignore[method-assign]
    launcher, ledger = launcher_of(A=one, B=two), Ledger(tmp_path / "ledger")
    with pytest.raises(LaunchFailed, match="there is no image 'debian' in this region"):
        launch("cloud", launcher, order(2), launcher.script(order(2)), ledger)
    assert [job.id for job in ledger.jobs()] == ["id-tp-12345678-1"]


def test_what_cannot_be_removed_is_told_and_the_others_go() -> None:
    cloud = SmallCloud(stuck={"tp-12345678-2"})
    launcher = launcher_of(A=cloud)
    made = launcher.submit(order(3), "")
    with pytest.raises(LaunchFailed, match="tp-12345678-2 is not removed: 500") as caught:
        launcher.cancel(made)
    assert [job.id for job in caught.value.jobs] == ["id-tp-12345678-2"]
    assert [node.name for node in cloud.nodes] == ["tp-12345678-2"]
    # A sweep goes on as well
    cloud.nodes[0].state = "stopped"
    launcher.submit(order(name="tp-87654321"), "")
    assert launcher.sweep(order(), []) == ["not removed: tp-12345678-2 is not removed: 500 it does not want to go"]


def test_ceilings_count_all_regions() -> None:
    launcher = launcher_of(A=SmallCloud(room=1, price=1.0), B=SmallCloud(price=1.0))
    with pytest.raises(QuotaReached, match="machine 3 of 9: 2 machines are there, and --max-machines is 2"):
        launcher.submit(order(9, "--max-machines", "2"), "")
    with pytest.raises(QuotaReached, match="machine 2 of 2: one more costs 4 an hour, above --max-price 3"):
        launcher.submit(order(2, "--max-price", "3"), "")


def test_only_those_that_have_not_started_are_cancelled_if_asked_so() -> None:
    cloud = SmallCloud()
    launcher = launcher_of(A=cloud)
    made = launcher.submit(order(2), "")
    cloud.nodes[0].state = "pending"
    assert [job.state for job in launcher.status(made)] == [WAITING, RUNNING]
    launcher.cancel(made, only_waiting=True)
    assert [node.name for node in cloud.nodes] == ["tp-12345678-2"]


# ── whose time is over ───────────────────────────────────────────────────────────────────────────────────────────────


def machine(name: str = "m", **more: Any) -> Machine:
    """Return a machine that runs, made long ago."""
    return Machine(name, name, **{"state": RUNNING, "order": "tp-1", "made": 1000.0, **more})


def worker(state: str, job: str = "tp-1", hostname: str = "m") -> WorkerInfo:
    """Return a worker that such a machine may have."""
    return WorkerInfo(
        id="worker_1",
        hostname=hostname,
        job=job,
        state=state,
        slots=1,
        held=0,
        running=(),
        age=0,
        lease=9,
        renewed="",
        started="",
    )


@pytest.mark.parametrize(
    ("there", "workers", "why"),
    [
        (machine(state=ENDED, reason="it has powered off"), [], "it has powered off"),
        (machine(), [worker("working")], ""),
        (machine(), [worker("silent")], ""),  # its clock may be wrong
        (machine(), [worker("fenced")], "its worker's lease has ended"),
        (machine(), [worker("fenced"), worker("idle")], ""),
        (machine(), [Left("tp-1")], "its worker's lease has ended"),
        (machine(), [worker("working", job="tp-2")], "no worker is there after 17 min"),
        (machine(made=1500.0), [], ""),
        (machine(made=0.0), [], ""),
        (machine(order="", made=1.0), [], ""),
    ],
)
def test_only_what_certainly_has_no_worker_is_removed(there: Machine, workers: list[Any], why: str) -> None:
    assert over(there, [there], workers, 900.0, 2000.0) == why


def test_of_an_order_of_several_machines_each_has_its_own_worker() -> None:
    one, two = machine("one"), machine("two")
    same = [one, two]
    assert over(one, same, [worker("idle", hostname="two.example.org")], 900.0, 2000.0) != ""
    assert over(two, same, [worker("idle", hostname="two.example.org")], 900.0, 2000.0) == ""
    # A worker on a host that no machine is called may be on any of them
    assert over(one, same, [worker("idle", hostname="localhost")], 900.0, 2000.0) == ""


# ── what a machine is told ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_template_of_ones_own_and_one_that_is_too_long() -> None:
    own = Order(pool="couchdb+http://host/pool", name="tp-1", template="#!/bin/sh\n{{worker}}\n")
    assert script_of(own, Plan()) == "#!/bin/sh\ntokenpool work --slots 1\n"
    with pytest.raises(BadInput, match="line 1 of the template has a field that nobody fills"):
        script_of(Order(pool="p", name="tp-1", template="{{flavor}}"), Plan())
    with pytest.raises(BadInput, match="clouds take 16384"):
        script_of(Order(pool="p", name="tp-1", setup=("true; " * 3000,)), Plan())

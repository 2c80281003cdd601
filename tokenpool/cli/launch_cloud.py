"""The verb `launch cloud`: machines made for one worker each, and those removed that have none any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .launch import BatchVerb, hand_in, order_of, order_options
from .output import number, print_json, say
from .session import Session, flags

if TYPE_CHECKING:
    from ..launchers.base import Order
    from ..launchers.cloud import Offer

Function = TypeVar("Function", bound=Callable[..., Any])

#: What the words behind ``--`` say as well, for `scale`: the name, its type or None for a switch, its value, its help.
WORDS: tuple[tuple[str, Any, str, str], ...] = (
    ("--provider", str, "NAME", "openstack, ec2, or another of libcloud (openstack)."),
    ("--cloud", str, "NAME", "An entry of clouds.yaml; else OS_CLOUD, or OS_* of openrc.sh."),
    ("--region", str, "NAME", "Where; may be repeated: the next one is taken when one is full."),
    ("--endpoint", str, "URL", "A service that speaks EC2 and is not Amazon's."),
    ("--option", str, "NAME=VALUE", "More for libcloud's driver; may be repeated."),
    ("--flavor", str, "NAME", "The size of a machine."),
    ("--image", str, "NAME", "What it boots: Linux with cloud-init."),
    ("--key", str, "NAME|FILE", "An SSH key that the cloud has, or a public key to bring there."),
    ("--network", str, "NAME", "A network; may be repeated."),
    ("--security-group", str, "NAME", "A security group; may be repeated."),
    ("--floating-ip-pool", str, "NAME", "Give each machine a public address from here."),
    ("--volume-gb", int, "GB", "A volume that comes and goes with the machine."),
    ("--mount", str, "DEVICE:FOLDER", "Format a blank disk and mount it; may be repeated."),
    ("--scratch", str, "DEVICE|FOLDER", "Where tokens run: a blank disk, or a folder (/scratch)."),
    ("--swap-percent", int, "N", "Swap, as a part of what is free on the scratch disk (10)."),
    ("--max-machines", int, "N", "Machines of this pool and account at most."),
    ("--max-price", float, "AMOUNT", "What all of them may cost an hour at most."),
    ("--price", float, "AMOUNT", "What one costs an hour, where the cloud does not tell."),
    ("--boot-timeout", int, "SECONDS", "Remove a machine that has no worker after so long (900)."),
    ("--on-idle", str, "remove|keep", "What becomes of a machine whose worker has left (remove)."),
    ("--password-path", str, "FILE", "Where the image has the pool's password."),
    ("--password-in-user-data", None, "", "Hand the pool's password over in the user-data, which the cloud keeps."),
)


def _cloud_options(function: Function) -> Function:
    """Give a verb the options that say which cloud, and what its machines are."""
    from ..launchers.cloud_plan import MANY

    made = []
    for name, kind, value, told in WORDS:
        many = name[2:].replace("-", "_") in MANY
        more: dict[str, Any] = {"is_flag": True} if kind is None else {"type": kind, "metavar": value}
        made.append(click.option(name, "cloud_" + name[2:].replace("-", "_"), help=told, multiple=many, **more))
    return flags(*made)(function)


def _words(given: dict[str, Any]) -> list[str]:
    """Take the options of the cloud out of all options; return them as words."""
    words: list[str] = []
    for name, kind, _, _ in WORDS:
        value = given.pop("cloud_" + name[2:].replace("-", "_"))
        if kind is None:
            words += [name] if value else []
            continue
        for each in value if isinstance(value, tuple) else () if value is None else (value,):
            words += [name, str(each)]
    return words


def for_machines(order: Order, program: str | None) -> Order:
    """Return an order as a machine understands it: what is installed here is not there."""
    return replace(order, program=program or "tokenpool", logs="")


@click.command(
    "cloud",
    cls=BatchVerb,
    takes_command=True,
    examples=(
        "tokenpool launch cloud -n 4 --flavor small --image debian-12 --dry-run",
        "tokenpool launch cloud -n 4 --flavor small --image debian-12 --key ~/.ssh/id_ed25519.pub",
        "tokenpool launch cloud --flavor small --image debian-12 --region A --region B --max-machines 10",
        "tokenpool launch cloud --sweep --dry-run",
    ),
)
@_cloud_options
@click.option("--sweep", is_flag=True, help="Make nothing: remove machines whose workers have left or never came.")
@order_options
@click.pass_context
def cloud(ctx: click.Context, /, sweep: bool, **given: Any) -> int:
    """Make machines in a cloud, each with one worker, which powers its machine off when it has nothing to do.

    OpenStack by OS_* variables or clouds.yaml, EC2 by AWS_*, others as libcloud knows them. --print shows what a machine
    is told (cloud-init). The options of the cloud may as well stand behind --, as `tokenpool scale --launcher cloud` has
    them.
    """
    session: Session = ctx.obj
    words = [*_words(given), *ctx.meta.get("tokenpool.command", ())]
    order = for_machines(order_of(session, given, tuple(words)), given["program"])
    if sweep:
        return _sweep(session, order, given["dry_run"])
    if given["dry_run"] and not given["shown"]:
        return _would(session, order)
    return hand_in(session, "cloud", order, given)


def _would(session: Session, order: Order) -> int:
    """Tell what would be made, and at which price."""
    from ..launchers.cloud import CloudLauncher

    launcher = CloudLauncher()
    launcher.script(order)
    offers = launcher.would_make(order)
    if session.json:
        told = {"schema": 1, "dry_run": True, "launcher": "cloud", "workers": order.jobs}
        print_json({**told, "offers": [offer.told() for offer in offers]})
        return 0
    say(f"would make {number(order.jobs, 'machine')} for {order.pool}, in the first region that has room:")
    for offer in offers:
        say(f"  {_line(offer)}")
    return 0


def _line(offer: Offer) -> str:
    cost = f"{offer.price:g} each an hour" if offer.price else "at a price that the cloud does not tell"
    where = f" in {offer.region}" if offer.region else ""
    return f"{offer.flavor} ({offer.ram_mb} MB) with {offer.image}{where}, {cost}; {offer.there} of yours are there now"


def _sweep(session: Session, order: Order, dry_run: bool) -> int:
    """Remove what has no worker any more, or only tell what that is."""
    from ..launchers.cloud import CloudLauncher

    with session.open() as pool:
        lines = CloudLauncher().sweep(order, pool.workers(), dry_run=dry_run)
    if session.json:
        print_json({"schema": 1, "dry_run": dry_run, "swept": lines})
        return 0
    for line in lines or ["every machine has its worker"]:
        say(line)
    return 0

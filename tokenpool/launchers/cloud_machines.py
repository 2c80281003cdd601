"""Makes, finds and removes machines in one region of a cloud; which are ours is told by their tags."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .base import ENDED, RUNNING, UNKNOWN, WAITING, LaunchFailed
from .cloud_places import told
from .cloud_plan import Plan, pairs

#: Tags of a machine: the pool, who pays, the order that it was made for, when, what goes with it, what it costs an hour.
POOL, OWNER, ORDER, MADE, ADDRESS, PRICE = (
    f"tokenpool_{name}" for name in ("pool", "owner", "order", "made", "address", "price")
)
#: Letters that a tag may have in the clouds that allow least.
LONGEST = 255
#: Seconds for a machine to get so far that it can have a public address.
PATIENCE = 300.0
_STATES = {
    "running": RUNNING, "rebooting": RUNNING, "reconfiguring": RUNNING, "normal": RUNNING, "updating": RUNNING,
    "migrating": RUNNING, "pending": WAITING, "starting": WAITING, "stopped": ENDED, "terminated": ENDED,
    "error": ENDED, "suspended": ENDED, "paused": ENDED, "stopping": RUNNING,
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A machine as its cloud tells about it."""

    id: str
    name: str
    state: str
    reason: str = ""
    order: str = ""
    #: Seconds since 1970, by our clock when it was asked for.
    made: float = 0.0
    price: float = 0.0
    addresses: tuple[str, ...] = ()
    node: Any = field(default=None, compare=False, repr=False)


def tags_of(pool: str, owner: str, order: str = "") -> dict[str, str]:
    """Return the tags by which machines are ours."""
    found = {POOL: pool[:LONGEST], OWNER: owner[:LONGEST], **({ORDER: order[:LONGEST]} if order else {})}
    return {name: "".join(letter if letter.isprintable() else "_" for letter in value) for name, value in found.items()}


def machines(driver: Any, wanted: Mapping[str, str]) -> list[Machine]:
    """Return the machines with these tags, whatever their state; what the cloud forgets soon is left out."""
    with told("the machines cannot be listed"):
        nodes = driver.list_nodes()
    found = []
    for node in nodes:
        tags = _tags(node)
        gone = node.state == "terminated" or node.extra.get("task_state") == "deleting"
        if not gone and all(tags.get(name) == value for name, value in wanted.items()):
            found.append(machine_of(node))
    return sorted(found, key=lambda machine: machine.name)


def machine_of(node: Any) -> Machine:
    """Return what the library tells of a machine."""
    tags, state = _tags(node), _STATES.get(str(node.state), UNKNOWN)
    fault = node.extra.get("fault")
    reason = str(fault.get("message") or "") if isinstance(fault, dict) else ""
    if not reason and state == ENDED:
        reason = {"error": "the cloud could not start it", "stopped": "it has powered off"}.get(
            str(node.state), str(node.state)
        )
    made = _amount(tags.get(MADE)) or (node.created_at.timestamp() if node.created_at else 0.0)
    addresses = tuple(str(each) for each in (*node.public_ips, *node.private_ips))
    price = _amount(tags.get(PRICE)) or (_amount(node.size.price) if node.size else 0.0)
    return Machine(str(node.id), str(node.name), state, reason[:200], tags.get(ORDER, ""), made, price, addresses, node)


def _tags(node: Any) -> dict[str, str]:
    for name in ("metadata", "tags", "labels", "ex_metadata"):
        found = node.extra.get(name)
        if isinstance(found, dict):
            return {str(key): str(value) for key, value in found.items()}
    return {}


# --- making ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What the machines of an order are made of in one region, looked up once."""

    size: Any
    image: Any
    #: What the driver is told beside the name and the tags.
    named: Mapping[str, Any]
    #: What one costs an hour; 0: nobody knows.
    price: float = 0.0


def look_up(driver: Any, plan: Plan, owner: str, bring_key: bool = True) -> Kind:
    """Return what a plan means in this region; raises BadInput with the nearest names for one that is not there."""
    with told("the cloud cannot be asked what it has"):
        size = _chosen(driver.list_sizes(), plan.flavor, "flavor")
        image = _image(driver, plan)
        accepted = inspect.signature(driver.create_node).parameters
        named: dict[str, Any] = {}
        if plan.key:
            named["ex_keyname"] = _key(driver, plan.key, owner, bring_key)
        if plan.provider == "openstack":
            named.update(_for_openstack(driver, plan, image))
        elif plan.provider == "ec2":
            named.update(_for_ec2(driver, plan))
        elif plan.networks or plan.groups or plan.volume_gb:
            raise BadInput(
                f"--network, --security-group and --volume-gb say nothing to {plan.provider}", "leave them out"
            )
    for name in ("ex_userdata", "ex_metadata"):
        if name not in accepted and not any(each.kind is each.VAR_KEYWORD for each in accepted.values()):
            raise BadInput(f"machines of {plan.provider} take no {name[3:]} by libcloud", "use another provider")
    return Kind(size, image, named, plan.price or _amount(size.price))


def _amount(told: Any) -> float:
    try:
        return float(told or 0.0)
    except (TypeError, ValueError):
        return 0.0


def _for_openstack(driver: Any, plan: Plan, image: Any) -> dict[str, Any]:
    named: dict[str, Any] = {}
    if plan.networks:
        there = driver.ex_list_networks()
        named["networks"] = [_chosen(there, name, "network") for name in plan.networks]
    if plan.groups:
        there = driver.ex_list_security_groups()
        named["ex_security_groups"] = [_chosen(there, name, "security group") for name in plan.groups]
    if plan.volume_gb:
        # Made with the machine and removed with it: nothing is left behind, whoever removes it.
        root = {"boot_index": 0, "uuid": image.id, "source_type": "image", "destination_type": "local"}
        data = {"boot_index": -1, "source_type": "blank", "destination_type": "volume", "volume_size": plan.volume_gb}
        named["ex_blockdevicemappings"] = [{**each, "delete_on_termination": True} for each in (root, data)]
    return named


def _for_ec2(driver: Any, plan: Plan) -> dict[str, Any]:
    # Whoever powers it off, its own worker above all, removes it.
    named: dict[str, Any] = {"ex_terminate_on_shutdown": not plan.keep}
    if plan.networks:
        named["ex_subnet"] = _chosen(driver.ex_list_subnets(), plan.networks[0], "network")
    if plan.groups and plan.networks:
        named["ex_security_group_ids"] = list(plan.groups)
    elif plan.groups:
        named["ex_security_groups"] = list(plan.groups)
    if plan.volume_gb:
        disk = {"VolumeSize": plan.volume_gb, "DeleteOnTermination": "true"}
        device = next((device for device, _ in pairs(plan.mounts, "mount", ":")), "/dev/sdf")
        named["ex_blockdevicemappings"] = [{"DeviceName": device, "Ebs": disk}]
    return named


def _image(driver: Any, plan: Plan) -> Any:
    if plan.provider == "ec2" and plan.image.startswith("ami-"):
        return driver.get_image(plan.image)  # there are tens of thousands
    return _chosen(driver.list_images(), plan.image, "image")


def _chosen(there: Sequence[Any], wanted: str, what: str) -> Any:
    """Return what has this id or name; raises BadInput."""
    import difflib

    option = "--" + what.replace(" ", "-")
    if not wanted:
        some = ", ".join(sorted(str(each.name or each.id) for each in there)[:12]) or "none"
        raise BadInput(f"no {what} is named", f"{option} NAME; there are: {some}")
    for each in there:
        if wanted in (str(each.id), str(each.name)):
            return each
    names = sorted(str(each.name or each.id) for each in there)
    close = difflib.get_close_matches(wanted, names, 1)
    some = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names[:12]) or 'none'}"
    raise BadInput(f"there is no {what} {wanted!r} in this region", some)


def _key(driver: Any, wanted: str, owner: str, bring: bool) -> str:
    """Return the name of a key in this region, brought there if it is a file of ours."""
    path = Path(wanted).expanduser()
    if "/" not in wanted and not wanted.endswith(".pub"):
        return str(_chosen(driver.list_key_pairs(), wanted, "key").name)
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise BadInput(f"the public key {wanted} cannot be read", "for example --key ~/.ssh/id_ed25519.pub") from None
    if "PRIVATE KEY" in text or len(text.split()) < 2:
        raise BadInput(f"{wanted} is no public key", "name the file that ends with .pub")
    digest = hashlib.sha256(text.split()[1].encode()).hexdigest()[:8]
    name = f"tokenpool-{''.join(letter if letter.isalnum() else '-' for letter in owner)}-{digest}"
    if bring and name not in [pair.name for pair in driver.list_key_pairs()]:
        driver.import_key_pair_from_string(name, text)
    return name


def make(driver: Any, kind: Kind, plan: Plan, name: str, tags: Mapping[str, str], user_data: str) -> Machine:
    """Make one machine; raises QuotaReached, LaunchFailed, ServerAway where nobody knows whether it was made."""
    marks = {**tags, MADE: f"{time.time():.0f}", **({ADDRESS: "own"} if plan.floating_ip_pool else {})}
    marks.update({PRICE: f"{kind.price:g}"} if kind.price else {})
    with told("the cloud makes no machine"):
        node = driver.create_node(
            name=name, size=kind.size, image=kind.image, ex_userdata=user_data, ex_metadata=marks, **kind.named
        )
    return machine_of(node)


def give_address(driver: Any, machine: Machine, plan: Plan) -> None:
    """Give a machine a public address, as soon as it is there; raises LaunchFailed."""
    end = time.monotonic() + PATIENCE
    with told("the machine gets no address"):
        node = machine.node
        while not node.private_ips and str(node.state) in ("pending", "starting", "unknown", "running"):
            if time.monotonic() > end:
                break
            time.sleep(2)
            node = next((each for each in driver.list_nodes() if each.id == node.id), node)
        if not node.private_ips:
            raise LaunchFailed(
                f"{machine.name} got no network: {machine_of(node).reason or node.state}", "name a --network"
            )
        address = driver.ex_create_floating_ip(plan.floating_ip_pool)
        if address is None:
            raise BadInput(
                f"there is no pool of addresses {plan.floating_ip_pool!r}", "openstack network list --external"
            )
        try:
            driver.ex_attach_floating_ip_to_node(node, address)
        except Exception:
            driver.ex_delete_floating_ip(address)
            raise


def remove(driver: Any, machine: Machine) -> None:
    """Remove a machine and what was made with it; raises LaunchFailed."""
    with told(f"{machine.name} is not removed"):
        if _tags(machine.node).get(ADDRESS):
            own = {str(each) for each in machine.node.public_ips}
            for address in driver.ex_list_floating_ips():
                if str(address.ip_address) in own:
                    driver.ex_delete_floating_ip(address)
        driver.destroy_node(machine.node)

"""What a cloud is asked for: the words behind ``--`` of an order of machines, as one value."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from ..errors import BadInput

#: Words that say which cloud and where; a machine is found again by them.
REACH = ("provider", "cloud", "regions", "endpoint", "options")
#: Fields that may be given more than once, by the singular that stands for them on the command line.
MANY = {"region": "regions", "mount": "mounts", "network": "networks", "security_group": "groups", "option": "options"}
_NUMBERS = {"volume_gb", "swap_percent", "max_machines", "boot_timeout"}
_AMOUNTS = {"max_price", "price"}
_SWITCHES = {"password_in_user_data"}
REMOVE, KEEP = "remove", "keep"


@dataclass(frozen=True)
class Plan:
    """Which cloud, where in it, and what its machines are; no secrets."""

    provider: str = "openstack"
    #: An entry of clouds.yaml.
    cloud: str = ""
    regions: tuple[str, ...] = ()
    #: The address of a service that speaks EC2, where it is not Amazon's.
    endpoint: str = ""
    #: More for libcloud's driver, NAME=VALUE.
    options: tuple[str, ...] = ()
    flavor: str = ""
    image: str = ""
    #: The name of a key that the cloud has, or the file of a public key to bring there.
    key: str = ""
    networks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    #: Where each machine gets a public address from.
    floating_ip_pool: str = ""
    #: A data volume that is made and removed with the machine.
    volume_gb: int = 0
    #: DEVICE:FOLDER
    mounts: tuple[str, ...] = ()
    #: The disk that tokens run on: a device, else a folder of the machine's own disk.
    scratch: str = ""
    #: Swap, as a part of what is free on the scratch disk.
    swap_percent: int = 10
    #: Machines of this pool and owner at most, and what they may cost an hour.
    max_machines: int = 0
    max_price: float = 0.0
    #: What one costs an hour, where the cloud does not say.
    price: float = 0.0
    #: Seconds after which a machine without a worker is removed.
    boot_timeout: int = 900
    #: What becomes of a machine whose worker has left.
    on_idle: str = REMOVE
    password_in_user_data: bool = False
    #: Where the image holds the pool's password.
    password_path: str = ""

    @property
    def keep(self) -> bool:
        """Leave machines on, whatever their workers do: somebody wants to look at them."""
        return self.on_idle == KEEP

    def words(self, names: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the words that mean this plan, or only some of its fields.

        >>> Plan(regions=("A", "B"), on_idle="keep").words()
        ('--region', 'A', '--region', 'B', '--on-idle', 'keep')
        """
        found: list[str] = []
        singular = {many: one for one, many in MANY.items()}
        for each in fields(self):
            value = getattr(self, each.name)
            if value == each.default or (names and each.name not in names):
                continue
            option = "--" + singular.get(each.name, each.name).replace("_", "-")
            if isinstance(value, tuple):
                for one in value:
                    found += [option, one]
            else:
                found += (
                    [option] if value is True else [option, f"{value:g}" if isinstance(value, float) else str(value)]
                )
        return tuple(found)

    def place(self, region: str) -> dict[str, str]:
        """Return what is noted of a machine, so that it is found again by whoever reads the note."""
        return {"cloud": shlex.join(self.words(REACH)), "region": region}


def parse(words: Sequence[str]) -> Plan:
    """Return the plan that words describe; raises BadInput.

    >>> parse(["--flavor", "small", "--region=A", "--max-price", "2.5"]).max_price
    2.5
    """
    given: dict[str, object] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, sign, value = word.partition("=")
        field = name[2:].replace("-", "_") if name.startswith("--") else ""
        target = MANY.get(field, field)
        if target not in _NAMES or field in MANY.values():
            raise _strange(name)
        if target in _SWITCHES:
            given[target] = True
            continue
        if not sign:
            if not rest:
                raise BadInput(f"{name} lacks its value", f"for example {name} VALUE")
            value = rest.pop(0)
        if field in MANY:
            given[target] = (*tuple(given.get(target, ())), value)  # type: ignore[arg-type]
        else:
            given[target] = _typed(target, name, value)
    plan = Plan(**given)  # type: ignore[arg-type]
    _check(plan)
    return plan


_NAMES = frozenset(each.name for each in fields(Plan))


def plan_at(place: Mapping[str, str]) -> Plan:
    """Return the plan that reaches a noted machine."""
    return parse(shlex.split(place.get("cloud", "")))


def pairs(words: Sequence[str], what: str, sign: str) -> list[tuple[str, str]]:
    """Return ``NAME=VALUE`` or ``DEVICE:FOLDER`` as pairs; raises BadInput."""
    found = []
    for word in words:
        name, there, value = word.partition(sign)
        if not (name and there and value):
            raise BadInput(f"--{what} {word} makes no sense", f"--{what} ONE{sign}OTHER")
        found.append((name, value))
    return found


def _typed(target: str, name: str, value: str) -> object:
    if target not in _NUMBERS and target not in _AMOUNTS:
        return value
    try:
        number = int(value) if target in _NUMBERS else float(value)
    except ValueError:
        raise BadInput(f"{name} {value} is not a number", f"for example {name} 10") from None
    if not 0 <= number < 1e9:
        raise BadInput(f"{name} {value} makes no sense", "0 or more")
    return number


def _check(plan: Plan) -> None:
    for device, folder in pairs(plan.mounts, "mount", ":"):
        if not device.startswith("/dev/") or not folder.startswith("/") or "'" in device + folder:
            raise BadInput(f"--mount {device}:{folder} makes no sense", "for example --mount /dev/vdb:/work")
    pairs(plan.options, "option", "=")
    if plan.on_idle not in (REMOVE, KEEP):
        raise BadInput(f"--on-idle {plan.on_idle} makes no sense", f"{REMOVE} or {KEEP}")
    if plan.swap_percent > 90:
        raise BadInput(f"--swap-percent {plan.swap_percent} leaves no room on the scratch disk", "10 is usual")
    if plan.scratch and not plan.scratch.startswith("/"):
        raise BadInput(f"--scratch {plan.scratch} is no path", "a device, /dev/vdb, or a folder, /mnt/scratch")


def _strange(name: str) -> BadInput:
    known = sorted(
        "--" + {many: one for one, many in MANY.items()}.get(each, each).replace("_", "-") for each in _NAMES
    )
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"behind -- stand {', '.join(known)}"
    return BadInput(f"{name} says nothing to a cloud", hint)

"""Writes what a new machine is told: how it prepares its disks, runs one worker, and goes."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable
from dataclasses import replace

from ..errors import BadInput
from .base import Order
from .cloud_plan import Plan, pairs
from .rendering import check, environment, fill, shipped, worker_line

#: Stands for the pool's password until the machine is made: no printed script, and no note, has it.
PASSWORD = "@TOKENPOOL_PASSWORD@"
#: Where it is on the machine: in memory, for the worker's account only.
PASSWORD_FILE = "/run/tokenpool/password"
#: Bytes of user-data that all clouds take.
LONGEST = 16384
#: Letters in front of the lines of the machine's own script, inside of the cloud-config.
_INDENT = " " * 6


def script_of(order: Order, plan: Plan) -> str:
    """Return the cloud-config of the machines of an order; raises BadInput."""
    check(order)
    if order.password_file and not (plan.password_in_user_data or plan.password_path):
        raise BadInput(
            "nothing says how the pool's password gets to the machine",
            "--password-path FILE where the image has it, or --password-in-user-data (see docs/how-to/cloud.md)",
        )
    there = plan.password_path or (PASSWORD_FILE if order.password_file else "")
    told = replace(order, password_file=there)
    work = worker_line(told, *([] if order.walltime is None else ["--walltime", f"{int(order.walltime)}s"]))
    by_data = bool(order.password_file and not plan.password_path)
    fields = {
        "name": order.name,
        "password": PASSWORD if by_data else "",
        "password_file": PASSWORD_FILE if by_data else "",
        "environment": _inside(f"export {name}={shlex.quote(value)}" for name, value in environment(told)),
        "setup": _inside(order.setup),
        "scratch": shlex.quote(plan.scratch or "/scratch"),
        "swap_percent": str(plan.swap_percent),
        "mounts": _inside(
            f"volume {device} {shlex.quote(folder)}" for device, folder in pairs(plan.mounts, "mount", ":")
        ),
        "worker": work,
        "leave": "" if plan.keep else "poweroff",
    }
    text = fill(order.template or shipped("cloud-init.yaml"), fields)
    if len(text.encode()) > LONGEST:
        raise BadInput(
            f"the machine's script has {len(text.encode())} bytes, and clouds take {LONGEST}", "shorten --setup"
        )
    return text


def with_password(script: str, password: str) -> str:
    """Return the script as it is sent: with the password in place of its mark.

    >>> with_password("content: @TOKENPOOL_PASSWORD@", "a'b")
    'content: YSdi'
    """
    import base64

    return script.replace(PASSWORD, base64.b64encode(password.encode()).decode())


def _inside(lines: Iterable[str]) -> str:
    text = "\n".join(lines)
    return textwrap.indent(text, _INDENT)[len(_INDENT) :] if text else ""

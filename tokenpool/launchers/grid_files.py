"""What travels with a job of the Grid: the files of a sandbox, and the variables that tell the worker about them."""

from __future__ import annotations

import os
import re

from ..errors import BadInput
from .base import Order
from .rendering import check

#: Files of every sandbox.
NEEDED = ("tokenpool.pyz", "startpilot.sh")
#: Where `tokenpool sandbox` builds it.
SANDBOX = "dist/sandbox"


def sandbox_of(order: Order) -> str:
    """Return the folder of an order's sandbox: in the Grid, that is how the program is called."""
    return SANDBOX if order.program.endswith("tokenpool") else order.program


def files_of(order: Order) -> list[str]:
    """Return the paths of all files that travel with a job, each name once; raises BadInput for two of one name."""
    check(order)
    if order.setup:
        raise BadInput("a job of the Grid takes no shell lines", "write them into startpilot.sh of the sandbox")
    folder = sandbox_of(order)
    needed = [os.path.join(folder, name) for name in NEEDED]
    paths = [*needed, *order.files, *([order.password_file] if order.password_file else [])]
    names: dict[str, str] = {}
    for path in dict.fromkeys(os.path.abspath(path) for path in paths):
        if names.setdefault(os.path.basename(path), path) != path:
            raise BadInput(f"{path} and {names[os.path.basename(path)]} have one name", "in a job all files lie flat")
    return list(names.values())


def variables_of(order: Order) -> dict[str, str]:
    """Return the variables of the worker; none is a secret, the password is in a file that travels along."""
    found = {**dict(order.env), "TOKENPOOL_POOL": order.pool, "TOKENPOOL_LAUNCH": order.name}
    if order.password_file:
        found["TOKENPOOL_PASSWORD_FILE"] = os.path.basename(order.password_file)
    return found


def words_of(order: Order) -> list[str]:
    """Return the words behind ``startpilot.sh``."""
    limit = [] if order.walltime is None else ["--walltime", f"{int(order.walltime)}s"]
    return ["--slots", str(order.slots), *limit, *order.work]


def plain(text: str, forbidden: str, where: str) -> str:
    """Return a text that may stand in a job description as it is; raises BadInput for others."""
    found = re.search(f"[{re.escape(forbidden)}]", text)
    if found:
        raise BadInput(f"{text!r} cannot be written into {where}", f"it takes no {found.group()}")
    return text


def expect_files(paths: list[str]) -> None:
    """Raise BadInput where a file of the sandbox is missing, before anything is handed in."""
    for path in paths:
        if not os.path.isfile(path):
            raise BadInput(f"{path} is not there", "tokenpool sandbox builds it; name its folder with --sandbox")

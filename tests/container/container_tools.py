"""Pushes a token of the test image, has it run, and looks at what became of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cli_tools import ok
from engines import IMAGE

Token = dict[str, Any]


def work_off(*options: object, **fields: Any) -> None:
    """Push one token and run a worker until nothing waits; failed attempts leave their folders to be looked at."""
    push(**fields)
    ok("work", "--quit", "--slots", 1, "--workdir", "scratch", *options)


def kept(*path: str) -> Path:
    """Return a file in the folder that an attempt left."""
    (folder,) = (each for each in Path("scratch").glob("*/t.*") if each.is_dir())
    return folder.joinpath(*path)


def push(**fields: Any) -> None:
    """Push one token of the test image, named t."""
    image = {} if fields.get("executors") else {"image": IMAGE}
    ok("push", "-", "--format", "jsonl", stdin=json.dumps({"_id": "t", **image, **fields}))


def shown(name: str) -> Token:
    """Return a token."""
    found: Token = ok("show", name, "--json").json
    return found


def failure(token: Token) -> tuple[int, str | None]:
    """Return the exit code and the class of the last attempt's failure."""
    return token["exit_code"], token["attempts"][-1]["failure_class"]


def message(token: Token) -> str:
    """Return what the token says of its failure."""
    return str(token["error"][-1]["message"])


def out(name: str = "t") -> str:
    """Return what a token printed."""
    return ok("logs", name, "--out").out

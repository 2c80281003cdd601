"""How one token is run: one file per kind, chosen by what the token holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ..errors import BadInput
from ..plugins import load
from .base import Runner

BUILTIN = {"command": "tokenpool.runners.command:CommandRunner"}
#: A field that a token of this kind has; what has none of them is a command.
KINDS = {"image": "container", "executors": "container", "workflow": "workflow", "function": "function"}


def kind_of(token: Mapping[str, Any]) -> str:
    """Return the kind of runner that a token asks for.

    >>> kind_of({"input": "echo hi"})
    'command'
    """
    return next((kind for name, kind in KINDS.items() if token.get(name)), "command")


def runner_for(token: Mapping[str, Any]) -> Runner:
    """Return the runner of a token; raises BadInput where this installation has none for it."""
    kind = load("runners", kind_of(token), BUILTIN)
    runner: Runner = kind()
    return runner


def equivalent_input(token: Mapping[str, Any]) -> str:
    """Return the shell line that does what `command` and `env` do, so that a picas worker can run the token too."""
    command = token["command"]
    if isinstance(command, str):
        line = command
    elif isinstance(command, (list, tuple)) and command and all(isinstance(word, str) for word in command):
        line = shlex.join(command)
    else:
        raise BadInput("a command is a text or a list of texts that is not empty", '"echo hi" or ["echo", "hi"]')
    env = token.get("env") or {}
    if not env:
        return line
    exports = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in env.items())
    return f"export {exports}; {line}"

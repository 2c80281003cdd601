"""How one token is run: one file per kind, chosen by what the token holds."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping
from typing import Any

from ..errors import BadInput
from ..plugins import load
from .base import Context, Runner
from .equivalent import line_of as container_line
from .function import line_of as function_line

BUILTIN = {
    "command": "tokenpool.runners.command:CommandRunner",
    "container": "tokenpool.runners.container:ContainerRunner",
    "workflow": "tokenpool.runners.workflow:WorkflowRunner",
    "function": "tokenpool.runners.function:FunctionRunner",
}
#: A field that a token of this kind has; what has none of them is a command.
KINDS = {"image": "container", "executors": "container", "workflow": "workflow", "function": "function"}


def kind_of(token: Mapping[str, Any]) -> str:
    """Return the kind of runner that a token asks for: by the name of one in `runner`, or by what it holds.

    >>> kind_of({"input": "echo hi"})
    'command'
    """
    named = token.get("runner")
    if isinstance(named, str) and named:
        return named
    return next((kind for name, kind in KINDS.items() if token.get(name)), "command")


class Runners:
    """The runners of one worker, each made when the first token of its kind comes. Safe from several threads."""

    def __init__(self) -> None:
        self._made: dict[str, Runner] = {}
        self._width = 1
        self._lock = threading.Lock()

    def of(self, token: Mapping[str, Any]) -> Runner:
        """Return the runner of a token; raises BadInput where this installation has none for it."""
        return self._of_kind(kind_of(token))

    def begin(self, context: Context) -> None:
        """Have the built-in runners get ready."""
        for kind in BUILTIN:
            self._of_kind(kind).begin(context)

    def close(self) -> None:
        """Have all runners let go of what they hold."""
        for runner in self._made.values():
            runner.close()

    def widen(self, n: int) -> None:
        """Let so many of the runs that need no thread go on at a time."""
        with self._lock:
            self._width = n
            for runner in self._made.values():
                runner.widen(n)

    def push(self) -> None:
        """Let go on what was begun."""
        with self._lock:
            for runner in self._made.values():
                runner.push()

    def _of_kind(self, kind: str) -> Runner:
        with self._lock:
            if kind not in self._made:
                self._made[kind] = load("runners", kind, BUILTIN)()
                self._made[kind].widen(self._width)
            return self._made[kind]


def equivalent_input(token: Mapping[str, Any]) -> str:
    """Return the shell line that does what `command` and `env` do, so that a picas worker can run the token too."""
    if token.get("image") or token.get("executors"):
        return container_line(token)
    if token.get("function"):
        return function_line(token)
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

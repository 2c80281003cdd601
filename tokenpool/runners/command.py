"""Runs a shell line or an argument list as one child process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..children import Finished
from ..errors import BadInput
from .base import Command, Context, Places, Result, Runner

SHELL = "/bin/sh"


class CommandRunner(Runner):
    """The token's `command` (text or list), else its `input` as a shell line, as picas has it."""

    def run(self, token: Mapping[str, Any], places: Places, context: Context) -> Result:
        return self.result(token, context.execute(argv_of(token), places, timeout_of(token)))

    def command(self, token: Mapping[str, Any]) -> Command:
        return Command(argv_of(token), timeout_of(token))

    def result(self, token: Mapping[str, Any], finished: Finished) -> Result:
        code = finished.returncode
        message = finished.error
        failure = "timeout" if finished.timed_out else "executor" if code else ""
        if finished.timed_out:
            message = f"stopped: it ran longer than its timeout of {timeout_of(token):g} s"
        return Result(
            # A signal is told as shells tell it, so that the code is the same with and without a shell between.
            exit_code=128 - code if code < 0 else code,
            failure_class=failure,
            message=message,
            cpu_seconds=finished.cpu_seconds,
            max_rss_mb=finished.max_rss_mb,
        )


def argv_of(token: Mapping[str, Any]) -> list[str]:
    """Return the arguments to execute; raises BadInput where the token holds no command.

    >>> argv_of({"input": "echo hi"})
    ['/bin/sh', '-c', 'echo hi']
    >>> argv_of({"command": ["echo", "hi"]})
    ['echo', 'hi']
    """
    command = token.get("command", token.get("input"))
    if isinstance(command, str) and command.strip() and "\0" not in command:
        return [SHELL, "-c", command]
    if isinstance(command, list) and command and all(isinstance(word, str) and "\0" not in word for word in command):
        return command
    raise BadInput("the token holds no command", "give it a shell line as input, or a list of texts as command")


def timeout_of(token: Mapping[str, Any]) -> float | None:
    """Return how long the token may run, in seconds; raises BadInput where that is no number above 0."""
    value = token.get("timeout")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise BadInput(f"timeout {value!r} is not a number of seconds above 0", "for example 3600")
    return float(value)

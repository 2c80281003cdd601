"""The one place that starts and stops processes: `Supervisor` for tokens' commands, and picas' `execute`."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Union

from .children import GRACE, Child, Finished, Supervisor, SupervisorLost, exterminate
from .supervisor import hunt

__all__ = [
    "GRACE", "Child", "Finished", "ProcessGroups", "Supervisor", "SupervisorLost", "execute", "execute_old", "watching",
]  # fmt: skip

Args = Union[str, Sequence[str]]

#: The environment variable that marks what `execute` started, so that whatever hides from its tree is found.
GROUP = "TOKENPOOL_GROUP"


class _Group:
    """One process of `execute`, the mark of all that it starts, and when it was told to be dead (monotonic)."""

    def __init__(self, proc: subprocess.Popen[bytes], mark: str) -> None:
        self.proc, self.mark = proc, mark
        self.dead_at: float | None = None

    def signal(self, signum: int) -> bool:
        """Signal its tree, and all who bear the mark; tell whether any is alive."""
        return hunt([self.proc.pid] if self.proc.returncode is None else [], self.mark, signum)

    def end(self) -> None:
        """Kill it, after the rest of its grace if it was told to end."""
        try:
            self.proc.wait(max(0.0, (self.dead_at or 0.0) - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        exterminate([self.signal])


class ProcessGroups:
    """The processes that `execute` runs inside one `watching`; other threads and signal handlers may end them.

    Only what runs at that moment is ended: the same object serves the actor's next token.
    """

    def __init__(self, supervisor: Supervisor | None = None) -> None:
        self._supervisor = supervisor
        self._live: dict[int, _Group] = {}  # no lock: a signal handler could meet one that its own thread holds
        self._kills = 0

    def kill(self, grace: float = GRACE) -> None:
        """Send SIGTERM to all live groups, and SIGKILL after `grace` seconds to what is left. Returns at once."""
        self._kills += 1
        groups = list(self._live.values())
        for group in groups:
            again = group.dead_at is not None
            group.dead_at = min(time.monotonic() + grace, group.dead_at or float("inf"))
            if grace > 0 and not again:
                group.signal(signal.SIGTERM)
        if grace <= 0:
            exterminate([group.signal for group in groups])
        elif groups:
            timer = threading.Timer(grace, exterminate, ([group.signal for group in groups],))
            timer.daemon = True
            timer.start()

    def terminate_now(self) -> None:
        """SIGKILL all live groups and return when they are dead, or cannot be killed."""
        self.kill(0.0)

    @contextmanager
    def open(self, args: Args, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process, registered as long as the body runs; a body that is interrupted ends it."""
        mark, kills = uuid.uuid4().hex, self._kills
        environment = {**os.environ, GROUP: mark}
        with subprocess.Popen(args, env=environment, start_new_session=True, **options) as proc:
            group = self._live[proc.pid] = _Group(proc, f"{GROUP}={mark}")
            try:
                if self._supervisor is not None:
                    self._supervisor.guard(proc.pid, group.mark)
                if kills != self._kills:  # killed while it was being started
                    group.signal(signal.SIGKILL)
                yield proc
            except BaseException:
                group.end()
                raise
            finally:
                self._live.pop(proc.pid, None)
                if self._supervisor is not None:
                    self._supervisor.unguard(proc.pid)


_watching: ContextVar[ProcessGroups | None] = ContextVar("tokenpool_watching", default=None)


@contextmanager
def watching(supervisor: Supervisor | None = None) -> Iterator[ProcessGroups]:
    """Hold what `execute` starts in this thread (and context) where others can end it; what is left ends at the exit.

    With a `supervisor` it also ends when this process is killed.
    """
    groups = ProcessGroups(supervisor)
    token = _watching.set(groups)
    try:
        yield groups
    finally:
        _watching.reset(token)
        groups.terminate_now()


def execute(args: Args, shell: bool = False) -> tuple[subprocess.Popen[bytes], int, bytes, bytes]:
    """Run a command in a session of its own; return its Popen, return code, stdout and stderr.

    Raises OSError if it cannot be started, as Popen does.
    """
    groups = _watching.get() or ProcessGroups()
    with groups.open(args, shell=shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as proc:
        stdout, stderr = proc.communicate()
    return proc, proc.returncode, stdout, stderr


def execute_old(cmd: str) -> int:
    """Run a shell command and return its wait status, as `os.system` does: 256 times the exit code, or the signal."""
    groups = _watching.get() or ProcessGroups()
    with groups.open(cmd, shell=True) as proc:
        code = proc.wait()
    return code << 8 if code >= 0 else -code

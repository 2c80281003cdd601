"""The one place that starts and stops processes: `Supervisor` for tokens' commands, and picas' `execute`."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Union

from .children import GRACE, Child, Finished, Supervisor
from .links import SupervisorLost, exterminate
from .processes import ATTEMPT, hunt

__all__ = [
    "GRACE", "Child", "Finished", "ProcessGroups", "Supervisor", "SupervisorLost", "execute", "execute_old",
    "foreground", "watching",
]  # fmt: skip

Args = Union[str, Sequence[str]]

#: The environment variable that marks what `execute` started, so that whatever hides from its tree is found.
GROUP = "TOKENPOOL_GROUP"
#: Seconds after which a wait for a command ends, to see whether a signal came.
LOOK_UP = 1.0


class _Group:
    """One process of `execute` with all that it starts, which bears its mark."""

    def __init__(self) -> None:
        self.mark = f"{GROUP}={uuid.uuid4().hex}"
        # Here before its __init__, which a signal handler may interrupt when the process is there already.
        self.proc: subprocess.Popen[bytes] = subprocess.Popen.__new__(subprocess.Popen)
        self.dead_at: float | None = None  # when it was told to be dead (monotonic)

    @property
    def pid(self) -> int:
        """The process id; 0 before it has one."""
        return getattr(self.proc, "pid", None) or 0

    def signal(self, signum: int) -> bool:
        """Signal its tree, and all who bear the mark; tell whether any is alive."""
        return hunt([self.pid] if self.pid and self.proc.returncode is None else [], self.mark, signum)

    def end(self) -> None:
        """Kill it, after the rest of its grace if it was told to end."""
        try:
            if self.pid:
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
        self._live: dict[str, _Group] = {}  # no lock: a signal handler could meet one that its own thread holds

    def pids(self) -> list[int]:
        """Return the processes that `execute` waits for now."""
        return [group.pid for group in list(self._live.values()) if group.pid]

    def kill(self, grace: float = GRACE) -> None:
        """Send SIGTERM to all live groups, and SIGKILL after `grace` seconds to what is left.

        Returns at once; with no grace, when they are dead or have withstood SIGKILL for 5 seconds.
        """
        groups = list(self._live.values())
        for group in groups:
            again = group.dead_at is not None
            group.dead_at = min(time.monotonic() + grace, group.dead_at or float("inf"))
            if grace > 0 and not again:
                group.signal(signal.SIGTERM)
        strikes = [group.signal for group in groups]
        if grace <= 0:
            exterminate(strikes)
        elif groups:
            timer = threading.Timer(grace, exterminate, (strikes,))
            timer.daemon = True
            timer.start()

    def terminate_now(self) -> None:
        """SIGKILL all live groups, as `kill` without any grace does."""
        self.kill(0.0)

    @contextmanager
    def open(self, args: Args, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process, registered as long as the body runs; a body that is interrupted ends it."""
        group = _Group()
        self._live[group.mark] = group
        name, _, value = group.mark.partition("=")
        try:
            if self._supervisor is not None:
                # Told before there is a process: this one may be killed before it can say which one it started.
                self._supervisor.guard(group.mark)
            group.proc.__init__(  # type: ignore[misc]
                args, env={**os.environ, name: value}, start_new_session=True, **options
            )
            if self._supervisor is not None:
                self._supervisor.guard(group.mark, group.pid)
            if group.dead_at is not None:  # told to end while it was being started
                group.signal(signal.SIGTERM if group.dead_at > time.monotonic() else signal.SIGKILL)
            yield group.proc
        except BaseException:
            group.end()
            raise
        finally:
            self._live.pop(group.mark, None)
            if group.pid:
                with group.proc:  # closes its pipes and waits for it
                    pass
            if self._supervisor is not None:
                self._supervisor.unguard(group.mark)


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
        stdout, stderr = _communicate(proc)
    return proc, proc.returncode, stdout, stderr


def _communicate(proc: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Read to the end, never in one endless wait: a signal that comes just before a wait does not interrupt it."""
    while True:
        try:
            return proc.communicate(timeout=LOOK_UP)
        except subprocess.TimeoutExpired:
            pass  # what was read so far is kept


def execute_old(cmd: str) -> int:
    """Run a shell command and return its wait status, as `os.system` does: 256 times the exit code, or the signal."""
    groups = _watching.get() or ProcessGroups()
    with groups.open(cmd, shell=True) as proc:
        code = proc.wait()
    return code << 8 if code >= 0 else -code


def foreground(argv: Sequence[str], *, cwd: str, env: Mapping[str, str], timeout: float | None = None) -> Finished:
    """Run a command on our own terminal to its end, in our process group: Ctrl-C is for it, not for us.

    `env` is its whole environment; after `timeout` seconds it is killed with all that bears its ``TOKENPOOL_CLAIM``.
    """
    mark = f"{ATTEMPT}={env[ATTEMPT]}" if env.get(ATTEMPT) else ""
    began, timed_out = time.monotonic(), False
    before = signal.signal(signal.SIGINT, lambda signum, frame: None)
    try:
        process = subprocess.Popen(list(argv), cwd=cwd, env=dict(env))
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
            process.kill()
            process.wait()
    except OSError as error:
        code = 126 if isinstance(error, PermissionError) else 127
        return Finished(code, 0.0, 0.0, 0.0, False, False, f"cannot start {argv[0]}: {error.strerror}")
    finally:
        signal.signal(signal.SIGINT, before)
        if mark:
            exterminate([lambda signum: hunt([], mark, signum)])
    return Finished(process.returncode, 0.0, 0.0, time.monotonic() - began, timed_out, timed_out)

"""Runs tokens' commands under the supervisor process, seen from the worker: start, wait, signal, kill."""

from __future__ import annotations

import itertools
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from .errors import TokenpoolError
from .supervisor import ATTEMPT, GIVE_UP, hunt

Path = Union[str, "os.PathLike[str]"]

#: Seconds that processes get between SIGTERM and SIGKILL where nobody says otherwise.
GRACE = 10.0
#: Seconds that `Supervisor.close` waits for processes which SIGKILL does not end (stuck in the kernel).
STUCK = 30.0


class SupervisorLost(TokenpoolError):
    """The supervisor process died, or was closed, and the command with it; how far that came is unknown."""


@dataclass(frozen=True)
class Finished:
    """How a command ended. `error` says why it could not be started at all (returncode 127: no such command, 126)."""

    returncode: int  # negative: the signal that ended it
    cpu_seconds: float  # user and system, of the command and the children it waited for
    max_rss_mb: float  # MiB, of the largest of these processes; a few are the supervisor's own, before exec
    seconds: float  # from start to the end of the last of its processes
    timed_out: bool
    killed: bool  # its main process was alive when it was told to end, by a timeout or `Child.kill`
    error: str = ""


class Child:
    """A command that was started; may be asked from any thread, and killed from a signal handler."""

    def __init__(self, link: _Link, key: str, mark: str, stderr: str, timeout: float | None, grace: float) -> None:
        self.pid = 0  # known once `started` has returned
        self.key = key
        self.mark = mark
        self._link, self._stderr, self._timeout, self._grace = link, stderr, timeout, grace
        self._started_at = 0.0
        self._timed_out = False
        self._begun, self._over = threading.Event(), threading.Event()
        self._result: Finished | None = None  # None, once over: the supervisor was lost

    def started(self) -> int:
        """Wait until the command has started and return its pid; 0 if it could not be."""
        self._link.check_process()
        self._begun.wait()
        return self.pid

    def wait(self) -> Finished:
        """Wait until nothing of the command is left, killing it at its timeout. Raises SupervisorLost."""
        self._link.check_process()
        if self._timeout is not None:
            self._begun.wait()  # the time that the supervisor takes is not the command's
            if not self._over.wait(max(0.0, self._started_at + self._timeout - time.monotonic())):
                self._timed_out = True
                self.kill(self._grace)
        self._over.wait()
        if self._result is None:
            raise SupervisorLost(f"The supervisor of process {self.pid} is gone", "The token can be run again.")
        return self._result

    @property
    def supervisor(self) -> int:
        """The pid of the process that it runs under, which also adopts what its processes leave behind."""
        return self._link.process.pid

    def kill(self, grace: float = GRACE) -> None:
        """End the whole tree: SIGTERM, and SIGKILL after `grace` seconds. Returns at once."""
        self._link.send({"do": "kill", "key": self.key, "grace": grace})

    def signal(self, signum: int) -> None:
        """Send `signum` to the whole tree. Returns at once."""
        self._link.send({"do": "signal", "key": self.key, "signum": int(signum)})

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in what the supervisor tells about this command."""
        kind = event["event"]
        if kind == "started":
            self.pid, self._started_at = event["pid"], time.monotonic()
        elif kind == "failed":
            _append(self._stderr, f"tokenpool: cannot start: {event['message']}\n")
            self.settle(Finished(event["code"], 0.0, 0.0, 0.0, False, False, event["message"]))
        else:
            code, cpu, rss = event["returncode"], event["cpu_seconds"], event["max_rss_mb"]
            killed = event["killed"]
            self.settle(Finished(code, cpu, rss, event["seconds"], self._timed_out and killed, killed))
        self._begun.set()

    def strike(self, signum: int) -> bool:
        """Signal the tree without the supervisor; tell whether any of it is alive."""
        return hunt([self.pid], self.mark, signum)

    def settle(self, result: Finished | None) -> None:
        """Release all who wait."""
        self._result = result
        self._begun.set()
        self._over.set()


class Supervisor:
    """Runs commands under one small process that lets none of them outlive this one, however it ends.

    The process is started at the first use, again after it was lost, and anew in a forked child. Thread-safe.
    """

    def __init__(self) -> None:
        self._keys = itertools.count(1)
        self._id = uuid.uuid4().hex
        self._guards: dict[int, str] = {}
        self._closed = False
        self._link: _Link | None = None
        self._lock = threading.Lock()
        me = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(me()))

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The supervisor's process id; starts it if need be."""
        return self._connected().process.pid

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: Path | None,
        stderr: Path | None,
        stdin: Path | None = None,
        timeout: float | None = None,
        grace: float = GRACE,
        on_start: Callable[[int], None] | None = None,
    ) -> Finished:
        """Run a command to its end; `on_start` gets its pid. Arguments and errors as for `start` and `Child.wait`."""
        child = self.start(
            argv, cwd=cwd, env=env, stdout=stdout, stderr=stderr, stdin=stdin, timeout=timeout, grace=grace
        )
        try:
            if on_start is not None and child.started():
                on_start(child.pid)
            return child.wait()
        except BaseException:  # nobody else knows this child
            child.kill(0)
            raise

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: Path | None,
        stderr: Path | None,
        stdin: Path | None = None,
        timeout: float | None = None,
        grace: float = GRACE,
        cpus: Sequence[int] = (),
    ) -> Child:
        """Start a command in a session of its own, with `env` as its whole environment; returns at once.

        `stdin`, `stdout` and `stderr` are files, None = /dev/null; output is appended. `timeout` and `grace` are
        seconds, enforced by `Child.wait`. A command that cannot be started is a `Finished` with 126 or 127; that
        message is in the file `stderr` too. It is bound to the CPUs with the numbers `cpus`, where there are any and
        the system can. Raises SupervisorLost if there is no supervisor to be had.
        """
        link = self._connected()
        key = str(next(self._keys))
        environment = dict(env)
        if environment.get(ATTEMPT) in (None, "", os.environ.get(ATTEMPT)):  # an outer token's mark would match us too
            environment[ATTEMPT] = f"{self._id}.{key}"
        folder = os.path.abspath(cwd)
        request: dict[str, Any] = {"do": "run", "key": key, "argv": list(argv), "cwd": folder, "env": environment}
        if cpus:
            request["cpus"] = list(cpus)
        for name, path in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            request[name] = "" if path is None else os.path.abspath(path)
        child = Child(link, key, f"{ATTEMPT}={environment[ATTEMPT]}", str(request["stderr"]), timeout, grace)
        link.adopt(child)
        link.send(request)
        return child

    def guard(self, pid: int, mark: str = "") -> None:
        """Have the tree and group of `pid`, and all with `mark` (``NAME=value``) in their environment, end with us."""
        link = self._connected()
        self._guards[pid] = mark
        link.send({"do": "guard", "pid": pid, "mark": mark})

    def unguard(self, pid: int) -> None:
        """Forget a guarded process."""
        self._guards.pop(pid, None)
        if self._link is not None:
            self._link.send({"do": "unguard", "pid": pid})

    def close(self) -> None:
        """Kill whatever still runs, wait until it is gone, and end the supervisor; for good."""
        with self._lock:
            self._closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def _connected(self) -> _Link:
        with self._lock:
            if self._closed:
                raise SupervisorLost("The supervisor was closed")
            if self._link is None or self._link.lost:
                self._link = _Link()
                for pid, mark in list(self._guards.items()):
                    self._link.send({"do": "guard", "pid": pid, "mark": mark})
            return self._link


def _forget(supervisor: Supervisor | None) -> None:
    """In a forked child: let go of the parent's supervisor; the next use starts an own one."""
    if supervisor is not None:
        link, supervisor._link = supervisor._link, None
        supervisor._lock = threading.Lock()  # another thread may have held it
        supervisor._guards.clear()
        if link is not None:
            link.drop()


class _Link:
    """The connection with one supervisor process."""

    def __init__(self) -> None:
        self.lost = False
        self.children: dict[str, Child] = {}
        self._outbox: deque[bytes] = deque()
        self._sending = threading.Lock()
        self._owner = os.getpid()
        self.socket, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = _start_supervisor(theirs)
        except SupervisorLost:
            self.socket.close()
            raise
        self._reader = threading.Thread(target=self._read, name="tokenpool-supervisor", daemon=True)
        self._reader.start()

    def check_process(self) -> None:
        """Raise SupervisorLost in a forked child: the supervisor, and its commands, are the parent's."""
        if self._owner != os.getpid():
            raise SupervisorLost("The command belongs to the process that this one was forked from")

    def adopt(self, child: Child) -> None:
        """Pass the supervisor's news about `child` on to it."""
        self.children[child.key] = child
        if self.lost:  # set before `_read` looks at the children: one of the two sees the other
            child.settle(None)

    def send(self, request: Mapping[str, Any]) -> None:
        """Send one request; if a thread is sending, it takes this one along.

        So a signal handler may come here while its own thread is inside. Nothing is raised: a dead supervisor is
        found by `_read`, which settles all children.
        """
        self._outbox.append(json.dumps(request).encode() + b"\n")
        while self._outbox and self._owner == os.getpid() and self._sending.acquire(blocking=False):
            try:
                while self._outbox:
                    self.socket.sendall(self._outbox.popleft())
            except OSError:
                self._outbox.clear()
            except BaseException:  # raised by a signal handler: half a line may be out, nothing sane can follow
                self.socket.shutdown(socket.SHUT_WR)
                raise
            finally:
                self._sending.release()

    def _read(self) -> None:
        """Pass events on until the supervisor is gone; then end what it left behind and settle everybody."""
        rest = b""
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._dispatch(json.loads(line))
        self.process.wait()
        self.lost = True
        left = list(self.children.values())
        exterminate([child.strike for child in left if child.pid])
        for child in left:
            child.settle(None)
        self.socket.close()

    def _dispatch(self, event: Mapping[str, Any]) -> None:
        key = event["key"]
        child = self.children.get(key)
        if event["event"] != "started":
            self.children.pop(key, None)
        if child is not None:
            child.hear(event)

    def close(self) -> None:
        """Hang up; the supervisor kills everything and exits."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already
        self._reader.join(STUCK)

    def drop(self) -> None:
        """In a forked child: let go without a word, or the parent's supervisor would think that we are the parent."""
        self.socket.close()
        self.process.returncode = 0  # not our child: nothing to wait for
        self.lost = True


def _start_supervisor(channel: socket.socket) -> subprocess.Popen[bytes]:
    """Start the supervisor; its program goes through stdin, as it may be in a zip, and `ps` should stay readable."""
    source = pkgutil.get_data(__package__, "supervisor.py") or b""
    alone = ["-s"] if "PYTHONHOME" in os.environ else ["-I"]  # a relocated Python finds its library only with that
    python = [sys.executable or "python3", *alone, "-S", "-X", "utf8", "-"]
    fd = channel.fileno()
    try:
        process = subprocess.Popen(
            [*python, "tokenpool-supervisor", str(fd), str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[fd], start_new_session=True, cwd="/",
        )  # fmt: skip
    except OSError as error:
        raise SupervisorLost(f"The supervisor cannot be started: {error}") from error
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write(source)
    except BrokenPipeError:
        pass  # it died at once: `_Link._read` will notice
    return process


def exterminate(left: Sequence[Callable[[int], bool]]) -> None:
    """Send SIGKILL by each of these until it finds nobody alive; 5 seconds at most."""
    until = time.monotonic() + GIVE_UP
    while left and time.monotonic() < until:
        left = [strike for strike in left if strike(signal.SIGKILL)]
        time.sleep(0.01 if left else 0)


def _append(path: str, text: str) -> None:
    try:
        with open(path or os.devnull, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError:
        pass  # it stands in `Finished.error` as well

"""Runs tokens' commands under the supervisor process, seen from the worker: start, wait, signal, kill."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from .links import Link, SupervisorLost
from .processes import ATTEMPT, hunt

Path = Union[str, "os.PathLike[str]"]

#: Seconds that processes get between SIGTERM and SIGKILL where nobody says otherwise.
GRACE = 10.0
#: Seconds that `Supervisor.close` waits for processes which SIGKILL does not end (stuck in the kernel).
STUCK = 30.0


OnEnd = Callable[["Child"], None]


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
    began: float = 0.0  # seconds since 1970


class Child:
    """A command that was started; may be asked from any thread, and killed from a signal handler."""

    def __init__(self, link: Link, key: str, mark: str, stderr: str, on_end: OnEnd | None = None) -> None:
        self.pid = 0  # known once `started` has returned
        self.key = key
        self.mark = mark
        self._link, self._stderr, self._on_end = link, stderr, on_end
        self._begun = self._over = False
        self._news: threading.Event | None = None  # made where somebody waits: most children are not waited for
        self._result: Finished | None = None  # None, once over: the supervisor was lost

    def started(self) -> int:
        """Wait until the command has started and return its pid; 0 if it could not be."""
        self._wait(lambda: self._begun)
        return self.pid

    def wait(self) -> Finished:
        """Wait until nothing of the command is left. Raises SupervisorLost."""
        self._wait(lambda: self._over)
        return self.result()

    def result(self) -> Finished:
        """Return how the command ended, once it has. Raises SupervisorLost."""
        if self._result is None:
            raise SupervisorLost(f"The supervisor of process {self.pid} is gone", "The token can be run again.")
        return self._result

    def _wait(self, condition: Callable[[], bool]) -> None:
        self._link.check_process()
        while True:
            with self._link.lock:
                if condition():
                    return
                if self._news is None or self._news.is_set():
                    self._news = threading.Event()
                news = self._news
            news.wait()

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
            self.pid = event["pid"]
            with self._link.lock:
                self._tell(over=False)
        elif kind == "failed":
            _append(self._stderr, f"tokenpool: cannot start: {event['message']}\n")
            self.settle(Finished(event["code"], 0.0, 0.0, 0.0, False, False, event["message"]))
        elif kind == "dropped":
            self.settle(Finished(-signal.SIGTERM, 0.0, 0.0, 0.0, False, True))
        else:
            code, cpu, rss = event["returncode"], event["cpu_seconds"], event["max_rss_mb"]
            self.settle(
                Finished(code, cpu, rss, event["seconds"], event["timed_out"], event["killed"], began=event["began"])
            )

    def strike(self, signum: int) -> bool:
        """Signal the tree without the supervisor; tell whether any of it is alive."""
        return hunt([self.pid] if self.pid else [], self.mark, signum)

    def settle(self, result: Finished | None) -> None:
        """Release all who wait."""
        with self._link.lock:
            if self._over:
                return
            self._result = result
            self._tell(over=True)
        if self._on_end is not None:
            self._on_end(self)

    def _tell(self, over: bool) -> None:
        self._begun = True
        self._over = self._over or over
        if self._news is not None:
            self._news.set()


class Supervisor:
    """Runs commands under one small process that lets none of them outlive this one, however it ends.

    The process is started at the first use, again after it was lost, and anew in a forked child. Thread-safe.
    """

    def __init__(self, base: Mapping[str, str] | None = None) -> None:
        self._base = base or {}
        self._keys = itertools.count(1)
        self._id = uuid.uuid4().hex
        self._guards: dict[str, int] = {}
        self._width = 1
        self._closed = False
        self._link: Link | None = None
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
            argv, cwd=cwd, env=env, stdout=stdout, stderr=stderr, stdin=stdin, timeout=timeout, grace=grace,
            tell=on_start is not None,
        )  # fmt: skip
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
        inherit: bool = False,
        tell: bool = True,
        queued: bool = False,
        on_end: OnEnd | None = None,
        more: bool = False,
    ) -> Child:
        """Start a command in a session of its own, with `env` as its whole environment; returns at once.

        `stdin`, `stdout` and `stderr` are files, None = /dev/null; output is appended. After `timeout` seconds the
        tree is ended, with `grace` seconds to do so. A command that cannot be started is a `Finished` with 126 or
        127; that message is in the file `stderr` too. It is bound to the CPUs with the numbers `cpus`, where there are
        any and the system can. Raises SupervisorLost if there is no supervisor to be had.

        `inherit`: `env` is added to the supervisor's `base`. `queued`: it waits for its turn (`widen`). `on_end` is
        called in another thread when it is over. `more`: it may be held back until `push`.
        """
        link = self._connected()
        key = str(next(self._keys))
        environment = dict(env)
        if environment.get(ATTEMPT) in (None, "", os.environ.get(ATTEMPT)):  # an outer token's mark would match us too
            environment[ATTEMPT] = f"{self._id}.{key}"
        request: dict[str, Any] = {
            "do": "run",
            "key": key,
            "argv": list(argv),
            "cwd": _absolute(cwd),
            "env": environment,
        }
        if cpus:
            request["cpus"] = list(cpus)
        for name, path in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            request[name] = "" if path is None else _absolute(path)
        for name, value in (("timeout", timeout), ("tell", tell), ("queued", queued), ("inherit", inherit)):
            if value:
                request[name] = value
        if timeout is not None:
            request["grace"] = grace
        child = Child(link, key, f"{ATTEMPT}={environment[ATTEMPT]}", request["stderr"], on_end)
        link.adopt(child)
        link.send(request, more)
        return child

    def widen(self, n: int) -> None:
        """Let so many queued commands go on at a time."""
        self._width = n  # a supervisor that is not there yet hears it when it comes
        if self._link is not None:
            self._link.send({"do": "width", "n": n})

    def push(self) -> None:
        """Send what was held back with `more`."""
        if self._link is not None:
            self._link.push()

    def guard(self, mark: str, pid: int = 0) -> None:
        """Have all with `mark` (``NAME=value``) in their environment, and the tree and group of `pid`, end with us.

        Said before the process is started, and again with its pid, there is no moment without a guard.
        """
        link = self._connected()
        self._guards[mark] = pid
        link.send({"do": "guard", "mark": mark, "pid": pid})

    def unguard(self, mark: str) -> None:
        """Forget what is guarded by this mark."""
        self._guards.pop(mark, None)
        if self._link is not None:
            self._link.send({"do": "unguard", "mark": mark})

    def close(self) -> None:
        """Kill whatever still runs, wait until it is gone, and end the supervisor; for good."""
        with self._lock:
            self._closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def _connected(self) -> Link:
        with self._lock:
            if self._closed:
                raise SupervisorLost("The supervisor was closed")
            if self._link is None or self._link.lost:
                self._link = Link()
                self._link.send({"do": "base", "env": dict(self._base)}, more=True)
                self._link.send({"do": "width", "n": self._width})
                for mark, pid in list(self._guards.items()):
                    self._link.send({"do": "guard", "mark": mark, "pid": pid})
            return self._link


def _forget(supervisor: Supervisor | None) -> None:
    """In a forked child: let go of the parent's supervisor; the next use starts an own one."""
    if supervisor is not None:
        link, supervisor._link = supervisor._link, None
        supervisor._lock = threading.Lock()  # another thread may have held it
        supervisor._guards.clear()
        if link is not None:
            link.drop()


def _absolute(path: Path) -> str:
    return path if isinstance(path, str) and path.startswith("/") else os.path.abspath(path)


def _append(path: str, text: str) -> None:
    try:
        with open(path or os.devnull, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError:
        pass  # it stands in `Finished.error` as well

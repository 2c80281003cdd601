"""The line between a worker and its supervisor process: starts that process, sends requests, passes its news on."""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .errors import TokenpoolError
from .supervisor import GIVE_UP

#: Seconds that `Link.close` waits for processes which SIGKILL does not end (stuck in the kernel).
STUCK = 30.0
#: What the supervisor process consists of.
MODULES = ("processes", "supervisor")


class SupervisorLost(TokenpoolError):
    """The supervisor process died, or was closed, and the command with it; how far that came is unknown."""


class Listener(Protocol):
    """A command, as the line knows it."""

    key: str

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in what the supervisor tells about it."""

    def settle(self, result: None) -> None:
        """The supervisor is gone."""

    def strike(self, signum: int) -> bool:
        """Signal it without the supervisor; tell whether any of it is alive."""


class Link:
    """The connection with one supervisor process."""

    def __init__(self) -> None:
        self.lost = False
        self.children: dict[str, Listener] = {}
        self.lock = threading.Lock()
        self._outbox: deque[Mapping[str, Any]] = deque()
        self._sending = threading.Lock()
        self._owner = os.getpid()
        self.socket, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = start_supervisor(theirs)
        except SupervisorLost:
            self.socket.close()
            raise
        self._reader = threading.Thread(target=self._read, name="tokenpool-supervisor", daemon=True)
        self._reader.start()

    def check_process(self) -> None:
        """Raise SupervisorLost in a forked child: the supervisor, and its commands, are the parent's."""
        if self._owner != os.getpid():
            raise SupervisorLost("The command belongs to the process that this one was forked from")

    def adopt(self, child: Listener) -> None:
        """Pass the supervisor's news about `child` on to it."""
        self.children[child.key] = child
        if self.lost:  # set before `_read` looks at the children: one of the two sees the other
            child.settle(None)

    def send(self, request: Mapping[str, Any], more: bool = False) -> None:
        """Send one request, or hold it back while there are `more`; if a thread is sending, it takes this one along.

        So a signal handler may come here while its own thread is inside. Nothing is raised: a dead supervisor is
        found by `_read`, which settles all children.
        """
        self._outbox.append(request)
        if not more:
            self.push()

    def push(self) -> None:
        """Send all that waits, in one write."""
        while self._outbox and self._owner == os.getpid() and self._sending.acquire(blocking=False):
            try:
                while self._outbox:
                    together = [self._outbox.popleft() for _ in range(len(self._outbox))]
                    self.socket.sendall(json.dumps(together).encode() + b"\n")
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
                for event in json.loads(line):
                    self._dispatch(event)
        self.process.wait()
        self.lost = True
        left = list(self.children.values())
        exterminate([child.strike for child in left])
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


def start_supervisor(channel: socket.socket) -> subprocess.Popen[bytes]:
    """Start the supervisor; its program goes through stdin, as it may be in a zip, and `ps` should stay readable."""
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
            pipe.write(program().encode())
    except BrokenPipeError:
        pass  # it died at once: `Link._read` will notice
    return process


def program() -> str:
    """Return the supervisor as one text with its modules inside: there may be no files to import them from."""
    sources = [(name, (pkgutil.get_data(__package__, f"{name}.py") or b"").decode()) for name in MODULES]
    return f"""import sys
modules = sys.modules
modules["tokenpool"] = type(sys)("tokenpool")
modules["tokenpool"].__path__ = []
for name, text in {sources!r}:
    module = modules["tokenpool." + name] = type(sys)("tokenpool." + name)
    module.__package__ = "tokenpool"
    exec(compile(text, name, "exec"), module.__dict__)
module.main(int(sys.argv[2]), int(sys.argv[3]))
"""


def exterminate(left: Sequence[Callable[[int], bool]]) -> None:
    """Send SIGKILL by each of these until it finds nobody alive; 5 seconds at most."""
    until = time.monotonic() + GIVE_UP
    while left and time.monotonic() < until:
        left = [strike for strike in left if strike(signal.SIGKILL)]
        time.sleep(0.01 if left else 0)

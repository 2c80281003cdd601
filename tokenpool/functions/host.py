"""The process in which functions run: it makes one call after another, and leaves when one left something behind.

A warm host takes its calls from a socket that all hosts of a worker share, so whoever is free has the next one, and tells
the worker on a connection of its own: ``took``, then ``done``. A cold host makes one call and ends. Its main thread runs
the functions, as a script's does.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from ..processes import children, family, send
from .calls import Caller, Rules

Json = dict[str, Any]

#: Bytes of the largest request.
LARGEST = 1 << 17
#: MiB that one call may add to the memory of the process that runs the next ones.
GROWTH = 256
PR_SET_CHILD_SUBREAPER = 36
#: What a token may find changed in its variables by the one before it: nothing.
MARK = "TOKENPOOL_CLAIM"


class Told(BaseException):
    """This process is told to end; no function catches it by accident."""


def main(kind: str, *words: str) -> None:
    """Serve the worker whose socket is `words[0]`, or make the one call of a file."""
    signal.signal(signal.SIGTERM, _leave)
    become_subreaper()
    try:
        if kind == "once":
            once(*words)
        else:
            Host(*words).serve()
    except Told:
        _end(128 + signal.SIGTERM)


def once(request: str, answer: str) -> None:
    """Make one call, in the environment and with the output that this process was given."""
    asked = json.loads(Path(request).read_text("utf-8"))
    told = Caller(_rules(asked["rules"])).answer(asked)
    _flush()
    part = Path(f"{answer}.part")
    part.write_text(json.dumps(told), "utf-8")
    part.replace(answer)
    _end()


class Host:
    """A warm host."""

    def __init__(self, path: str, number: str) -> None:
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(path)
        self._link.sendall(json.dumps({"host": int(number)}).encode() + b"\n")
        data, fds, _, _ = socket.recv_fds(self._link, 1 << 16, 1)
        self._queue = socket.socket(fileno=fds[0])
        self._caller = Caller(_rules(json.loads(data)))
        self._clean = dict(os.environ)
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._std = sys.stdin, sys.stdout, sys.stderr
        self._threads = threading.active_count()
        self._signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}

    def serve(self) -> None:
        """Make calls until the worker is gone, or this process is not as it was."""
        news = b""
        while True:
            try:
                data = self._queue.recv(LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if news:
                    self._link.sendall(news)
                    news = b""
                data = self._queue.recv(LARGEST)
            if not data:
                return
            call = json.loads(data)
            if "quit" in call:
                self._link.sendall(news + b'{"quit":1}\n')
                return
            if "file" in call:
                call = json.loads(Path(call["file"]).read_text("utf-8"))
            self._link.sendall(news + b'{"took":%d}\n' % call["n"])
            told = self._make(call)
            news = json.dumps(told).encode() + b"\n"
            if told.get("leave"):
                self._link.sendall(news)
                _end()

    def _make(self, call: Json) -> Json:
        """Make one call in its own places, and put everything back."""
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        _redirect(call["out"], call["err"])
        os.chdir(call["work"])
        own = {**call["env"], MARK: self._clean.get(MARK, "")}  # its mark: what it starts is ended with this process
        os.environ.update(own)
        told = self._caller.answer(call)
        _flush()
        left = self._tidy(own)
        after = resource.getrusage(resource.RUSAGE_SELF)
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        told.update(
            done=call["n"],
            seconds=time.monotonic() - began,
            cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            rss=after.ru_maxrss / unit,
        )
        if left or (after.ru_maxrss - before.ru_maxrss) / unit > GROWTH:
            told["leave"] = True
        return told

    def _tidy(self, own: Json) -> bool:
        """End what the call left running and undo what it changed; tell whether something is left that cannot be."""
        left = end_children()
        sys.stdin, sys.stdout, sys.stderr = self._std
        if os.environ != {**self._clean, **own}:
            os.environ.clear()
            os.environ.update(self._clean)
        os.umask(self._umask)
        for number, handler in self._signals.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        return left or threading.active_count() > self._threads


def end_children() -> bool:
    """Kill what the call started and did not wait for, also what hides as a daemon; tell whether there was anything."""
    killed = False
    pause = 0.0005
    while children(os.getpid()):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        found = family(os.getpid())[1:]
        if found:
            killed = True
            send(found, signal.SIGKILL)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
    return killed


def become_subreaper() -> None:
    """Let what a call starts stay below this process, however often it forks; only Linux can."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


def _rules(told: Json) -> Rules:
    return Rules(tuple(told["modules"]), told["pickles"], told["attach_limit"])


def _redirect(out: str, err: str) -> None:
    for path, target in ((out, 1), (err, 2)):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(fd, target)
        os.close(fd)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the function closed it, or the disk is full


def _leave(signum: int, frame: Any) -> NoReturn:
    """Told to end: `finally` blocks of the function run."""
    raise Told


def _end(code: int = 0) -> NoReturn:
    """End without waiting for threads that a function left."""
    _flush()
    os._exit(code)

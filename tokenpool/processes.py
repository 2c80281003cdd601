"""Finds, signals and starts processes, for the supervisor and for those who look after it.

Like `supervisor` it is fed to a bare Python as text, so it imports only cheap parts of the standard library.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would double the start-up time
    from collections.abc import Callable, Iterable
    from typing import Any

ATTEMPT = "TOKENPOOL_CLAIM"  # the environment variable whose value marks a run's processes, however they hide
DEFAULTS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})  # as in a shell; Python ignores SIGPIPE
# A session of its own needs glibc 2.26, musl or macOS 10.15; there, not every Python knows it.
OWN_SESSION: dict[str, Any] = {"setpgroup": 0} if sys.platform == "darwin" else {"setsid": True}
HAS_PROC = os.path.isdir("/proc/self/fd")
HAS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # a kernel option, nearly always on


def children(pid: int) -> list[int]:
    """Return the direct children of `pid`, zombies included; empty without /proc."""
    if not HAS_CHILDREN:
        return [each for each in _pids() if stat_fields(each)[1:2] == [b"%d" % pid]]
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # it ended meanwhile
    return found


class Kin:
    """Lists the direct children of this process, which has one thread, for the price of one system call."""

    def __init__(self) -> None:
        pid = os.getpid()
        self._fd = os.open(f"/proc/self/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC) if HAS_CHILDREN else -1

    def pids(self) -> list[int]:
        """Return the children, zombies included; empty without /proc."""
        if self._fd < 0:
            return children(os.getpid())
        found = os.pread(self._fd, 1 << 16, 0)
        at = len(found)
        while at and at % 4096 == 0:  # the kernel may stop at a page
            more = os.pread(self._fd, 1 << 16, at)
            found += more
            at += len(more) or 1
        return list(map(int, found.split()))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()] if HAS_PROC else []


def stat_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat after the name (state, parent, group, ...); empty if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def birth(pid: int) -> int:
    """Return when `pid` started, in clock ticks since boot: with the pid, the identity of a process; 0 unknown."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def family(pid: int) -> list[int]:
    """Return `pid` and all processes below it, parents first."""
    found = [pid]
    for member in found:  # grows while it is walked
        found += children(member)
    return found


def is_marked(pid: int, mark: str) -> bool:
    """Tell whether `pid` was started with `mark` (``NAME=value``) in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return b"\0" + os.fsencode(mark) + b"\0" in b"\0" + file.read()
    except OSError:
        return False


def send(pids: Iterable[int], signum: int, kill: Callable[[int, int], None] = os.kill) -> None:
    """Send `signum` to each process (`os.killpg`: group); those gone, or not ours, are passed over."""
    for pid in pids:
        try:
            kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            pass


def hunt(leaders: list[int], mark: str, signum: int) -> bool:
    """Signal the trees and groups of `leaders`, and all who bear `mark`; tell whether any of these was alive.

    Who wants them all dead asks until none was: one of them may have started another after we looked.
    """
    found: set[int] = {pid for pid in _pids() if is_marked(pid, mark)} if mark else set()
    for pid in leaders:
        found.update(family(pid))
    found.discard(os.getpid())
    living = sorted(pid for pid in found if stat_fields(pid)[:1] not in ([], [b"Z"]))
    send(leaders, signum, os.killpg)
    send(living, signum)  # parents first: a shell whose command was killed says so in the log
    return bool(living)


def find(command: str, env: dict[bytes, bytes]) -> str:
    """Return the executable that `command` names on the PATH of `env`, as execvp finds it.

    Raises FileNotFoundError, PermissionError.
    """
    denied = ""
    folders = [""] if "/" in command else (os.fsdecode(env.get(b"PATH", b"")) or os.defpath).split(os.pathsep)
    for folder in folders:
        path = os.path.join(folder, command)
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path if "/" in path else "./" + path
        denied = denied or (path if os.path.exists(path) else "")
    if denied:
        raise PermissionError(errno.EACCES, "Is not an executable file", denied)
    raise FileNotFoundError(errno.ENOENT, "Command not found", command)


def pin(cpus: Iterable[int]) -> set[int]:
    """Bind this process to `cpus`; return to which it was bound, or nothing where it still is."""
    try:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cpus)
        return before
    except (AttributeError, OSError):  # not Linux; or these are not ours any more: better unbound than not at all
        return set()


def spawn(request: dict[str, Any], env: dict[bytes, bytes]) -> int:
    """Start the command of a ``run`` request in its own session and return its pid.

    posix_spawn is vfork everywhere: Popen costs four times as much on Python 3.9. What it cannot do, directory and
    CPUs, this single-threaded process does around it. Errors: OSError, its `filename` the culprit; ValueError.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    opened: list[int] = []
    bound: set[int] = set()
    try:
        for name, flags in (("stdin", os.O_RDONLY), ("stdout", append), ("stderr", append)):
            opened.append(os.open(request[name] or os.devnull, flags, 0o666))
        os.chdir(request["cwd"])
        argv = request["argv"]
        path = argv[0] if "/" in argv[0] else find(argv[0], env)
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(opened)]
        bound = pin(request["cpus"]) if request.get("cpus") else bound
        try:
            return os.posix_spawn(
                path, argv, env, file_actions=actions, setsigmask=(), setsigdef=DEFAULTS, **OWN_SESSION
            )
        except OSError as error:
            find(path, env)  # looked at only now: it says better what is wrong
            if error.errno != errno.ENOENT:
                raise
            raise FileNotFoundError(errno.ENOENT, "The interpreter in its first line was not found", path) from None
    finally:
        if bound:
            pin(bound)
        os.chdir("/")  # or the token's directory could not be unmounted
        for fd in opened:
            os.close(fd)

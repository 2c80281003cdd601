"""The small process under which all tokens of a worker run: it starts, measures and ends them, and outlives none.

Its text is fed to ``python -I -S -`` by `tokenpool.executers`, also from inside a zip file, so it imports nothing but
cheap parts of the standard library. It reads one JSON request a line and answers one JSON event a line:

==========================================================  =====================================================
``run`` key argv cwd env stdin stdout stderr                ``started`` key pid, or ``failed`` key code errno message
(paths; output is appended), and maybe cpus (numbers)       and then ``exited`` key returncode cpu_seconds
                                                            max_rss_mb seconds
``signal`` key signum, ``kill`` key grace (s)               both reach the whole tree of the key
``guard`` pid mark, ``unguard`` pid                         somebody else's process, killed if the worker dies
==========================================================  =====================================================

At the end of its input, or of the worker, it kills every process below itself and exits.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would double the start-up time
    from collections.abc import Callable, Iterable
    from typing import Any

ATTEMPT = "TOKENPOOL_CLAIM"  # the environment variable whose value marks a run's processes, however they hide
GIVE_UP = 5.0  # s; what survives SIGKILL this long (stuck in the kernel, or another user's) is not waited for
AGAIN = 0.05  # s between two looks at something that was killed and is still there
PR_SET_CHILD_SUBREAPER = 36
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
    """Signal the trees and groups of `leaders`, and all who bear `mark`; tell whether any of these is alive."""
    found: set[int] = {pid for pid in _pids() if is_marked(pid, mark)} if mark else set()
    for pid in leaders:
        found.update(family(pid))
    send(leaders, signum, os.killpg)
    found.discard(os.getpid())
    send(found, signum)
    return any(stat_fields(pid)[:1] not in ([], [b"Z"]) for pid in found)


def find(command: str, env: dict[str, str]) -> str:
    """Return the executable that `command` names on the PATH of `env`, as execvp finds it.

    Raises FileNotFoundError, PermissionError.
    """
    denied = ""
    folders = [""] if "/" in command else (env.get("PATH") or os.defpath).split(os.pathsep)
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


def spawn(request: dict[str, Any]) -> int:
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
        argv, env = request["argv"], request["env"]
        path = find(argv[0], env)
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(opened)]
        bound = pin(request["cpus"]) if request.get("cpus") else bound
        try:
            return os.posix_spawn(
                path, argv, env, file_actions=actions, setsigmask=(), setsigdef=DEFAULTS, **OWN_SESSION
            )
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "The interpreter in its first line was not found", path) from None
    finally:
        if bound:
            pin(bound)
        os.chdir("/")  # or the token's directory could not be unmounted
        for fd in opened:
            os.close(fd)


class Run:
    """One command from its start until nothing of it is left."""

    def __init__(self, key: str, mark: str) -> None:
        self.key = key
        self.mark = mark
        self.pid = 0
        self.started = time.monotonic()
        self.status: int | None = None  # as wait4 gave it, once the main process has ended
        self.kill_at = float("inf")  # when its tree gets SIGKILL (monotonic)
        self.killed = False  # told to end while its main process lived
        self.cpu, self.maxrss = 0.0, 0

    def measure(self, usage: Any) -> None:
        """Add what wait4 says that a process and the children it waited for have used."""
        self.cpu += usage.ru_utime + usage.ru_stime
        self.maxrss = max(self.maxrss, usage.ru_maxrss)

    def report(self) -> dict[str, Any]:
        """Return the ``exited`` event."""
        status = self.status or 0
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return {
            "event": "exited", "key": self.key, "returncode": code, "cpu_seconds": round(self.cpu, 6),
            "max_rss_mb": round(self.maxrss / unit, 3), "seconds": round(time.monotonic() - self.started, 6),
            "killed": self.killed,
        }  # fmt: skip


class Warden:
    """Serves one worker: its requests, its children's ends, and its own end."""

    def __init__(self, channel: int, worker: int) -> None:
        self.channel, self.worker = channel, worker
        self.runs: dict[str, Run] = {}
        self.mains: dict[int, Run] = {}  # runs whose main process lives, by its pid
        self.due: dict[str, Run] = {}  # runs to look at again: to be killed, or ended with something left
        self.strays: dict[int, set[str]] = {}  # processes re-parented to us, and the runs they may be of
        self.guards: dict[int, tuple[int, str]] = {}  # others' processes: birth and mark
        self.events: list[dict[str, Any]] = []
        self.input = b""
        self.alive = True

    def serve(self, wake: int) -> None:
        """Work until the worker is gone; `wake` becomes readable at each SIGCHLD."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(wake, select.POLLIN)
        try:  # forked copies of the worker may hold its end of the channel open: its own end counts too
            poll.register(os.pidfd_open(self.worker), select.POLLIN)  # type: ignore[attr-defined,unused-ignore]
        except (AttributeError, OSError):
            pass
        self.alive = os.getppid() == self.worker
        while self.alive:
            for fd, _ in poll.poll(self.patience()):
                if fd == self.channel:
                    self.read()
                elif fd == wake:
                    os.read(wake, 4096)
                    self.reap()
                else:
                    self.alive = False
            for run in list(self.due.values()):
                self.attend(run)
            self.flush()
        os.set_blocking(self.channel, False)
        self.read()  # what the worker asked for just before its end: a process to guard

    def patience(self) -> float | None:
        """Return for how many milliseconds there is nothing to do; None = for ever."""
        return 1000 * max(AGAIN, min(r.kill_at for r in self.due.values()) - time.monotonic()) if self.due else None

    def read(self) -> None:
        """Take in what the worker sent and obey each full line."""
        try:
            data = os.read(self.channel, 1 << 18)
        except OSError:
            data = b""
        self.alive = bool(data)
        *lines, self.input = (self.input + data).split(b"\n")
        for line in lines:
            self.obey(json.loads(line))

    def flush(self) -> None:
        """Send the events of this round together: each write wakes the worker."""
        data = "".join(json.dumps(event) + "\n" for event in self.events).encode()
        self.events.clear()
        try:
            while data:
                data = data[os.write(self.channel, data) :]
        except OSError:
            self.alive = False

    def obey(self, request: dict[str, Any]) -> None:
        """Do what one line asks; a run that has ended meanwhile is nothing to signal."""
        do, run = request["do"], self.runs.get(request.get("key", ""))
        if do == "run":
            self.start(request)
        elif do == "guard":
            self.guards[request["pid"]] = (birth(request["pid"]), request["mark"])
        elif do == "unguard":
            self.guards.pop(request["pid"], None)
        elif do == "signal" and run:
            self.hit(run, request["signum"])
        elif do == "kill" and run:
            run.kill_at = min(run.kill_at, time.monotonic() + request["grace"])
            run.killed = run.killed or run.status is None
            self.due[run.key] = run
            if request["grace"] > 0:
                self.hit(run, signal.SIGTERM)

    def start(self, request: dict[str, Any]) -> None:
        """Start a command, or say why it cannot be: code 127 if it does not exist, 126 for all other reasons."""
        run = Run(request["key"], f"{ATTEMPT}={request['env'].get(ATTEMPT, '')}")
        try:
            run.pid = spawn(request)
        except (OSError, ValueError, TypeError, LookupError) as error:
            number, what = getattr(error, "errno", 0), getattr(error, "filename", None)
            places = [request[name] for name in ("cwd", "stdin", "stdout", "stderr")]
            code = 127 if number in (errno.ENOENT, errno.ENOTDIR) and what not in places else 126
            message = f"{what}: {getattr(error, 'strerror', '')}" if what else str(error)
            self.events.append({"event": "failed", "key": run.key, "code": code, "errno": number, "message": message})
            return
        self.runs[run.key] = self.mains[run.pid] = run
        self.events.append({"event": "started", "key": run.key, "pid": run.pid})

    def reap(self) -> None:
        """Collect every child that has ended."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            run = self.mains.pop(pid, None)
            if run:
                run.status = status
                run.measure(usage)
                if run.kill_at == float("inf"):  # a token is over when its command is; else the rest has its grace
                    run.kill_at = time.monotonic()
                self.due[run.key] = run
            else:
                owners = self.strays.pop(pid, set(self.runs))
                if len(owners) == 1:
                    self.runs[owners.pop()].measure(usage)

    def leftovers(self, run: Run) -> list[int]:
        """Return the processes that lost their parent and are of no other run than `run`."""
        return [pid for pid in children(os.getpid()) if pid not in self.mains and self.owners(pid) == {run.key}]

    def owners(self, pid: int) -> set[str]:
        """Return the runs that a stray may be of: by its session, by its mark, else all that lived when it was seen."""
        owners = self.strays.setdefault(pid, set(self.runs))
        if len(owners) > 1:  # a process amid execve shows no mark yet, so the doubtful are asked again
            session = stat_fields(pid)[3:4]
            for run in self.runs.values():
                if session == [b"%d" % run.pid] or is_marked(pid, run.mark):
                    self.strays[pid] = owners = {run.key}
                    break
        return owners

    def hit(self, run: Run, signum: int) -> bool:
        """Signal the tree of `run`; tell whether there was one."""
        roots = ([] if run.status is not None else [run.pid]) + self.leftovers(run)
        tree = [pid for root in roots for pid in family(root)]
        send(tree, signum)
        if not HAS_PROC:
            send([run.pid], signum, os.killpg)
        return bool(tree)

    def attend(self, run: Run) -> None:
        """End a run when nothing of it is left; kill what is left when its time is up."""
        now = time.monotonic()
        left = self.hit(run, signal.SIGKILL) if now >= run.kill_at else bool(run.status is None or self.leftovers(run))
        if run.status is not None and (not left or now > run.kill_at + GIVE_UP):
            self.events.append(run.report())
            del self.runs[run.key], self.due[run.key]
            for owners in self.strays.values():
                owners.discard(run.key)

    def end(self) -> None:
        """Kill all that the worker had, and return when nothing is left."""
        pause = 0.001
        while True:
            guarded = [(pid, mark) for pid, (born, mark) in self.guards.items() if birth(pid) in (0, born)]
            busy = [pid for pid, mark in guarded if hunt([pid], mark, signal.SIGKILL)]
            send(family(os.getpid())[1:], signal.SIGKILL)
            send([] if HAS_PROC else self.mains, signal.SIGKILL, os.killpg)
            try:
                while os.wait4(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                if not busy:
                    return
            time.sleep(pause)
            pause = min(2 * pause, 0.2)


def become_subreaper() -> None:
    """Let orphans below us become our children, not init's; only Linux can."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


def main(channel: int, worker: int) -> None:
    """Serve the process `worker` through the socket `channel`."""
    os.set_inheritable(channel, False)
    for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "XCPU", "ALRM", "TSTP"):  # batch systems signal all
        signal.signal(getattr(signal, "SIG" + name), signal.SIG_IGN)  # processes; the worker decides what to do
    become_subreaper()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.chdir("/")
    warden = Warden(channel, worker)
    try:
        warden.serve(wake)
    finally:
        warden.end()


if __name__ == "__main__":
    main(int(sys.argv[2]), int(sys.argv[3]))

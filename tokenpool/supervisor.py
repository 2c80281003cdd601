"""The small process under which all tokens of a worker run: it starts, measures and ends them, and outlives none.

Its text, and that of `processes`, is fed to ``python -I -S -`` by `links`, also from inside a zip file, so they import
nothing but cheap parts of the standard library. It reads one JSON request a line and answers JSON lists of events, one a line:

==========================================================  =====================================================
``base`` env                                                environment of the runs that inherit it
``width`` n                                                 so many queued runs go on at a time
``run`` key argv cwd env stdin stdout stderr inherit        ``started`` key pid, or ``failed`` key code errno message
timeout grace queued tell                                   and then ``exited`` key returncode began seconds
cpus (numbers; paths; output is appended; queued: waits     cpu_seconds max_rss_mb killed timed_out; ``dropped`` key:
for its turn; tell: ``started`` at once, else if it lasts)  it was told to end before its turn came
``signal`` key signum, ``kill`` key grace (s)               both reach the whole tree of the key
``guard`` mark pid (0: about to start), ``unguard`` mark    somebody else's process, killed if the worker dies
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

from .processes import ATTEMPT, HAS_PROC, Kin, birth, family, hunt, is_marked, send, spawn, stat_fields

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would double the start-up time
    from typing import Any

GIVE_UP = 5.0  # s; what survives SIGKILL this long (stuck in the kernel, or another user's) is not waited for
NEWBORN = 1.0  # s that a process which the worker was about to start may take until it bears its mark
AGAIN = 0.05  # s between two looks at something that was killed and is still there
LAZY = 0.02  # s that news may wait for more while the queue keeps the slots busy: each message wakes the worker
PR_SET_CHILD_SUBREAPER = 36


class Run:
    """One command from its start until nothing of it is left."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.key = request["key"]
        self.mark = f"{ATTEMPT}={request['env'].get(ATTEMPT, '')}"
        self.queued = request.get("queued", False)
        self.tell = request.get("tell", False)
        self.grace = request.get("grace", 0.0)
        self.pid = 0
        self.began = time.time()
        self.started = time.monotonic()
        self.stop_at = self.started + (request.get("timeout") or float("inf"))
        self.timed_out = False
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
            "event": "exited", "key": self.key, "returncode": code, "cpu_seconds": self.cpu,
            "max_rss_mb": self.maxrss / unit, "began": self.began, "seconds": time.monotonic() - self.started,
            "killed": self.killed, "timed_out": self.timed_out and self.killed,
        }  # fmt: skip


class Warden:
    """Serves one worker: its requests, its children's ends, and its own end."""

    def __init__(self, channel: int, worker: int) -> None:
        self.channel, self.worker = channel, worker
        self.runs: dict[str, Run] = {}
        self.mains: dict[int, Run] = {}  # runs whose main process lives, by its pid
        self.due: dict[str, Run] = {}  # runs to look at again: to be killed, or ended with something left
        self.strays: dict[int, set[str]] = {}  # processes re-parented to us, and the runs they may be of
        self.guards: dict[str, tuple[int, int]] = {}  # others' processes by their mark: pid (0: not known yet), birth
        self.timed: dict[str, Run] = {}  # runs that have a timeout
        self.queue: dict[str, dict[str, Any]] = {}  # requests that wait for their turn, by key
        self.width, self.busy = 1, 0  # queued runs that may go on, and do
        self.base: dict[bytes, bytes] = {}  # environment of runs that inherit
        self.kin = Kin()
        self.events: list[dict[str, Any]] = []
        self.untold: dict[str, Run] = {}  # started, and the worker does not know it
        self.flushed = 0.0  # when the worker was last told something (monotonic)
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
            if self.timed:
                self.stop_late()
            if self.due:
                for run in list(self.due.values()):
                    self.attend(run)
            if self.events or self.untold:
                self.report()
        os.set_blocking(self.channel, False)
        self.read()  # what the worker asked for just before its end: a process to guard

    def patience(self) -> float | None:
        """Return for how many milliseconds there is nothing to do; None = for ever."""
        soonest = float("inf")
        if self.due or self.timed:
            now = time.monotonic()
            if self.due:
                soonest = max(AGAIN, min(run.kill_at for run in self.due.values()) - now)
            if self.timed:
                soonest = min(soonest, max(0.0, min(run.stop_at for run in self.timed.values()) - now))
        if self.events or self.untold:
            soonest = min(soonest, LAZY)
        return None if soonest == float("inf") else 1000 * soonest

    def read(self) -> None:
        """Take in what the worker sent and obey each full line."""
        try:
            data = os.read(self.channel, 1 << 18)
        except OSError:
            data = b""
        self.alive = bool(data)
        *lines, self.input = (self.input + data).split(b"\n")
        for line in lines:
            for request in json.loads(line):
                self.obey(request)

    def report(self) -> None:
        """Tell the worker what happened; not yet, while it has nothing to do about it and more will come."""
        now = time.monotonic()
        late = now - self.flushed >= LAZY
        for run in list(self.untold.values()):
            if run.tell or now - run.started >= LAZY:
                self.events.append({"event": "started", "key": run.key, "pid": run.pid})
                del self.untold[run.key]
        if self.events and (late or len(self.queue) <= self.width):
            self.flush()
            self.flushed = now

    def flush(self) -> None:
        """Send all news in one write: each wakes the worker."""
        data = json.dumps(self.events).encode() + b"\n"
        self.events.clear()
        try:
            while data:
                data = data[os.write(self.channel, data) :]
        except OSError:
            self.alive = False

    def obey(self, request: dict[str, Any]) -> None:
        """Do what one line asks; a run that has ended meanwhile is nothing to signal."""
        do, run = request["do"], self.runs.get(request.get("key", ""))
        if do == "run" and request.get("queued"):
            self.queue[request["key"]] = request
            self.fill()
        elif do == "run":
            self.start(request)
        elif do == "base":
            self.base = {os.fsencode(name): os.fsencode(value) for name, value in request["env"].items()}
        elif do == "width":
            self.width = request["n"]
            self.fill()
        elif do == "kill" and request["key"] in self.queue:
            del self.queue[request["key"]]
            self.events.append({"event": "dropped", "key": request["key"]})
        elif do == "guard":
            self.guards[request["mark"]] = (request["pid"], birth(request["pid"]))
        elif do == "unguard":
            self.guards.pop(request["mark"], None)
        elif do == "signal" and run:
            self.hit(run, request["signum"])
        elif do == "kill" and run:
            self.stop(run, request["grace"])

    def stop(self, run: Run, grace: float) -> None:
        """Ask a run to end, and see that it has after `grace` seconds."""
        run.kill_at = min(run.kill_at, time.monotonic() + grace)
        run.killed = run.killed or run.status is None
        self.due[run.key] = run
        if grace > 0:
            self.hit(run, signal.SIGTERM)

    def stop_late(self) -> None:
        """End the runs whose time is up."""
        now = time.monotonic()
        for run in [run for run in self.timed.values() if now >= run.stop_at]:
            del self.timed[run.key]
            run.timed_out = True
            self.stop(run, run.grace)

    def fill(self) -> None:
        """Start queued runs, first come first served, while there is room."""
        while self.queue and self.busy < self.width:
            self.start(self.queue.pop(next(iter(self.queue))))

    def start(self, request: dict[str, Any]) -> None:
        """Start a command, or say why it cannot be: code 127 if it does not exist, 126 for all other reasons."""
        run = Run(request)
        try:
            own = {os.fsencode(name): os.fsencode(value) for name, value in request["env"].items()}
            run.pid = spawn(request, {**self.base, **own} if request.get("inherit") else own)
        except (OSError, ValueError, TypeError, LookupError) as error:
            number, what = getattr(error, "errno", 0), getattr(error, "filename", None)
            places = [request[name] for name in ("cwd", "stdin", "stdout", "stderr")]
            code = 127 if number in (errno.ENOENT, errno.ENOTDIR) and what not in places else 126
            message = f"{what}: {getattr(error, 'strerror', '')}" if what else str(error)
            self.events.append({"event": "failed", "key": run.key, "code": code, "errno": number, "message": message})
            return
        self.runs[run.key] = self.mains[run.pid] = self.untold[run.key] = run
        self.busy += run.queued
        if run.stop_at < float("inf"):
            self.timed[run.key] = run

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
        unknown = [pid for pid in self.kin.pids() if pid not in self.mains]
        return [pid for pid in unknown if self.owners(pid) == {run.key}]

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
            self.untold.pop(run.key, None)
            self.timed.pop(run.key, None)
            if run.queued:
                self.busy -= 1
                self.fill()
            for owners in self.strays.values():
                owners.discard(run.key)

    def end(self) -> None:
        """Kill all that the worker had, and return when nothing is left."""
        pause = 0.001
        until = time.monotonic() + NEWBORN
        while True:
            busy = [pid for mark, (pid, born) in self.guards.items() if self.strike(mark, pid, born, until)]
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

    def strike(self, mark: str, pid: int, born: int, until: float) -> bool:
        """Kill what was guarded; tell whether any of it was alive, or may still appear."""
        leaders = [pid] if pid and birth(pid) in (0, born) else []
        alive = hunt(leaders, mark, signal.SIGKILL)
        return alive or (not pid and HAS_PROC and time.monotonic() < until)


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

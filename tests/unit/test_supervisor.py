"""Nothing that runs under the supervisor outlives its token or its worker, however it hides."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import LINUX, alive, gone, until

from tokenpool.children import Child, Finished, Supervisor
from tokenpool.processes import children, family

ROOT = Path(__file__).resolve().parents[2]

# A grandchild in its own session, twice forked, without open files, deaf to SIGTERM; its pid goes into a file. The
# main process then ends, or stays.
HIDING = """
import os, signal, sys
path, then, environ = sys.argv[1:]
out, into = os.pipe()
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if environ == "scrubbed":
        again = "import os, signal; os.write(%d, b'%d'); os.closerange(0, 99); signal.pause()" % (into, os.getpid())
        os.set_inheritable(into, True)
        os.execve(sys.executable, [sys.executable, "-ISc", again], {})
    os.write(into, b"%d" % os.getpid())
    os.closerange(0, 99)
    signal.pause()
os.close(into)
pid = os.read(out, 99)
with open(path + "~", "wb") as file:
    file.write(pid)
os.rename(path + "~", path)
if then == "stay":
    signal.pause()
"""


def hiding(path: Path, then: str = "end", environ: str = "kept") -> list[str]:
    """Return the command that hides a grandchild and writes its pid to `path`."""
    return [sys.executable, "-ISc", HIDING, str(path), then, environ]


def pid_in(path: Path) -> int:
    until(path.exists)
    return int(path.read_text())


def run(supervisor: Supervisor, *argv: str, **options: object) -> Finished:
    """Run a command whose output nobody reads."""
    settings = {"cwd": "/", "env": os.environ, "stdout": None, "stderr": None, **options}
    return supervisor.run(argv, **settings)  # type: ignore[arg-type]


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as supervisor:
        yield supervisor


# ── a token is over when its command is ──────────────────────────────────────────────────────────────────────────────


@LINUX
def test_a_grandchild_that_hides_dies_with_its_token(supervisor: Supervisor, tmp_path: Path) -> None:
    finished = run(supervisor, *hiding(tmp_path / "pid"))
    assert finished.returncode == 0
    assert not finished.killed
    assert gone([pid_in(tmp_path / "pid")]), "it is dead before the end of the token is told"


@LINUX
def test_other_tokens_grandchildren_live_on(supervisor: Supervisor, tmp_path: Path) -> None:
    other = supervisor.start(hiding(tmp_path / "pid", "stay"), cwd="/", env=os.environ, stdout=None, stderr=None)
    hidden = pid_in(tmp_path / "pid")
    assert run(supervisor, *hiding(tmp_path / "mine")).returncode == 0
    assert gone([pid_in(tmp_path / "mine")])
    assert alive(hidden)
    other.kill(0)
    assert other.wait().returncode == -signal.SIGKILL
    assert gone([hidden])


@LINUX
def test_one_without_any_mark_dies_when_all_are_over_that_it_may_belong_to(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    other = supervisor.start(["sleep", "600"], cwd="/", env=os.environ, stdout=None, stderr=None)
    assert run(supervisor, *hiding(tmp_path / "pid", environ="scrubbed")).returncode == 0
    other.kill(0.2)
    assert other.wait().returncode == -signal.SIGTERM
    assert gone([pid_in(tmp_path / "pid")])


def test_a_background_process_of_a_shell_dies_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    finished = run(supervisor, "sh", "-c", f"env -i sleep 600 & echo $! > {tmp_path}/pid; exit 5")
    assert finished.returncode == 5
    assert gone([pid_in(tmp_path / "pid")])


@LINUX
def test_a_timeout_kills_all_of_a_tree_that_does_not_listen(supervisor: Supervisor, tmp_path: Path) -> None:
    deaf = "trap '' TERM; (sleep 600; :) & echo $! > pid; while :; do sleep 600; done"
    child = supervisor.start(
        ["sh", "-c", deaf], cwd=tmp_path, env=os.environ, stdout=None, stderr=None, timeout=0.5, grace=0.2
    )
    until((tmp_path / "pid").exists)
    tree = family(child.started())
    assert len(tree) > 2
    finished = child.wait()
    assert (finished.returncode, finished.timed_out, finished.killed) == (-signal.SIGKILL, True, True)
    assert 0.65 < finished.seconds < 5
    assert gone(tree)


@LINUX
def test_children_get_the_grace_that_their_shell_does_not_need(supervisor: Supervisor, tmp_path: Path) -> None:
    saving = "trap 'sleep 0.3; echo saved > saved; exit' TERM; echo > ready; while :; do sleep 0.05; done"
    child = supervisor.start(
        ["sh", "-c", f'sh -c "{saving}" & wait'], cwd=tmp_path, env=os.environ, stdout=None, stderr=None
    )
    until((tmp_path / "ready").exists)
    child.kill(20)
    finished = child.wait()
    assert finished.returncode == -signal.SIGTERM
    assert (tmp_path / "saved").read_text() == "saved\n"
    assert finished.seconds < 15, "the end was not waited for longer than it took"


@LINUX
def test_closing_kills_what_runs(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        pid = supervisor.pid
        child = supervisor.start(hiding(tmp_path / "pid", "stay"), cwd="/", env=os.environ, stdout=None, stderr=None)
        tree = [pid, child.started(), pid_in(tmp_path / "pid")]
        assert not gone(tree)
    assert gone(tree)


# ── a worker that dies takes all along ───────────────────────────────────────────────────────────────────────────────

WORKER = """
import os, subprocess, sys, threading
sys.path.insert(0, {root!r})
from tokenpool.executers import Supervisor, execute, watching
supervisor = Supervisor()
child = supervisor.start(sys.argv[1:-1], cwd="/", env=os.environ, stdout=None, stderr=None)
print(supervisor.pid, child.started(), flush=True)
{then}
"""


@contextmanager
def worker(tmp_path: Path, then: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start a worker whose token hides a grandchild; give it and the pids of all below it."""
    program = WORKER.format(root=str(ROOT), then=then)
    argv = [sys.executable, "-c", program, *hiding(tmp_path / "pid", "stay"), str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            pids = [int(word) for word in process.stdout.readline().split()]
            yield process, [*pids, pid_in(tmp_path / "pid")]
        finally:
            process.kill()


@LINUX
def test_a_killed_worker_leaves_nobody(tmp_path: Path) -> None:
    with worker(tmp_path, "sys.stdin.read()") as (process, pids):
        assert not gone(pids[1:])
        process.kill()
        until(lambda: gone(pids))


@LINUX
def test_it_dies_too_while_somebody_else_holds_its_end_of_the_channel(tmp_path: Path) -> None:
    hold = "subprocess.Popen(['cat'], pass_fds=[supervisor._link.socket.fileno()], stdout=2); sys.stdin.read()"
    with worker(tmp_path, hold) as (process, pids):
        until(lambda: len(children(process.pid)) == 2)
        process.kill()
        until(lambda: gone(pids))


@LINUX
def test_a_killed_worker_takes_what_it_had_guarded(tmp_path: Path) -> None:
    then = f"""
with watching(supervisor):
    execute({hiding(tmp_path / "guarded", "stay")!r})
"""
    with worker(tmp_path, then) as (process, pids):
        guarded = pid_in(tmp_path / "guarded")
        below = [pid for pid in children(process.pid) if pid != pids[0]]
        assert len(below) == 1
        process.kill()
        until(lambda: gone([*pids, *below, guarded]))


@LINUX
def test_a_worker_killed_while_it_starts_a_process_takes_that_too(tmp_path: Path) -> None:
    # Given a worker that has started what it said it would, and not come to say which process that is
    then = "supervisor.guard('MARK=young'); young = subprocess.Popen(['sleep', '600'], env={'MARK': 'young'})\n"
    then += "print(young.pid, flush=True); sys.stdin.read()"
    with worker(tmp_path, then) as (process, pids):
        assert process.stdout is not None
        young = int(process.stdout.readline())
        # When it is killed
        process.kill()
        # Then the process ends with it
        until(lambda: gone([*pids, young]))


@LINUX
def test_what_is_no_longer_guarded_is_left_alone(tmp_path: Path) -> None:
    then = "mine = subprocess.Popen(['sleep', '600'], env={'MARK': 'mine'})\n"
    then += "supervisor.guard('MARK=mine', mine.pid); supervisor.unguard('MARK=mine')\n"
    then += "print(mine.pid, flush=True); sys.stdin.read()"
    with worker(tmp_path, then) as (process, pids):
        assert process.stdout is not None
        mine = int(process.stdout.readline())
        process.kill()
        until(lambda: gone(pids))
        assert alive(mine)
        os.kill(mine, signal.SIGKILL)


@LINUX
def test_signals_that_batch_systems_send_to_all_do_not_end_it(supervisor: Supervisor) -> None:
    assert run(supervisor, "true").returncode == 0
    pid = supervisor.pid
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU):
        os.kill(pid, signum)
    assert run(supervisor, "true").returncode == 0
    assert supervisor.pid == pid
    assert os.getsid(pid) == pid, "a Ctrl-C on the terminal does not reach it"


# ── CPUs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def cpus_of(supervisor: Supervisor, tmp_path: Path, cpus: Sequence[int] = ()) -> set[int]:
    """Return the CPUs that a grandchild of a command may use that was started with `cpus`."""
    ask = f"{sys.executable} -ISc 'import os; print(*os.sched_getaffinity(0))'; :"
    out = tmp_path / "cpus"
    out.unlink(missing_ok=True)
    child = supervisor.start(
        ["sh", "-c", f"sh -c '{ask.replace(chr(39), chr(34))}'; :"],
        cwd="/",
        env=os.environ,
        stdout=out,
        stderr=None,
        cpus=cpus,
    )
    assert child.wait().returncode == 0
    return set(map(int, out.read_text().split()))


@LINUX
def test_a_command_and_what_it_starts_run_on_the_cpus_that_it_was_given(supervisor: Supervisor, tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    for cpu in mine:
        assert cpus_of(supervisor, tmp_path, [cpu]) == {cpu}
        # And it binds nobody else: the supervisor and the next one have all of them
        assert os.sched_getaffinity(supervisor.pid) == mine
    assert cpus_of(supervisor, tmp_path) == mine


@LINUX
def test_a_command_that_cannot_be_started_binds_nobody_either(supervisor: Supervisor) -> None:
    mine = os.sched_getaffinity(0)
    child = supervisor.start(["/nonexistent"], cwd="/", env=os.environ, stdout=None, stderr=None, cpus=[min(mine)])
    assert child.wait().returncode == 127
    script = supervisor.start(["/etc/passwd"], cwd="/", env=os.environ, stdout=None, stderr=None, cpus=[min(mine)])
    assert script.wait().returncode == 126
    assert os.sched_getaffinity(supervisor.pid) == mine


@LINUX
def test_cpus_that_are_not_there_bind_nobody(supervisor: Supervisor, tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    assert cpus_of(supervisor, tmp_path, [100_000]) == mine


# ── what waits for its turn ──────────────────────────────────────────────────────────────────────────────────────────


def queued(supervisor: Supervisor, *argv: str, **options: object) -> Child:
    """Hand over a command that is run when its turn comes."""
    settings = {"cwd": "/", "env": os.environ, "stdout": None, "stderr": None, "queued": True, **options}
    return supervisor.start(argv, **settings)  # type: ignore[arg-type]


def test_queued_commands_run_one_after_another_where_there_is_one_place(supervisor: Supervisor, tmp_path: Path) -> None:
    # Given one place, and two commands that tell when they begin and end, and last
    log, gate = tmp_path / "log", tmp_path / "gate"
    os.mkfifo(gate)
    script = f"echo $0 begins >> {log}; read x < {gate}; echo $0 ends >> {log}"
    supervisor.widen(1)
    first, second = (queued(supervisor, "/bin/sh", "-c", script, name) for name in ("first", "second"))
    # When the first one may end, and then the second one
    for child in (first, second):
        gate.write_text("go\n")
        assert child.wait().returncode == 0
    # Then they did not meet
    assert log.read_text().split("\n")[:4] == ["first begins", "first ends", "second begins", "second ends"]


def test_a_wider_queue_starts_what_waits(supervisor: Supervisor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    supervisor.widen(1)
    first = queued(supervisor, "/bin/sh", "-c", f"read x < {gate}")
    second = queued(supervisor, "/bin/sh", "-c", f"echo go > {gate}")
    supervisor.widen(2)
    assert (first.wait().returncode, second.wait().returncode) == (0, 0)


def test_a_command_that_is_ended_before_its_turn_never_runs(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.widen(0)
    ended: list[Child] = []
    child = queued(supervisor, "/bin/touch", str(tmp_path / "ran"), on_end=ended.append)
    child.kill()
    finished = child.wait()
    supervisor.widen(1)
    assert queued(supervisor, "/bin/true").wait().returncode == 0
    assert (finished.killed, finished.returncode < 0, ended) == (True, True, [child])
    assert not (tmp_path / "ran").exists()


def test_time_in_the_queue_does_not_count(supervisor: Supervisor) -> None:
    supervisor.widen(1)
    first = queued(supervisor, "/bin/sleep", "1", timeout=0.2, grace=0)
    second = queued(supervisor, "/bin/true", timeout=0.2, grace=0)
    assert (first.wait().timed_out, second.wait().timed_out) == (True, False)


def test_a_command_may_inherit_what_all_of_them_have() -> None:
    with Supervisor({"SHARED": "1", "OWN": "no"}) as supervisor:
        both = '[ "$SHARED$OWN" = 1yes ]'
        assert queued(supervisor, "/bin/sh", "-c", both, env={"OWN": "yes"}, inherit=True).wait().returncode == 0
        assert queued(supervisor, "/bin/sh", "-c", '[ -z "$SHARED" ]', env={}).wait().returncode == 0


def test_what_is_held_back_is_sent_together(supervisor: Supervisor) -> None:
    children = [queued(supervisor, "/bin/true", more=True) for _ in range(50)]
    supervisor.push()
    assert [child.wait().returncode for child in children] == [0] * 50

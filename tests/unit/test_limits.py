"""A run that uses more memory than it asked for is ended with all its processes, and nobody else is.

Where a control group is ours, every story is told for control groups too: set TOKENPOOL_TEST_CGROUP to name one in which
groups with memory limits can be made.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from control_groups import machine, version_2
from processes import LINUX, alive, gone, until

from tokenpool import cgroups, limits, memory
from tokenpool.cgroups import VARIABLE
from tokenpool.children import Child, Finished, Supervisor
from tokenpool.limits import Limits, MemoryLimit
from tokenpool.processes import children

pytestmark = LINUX

#: Read before the tests' own environment is made.
NAMED = {VARIABLE: os.environ["TOKENPOOL_TEST_CGROUP"]} if "TOKENPOOL_TEST_CGROUP" in os.environ else {}
MB = 1 / 1024

#: Uses so many MiB, then says so by making a file, and waits until it is removed.
USE = """
import os, sys, time
block = b"x" * (int(sys.argv[1]) << 20)
open(sys.argv[2], "w").close()
while os.path.exists(sys.argv[2]):
    time.sleep(0.01)
"""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as supervisor:
        yield supervisor


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Limits]:
    """Limits on a machine without control groups."""
    with Limits("worker", {}, tmp_path / "nowhere", interval=0.02) as found:
        yield found


@pytest.fixture
def grouped() -> Iterator[Limits]:
    """Limits by real control groups."""
    with Limits("worker", NAMED, interval=0.02) as found:
        if found.home is None:
            pytest.fail("TOKENPOOL_TEST_CGROUP names no control group that is ours")
        before = groups(found)
        yield found
    assert groups(found) == before


@pytest.fixture(params=["watched", pytest.param("grouped", marks=pytest.mark.control_group)])
def either(request: pytest.FixtureRequest) -> Limits:
    found: Limits = request.getfixturevalue(request.param)
    return found


def groups(limits: Limits) -> list[Path]:
    assert limits.home is not None
    return sorted(path for path in limits.home.path.glob("tokenpool-*") if path.name != cgroups.LEAF)


class Ran:
    """How a run ended and what its limit says then."""

    def __init__(self, finished: Finished, limit: MemoryLimit) -> None:
        self.code, self.killed = finished.returncode, finished.killed
        self.exceeded, self.out_of_memory = limit.exceeded, limit.out_of_memory(finished)


def run(
    supervisor: Supervisor,
    limits: Limits,
    megabytes: float,
    argv: Sequence[str],
    meanwhile: Callable[[Child], None] = lambda child: None,
    log: Path | None = None,
) -> Ran:
    """Run a command with a limit as a worker does; `meanwhile` is called while it runs."""
    with limits.around("c" * 32, megabytes * MB) as limit:
        child = supervisor.start(limit.wrap(argv), cwd="/", env=os.environ, stdout=log, stderr=log)
        limit.watch(child)
        meanwhile(child)
        finished = child.wait()
    return Ran(finished, limit)


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-ISc", script, *map(str, arguments)]


def let_go(*files: Path) -> Callable[[Child], None]:
    """Return what waits for these files, which running commands make, and removes them."""

    def wait(child: Child) -> None:
        for file in files:
            until(file.exists)
        for file in files:
            file.unlink()

    return wait


# ── what uses too much is ended ──────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_uses_too_much_is_ended(supervisor: Supervisor, either: Limits, tmp_path: Path) -> None:
    ran = run(supervisor, either, 80, python(USE, 300, tmp_path / "here"))
    assert ran.code == -signal.SIGKILL
    assert ran.exceeded
    assert ran.out_of_memory


def test_a_run_within_its_limit_goes_on(supervisor: Supervisor, either: Limits, tmp_path: Path) -> None:
    ran = run(supervisor, either, 300, python(USE, 80, tmp_path / "here"), let_go(tmp_path / "here"))
    assert ran.code == 0
    assert not ran.exceeded
    assert not ran.out_of_memory


def test_a_grandchild_counts(supervisor: Supervisor, either: Limits, tmp_path: Path) -> None:
    # Given a shell that would go on without the process that the kernel kills
    script = 'echo $$ > "$0/pid"; "$@"; sleep 600; exit 3'
    ran = run(supervisor, either, 80, ["sh", "-c", script, str(tmp_path), *python(USE, 300, tmp_path / "here")])
    assert ran.out_of_memory
    assert ran.code == -signal.SIGKILL
    assert gone([int((tmp_path / "pid").read_text())])


def test_processes_count_together(supervisor: Supervisor, either: Limits, tmp_path: Path) -> None:
    # Given three processes that are each far below the limit
    files = [tmp_path / name for name in "abc"]
    script = 'for each in a b c; do "$@" "$0/$each" & done; wait'
    command = ["sh", "-c", script, str(tmp_path), *python(USE, 60)]
    ran = run(supervisor, either, 150, command)
    assert ran.exceeded
    assert ran.code == -signal.SIGKILL
    # Then with room for the three they run to their end
    for file in files:
        file.unlink(missing_ok=True)
    assert run(supervisor, either, 400, command, let_go(*files)).code == 0


HIDE = """
import os, sys
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    os.execv(sys.argv[1], sys.argv[1:])
os.wait()
if %r:
    os.execvp("sleep", ["sleep", "600"])
"""


@pytest.mark.parametrize("session", ["own", "inherited"])
def test_one_that_hides_from_its_tree_counts(
    supervisor: Supervisor, either: Limits, tmp_path: Path, session: str
) -> None:
    script = HIDE if session == "own" else HIDE.replace("os.setsid()", "pass")
    ran = run(supervisor, either, 80, python(script % True, *python(USE, 300, tmp_path / "here")))
    assert ran.out_of_memory
    assert ran.code == -signal.SIGKILL


def test_another_runs_memory_does_not_count(supervisor: Supervisor, either: Limits, tmp_path: Path) -> None:
    # Given a run that uses a lot, with a process that hides, and may
    large = python(HIDE % True, *python(USE, 200, tmp_path / "large"))
    other = supervisor.start(large, cwd="/", env=os.environ, stdout=None, stderr=None)
    until((tmp_path / "large").exists)
    # Then one that may use little is left alone
    ran = run(supervisor, either, 100, python(USE, 20, tmp_path / "small"), let_go(tmp_path / "small"))
    assert (ran.code, ran.exceeded) == (0, False)
    assert alive(other.pid)


def test_one_thread_looks_after_many_runs(supervisor: Supervisor, either: Limits, tmp_path: Path) -> None:
    # Given ten runs side by side, every other one of which uses too much
    found: dict[int, Ran] = {}

    def one(number: int) -> None:
        here = tmp_path / str(number)
        size, meanwhile = (200, lambda child: None) if number % 2 else (10, let_go(here))
        found[number] = run(supervisor, either, 100, python(USE, size, here), meanwhile)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then those are ended, and no others
    assert {number for number, ran in found.items() if ran.exceeded} == {1, 3, 5, 7, 9}
    assert {number for number, ran in found.items() if ran.code == 0} == {0, 2, 4, 6, 8}
    assert sum(thread.name == "tokenpool-memory" for thread in threading.enumerate()) == 1
    assert not either._watched, "what is over is looked at no more"


FORKS = """
import os, sys
kept = []
for number in range(int(sys.argv[1])):
    if not os.fork():
        os._exit(0)
    os.wait()
    kept.append(b"x" * int(sys.argv[2]))
"""


def test_one_that_forks_all_the_time_is_ended_only_for_what_it_uses(supervisor: Supervisor, either: Limits) -> None:
    assert run(supervisor, either, 100, python(FORKS, 100, 10)).code == 0
    ran = run(supervisor, either, 100, python(FORKS, 5000, 1 << 20))
    assert ran.out_of_memory
    assert ran.code == -signal.SIGKILL


def test_a_run_that_failed_by_itself_did_not_run_out_of_memory(supervisor: Supervisor, either: Limits) -> None:
    for command in (["false"], ["sh", "-c", "kill -9 $$"]):
        ran = run(supervisor, either, 100, command)
        assert ran.code != 0
        assert not ran.out_of_memory


# ── what only looks large ────────────────────────────────────────────────────────────────────────────────────────────


class Measured:
    """Counts how often memory was measured exactly, and what came out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self._measure = memory.exact
        monkeypatch.setattr(memory, "exact", self)

    def __call__(self, pids: set[int]) -> int:
        self.sizes.append(self._measure(pids))
        return self.sizes[-1]


SHARE = """
import os, sys, time
block = b"x" * (200 << 20)
for _ in range(3):
    if not os.fork():
        break
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""


@pytest.mark.parametrize("asked", ["kernel", "nobody"])
def test_what_forked_processes_share_counts_once(
    supervisor: Supervisor, watched: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    if asked == "nobody":
        monkeypatch.setattr(memory, "_KCMP", {})
    measured = Measured(monkeypatch)

    def wait(child: Child) -> None:
        # While some are just being forked, or are ending, they have a share that nobody counts.
        until(lambda: any(size > 200 << 20 for size in measured.sizes))
        (tmp_path / "enough").touch()

    ran = run(supervisor, watched, 350, python(SHARE, tmp_path / "enough"), wait)
    assert (ran.code, ran.exceeded) == (0, False)


BORROW = """
import os, sys
block = b"x" * (200 << 20)
pid = os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)])
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("asked", ["kernel", "nobody"])
def test_a_process_that_still_lives_in_its_parents_memory_does_not_count(
    supervisor: Supervisor, watched: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    # Given a child between vfork and exec, where it waits for somebody to open its input
    if asked == "nobody":
        monkeypatch.setattr(memory, "_KCMP", {})
    os.mkfifo(tmp_path / "input")
    measured = Measured(monkeypatch)

    def wait(child: Child) -> None:
        until(lambda: len(measured.sizes) >= 2)
        (tmp_path / "input").open("w").close()

    ran = run(supervisor, watched, 300, python(BORROW, tmp_path / "input"), wait)
    assert (ran.code, ran.exceeded) == (0, False)


MAP = """
import mmap, os, sys, time
with open(sys.argv[1], "rb") as file:
    block = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    block[::4096]
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
"""


def test_a_mapped_file_does_not_count(
    supervisor: Supervisor, watched: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").touch()
    os.truncate(tmp_path / "data", 200 << 20)
    if subprocess.run(["stat", "-fc", "%T", tmp_path], capture_output=True, check=True).stdout.strip() == b"tmpfs":
        pytest.skip("files are memory here")
    measured = Measured(monkeypatch)

    def wait(child: Child) -> None:
        until(lambda: len(measured.sizes) >= 2)
        (tmp_path / "enough").touch()

    ran = run(supervisor, watched, 100, python(MAP, tmp_path / "data", tmp_path / "enough"), wait)
    assert (ran.code, ran.exceeded) == (0, False)


def test_a_process_that_may_not_be_looked_into_counts_as_it_seems(monkeypatch: pytest.MonkeyPatch) -> None:
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *args, **kw: real(path.replace("smaps", "none"), *args, **kw))
    assert memory.exact([os.getpid()]) == pytest.approx(memory.at_most([os.getpid()]), rel=0.1)
    assert memory.exact([999_999_999]) == 0


def test_an_odd_process_does_not_end_the_watch(
    supervisor: Supervisor, watched: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = memory.trees, threading.Event()

    def fail_once(runs: dict[Child, MemoryLimit]) -> dict[Child, set[int]]:
        if not failed.is_set():
            failed.set()
            raise ValueError("odd")
        return real(runs)

    monkeypatch.setattr(memory, "trees", fail_once)
    assert run(supervisor, watched, 80, python(USE, 300, tmp_path / "here")).exceeded
    assert failed.is_set()


# ── how it is wrapped and cleaned up ─────────────────────────────────────────────────────────────────────────────────


def test_without_a_limit_nothing_is_done(supervisor: Supervisor, either: Limits) -> None:
    with either.around("claim", 0) as limit:
        assert limit.wrap(["a", "b"]) == ["a", "b"]
        child = supervisor.start(["true"], cwd="/", env=os.environ, stdout=None, stderr=None)
        limit.watch(child)
        assert child.wait().returncode == 0
    assert not limit.exceeded
    assert either._thread is None


def test_arguments_arrive_as_they_are_and_the_pid_stays(supervisor: Supervisor, either: Limits, tmp_path: Path) -> None:
    odd = ["", "a b", "$HOME", "'", '"', "\\", "*", "-c", "é\n"]
    pids = []
    show = "import os, sys; print(os.getpid(), sys.argv[1:], os.environ.get('TOKENPOOL_CLAIM') is not None)"
    ran = run(supervisor, either, 100, python(show, *odd), lambda child: pids.append(child.started()), tmp_path / "log")
    assert ran.code == 0
    assert (tmp_path / "log").read_text() == f"{pids[0]} {odd} True\n"


def test_a_command_that_is_not_there_is_told(supervisor: Supervisor, either: Limits, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for command, code in (("no-such-command", 127), (str(tmp_path / "plain"), 126)):
        assert run(supervisor, either, 100, [command], log=tmp_path / "log").code == code
        assert Path(command).name in (tmp_path / "log").read_text()


@pytest.mark.control_group
def test_each_run_has_its_own_group_as_long_as_it_runs(supervisor: Supervisor, grouped: Limits, tmp_path: Path) -> None:
    seen: list[Path] = []

    def look(child: Child) -> None:
        until((tmp_path / "here").exists)
        seen.extend(groups(grouped))
        assert [group for group in seen if str(child.pid) in (group / "cgroup.procs").read_text().split()]
        let_go(tmp_path / "here")(child)

    assert run(supervisor, grouped, 100, python(USE, 1, tmp_path / "here"), look).code == 0
    assert len(seen) == 1
    assert groups(grouped) == []


@pytest.mark.control_group
def test_what_dead_workers_left_is_removed(grouped: Limits) -> None:
    assert grouped.home is not None
    home = grouped.home.path
    # Given the groups of a worker that is dead, of one whose pid somebody else has now, and of one that lives
    dead = home / f"{cgroups.PREFIX}999999999-1-1-abc"
    reused = home / f"{cgroups.PREFIX}{os.getpid()}-1-1-abc"
    living = home / cgroups.name_for("1-abc")
    stranger = home / f"{cgroups.PREFIX}a-b-c"
    for path in (dead, reused, living, stranger):
        path.mkdir()
    try:
        # When the next worker comes
        with Limits("next", {VARIABLE: str(home)}) as after:
            assert after.home is not None
            assert [path.exists() for path in (dead, reused, living, stranger)] == [False, False, True, True]
    finally:
        living.rmdir()
        stranger.rmdir()


@pytest.mark.control_group
def test_a_group_that_cannot_go_yet_goes_later(supervisor: Supervisor, grouped: Limits, tmp_path: Path) -> None:
    # Given a run that is left while something of it is there
    with grouped.around("claim", 100 * MB) as limit:
        child = supervisor.start(
            limit.wrap(python(USE, 1, tmp_path / "here")), cwd="/", env=os.environ, stdout=None, stderr=None
        )
        limit.watch(child)
        until((tmp_path / "here").exists)
    assert len(groups(grouped)) == 1
    # When that is gone, and another one is looked after
    child.kill(0)
    child.wait()
    assert run(supervisor, grouped, 100, ["true"], lambda _: until(lambda: len(groups(grouped)) < 2)).code == 0


def test_closing_ends_the_watch(supervisor: Supervisor, tmp_path: Path) -> None:
    with Limits("worker", {}, tmp_path) as some:
        with some.around("claim", 1) as limit:
            child = supervisor.start(["sleep", "600"], cwd="/", env=os.environ, stdout=None, stderr=None)
            limit.watch(child)
            assert some._thread is not None
            some.close()
            assert not some._thread.is_alive()
            assert alive(child.started())
            child.kill(0)
            child.wait()
    assert not limit.exceeded


def test_closing_ends_a_watch_that_has_nothing_to_look_at(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, resting = Limits("worker", {}, tmp_path, interval=0.02), threading.Event()
    real = some._news.wait_for

    def note(ready: Callable[[], object], timeout: float | None = None) -> object:
        if timeout is None and not ready():
            resting.set()  # still with the lock, which `close` needs
        return real(ready, timeout)

    monkeypatch.setattr(some._news, "wait_for", note)
    assert run(supervisor, some, 100, ["true"], lambda child: until(lambda: some._watched)).code == 0
    assert resting.wait(20)
    closer = threading.Thread(target=some.close, daemon=True)
    closer.start()
    until(lambda: not closer.is_alive())


def test_the_kernels_word_counts_for_runs_without_a_limit_of_their_own(tmp_path: Path) -> None:
    # Given a batch job whose control group has a limit, and whose kills the kernel counts
    root = version_2(tmp_path, "/job", memory__events__local="oom 0\noom_kill 3\n")
    killed, failed, ended = (
        Finished(-9, 0, 0, 0, False, False), Finished(1, 0, 0, 0, False, False), Finished(-9, 0, 0, 0, False, True)
    )  # fmt: skip
    with Limits("worker", {}, root) as some, some.around("claim", 0) as limit:
        assert not limit.out_of_memory(killed), "somebody else sent SIGKILL"
        machine(root, {"sys/fs/cgroup/job/memory.events.local": "oom 1\noom_kill 4\n"})
        assert limit.out_of_memory(killed)
        assert limit.out_of_memory(Finished(137, 0, 0, 0, False, False)), "as a shell tells it"
        assert not limit.out_of_memory(failed)
        assert not limit.out_of_memory(ended), "we did that"
        assert not limit.exceeded


def test_looking_takes_no_more_than_its_part_of_the_time(
    supervisor: Supervisor, watched: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a look that takes one second each time, by the clock
    clock, pauses, waits = [0.0], [], [0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: clock[0])
    real = watched._news.wait_for

    def note(ready: Callable[[], object], timeout: float | None = None) -> object:
        if timeout is not None:
            pauses.append(timeout)
            return real(ready, 0.0)
        return real(ready)

    def slow(runs: object) -> dict[Child, set[int]]:
        clock[0] += (0.0, 0.03, 1.0)[min(waits[0], 2)]
        waits[0] += 1
        return {}

    monkeypatch.setattr(watched._news, "wait_for", note)
    monkeypatch.setattr(memory, "trees", slow)
    run(supervisor, watched, 100, ["sleep", "600"], lambda child: (until(lambda: len(pauses) > 4), child.kill(0))[0])
    assert pauses[:4] == [0.0, pytest.approx(0.02), pytest.approx(0.6), limits.SELDOM]


def test_trees_are_found_through_the_supervisor(supervisor: Supervisor, tmp_path: Path) -> None:
    # Given two runs, and a process of the first that is its child no more
    first = supervisor.start(
        python(HIDE % True, *python(USE, 1, tmp_path / "here")), cwd="/", env=os.environ, stdout=None, stderr=None
    )
    second = supervisor.start(["sleep", "600"], cwd="/", env=os.environ, stdout=None, stderr=None)
    until((tmp_path / "here").exists)
    until(lambda: first.started() and second.started())
    found = memory.trees([first, second])
    assert found[second] == {second.pid}
    assert found[first] == {*children(supervisor.pid)} - {second.pid}
    assert len(found[first]) == 2

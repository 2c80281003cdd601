"""Commands are started as from a shell, measured, stopped when told, and say why when they cannot run."""

from __future__ import annotations

import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from tokenpool.executers import Finished, Supervisor, SupervisorLost, execute, execute_old, watching

ROOT = Path(__file__).resolve().parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has subreapers and /proc")
DEAF = "trap '' TERM; echo > ready; while :; do sleep 600; done"


@pytest.fixture(scope="module")
def shared() -> Iterator[Supervisor]:
    with Supervisor() as supervisor:
        yield supervisor


@pytest.fixture
def run(shared: Supervisor, tmp_path: Path) -> Callable[..., Finished]:
    """Run a command in `tmp_path`; output goes to the files out and err there."""

    def run(*argv: str, **options: object) -> Finished:
        places = {"cwd": tmp_path, "env": os.environ, "stdout": tmp_path / "out", "stderr": tmp_path / "err"}
        return shared.run(argv, **{**places, **options})  # type: ignore[arg-type]

    return run


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Tell whether `pid` runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ── a command's end ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_exit_code_is_the_commands(run: Callable[..., Finished]) -> None:
    finished = run("sh", "-c", "exit 42")
    assert (finished.returncode, finished.timed_out, finished.killed, finished.error) == (42, False, False, "")


def test_a_signal_is_a_negative_code(run: Callable[..., Finished]) -> None:
    finished = run("sh", "-c", "kill -USR1 $$")
    assert (finished.returncode, finished.killed) == (-signal.SIGUSR1, False)


def test_output_is_appended_byte_for_byte(run: Callable[..., Finished], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"\x00\xff\n")
    for _ in range(2):
        assert run("sh", "-c", "cat; printf '\\376' >&2", stdin=tmp_path / "in").returncode == 0
    assert (tmp_path / "out").read_bytes() == b"\x00\xff\n" * 2
    assert (tmp_path / "err").read_bytes() == b"\xfe" * 2


def test_odd_arguments_arrive(run: Callable[..., Finished], tmp_path: Path) -> None:
    odd = ["", "a b", "a\nb", "'\"", "é", os.fsdecode(b"\xff")]
    assert run("printf", "%s|", *odd).returncode == 0
    assert (tmp_path / "out").read_bytes() == b"".join(os.fsencode(word) + b"|" for word in odd)


@LINUX
def test_it_starts_as_clean_as_from_a_shell(run: Callable[..., Finished], tmp_path: Path) -> None:
    fds = "sorted(map(int, os.listdir('/proc/self/fd')))[:-1]"
    show = f"import os; print(os.getsid(0) == os.getpid(), os.getcwd(), {fds})"
    signals = "grep -hE 'Sig(Blk|Ign)' /proc/self/status | cut -f 2"
    assert run("sh", "-c", f'{signals}; exec {sys.executable} -ISc "{show}"').returncode == 0
    blocked, ignored, rest = (tmp_path / "out").read_text().splitlines()
    assert int(blocked, 16) == 0
    assert int(ignored, 16) & ~(3 << 31) == 0, "but for glibc's own two, as in all that posix_spawn starts"
    assert rest == f"True {tmp_path} [0, 1, 2]"


def test_the_environment_is_what_was_given_and_a_mark(run: Callable[..., Finished], tmp_path: Path) -> None:
    run("/usr/bin/env", env={"A": "1", "TOKENPOOL_CLAIM": "mine"})
    assert (tmp_path / "out").read_text() == "A=1\nTOKENPOOL_CLAIM=mine\n"


def test_an_outer_tokens_mark_is_replaced(
    run: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENPOOL_CLAIM", "outer")
    run("sh", "-c", "echo $TOKENPOOL_CLAIM")
    assert (tmp_path / "out").read_text() not in ("outer\n", "\n")


# ── what cannot be started ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("argv", "options", "code", "reason"),
    [
        (["no-such-command"], {}, 127, "no-such-command: Command not found"),
        (["./no/such"], {}, 127, "./no/such: Command not found"),
        (["./lost"], {}, 127, "./lost: The interpreter in its first line was not found"),
        (["./data"], {}, 126, "./data: Is not an executable file"),
        (["./bare"], {}, 126, "./bare: Exec format error"),
        (["."], {}, 126, "Is not an executable file"),
        (["true"], {"cwd": "/no/such/dir"}, 126, "/no/such/dir: No such file or directory"),
        (["true"], {"stdin": "/no/such/file"}, 126, "/no/such/file: No such file or directory"),
        (["true"], {"stdout": "/no/such/file"}, 126, "/no/such/file: No such file or directory"),
        (["true", "a\0b"], {}, 126, "embedded null byte"),
        ([], {}, 126, "list index out of range"),
    ],
)
def test_what_cannot_be_started_is_the_tokens_fault(
    run: Callable[..., Finished], tmp_path: Path, argv: list[str], options: dict[str, str], code: int, reason: str
) -> None:
    (tmp_path / "data").write_text("1 2 3")
    for name, text in (("lost", "#!/no/such/interpreter\n"), ("bare", "echo no first line\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    finished = run(*argv, **options)
    assert finished.returncode == code
    assert reason in finished.error
    assert (tmp_path / "err").read_text() == f"tokenpool: cannot start: {finished.error}\n"


def test_on_start_gets_the_pid_once_there_is_one(run: Callable[..., Finished], tmp_path: Path) -> None:
    pids: list[int] = []
    run("sh", "-c", "echo $$", on_start=pids.append)
    run("no-such-command", on_start=pids.append)
    assert pids == [int((tmp_path / "out").read_text())]


# ── measured ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cpu_time_is_that_of_the_whole_tree(run: Callable[..., Finished]) -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    finished = run("sh", "-c", f"{sys.executable} -ISc '{burn}'; {sys.executable} -ISc '{burn}'")
    assert 0.8 <= finished.cpu_seconds < 1.6
    assert finished.cpu_seconds < finished.seconds * (os.cpu_count() or 1) + 0.1


def test_peak_memory_is_measured(run: Callable[..., Finished]) -> None:
    small = run("true").max_rss_mb
    large = run(sys.executable, "-ISc", "x = b'x' * (100 << 20)").max_rss_mb
    assert 0 < small < 50
    assert 100 <= large < 160


def test_idling_is_not_counted_as_cpu_time(run: Callable[..., Finished]) -> None:
    finished = run("sleep", "0.3")
    assert finished.cpu_seconds < 0.1
    assert finished.seconds >= 0.3


# ── stopped ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_timeout_ends_it(run: Callable[..., Finished]) -> None:
    finished = run("sleep", "600", timeout=0.1)
    assert (finished.returncode, finished.timed_out, finished.killed) == (-signal.SIGTERM, True, True)


def test_a_signal_reaches_the_whole_tree(shared: Supervisor, tmp_path: Path) -> None:
    listen = "trap 'echo heard > heard; exit 7' USR1; echo > ready; while :; do sleep 0.05; done"
    child = shared.start(
        ["sh", "-c", f'trap : USR1; sh -c "{listen}"; exit $?'],
        cwd=tmp_path, env=os.environ, stdout=None, stderr=tmp_path / "err",
    )  # fmt: skip
    until((tmp_path / "ready").exists)
    child.signal(signal.SIGUSR1)
    assert child.wait().returncode in (7, 128 + signal.SIGUSR1)
    assert (tmp_path / "heard").exists()


def test_killing_what_has_ended_changes_nothing(shared: Supervisor) -> None:
    child = shared.start(["true"], cwd="/", env=os.environ, stdout=None, stderr=None)
    finished = child.wait()
    child.kill(0)
    child.signal(signal.SIGKILL)
    assert child.wait() == finished
    assert not finished.killed


def test_an_error_while_it_runs_ends_it(run: Callable[..., Finished]) -> None:
    pids: list[int] = []

    def fail(pid: int) -> None:
        pids.append(pid)
        raise KeyError

    with pytest.raises(KeyError):
        run("sleep", "600", on_start=fail)
    until(lambda: not alive(pids[0]))


# ── many, and mishaps ────────────────────────────────────────────────────────────────────────────────────────────────


def test_64_threads_at_once_each_get_their_own_result(shared: Supervisor, tmp_path: Path) -> None:
    together = threading.Barrier(64)

    def one(number: int) -> int:
        together.wait()
        argv = ["sh", "-c", f"echo {number}; exit {number}"]
        return shared.run(argv, cwd="/", env=os.environ, stdout=tmp_path / str(number), stderr=None).returncode

    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(one, range(64))) == list(range(64))
    assert [(tmp_path / str(number)).read_text() for number in range(64)] == [f"{number}\n" for number in range(64)]


@LINUX
def test_a_lost_supervisor_is_told_and_replaced() -> None:
    with Supervisor() as supervisor:
        child = supervisor.start(["sleep", "600"], cwd="/", env=os.environ, stdout=None, stderr=None)
        command, lost = child.started(), supervisor.pid
        os.kill(lost, signal.SIGKILL)
        with pytest.raises(SupervisorLost):
            child.wait()
        assert not alive(command), "what nobody supervises is ended"
        assert supervisor.run(["true"], cwd="/", env=os.environ, stdout=None, stderr=None).returncode == 0
        assert supervisor.pid != lost


def test_a_closed_one_runs_nothing() -> None:
    with Supervisor() as supervisor:
        child = supervisor.start(["sleep", "600"], cwd="/", env=os.environ, stdout=None, stderr=None)
    with pytest.raises(SupervisorLost):
        child.wait()
    with pytest.raises(SupervisorLost):
        supervisor.start(["true"], cwd="/", env=os.environ, stdout=None, stderr=None)


def test_without_a_python_to_run_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with Supervisor() as supervisor, pytest.raises(SupervisorLost, match="/no/such/python"):
        supervisor.start(["true"], cwd="/", env=os.environ, stdout=None, stderr=None)


FORK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tokenpool.executers import Supervisor, SupervisorLost
places = dict(cwd="/", env=os.environ, stdout=None, stderr=None)
supervisor = Supervisor()
child = supervisor.start(["sleep", "600"], **places)
child.started()
before = supervisor.pid
forked = os.fork()
if not forked:
    try:
        child.wait()
    except SupervisorLost:
        child.kill(0)
        ok = supervisor.run(["true"], **places).returncode == 0 and supervisor.pid != before
        supervisor.close()
        os._exit(0 if ok else 1)
    os._exit(2)
assert os.waitpid(forked, 0)[1] == 0, "the forked child has a supervisor of its own"
assert supervisor.pid == before
os.kill(child.pid, 0)
child.kill()
assert child.wait().returncode == -15, "and left ours alone"
supervisor.close()
"""


def test_a_forked_child_has_its_own() -> None:
    argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(ROOT)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# ── picas' execute ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_execute_returns_popen_code_and_bytes() -> None:
    proc, code, stdout, stderr = execute(["sh", "-c", "printf '\\377'; printf '\\376' >&2; exit 3"])
    assert isinstance(proc, subprocess.Popen)
    assert (proc.returncode, code, stdout, stderr) == (3, 3, b"\xff", b"\xfe")


def test_execute_takes_a_shell_line_and_more_output_than_a_pipe_holds() -> None:
    _, code, stdout, stderr = execute("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2", shell=True)
    assert (code, len(stdout), len(stderr)) == (0, 300000, 300000)


def test_execute_of_no_command_raises_as_popen_does() -> None:
    with watching(), pytest.raises(FileNotFoundError):
        execute(["no-such-command"])


def test_execute_old_returns_what_os_system_does() -> None:
    for line in ("true", "exit 3", "kill -9 $$"):
        assert execute_old(line) == os.system(line)


@LINUX
def test_a_watched_execute_can_be_ended_by_another_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with watching() as groups, ThreadPoolExecutor(1) as pool:
        context = contextvars.copy_context()
        running = pool.submit(context.run, execute, f"echo begun; {DEAF}", True)
        until((tmp_path / "ready").exists)
        began = time.monotonic()
        groups.kill(0.3)
        proc, code, stdout, _ = running.result()
        assert time.monotonic() - began >= 0.29, "it got its grace"
        assert (code, stdout) == (-signal.SIGKILL, b"begun\n")
        assert not alive(proc.pid)
        assert execute(["echo", "next"])[1:3] == (0, b"next\n"), "the next token's processes are not its business"


@LINUX
def test_a_hidden_process_that_holds_the_pipes_does_not_hold_execute(tmp_path: Path) -> None:
    line = f"(setsid sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/pid; sleep 600; :' &) ; exec sleep 600"
    with watching() as groups, ThreadPoolExecutor(1) as pool:
        running = pool.submit(contextvars.copy_context().run, execute, line, True)
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        groups.terminate_now()
        assert running.result(20)[1] == -signal.SIGKILL
    assert not alive(int((tmp_path / "pid").read_text()))


class Interrupted(Exception):
    """What the signal handler of a test raises."""


@LINUX
@pytest.mark.parametrize("grace", [0.0, 0.3])
def test_a_signal_handler_may_end_it_and_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: float) -> None:
    monkeypatch.chdir(tmp_path)
    pids: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        pids.extend(groups.pids())
        groups.kill(grace)
        raise Interrupted

    def interrupt() -> None:
        until(lambda: groups.pids() and (tmp_path / "ready").exists())
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with watching() as groups, ThreadPoolExecutor(1) as pool:
            sent = pool.submit(interrupt)
            with pytest.raises(Interrupted):
                execute(DEAF, shell=True)
            sent.result()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert len(pids) == 1
    assert not alive(pids[0])


@LINUX
def test_an_interrupt_before_its_pid_is_known_ends_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[call-overload]
            pids.append(self.pid)
            raise Interrupted

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with pytest.raises(Interrupted):
        execute(["sleep", "600"])
    assert not alive(pids[0])


@LINUX
def test_leaving_ends_what_other_threads_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with watching():
            running = pool.submit(contextvars.copy_context().run, execute, DEAF, True)
            until((tmp_path / "ready").exists)
        assert running.result(20)[1] == -signal.SIGKILL

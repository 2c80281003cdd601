"""Commands are started as from a shell, measured, stopped when told, and say why when they cannot run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import LINUX, alive, until

from tokenpool.executers import Finished, Supervisor, SupervisorLost

ROOT = Path(__file__).resolve().parents[2]


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


@LINUX
def test_cpu_time_of_processes_that_left_it_counts_too(run: Callable[..., Finished]) -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    line = f"( ({sys.executable} -ISc '{burn}'; echo > done) & ); while [ ! -e done ]; do sleep 0.05; done"
    assert run("sh", "-c", line).cpu_seconds >= 0.4


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
    assert finished.seconds >= 0.1


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


ZIPPED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tokenpool import children
assert sys.argv[1] in children.__file__
with children.Supervisor() as supervisor:
    sys.exit(supervisor.run(["sh", "-c", "exit 7"], cwd="/", env=os.environ, stdout=None, stderr=None).returncode)
"""


def test_it_starts_from_inside_a_zip(tmp_path: Path) -> None:
    package = tmp_path / "tokenpool.pyz"
    with zipfile.ZipFile(package, "w") as file:
        file.writestr("tokenpool/__init__.py", "")
        for name in ("errors", "processes", "supervisor", "links", "children"):
            file.write(ROOT / "tokenpool" / f"{name}.py", f"tokenpool/{name}.py")
    done = subprocess.run([sys.executable, "-c", ZIPPED, str(package)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (7, "")

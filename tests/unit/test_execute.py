"""picas' `execute` gives back what it always gave, and what it runs can be ended from elsewhere."""

from __future__ import annotations

import contextvars
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest
from processes import LINUX, alive, until

from tokenpool.executers import execute, execute_old, watching

DEAF = "trap '' TERM; echo > ready; while :; do sleep 600; done"


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
    killed: list[float] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        pids.extend(groups.pids())
        killed.append(time.monotonic())
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
            assert time.monotonic() >= killed[0] + grace, "it got its grace"
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert len(pids) == 1
    assert not alive(pids[0])


@LINUX
def test_a_signal_that_interrupts_no_wait_is_heard_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def handler(signum: int, frame: FrameType | None) -> None:
        raise Interrupted

    def elsewhere() -> None:
        until((tmp_path / "ready").exists)
        # A signal that another thread takes leaves the wait as it is, as does one that comes just before the wait.
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)

    # Given a script whose handler leaves
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        # When the signal comes while it waits for a command that never ends
        with watching(), ThreadPoolExecutor(1) as pool:
            sent = pool.submit(elsewhere)
            # Then it leaves
            with pytest.raises(Interrupted):
                execute(DEAF, shell=True)
            sent.result()
    finally:
        signal.signal(signal.SIGUSR2, before)


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


@LINUX
@pytest.mark.parametrize(("grace", "code"), [(0.0, -signal.SIGKILL), (5.0, -signal.SIGTERM)])
def test_what_is_being_started_is_ended_too(monkeypatch: pytest.MonkeyPatch, grace: float, code: int) -> None:
    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **options: object) -> None:
            groups.kill(grace)
            super().__init__(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with watching() as groups:
        assert execute(["sleep", "600"])[1] == code

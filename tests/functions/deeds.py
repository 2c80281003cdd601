"""Functions that tokens call in the tests: good ones, and ones that behave as badly as functions can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tokenpool


class OwnError(Exception):
    """An exception of this module."""


@tokenpool.task
def add(a: int, b: int = 1) -> int:
    print("adding", a, b)
    print("to stderr", file=sys.stderr)
    return a + b


def same(value: Any) -> Any:
    return value


def process_id() -> int:
    return os.getpid()


def fail(text: str) -> None:
    raise OwnError(text, 7)


def leave(code: int) -> None:
    sys.exit(code)


def end_process(code: int) -> None:
    os._exit(code)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def kill_9() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def loop(path: str = "") -> None:
    if path:
        Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


def loop_and_tidy(path: str) -> None:
    try:
        loop(path)
    finally:
        Path(path).unlink()


def no_json() -> set[int]:
    return {1}


def text_of(size: int) -> str:
    return "x" * size


def crash_at(value: int, bad: int) -> int:
    if value == bad:
        os._exit(9)
    return value


def leave_daemon(path: str) -> str:
    """Start a process that nobody waits for, in a session of its own."""
    subprocess.Popen(
        ["sh", "-c", f"setsid sh -c 'echo $$ > {path}.part; mv {path}.part {path}; exec sleep 600' & wait"]
    )
    while not os.path.exists(path):
        time.sleep(0.005)
    return "left"


def mess_up() -> None:
    os.chdir("/")
    os.environ["MESS"] = "1"
    os.umask(0o777)
    sys.stdout.close()


def places() -> dict[str, Any]:
    umask = os.umask(0)
    os.umask(umask)
    here = os.getcwd() == os.environ["TOKENPOOL_WORKDIR"]
    return {"here": here, "mess": os.environ.get("MESS"), "own": os.environ.get("OWN"), "umask": umask}


def shout() -> None:
    """Print from another process than Python, too."""
    print("python")
    sys.stdout.flush()
    subprocess.run(["echo", "a process"], check=True)

"""What a worker process needs of its machine: a folder for attempts, and ears for the signals that say leave."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .bays import Bays


@contextmanager
def scratch(workdir: Path | None, name: str) -> Iterator[Bays]:
    """Give the folders of all attempts of one worker; what holds nothing is removed at the end."""
    base = workdir or Path(tempfile.gettempdir()) / f"tokenpool-{os.getuid()}"
    root = base / name[:15]
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    bays = Bays(str(root))
    try:
        yield bays
    finally:
        bays.close()
        for folder in (root, base):
            try:
                folder.rmdir()
            except OSError:
                break


@contextmanager
def signals(
    leave: Callable[[], None], hurry: Callable[[], None], warned: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Call `leave` on the first SIGTERM or SIGINT and `hurry` on each further one; only in the main thread.

    `warned` is called on SIGUSR1, which batch systems can send some time before a job ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def handle(signum: int, frame: Any) -> None:
        nonlocal told
        if told:
            hurry()
        told = True
        leave()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda signum, frame: warned())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

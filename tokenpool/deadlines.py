"""Ends Python code that runs longer than it may: its children at once, the code itself by an exception."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .errors import TokenTimeout

#: Seconds after which code that swallowed the exception is interrupted again.
AGAIN = 1.0


class Deadline:
    """Context manager: after `seconds` calls `kill` and raises TokenTimeout in the code inside; None means no limit.

    In the main thread a timer signal interrupts even a wait; elsewhere only the death of the children does.
    """

    def __init__(self, seconds: float | None, kill: Callable[[], Any]) -> None:
        self.seconds, self._kill = seconds, kill
        self.passed = False
        self._timer: threading.Timer | None = None
        self._before: Any = None

    def __enter__(self) -> Deadline:
        if self.seconds is None:
            return self
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGALRM, self._alarm)
            signal.setitimer(signal.ITIMER_REAL, max(self.seconds, 1e-6), AGAIN)
        else:
            self._timer = threading.Timer(self.seconds, self._interrupt, (threading.get_ident(),))
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        elif self.seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def _message(self) -> str:
        return f"Token execution exceeded timeout limit of {self.seconds} seconds"

    def _alarm(self, signum: int, frame: FrameType | None) -> None:
        self.passed = True
        self._kill()
        raise TokenTimeout(self._message())

    def _interrupt(self, thread: int) -> None:
        self.passed = True
        self._kill()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TokenTimeout))

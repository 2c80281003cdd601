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
        self._armed = False
        self._lock = threading.Lock()
        self._thread = 0
        self._timer: threading.Timer | None = None
        self._before: Any = None

    def __enter__(self) -> Deadline:
        if self.seconds is None:
            return self
        self._armed = True
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGALRM, self._alarm)
            signal.setitimer(signal.ITIMER_REAL, max(self.seconds, 1e-6), AGAIN)
        else:
            self._thread = threading.get_ident()
            self._timer = threading.Timer(self.seconds, self._interrupt)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.disarm()
        if isinstance(error, TokenTimeout) and not error.message:  # it came from another thread, as a bare class
            error.message = self._message()

    def disarm(self) -> None:
        """Let nothing be interrupted from now on; may be called again."""
        if not self._armed:
            return
        if self._timer is None:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
            return
        self._timer.cancel()
        try:
            with self._lock:
                if self.passed:  # an exception that is still on its way would hit the code after us
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), None)
        except TokenTimeout:
            pass  # it came here; `passed` tells
        finally:
            self._armed = False

    def _message(self) -> str:
        return f"Token execution exceeded timeout limit of {self.seconds} seconds"

    def _alarm(self, signum: int, frame: FrameType | None) -> None:
        if not self._armed or (frame is not None and frame.f_code in _OWN_CODE):
            return  # the code inside has just ended by itself
        self.passed = True
        self._kill()
        raise TokenTimeout(self._message())

    def _interrupt(self) -> None:
        with self._lock:
            if not self._armed:
                return
            self.passed = True
            self._kill()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(TokenTimeout))


_OWN_CODE = (Deadline.__exit__.__code__, Deadline.disarm.__code__)

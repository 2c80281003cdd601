"""Threads for transfers: so many for a whole process, and none that hangs keeps others from their work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Threads:
    """Does deeds in at most `width` daemon threads, first come first served. Safe from several threads."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy: set[int] = set()
        self._starting = 0
        self._lock = threading.Lock()

    def submit(self, deed: Callable[[], None]) -> None:
        """Do it as soon as a thread is free; it must not raise."""
        with self._lock:
            self._waiting.append(deed)
            self._more()

    def follow(self, deed: Callable[[], None]) -> None:
        """Do it in this thread, which is one of ours, after those that wait already."""
        with self._lock:
            self._waiting.append(deed)
            if threading.get_ident() not in self._busy:
                self._more()

    def let_go(self, thread: int) -> None:
        """A thread hangs in what nobody wants any more: another may begin in its place, and it ends when it is back."""
        with self._lock:
            if thread in self._busy:
                self._busy.discard(thread)
                self._more()

    def close(self) -> None:
        """Begin nothing any more."""
        with self._lock:
            self._waiting.clear()

    def _more(self) -> None:
        if self._waiting and len(self._busy) + self._starting < self.width:
            self._starting += 1
            threading.Thread(target=self._serve, name="tokenpool-transfer", daemon=True).start()

    def _serve(self) -> None:
        me = threading.get_ident()
        with self._lock:
            self._starting -= 1
            self._busy.add(me)
        while True:
            with self._lock:
                if me not in self._busy:
                    return
                if not self._waiting:
                    self._busy.discard(me)
                    return
                deed = self._waiting.popleft()
            deed()

"""A storage on this disk that does on demand what real ones do seldom: break off, stall, refuse, lie."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tokenpool.storage import Storages
from tokenpool.storage.base import Entry, Storage
from tokenpool.storage.local import LocalStorage


class FaultyStorage(LocalStorage):
    """Files of this machine; `faults` are used up one by one, each by the next call of its method."""

    def __init__(self, ranges: bool = False) -> None:
        super().__init__({}, {})
        self.ranges = ranges
        self.calls: Counter[str] = Counter()
        self.starts: list[int] = []
        self.faults: dict[str, list[Callable[..., Any]]] = {}
        self.told: Callable[[Entry], Entry] = lambda entry: entry
        self._lock = threading.Lock()

    def fail(self, method: str, *faults: Callable[..., Any]) -> None:
        """Let the next calls of a method meet these faults."""
        self.faults.setdefault(method, []).extend(faults)

    def _fault(self, method: str) -> Callable[..., Any] | None:
        with self._lock:
            self.calls[method] += 1
            faults = self.faults.get(method)
            return faults.pop(0) if faults else None

    def stat(self, url: str) -> Entry:
        if fault := self._fault("stat"):
            fault()
        return self.told(super().stat(url))

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        fault = self._fault("read")
        self.starts.append(start)
        for piece in super().read(url, start, end):
            if fault:
                yield piece[: len(piece) // 2]
                fault()
                return
            yield piece

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        if fault := self._fault("write"):
            tell(1)
            fault()
        return super().write(url, path, tell)


class Only(Storages):
    """Storages of which there is one."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.storage = storage

    def of(self, url: str, credentials: str = "") -> Storage:
        return self.storage


def raising(error: Exception) -> Callable[[], None]:
    """Return a fault that raises."""

    def fault() -> None:
        raise error

    return fault


def lying(**fields: Any) -> Callable[[Entry], Entry]:
    """Return what makes a storage say something else of its files."""
    return lambda entry: replace(entry, **fields)


class Hanging:
    """A fault that hangs until the test is over."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.over = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        self.over.wait(60)

"""Remembers for a minute which passwords were right: a slow hash for each request of a script would be too slow."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from .people import Known

#: Seconds, and how many.
KEPT, MOST = 60.0, 1000


class Recent:
    """Right passwords, as keyed hashes whose key dies with the process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._key = clock, os.urandom(32)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[float, Known]] = OrderedDict()

    def get(self, name: str, password: str) -> Known | None:
        """Return what was found of this name and password a moment ago."""
        with self._lock:
            until, known = self._known.get(self.key(name, password), (0.0, None))
            return known if self._clock() < until else None

    def put(self, name: str, password: str, known: Known) -> None:
        """Remember that this password is right."""
        with self._lock:
            self._known[self.key(name, password)] = (self._clock() + KEPT, known)
            while len(self._known) > MOST:
                self._known.popitem(last=False)

    def key(self, name: str, password: str) -> bytes:
        """Return what stands for a name and a password as long as this process lives."""
        return hmac.digest(self._key, f"{name}\0{password}".encode("utf-8", "replace"), hashlib.sha256)

"""Slows down who guesses passwords: failures are counted by name, by address, and by both."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from ..errors import TooOften

#: Failures that are let pass, and the seconds over which they count.
LIMITS = {"both": (5, 60.0), "address": (20, 300.0), "name": (50, 300.0)}
#: Names and addresses that are remembered: a flood of them costs no more memory than this.
MOST = 20_000


class Attempts:
    """The failures of the last minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def begin(self, name: str, address: str) -> None:
        """Count an attempt as failed before it is made, so that many at once get no further; raises TooOften."""
        now, keys = self._clock(), _keys(name, address)
        with self._lock:
            wait = max(self._wait(key, now) for key in keys)
            if wait > 0:
                raise TooOften("too many failed logins", f"try again in {wait:.0f} s", wait)
            for key in keys:
                self._failures.setdefault(key, deque(maxlen=LIMITS[key[0]][0])).append(now)
                self._failures.move_to_end(key)
            while len(self._failures) > MOST:
                self._failures.popitem(last=False)

    def take_back(self, name: str, address: str) -> None:
        """Count the last attempt no more: it did not fail."""
        with self._lock:
            for key in _keys(name, address):
                times = self._failures.get(key)
                if times:
                    times.pop()
                if not times:
                    self._failures.pop(key, None)

    def succeeded(self, name: str, address: str) -> None:
        """Forget the slips of somebody who got in at last, from there."""
        self.take_back(name, address)
        with self._lock:
            self._failures.pop(_keys(name, address)[0], None)

    def _wait(self, key: tuple[str, str], now: float) -> float:
        most, over = LIMITS[key[0]]
        times = self._failures.get(key)
        return over - (now - times[0]) if times and len(times) >= most else 0.0


def _keys(name: str, address: str) -> tuple[tuple[str, str], ...]:
    place = _network(address)
    return ("both", f"{place} {name}"), ("address", place), ("name", name)


def _network(address: str) -> str:
    """Return what one person has: an address of IPv4, or a whole network of IPv6.

    >>> _network("10.1.2.3"), _network("2001:db8::1"), _network("?")
    ('10.1.2.3', '2001:db8::/64', '?')
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network(f"{found}/64", strict=False))

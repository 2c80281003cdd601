"""A worker's place among the others: its lease, its ear for the bell and for orders, its turn as janitor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .backends.base import Backend, Json
from .bell import BELL, Bell, Ear
from .errors import TokenpoolError
from .janitor import Janitor
from .leases import RENEW_AT, Contact, Lease


class Membership:
    """What joins one worker with the others; `wake` is called whenever there is something to look at.

    News are left in plain attributes, set by other threads and taken by the worker's loop: `orders` (the worker's
    document as others changed it), `rung`, `lost`.
    """

    def __init__(
        self,
        backend: Backend,
        seconds: float,
        slots: int,
        tell: Callable[[], Mapping[str, Any]],
        wake: Callable[[], None],
        adopt_picas_after: float | None = None,
        prefetch: int = 0,
    ) -> None:
        self.backend, self.seconds = backend, seconds
        self._tell, self._wake = tell, wake
        self.contact = Contact(seconds)
        self.lease = self._new_lease(slots, prefetch)
        self.bell = Bell(backend)
        self.janitor = Janitor(backend, seconds, self.contact, lambda: self.lease.name, adopt_picas_after)
        self.ear = Ear(backend, lambda: (BELL, self.lease.name), self._heard, self.contact)
        self.orders: Json | None = None
        self.rung = False
        self.lost = threading.Event()
        self._unheard = False
        self._counted_at = time.monotonic()

    def _new_lease(self, slots: int, prefetch: int) -> Lease:
        return Lease(self.backend, self.seconds, self.contact, slots, self._told, self._obey, self._lose, prefetch)

    def _told(self) -> dict[str, Any]:
        return {"duty": self.janitor.on_duty, **self._tell()}

    # --- news from other threads ---------------------------------------------------------------------------------------

    def _obey(self, doc: Json) -> None:
        self.orders = doc
        self._wake()

    def _lose(self) -> None:
        self.lost.set()
        self._wake()

    def _heard(self, changed: frozenset[str]) -> None:
        if not changed or BELL in changed:
            self.rung = True
            self.janitor.rung()
        if not changed or self.lease.name in changed:
            self._unheard = True
        self._wake()

    # --- for the worker's loop -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look after the pool."""
        self.janitor.start()

    def renew_identity(self, slots: int, prefetch: int = 0) -> Lease:
        """Go on under a new name: the old lease was ended by others."""
        self.lost.clear()
        self.orders = None
        self.lease = self._new_lease(slots, prefetch)
        return self.lease

    def take_orders(self) -> Json | None:
        """Return the worker's document if others wrote into it since; asks the server where the ear heard something."""
        if self._unheard and self.lease.is_open and not self.lost.is_set():
            self._unheard = False
            try:
                self.lease.read()
            except TokenpoolError:
                self._unheard = True
        orders, self.orders = self.orders, None
        return orders

    def notice(self, doc: Json | None) -> None:
        """Take note of the worker's document as somebody read it just now."""
        if self.lease.is_open and (doc is None or doc["_rev"] != self.lease.rev):
            self._unheard = True

    def take_rung(self) -> bool:
        """Tell whether the bell rang since this was asked last."""
        rung, self.rung = self.rung, False
        return rung

    def time_to_count(self) -> bool:
        """Tell, once for each renewal, that a worker should count the tokens that carry its name."""
        if not self.lease.is_open or self.lease.is_idle:
            return False
        if time.monotonic() - self._counted_at < self.seconds * RENEW_AT:
            return False
        self._counted_at = time.monotonic()
        return True

    def idle(self) -> None:
        """Nothing runs and nothing waits: listen, and let the lease rest where others are on duty."""
        self.ear.want(True)
        self.lease.show()
        if not self.janitor.on_duty:
            self.lease.idle()

    def close(self, orderly: bool) -> None:
        """Leave; `orderly` means that no token carries this worker's name any more."""
        self.ear.close()
        self.janitor.close()
        self.bell.flush()
        if orderly:
            self.lease.close()

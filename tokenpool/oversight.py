"""What a worker learns while it runs: orders, cancelled tokens, the bell, a lease that others ended, claims that came late."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from . import conflicts, steering, transitions
from .backends.base import Backend, Json
from .bell import BELL
from .claims import Claimer
from .errors import TokenpoolError
from .leases import RENEW_AT
from .membership import Membership
from .pacing import Pace
from .slots import Slots

log = logging.getLogger(__name__)

#: Seconds between two looks at running tokens and orders, while the worker is too busy to listen.
WATCH = 2.0
#: Seconds that a token runs until others are told of it, and between two such tellings.
LONG, TELL = 2.0, 10.0
#: Seconds for which the logs of a token are shown after somebody asked, and between two such shows.
FOLLOW, SHOW = 30.0, 1.0


class Oversight:
    """Acts on what others want of one worker; all of `resize` are called with a new number of slots.

    `drain` and `stop` are orders that stand, `anew` says that the queue is to be looked at now.
    """

    def __init__(
        self,
        backend: Backend,
        member: Membership,
        claimer: Claimer,
        slots: Slots,
        pace: Pace,
        resize: Sequence[Callable[[int], None]],
    ) -> None:
        self._backend, self._member, self._claimer, self._slots = backend, member, claimer, slots
        self._pace, self._resize = pace, resize
        self.drain = self.stop = self._warned = False
        self.anew = False
        self._looks = 0
        self._watched_at = self._shown_at = time.monotonic()
        self._bell_rev = ""
        self._followed: dict[str, float] = {}
        self._told: frozenset[str] = frozenset()
        self._told_at = time.monotonic()

    @property
    def followed(self) -> Collection[str]:
        """The tokens whose logs somebody watches now."""
        return list(self._followed)

    @property
    def pause(self) -> float:
        """The seconds after which to attend again, if nothing is heard before."""
        return SHOW if self._followed else WATCH

    def warn(self) -> None:
        """Claim no more: the end is near, and what runs may have time enough. A signal handler calls this."""
        self.drain = self._warned = True
        self._slots.wake()

    def attend(self, delivering: Iterable[str]) -> None:
        """Act on all news; `delivering` are claims whose outcome is on its way."""
        member = self._member
        if self._warned:
            self._warned = False
            self._show_drain()
        if member.lost.is_set():
            self._slots.stop_all("lost", 0)
            self._slots.go_on()
            self._claimer.lease = member.renew_identity(self._slots.size, self._slots.prefetch)
        if orders := member.take_orders():
            self._obey(orders)
        if member.take_rung():
            self._claimer.look_anew()
            self.anew = True
        if member.time_to_count():
            self._return_late_claims({*self._slots.running, *delivering})
        self._show()
        self._tell_of_long_ones()
        now = time.monotonic()
        patience = member.seconds * RENEW_AT if member.ear.listens else WATCH
        if self._slots.running and now - self._watched_at >= patience:
            self._watch()

    def _show_drain(self) -> None:
        """Let others see that this worker leaves; it does so in any case."""
        try:
            steering.steer_many(self._backend, [self._member.lease.name], drain=True)
        except TokenpoolError as error:
            log.info("the pool does not know that this worker leaves: %s", error)

    def _obey(self, orders: Json) -> None:
        slots = orders.get("slots")
        if isinstance(slots, int) and not isinstance(slots, bool) and 0 < slots != self._slots.size:
            for each in self._resize:
                each(slots)
            self.anew = True
        prefetch = orders.get("prefetch")
        if isinstance(prefetch, int) and not isinstance(prefetch, bool) and 0 <= prefetch != self._slots.prefetch:
            self._pace.prefetch = prefetch
            self._slots.prepare(prefetch)
            self.anew = True
        self.drain = self.drain or bool(orders.get("drain"))
        self.stop = self.stop or bool(orders.get("stop"))
        follow = orders.get("follow")
        for token in follow if isinstance(follow, dict) else ():
            self._followed[token] = time.monotonic() + FOLLOW
        if orders.get("look") != self._looks:
            self._looks = orders.get("look") or 0
            self._watch()

    def _show(self) -> None:
        """Tell the ends of the logs that somebody watches."""
        now = time.monotonic()
        self._followed = {token: until for token, until in self._followed.items() if until > now}
        if self._followed and now - self._shown_at >= SHOW:
            self._shown_at = now
            self._member.lease.renew_soon()

    def _tell_of_long_ones(self) -> None:
        """Renew once the tokens that run for long are others than those that the document names."""
        now = time.monotonic()
        if now - self._told_at < TELL:
            return
        self._told_at = now
        running = list(self._slots.running.items())
        long = frozenset(claim for claim, each in running if now - each.began >= LONG)
        if long != self._told:
            self._told = long
            self._member.lease.renew_soon()

    def _watch(self) -> None:
        """Stop the children of tokens that were cancelled, or that are not ours any more; hear the bell and orders."""
        self._watched_at = time.monotonic()
        held = dict(self._slots.running)
        ids = [running.doc["_id"] for running in held.values()]
        try:
            me, bell, *docs = self._backend.get_many([self._member.lease.name, BELL, *ids], conflicts=True)
            for place, doc in enumerate(docs):
                if doc is not None and doc.get("_conflicts"):  # what a cluster shows first need not be what stands
                    conflicts.resolve(self._backend, doc["_id"])
                    docs[place] = self._backend.get_many([doc["_id"]])[0]
        except TokenpoolError:
            self._member.contact.broken()
            return
        for (claim, running), now in zip(held.items(), docs):
            if now is None or not transitions.is_held_by(now, claim):
                self._slots.stop([running], "lost")
            elif now.get("cancel"):
                self._slots.stop([running], "cancelled")
        if bell is not None and bell["_rev"] != self._bell_rev:
            self._bell_rev = bell["_rev"]
            self._member.janitor.rung()
        self._member.notice(me)

    def _return_late_claims(self, known: set[str]) -> None:
        """Give back, uncounted, tokens that carry our name without our knowing: their claim arrived late."""
        try:
            late = self._claimer.unknown(known)
            self._claimer.give_back(late)
        except TokenpoolError as error:
            log.info("late claims could not be looked for: %s", error)
            return
        if late:
            log.warning("%d claims arrived after they were given up; their tokens were given back", len(late))
            self._member.bell.ring()

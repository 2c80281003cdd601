"""How large the chaos is: what CI has time for, or what ``--chaos-tokens``, ``--chaos-kills``, ``--chaos-seconds`` ask."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds of a worker's lease here. All promises are in leases; the default one of two minutes would take all night.
LEASE = 2.0
#: Seconds that anything may take which is not measured.
PATIENCE = 60.0


@dataclass(frozen=True)
class Scale:
    """Counts of one round; `seconds` is how long a faulty network is worked through at least."""

    tokens: int = 200
    kills: int = 20
    seconds: float = 8.0

    @property
    def patience(self) -> float:
        """Return the seconds that a round of this size may take on a busy machine."""
        return 2 * PATIENCE + 0.5 * self.tokens + 3 * self.kills + self.seconds

    def recovery(self, lease: float = LEASE) -> float:
        """Return the seconds within which a lost token must run again: two leases, and room for a busy machine."""
        return 2 * lease + 10.0

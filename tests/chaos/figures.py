"""What a chaos test has to show for itself: one line of figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

HEAD = ["test", "kills", "tokens", "lost", "twice", "re-runs", "in-flight", "overlaps", "p50", "p95", "notes"]


@dataclass(frozen=True)
class Figures:
    """Counts of one round. `reruns`: runs that were for nothing; `in_flight`: those of them that harm was done to.

    `recovery`: sorted seconds from each harm until a token that it cost was back in todo.
    """

    name: str
    tokens: int = 0
    kills: int = 0
    lost: int = 0
    twice: int = 0
    reruns: int = 0
    in_flight: int = 0
    overlaps: int = 0
    recovery: Sequence[float] = ()
    notes: str = ""
    more: dict[str, float] = field(default_factory=dict)

    def share(self, part: float) -> float | None:
        """Return the recovery time (s) that this part (0-1) of the cases kept; None where there was none."""
        if not self.recovery:
            return None
        return self.recovery[min(len(self.recovery) - 1, int(part * len(self.recovery)))]

    def row(self) -> list[str]:
        """Return the figures as the columns of `HEAD`."""
        p50, p95 = ("-" if value is None else f"{value:.1f}s" for value in (self.share(0.5), self.share(0.95)))
        numbers = (self.kills, self.tokens, self.lost, self.twice, self.reruns, self.in_flight, self.overlaps)
        notes = " ".join([self.notes, *(f"{name}={value:g}" for name, value in self.more.items())]).strip()
        return [self.name, *map(str, numbers), p50, p95, notes]

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in zip(HEAD, self.row()) if value)


def table(rows: list[Figures]) -> list[str]:
    """Return the lines of a table of all figures."""
    cells = [HEAD, *(figures.row() for figures in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]

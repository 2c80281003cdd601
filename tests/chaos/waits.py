"""Waits for what other processes do: always for a condition, with a deadline that only a fault can reach."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from history import History
from processes import alive
from scale import PATIENCE

from tokenpool.backends.base import ALL_DOCS, Json
from tokenpool.pool import Pool
from tokenpool.transitions import FINAL


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> float:
    """Wait until the condition holds and return the seconds that it took; `what` is told where it never does."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.03)
    return time.monotonic() - began


def all_ended(pool: Pool, count: int, seconds: float = PATIENCE) -> float:
    """Wait until so many tokens are done or in error; a server that is away meanwhile is waited for too."""
    began = time.monotonic()
    while sum((counts := pool.counts())[state] for state in FINAL) < count:
        assert time.monotonic() - began < seconds, f"{count} tokens should have ended in {seconds:g} s: {counts}"
        time.sleep(0.3)
    return time.monotonic() - began


def runs_started(history: History, count: int, seconds: float = PATIENCE) -> float:
    """Wait until so many runs have started."""
    return wait_for(lambda: len(history.runs()) >= count, f"{count} runs have started", seconds)


def runs_ended(history: History, count: int, seconds: float = PATIENCE) -> float:
    """Wait until so many runs came to their end."""
    return wait_for(lambda: history.ended() >= count, f"{count} runs have ended", seconds)


def worker_docs(pool: Pool) -> dict[str, Json]:
    """Return the documents of all workers by their names."""
    rows = pool.backend.view(
        ALL_DOCS, "", {"startkey": "worker_", "endkey": "worker_\uffff", "include_docs": True}
    ).rows
    return {str(row.id): row.doc for row in rows if row.doc is not None}


def renewed(before: Mapping[str, Json], now: Mapping[str, Json]) -> bool:
    """Tell whether a worker has renewed its lease since."""
    return any(doc["renewals"] > before[name]["renewals"] for name, doc in now.items() if name in before)


def leases(pool: Pool, count: int = 2) -> None:
    """Wait until every worker has renewed its lease for two leases: a janitor that wanted to reap one has done it."""
    before = {name: doc["renewals"] for name, doc in worker_docs(pool).items()}

    def all_renewed() -> bool:
        return all(doc["renewals"] >= before.get(name, 0) + 3 * count + 1 for name, doc in worker_docs(pool).items())

    wait_for(all_renewed, f"all leases are renewed for {count} leases")


def parent_of(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def bearers(mark: str) -> list[int]:
    """Return the processes whose environment holds `mark` (``NAME=value``), wherever they stand in the tree."""
    wanted = b"\0" + mark.encode() + b"\0"
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in b"\0" + path.read_bytes() + b"\0":
                found.append(int(path.parent.name))
        except OSError:
            continue  # it ended, or is not ours to look at
    return [pid for pid in found if alive(pid)]


def no_bearer(marks: Iterable[str], seconds: float) -> float:
    """Wait until no process bears one of the marks; return the seconds that it took."""
    wanted = list(marks)
    return wait_for(lambda: not any(map(bearers, wanted)), f"processes that bear {wanted[:3]}", seconds)

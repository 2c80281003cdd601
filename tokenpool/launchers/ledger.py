"""Remembers on this machine what was launched, before and after it was handed in: nothing is lost when we are killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from ..config import home
from .base import Job

#: The id of an order that is being handed in: its jobs are found by its name.
PENDING = ""


def folder_of(environ: Mapping[str, str]) -> Path:
    """Return the folder of the notes: below XDG_STATE_HOME."""
    base = environ.get("XDG_STATE_HOME") or str(home(environ) / ".local" / "state")
    return Path(base) / "tokenpool" / "launched"


class Ledger:
    """One file for each order, by its name; written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def intend(
        self, launcher: str, name: str, pool: str, submitted: float, place: Mapping[str, str] | None = None
    ) -> None:
        """Note that an order is about to be handed in."""
        self.note(pool, [Job(launcher, PENDING, name, submitted=submitted, place=dict(place or {}))])

    def note(self, pool: str, jobs: Iterable[Job]) -> None:
        """Note the jobs of an order in place of what was known of it."""
        by_name: dict[str, list[Job]] = {}
        for job in jobs:
            by_name.setdefault(job.name, []).append(job)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, those in by_name.items():
            part = self.folder / f".{name}.{os.getpid()}"
            part.write_text(json.dumps({"schema": 1, "pool": pool, "jobs": [asdict(job) for job in those]}))
            os.replace(part, self._path(name))

    def jobs(self, pool: str = "", launcher: str = "") -> list[Job]:
        """Return what was noted, the oldest first, of a pool and a launcher where they are given."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                noted = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if pool in ("", noted["pool"]):
                found += [Job(**each) for each in noted["jobs"] if launcher in ("", each["launcher"])]
        return sorted(found, key=lambda job: job.submitted)

    def pool_of(self, name: str) -> str:
        """Return the pool of an order; empty where nothing is noted of it."""
        try:
            return str(json.loads(self._path(name).read_text())["pool"])
        except (OSError, ValueError):
            return ""

    def forget(self, name: str) -> None:
        """Forget an order that has ended."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

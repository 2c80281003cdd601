"""Measures what a container uses, by the control group that its engine gave it."""

from __future__ import annotations

import threading
from pathlib import Path

from ..cgroups import ROOT, number, read

#: Seconds between two looks: the group goes with the container, and takes its numbers along.
PAUSE = 0.25


class Usage:
    """What the containers of one attempt have used, as far as it could be seen from here."""

    def __init__(self, root: Path = ROOT) -> None:
        self.cpu_seconds = 0.0
        self.max_rss_mb = 0.0
        self._root = root

    def watch(self, pid: int, over: threading.Event) -> None:
        """Look at the container of a process until it is over."""
        before = self.cpu_seconds
        groups = groups_of(pid, self._root)
        while groups:
            used, most = _cpu(groups), _memory(groups)
            self.cpu_seconds = max(self.cpu_seconds, before + used)
            self.max_rss_mb = max(self.max_rss_mb, most / (1 << 20))
            if over.wait(PAUSE):
                return


def groups_of(pid: int, root: Path = ROOT) -> dict[str, Path]:
    """Return the folders of a process's control groups by controller; "" is version 2."""
    found = {}
    for line in read(root / f"proc/{pid}/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        for controller in controllers.split(","):
            base = root / "sys/fs/cgroup" / controller.replace("name=", "")
            folder = base / place.lstrip("/")
            if place != "/" and folder.is_dir():  # the highest one is everybody's
                found[controller] = folder
    return found


def _cpu(groups: dict[str, Path]) -> float:
    if "cpuacct" in groups:
        return (number(groups["cpuacct"] / "cpuacct.usage") or 0) / 1e9
    return (number(groups[""] / "cpu.stat", "usage_usec") or 0) / 1e6 if "" in groups else 0.0


def _memory(groups: dict[str, Path]) -> float:
    if "memory" in groups:
        return number(groups["memory"] / "memory.max_usage_in_bytes") or 0
    if "" not in groups:
        return 0
    return number(groups[""] / "memory.peak") or number(groups[""] / "memory.current") or 0

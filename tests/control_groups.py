"""Folders that look like a machine's /proc and /sys, as far as control groups are concerned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

VERSION_1 = """\
22 1 0:20 / /sys rw,nosuid - sysfs sysfs rw
31 22 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
VERSION_2 = "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


def machine(root: Path, files: Mapping[str, str]) -> Path:
    """Make these files below `root`, and return it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def version_2(root: Path, place: str = "/", **files: str) -> Path:
    """Make a machine with version 2 only, whose processes are in the group `place`; a dot in a name is ``__``."""
    named = {f"sys/fs/cgroup{place}/{name.replace('__', '.')}": text for name, text in files.items()}
    about = {
        "proc/self/mountinfo": VERSION_2,
        "proc/self/cgroup": f"0::{place}\n",
        "proc/meminfo": "MemTotal:       16777216 kB\nMemFree:  1 kB\n",
        "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    }
    return machine(root, {**about, **named})


def version_1(root: Path, place: str = "/", **files: str) -> Path:
    """Make a machine with version 1; names as for `version_2`, each put below its own controller."""
    named = {
        f"sys/fs/cgroup/{'memory' if name.startswith('memory') else 'cpu,cpuacct'}{place}/{name.replace('__', '.')}": text
        for name, text in files.items()
    }
    about = {
        "proc/self/mountinfo": VERSION_1,
        "proc/self/cgroup": f"4:memory:{place}\n1:cpu,cpuacct:{place}\n0::/\n",
        "proc/meminfo": "MemTotal:       16777216 kB\n",
        "sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n",
        "sys/fs/cgroup/memory/cgroup.procs": "",
        "sys/fs/cgroup/cpu,cpuacct/cgroup.procs": "",
    }
    return machine(root, {**about, **named})

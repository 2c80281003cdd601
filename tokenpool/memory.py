"""How much memory the processes of a run use together, from /proc."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable

from .children import Child
from .processes import ATTEMPT, children, family, stat_fields

_PAGE = os.sysconf("SC_PAGE_SIZE")
_FORKED = 0x40  # flag of a process that has not executed anything yet: PF_FORKNOEXEC
#: The number of the system call kcmp, which tells whether two processes have one memory.
_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}
_KCMP_VM = 1


def trees(runs: Iterable[Child]) -> dict[Child, set[int]]:
    """Return the processes of each run, those too that lost their parent and hang below the supervisor now."""
    found = {child: set(family(child.pid)) for child in runs if child.pid}
    sessions = {b"%d" % child.pid: child for child in found}
    marks = {os.fsencode(child.mark): child for child in found}
    for supervisor in {child.supervisor for child in found}:
        for pid in children(supervisor):
            session = (stat_fields(pid)[3:4] or [b""])[0]
            owner = sessions.get(session) or marks.get(_mark_of(pid))
            if owner is not None and pid not in found[owner]:
                found[owner].update(family(pid))
    return found


def at_most(pids: Iterable[int]) -> int:
    """Return the bytes that these processes use, where what several share counts several times: a quick look."""
    return sum(_pages(pid)[1] for pid in pids) * _PAGE


def exact(pids: Iterable[int]) -> int:
    """Return the bytes that these processes use; what some share counts once, mapped files do not count."""
    members = set(pids)
    return sum(_share(pid) for pid in members if not _borrows(pid, members))


def _mark_of(pid: int) -> bytes:
    start = os.fsencode(ATTEMPT) + b"="
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return next((entry for entry in file.read().split(b"\0") if entry.startswith(start)), b"")
    except OSError:
        return b""


def _pages(pid: int) -> tuple[int, int]:
    """Return how many pages a process has mapped, and how many of them are in memory."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            size, resident = file.read().split()[:2]
        return int(size), int(resident)
    except (OSError, ValueError):  # it ended meanwhile
        return 0, 0


def _rollup(pid: int) -> dict[bytes, int]:
    """Return what the kernel counts over all that a process has mapped, in bytes; empty where it may not be asked."""
    sizes = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            for line in file.read().splitlines()[1:]:
                name, size = line.split()[:2]
                sizes[name] = int(size) << 10
    except (OSError, ValueError):
        pass
    return sizes


def _share(pid: int) -> int:
    """Return the bytes of a process, each page divided by the number of processes that have it."""
    sizes = _rollup(pid)
    if b"Pss_Anon:" in sizes:
        return sizes[b"Pss_Anon:"] + sizes.get(b"Pss_Shmem:", 0)
    return sizes[b"Pss:"] if b"Pss:" in sizes else _pages(pid)[1] * _PAGE  # an old kernel; or another user's


def _borrows(pid: int, members: set[int]) -> bool:
    """Tell whether a process still lives in its parent's memory, as between vfork and exec: it has none of its own."""
    fields = stat_fields(pid)
    if len(fields) < 7 or not int(fields[6]) & _FORKED or int(fields[1]) not in members:
        return False
    parent = int(fields[1])
    number = _KCMP.get(platform.machine())
    if number is not None:
        arguments = (number, pid, parent, _KCMP_VM, 0, 0)
        answer = ctypes.CDLL(None).syscall(*map(ctypes.c_long, arguments))
        if answer >= 0:
            return bool(answer == 0)
    # Not every kernel has it. One that was merely forked shares each page with its parent, and so has a part of it.
    sizes = _rollup(pid)
    return _pages(pid)[0] == _pages(parent)[0] and sizes.get(b"Pss_Anon:", 0) > 0.9 * sizes.get(b"Anonymous:", 0)

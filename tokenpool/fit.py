"""What tokens ask for, what this machine has, and which tokens fit on it side by side."""

from __future__ import annotations

import copy
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import cgroups
from .checks import check

#: Bytes in one GB of memory or disk, counted as batch systems and the kernel do.
GB = 1 << 30
#: Attempts that ended so make a token ask for its next values.
GROWS_AFTER = ("oom", "timeout")
#: Seconds that a token with a reservation may go unasked while others ask, before it is taken to be gone.
LAPSE = 5.0
_NOISE = 1e-9


@dataclass(frozen=True)
class Resources:
    """An amount of each thing that tokens share; CPUs may be fractions, a GB is 2**30 bytes."""

    cpu_cores: float = 0
    ram_gb: float = 0
    gpus: int = 0
    disk_gb: float = 0
    #: Nobody asked for these CPUs: they are the worker's share for one token.
    by_default: bool = field(default=False, compare=False)


AMOUNTS = ("cpu_cores", "ram_gb", "gpus", "disk_gb")
_SPOKEN = {"cpu_cores": "CPUs", "ram_gb": "GB of memory", "gpus": "GPUs", "disk_gb": "GB of disk"}


@dataclass(frozen=True)
class Placement:
    """What one token was given; `cpus` is empty where it may run on any of the worker's."""

    cpus: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


# --- what a token asks for -----------------------------------------------------------------------------------------


def wanted(doc: Mapping[str, Any], default_cpus: float = 0) -> Resources:
    """Return what a token asks for now; without ``cpu_cores`` it gets `default_cpus`.

    A list moves on to its next value with each attempt that ran out of memory or time, and stays at the last one.
    Raises BadInput for what no machine can give.

    >>> wanted({"resources": {"ram_gb": [2, 4]}, "attempts": [{"failure_class": "oom"}]}).ram_gb
    4.0
    """
    asked = doc.get("resources")
    if asked is None:
        return Resources(cpu_cores=default_cpus, by_default=True)
    check({"resources": asked})
    attempts = doc.get("attempts")
    step = sum(
        isinstance(attempt, Mapping) and attempt.get("failure_class") in GROWS_AFTER
        for attempt in (attempts if isinstance(attempts, list) else ())
    )
    found = {name: _now(asked[name], step) for name in AMOUNTS if asked.get(name) is not None}
    return Resources(
        cpu_cores=found.get("cpu_cores", default_cpus),
        ram_gb=found.get("ram_gb", 0),
        gpus=int(found.get("gpus", 0)),
        disk_gb=found.get("disk_gb", 0),
        by_default="cpu_cores" not in found,
    )


def _now(value: Any, step: int) -> float:
    return float(value[min(step, len(value) - 1)] if isinstance(value, (list, tuple)) else value)


# --- what this machine has -----------------------------------------------------------------------------------------


def capacity(
    environ: Mapping[str, str] = os.environ,
    root: Path = cgroups.ROOT,
    cpus: Sequence[int] | None = None,
    folder: Path | None = None,
) -> Resources:
    """Return what this process may use: the least of what the machine, its control groups and the batch job allow.

    `root` is where /proc, /sys and /dev are looked for, `cpus` are the CPUs that the process is bound to (default: as
    the kernel says), `folder` is where tokens work (default: the folder for temporary files).
    """
    cores = [float(len(cpu_ids() if cpus is None else cpus)), *_cpu_quotas(root)]
    memory = [float(_memory_of_machine(root)), *_memory_limits(root)]
    job_cpus, job_mb = _number(environ, "SLURM_CPUS_ON_NODE"), _number(environ, "SLURM_MEM_PER_NODE")
    if job_mb is None and job_cpus is not None:
        job_mb = (_number(environ, "SLURM_MEM_PER_CPU") or 0) * job_cpus
    cores += [job_cpus] if job_cpus else []
    memory += [job_mb * (1 << 20)] if job_mb else []  # 0 means all of the node's
    place = Path(folder or tempfile.gettempdir()).absolute()
    while not place.exists():  # it is made later
        place = place.parent
    return Resources(
        cpu_cores=round(min(cores), 3),
        ram_gb=round(min(memory) / GB, 3),
        gpus=len(gpu_ids(environ, root)),
        disk_gb=round(shutil.disk_usage(place).free / GB, 3),
    )


def cpu_ids() -> tuple[int, ...]:
    """Return the numbers of the CPUs that this process may run on."""
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except AttributeError:  # not Linux
        return tuple(range(os.cpu_count() or 1))


def own_cpus() -> tuple[int, ...]:
    """Return the CPUs that were given to this process alone, as far as one can tell: none if it may use them all.

    Then other workers may be on this machine too, and two that bind tokens to CPUs would choose the same ones.
    """
    cpus = cpu_ids()
    return cpus if len(cpus) < (os.cpu_count() or 1) else ()


def gpu_ids(environ: Mapping[str, str] = os.environ, root: Path = cgroups.ROOT) -> tuple[str, ...]:
    """Return the GPUs of this process as CUDA names them: those in CUDA_VISIBLE_DEVICES, else all of the machine."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        devices = [path for path in root.glob("dev/nvidia[0-9]*") if path.name[6:].isdigit()]
        return tuple(map(str, range(len(devices))))  # counted from 0 by CUDA, also where the devices are not
    names: list[str] = []
    for name in map(str.strip, visible.split(",")):
        if not name or name.startswith("-") or name == "NoDevFiles" or name in names:
            break  # CUDA ignores whatever follows one that is none
        names.append(name)
    return tuple(names)


def _cpu_quotas(root: Path) -> Iterable[float]:
    group = cgroups.own("cpu", root)
    for folder in group.lineage() if group else ():
        quota, period = cgroups.number(folder / "cpu.cfs_quota_us"), cgroups.number(folder / "cpu.cfs_period_us")
        if group and group.version == 2:
            words = [*cgroups.read(folder / "cpu.max").split(), "", ""]
            quota, period = (int(word) if word.isdigit() else None for word in words[:2])
        if quota and period and quota > 0:
            yield quota / period


def _memory_limits(root: Path) -> Iterable[float]:
    group = cgroups.own("memory", root)
    for folder in group.lineage() if group else ():
        limit = cgroups.number(folder / ("memory.limit_in_bytes" if group and group.version == 1 else "memory.max"))
        if limit:
            yield limit


def _memory_of_machine(root: Path) -> int:
    kilobytes = cgroups.number(root / "proc/meminfo", "MemTotal:")
    return kilobytes << 10 if kilobytes else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _number(environ: Mapping[str, str], name: str) -> float | None:
    try:
        return float(environ[name])
    except (KeyError, ValueError):
        return None


# --- which tokens fit ----------------------------------------------------------------------------------------------


def lacking(have: Resources, want: Resources) -> str:
    """Return in words of what there is too little, "" where it is enough.

    >>> lacking(Resources(4, 8), Resources(2, 16))
    '16 GB of memory where there are 8'
    """
    short = [name for name in AMOUNTS if getattr(want, name) > getattr(have, name) + _NOISE]
    return ", ".join(
        f"{getattr(want, name):g} {_SPOKEN[name]} where there are {round(getattr(have, name), 1):g}" for name in short
    )


@dataclass
class _Wait:
    """The token for which room is to be kept once it has waited long enough."""

    key: str
    want: Resources
    priority: float
    since: float
    #: When others asked first after this one did; None: nobody has.
    passed_over: float | None = None


class _Line:
    """Who waits; shared by a packing and its sketches."""

    wait: _Wait | None = None


class Packing:
    """Gives tokens their part of a machine; to be used by one thread.

    `cpus` are those that tokens may be bound to (empty: none is bound), `gpus` the names of the GPUs. A token that did
    not fit for `patience` seconds gets a reservation: smaller ones of its priority or below are then refused what it
    waits for. The time is that of `clock`, in seconds.
    """

    def __init__(
        self,
        total: Resources,
        cpus: Sequence[int] = (),
        gpus: Sequence[str] = (),
        *,
        patience: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.patience = replace(total, gpus=min(total.gpus, len(gpus))), patience
        self._cpus, self._gpus = tuple(cpus), tuple(gpus)
        self._clock = clock
        self._taken: dict[str, tuple[Resources, Placement]] = {}
        self._line = _Line()
        self._sketched = False
        self._count()

    @property
    def available(self) -> Resources:
        """What is not taken."""
        return self._available

    @property
    def reserved(self) -> str:
        """The key of the token that room is kept for, "" without any."""
        wait = self._reservation()
        return wait.key if wait else ""

    def fits_ever(self, want: Resources) -> bool:
        """Tell whether a token would fit if it were alone."""
        return _covers(self.total, want)

    def fits(self, key: str, want: Resources, priority: float = 0) -> bool:
        """Tell whether `take` would give a place now. A token that finds no room begins, or goes on, to wait."""
        if key in self._taken or not self.fits_ever(want):
            return False
        wait, now = self._line.wait, self._clock()
        if wait and wait.key == key:
            wait.passed_over = None
        elif wait and wait.passed_over is None:
            wait.passed_over = now
        if not _covers(self._available, want):
            self._refuse(key, want, priority, now)
            return False
        wait = self._reservation()
        if wait is None or wait.key == key or priority > wait.priority or _covers(want, wait.want):
            return True
        return not _delays(self._available, want, wait.want)

    def take(self, key: str, want: Resources, priority: float = 0) -> Placement | None:
        """Give a token its place, to be returned by `free`; None: there is no room for it now, or it has one."""
        if not self.fits(key, want, priority):
            return None
        placement = self._place(want)
        self._taken[key] = (want, placement)
        self._count()
        if not self._sketched and self._line.wait and self._line.wait.key == key:
            self._line.wait = None
        return placement

    def free(self, key: str) -> None:
        """Take back the place of a token; one that has none is no error."""
        if self._taken.pop(key, None):
            self._count()

    def reserve(self, key: str, want: Resources, priority: float = 0) -> None:
        """Keep room for a token from now on, instead of for any other; one that can never fit gets none."""
        if self.fits_ever(want):
            self._line.wait = _Wait(key, want, priority, self._clock() - self.patience)

    def forget(self, key: str) -> None:
        """Keep no room for a token any more: somebody else has it."""
        if self._line.wait and self._line.wait.key == key:
            self._line.wait = None

    def sketch(self) -> Packing:
        """Return a copy in which to try what fits together; who waits there waits here too."""
        other = copy.copy(self)
        other._taken, other._sketched = dict(self._taken), True
        return other

    def _count(self) -> None:
        """Add up what is taken: from nothing each time, so that fractions leave no trace."""
        wants, places = [want for want, _ in self._taken.values()], [place for _, place in self._taken.values()]
        left = {name: getattr(self.total, name) - math.fsum(getattr(want, name) for want in wants) for name in AMOUNTS}
        self._available = Resources(**{**left, "gpus": int(left["gpus"])})
        bound = {cpu for place in places for cpu in place.cpus}
        lent = {gpu for place in places for gpu in place.gpus}
        self._free_cpus = [cpu for cpu in self._cpus if cpu not in bound]
        self._free_gpus = [gpu for gpu in self._gpus if gpu not in lent]

    def _place(self, want: Resources) -> Placement:
        asked = want.cpu_cores > 0 and not want.by_default
        cores, gpus = int(want.cpu_cores), tuple(self._free_gpus[: want.gpus])
        whole = asked and cores == want.cpu_cores and cores <= len(self._free_cpus)
        environment = {"CPU": str(max(1, cores))} if want.cpu_cores > 0 else {}
        if asked:
            environment["OMP_NUM_THREADS"] = environment["CPU"]
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        if want.ram_gb > 0:
            environment["TOKENPOOL_RAM_GB"] = f"{want.ram_gb:.6f}".rstrip("0").rstrip(".")
        return Placement(tuple(self._free_cpus[:cores]) if whole else (), gpus, environment)

    def _refuse(self, key: str, want: Resources, priority: float, now: float) -> None:
        """Note that a token found no room. Who takes the place of another in the line has waited as long as that."""
        wait = self._line.wait
        if wait is None:
            self._line.wait = _Wait(key, want, priority, now)
        elif wait.key == key or priority > wait.priority or self._gone(wait, now):
            self._line.wait = _Wait(key, want, priority, wait.since)

    def _reservation(self) -> _Wait | None:
        wait, now = self._line.wait, self._clock()
        if wait is None or now - wait.since < self.patience or wait.key in self._taken:
            return None
        if self._gone(wait, now):
            self._line.wait = None
            return None
        return wait

    @staticmethod
    def _gone(wait: _Wait, now: float) -> bool:
        return wait.passed_over is not None and now - wait.passed_over > LAPSE


def _covers(have: Resources, want: Resources) -> bool:
    return (
        want.cpu_cores <= have.cpu_cores + _NOISE
        and want.ram_gb <= have.ram_gb + _NOISE
        and want.gpus <= have.gpus
        and want.disk_gb <= have.disk_gb + _NOISE
    )


def _delays(have: Resources, small: Resources, big: Resources) -> bool:
    """Tell whether `small` would use something of which not enough is left for `big`."""
    left = ((getattr(have, name), getattr(small, name), getattr(big, name)) for name in AMOUNTS)
    return any(uses > 0 and big_needs > 0 and has - uses < big_needs - _NOISE for has, uses, big_needs in left)

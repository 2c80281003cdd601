"""The interface of what starts workers elsewhere: four methods, of which one is pure text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import TokenpoolError

#: States of a job. `unknown`: its batch system does not know it, or could not be asked; that is not `ended`.
WAITING, RUNNING, ENDED, UNKNOWN = "waiting", "running", "ended", "unknown"


class LaunchFailed(TokenpoolError):
    """A batch system or a cloud refused; `jobs` are those that it had taken before."""

    def __init__(self, message: str, hint: str, jobs: Sequence[Job] = ()) -> None:
        super().__init__(message, hint)
        self.jobs = list(jobs)


class QuotaReached(LaunchFailed):
    """There is no more to be had now; later there may be."""


@dataclass(frozen=True)
class Order:
    """Workers that somebody wants: how many jobs, what each may use, and what it runs. Sizes in GB, times in seconds."""

    pool: str
    jobs: int = 1
    slots: int = 1
    cpus: int = 1
    ram_gb: float | None = None
    gpus: int = 0
    walltime: float | None = None
    #: A name that is this order's alone; what it started is found by it, even if nobody noted an id.
    name: str = ""
    #: The words behind ``tokenpool work``, without those that the launcher adds (pool, slots, walltime).
    work: tuple[str, ...] = ()
    #: The words behind ``--``, which go to the batch system as they are.
    extra: tuple[str, ...] = ()
    #: Shell lines that come before the worker: modules, a virtual environment.
    setup: tuple[str, ...] = ()
    #: How the worker is called there: ``tokenpool``, ``python3 tokenpool.pyz``.
    program: str = "tokenpool"
    #: A file there that holds the pool's password; the password itself is in no script, no argument, no job's environment.
    password_file: str = ""
    #: Where the jobs' own output goes.
    logs: str = ""
    #: Variables that the worker gets; no secrets.
    env: tuple[tuple[str, str], ...] = ()
    #: The text of the template to fill in place of the shipped one.
    template: str = ""
    #: Files of this machine that travel with each job, where there is no common disk.
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """What a batch system or a cloud made of an order, or of a part of it: one job, one array, one machine."""

    launcher: str
    id: str
    name: str
    state: str = WAITING
    #: Workers in it, and those of them that run now.
    size: int = 1
    running: int = 0
    #: Why it waits or how it ended, in the words of its system.
    reason: str = ""
    #: Seconds since 1970.
    submitted: float = 0.0
    #: What only its launcher understands: a region, a queue.
    place: dict[str, str] = field(default_factory=dict)


class Seen(Protocol):
    """A worker of the pool, as far as a launcher has to know it."""

    @property
    def job(self) -> str:
        """The order that started it."""

    @property
    def hostname(self) -> str:
        """Its machine."""

    @property
    def state(self) -> str:
        """What it does; `fenced`: others have ended its lease."""


@dataclass(frozen=True)
class Left:
    """A worker that was there once and of which nothing is left."""

    job: str
    hostname: str = ""
    state: str = "fenced"


class Launcher(ABC):
    """Starts workers by one kind of system. It keeps nothing: who wants to know later keeps the jobs."""

    @abstractmethod
    def script(self, order: Order) -> str:
        """Return what will be handed in, for a person to read and change. Pure: it looks at nothing but the order.

        Raises BadInput for an order that makes no sense here.
        """

    @abstractmethod
    def submit(self, order: Order, script: str) -> list[Job]:
        """Hand the script in; returns what was made of it.

        Raises NotFound where the system's commands are missing here, LaunchFailed (QuotaReached) where it refuses; what it
        took nevertheless is in the error. It is never handed in a second time by itself.
        """

    @abstractmethod
    def status(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs as they are now, in the same order; what cannot be asked is `unknown`."""

    @abstractmethod
    def cancel(self, jobs: Sequence[Job], only_waiting: bool = False) -> None:
        """End them; what has ended already is no error. Raises LaunchFailed.

        `only_waiting`: leave alone what has started by now, as far as the system can tell.
        """

    def _not_started(self, jobs: Sequence[Job]) -> list[Job]:
        """Return those of which nothing runs now; for systems that cannot be told to cancel only these."""
        return [job for job in self.status(jobs) if job.state == WAITING and job.running == 0]

    def find(self, name: str) -> list[Job]:
        """Return the jobs of an order by its name, where the system can be asked so: an id may have got lost."""
        return []

    def place(self, order: Order) -> dict[str, str]:
        """Return what has to be noted of an order before it is handed in, so that `look_for` finds it."""
        return {}

    def look_for(self, job: Job) -> list[Job]:
        """Return what was made of a noted order whose ids got lost."""
        return self.find(job.name)

    def sweep(self, order: Order, workers: Iterable[Seen], prefix: str = "", dry_run: bool = False) -> list[str]:
        """Remove what orders like this one left behind and what has no worker any more; tells it in one line each.

        `prefix`: only of orders whose names begin so.
        """
        return []

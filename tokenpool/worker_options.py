"""How a worker is told to behave, what it tells, and when it looks for tokens again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .backends.base import Json
from .fit import Resources
from .leases import LEASE
from .runners.base import Policy


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker behaves; times in seconds, sizes in bytes."""

    slots: int = 1
    batches: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    design: str = ""
    view: str = ""
    quit: bool = False
    idle_timeout: float | None = None
    poll: float = 5.0
    max_tasks: int | None = None
    max_total_time: float | None = None
    grace: float = 10.0
    log_limit: int = 1_000_000
    workdir: Path | None = None
    cleanup: str = "success"
    #: Run every command in this folder instead of one of its own.
    cwd: Path | None = None
    #: Tokens claimed beyond the free slots, so that they are here when a slot is free.
    prefetch: int = 0
    lease: float = LEASE
    spool: Path | None = None
    #: What tokens may use of this machine; None: all that is there.
    capacity: Resources | None = None
    #: When this worker must have left, in seconds since 1970 by this machine's clock; None: nobody knows.
    ends: float | None = None
    #: A shell line that is run when the worker has been idle for its time, before it leaves.
    on_idle: str = ""
    max_fast_failures: int | None = None
    #: A shell line that says by its exit code whether this machine is well again.
    check: str = ""
    adopt_picas_after: float | None = None
    #: What tokens may do here.
    policy: Policy = field(default_factory=Policy)
    #: The owner's options of storages by the beginning of URLs; a value ``secret:NAME`` names a secret of this machine.
    storage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: The folder of shared inputs, for all workers of this machine; "": below XDG_CACHE_HOME.
    cache: str = ""
    #: How large that may grow: bytes, ``50GB``, or ``20%`` of its disk; `staging.cache_place.cache_of` opens it.
    cache_limit: str = "20%"
    #: Percent of the scratch disk in use from which on nothing is claimed and old folders are removed.
    scratch_limit: float = 95.0
    #: Streams to and from storages at a time.
    transfers: int = 8


@dataclass(frozen=True)
class Event:
    """Something that happened to a token: started, finished, returned, superseded; or idle."""

    kind: str
    token: Json
    state: str = ""
    workdir: str = ""


@dataclass
class Summary:
    """What a worker did in its life."""

    done: int = 0
    failed: int = 0
    returned: int = 0
    superseded: int = 0
    undelivered: int = 0
    #: The folder of the spool, where something was left in it.
    spool: str = ""


def cpu_count() -> int:
    """Return the CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1

"""Starts workers on this machine, each a process of its own that outlives the shell."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..processes import HAS_PROC, birth, stat_fields
from .base import ENDED, RUNNING, Job, Launcher, LaunchFailed, Order
from .rendering import script_of, worker_line


class LocalLauncher(Launcher):
    """A worker is known by its process id and the time of its birth, so that no stranger is ever signalled."""

    def script(self, order: Order) -> str:
        limit = [] if order.walltime is None else ["--walltime", f"{int(order.walltime)}s"]
        return script_of(order, "local.sh", {"worker": worker_line(order, *limit)})

    def submit(self, order: Order, script: str) -> list[Job]:
        jobs: list[Job] = []
        try:
            for number in range(1, order.jobs + 1):
                jobs.append(_start(order, script, number))
        except OSError as error:
            told = f"worker {len(jobs) + 1} of {order.jobs} cannot be started: {error.strerror}"
            raise LaunchFailed(told, "launch fewer, and check ulimit -u and the disk", jobs) from None
        return jobs

    def status(self, jobs: Sequence[Job]) -> list[Job]:
        return [replace(job, state=RUNNING if (up := _lives(job)) else ENDED, running=int(up)) for job in jobs]

    def cancel(self, jobs: Sequence[Job], only_waiting: bool = False) -> None:
        for job in jobs if not only_waiting else ():  # what is here runs
            if _lives(job):
                try:
                    os.kill(_pid(job), signal.SIGTERM)
                except ProcessLookupError:
                    pass
                except PermissionError:
                    raise LaunchFailed(f"worker {job.id} is somebody else's", "ask its owner to end it", jobs) from None

    def find(self, name: str) -> list[Job]:
        pids = [int(each) for each in os.listdir("/proc") if each.isdigit()] if HAS_PROC else []
        found = [pid for pid in pids if f"TOKENPOOL_LAUNCH={name}".encode() in _environment(pid)]
        # What a worker has started has its environment too; the worker is at the top.
        tops = [pid for pid in found if int((stat_fields(pid)[1:2] or [b"0"])[0]) not in found]
        return [Job("local", f"{pid}.{birth(pid)}", name, RUNNING, running=1) for pid in tops]


def _start(order: Order, script: str, number: int) -> Job:
    told = Path(order.logs or os.devnull)
    log = told / f"{order.name}-{number}.log" if order.logs else told
    with log.open("ab") as file:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script], start_new_session=True, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            env={**os.environ, "TOKENPOOL_LAUNCH": order.name},
        )  # fmt: skip
    # It is to outlive us: nobody here waits for it.
    process.returncode = 0
    return Job("local", f"{process.pid}.{birth(process.pid)}", order.name, RUNNING, running=1)


def _pid(job: Job) -> int:
    return int(job.id.partition(".")[0])


def _lives(job: Job) -> bool:
    fields = stat_fields(_pid(job))
    if not HAS_PROC:
        return _answers(_pid(job))
    return bool(fields) and fields[0] not in (b"Z", b"X") and birth(_pid(job)) == int(job.id.partition(".")[2])


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []

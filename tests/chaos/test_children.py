"""R9: what tokens start may ignore signals, fork, hide in sessions of its own, or be killed: nothing of it stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from figures import Figures
from fleet import Fleet
from history import History
from processes import alive
from scale import LEASE, PATIENCE
from waits import all_ended, parent_of, wait_for

from tokenpool.pool import Pool

Judge = Callable[..., Figures]

#: Seconds after which nothing of a token may be left.
GONE = 10.0
MEMORY = Path("/sys/fs/cgroup/memory")


class Brood:
    """Processes that a token starts and that try hard to outlive it; known by a number that only they have."""

    def __init__(self) -> None:
        self.mark = f"600.{uuid4().int % 10**9:09}"

    @property
    def command(self) -> str:
        """What begets them: one ignores SIGTERM, one has its own session, one has no parent and no environment."""
        sleep = f"sleep {self.mark}"
        return (
            f"trap '' TERM HUP; {sleep} & setsid {sleep} & (setsid env -i /bin/sh -c 'trap \"\" TERM; {sleep} & {sleep}' &); "
            f"for n in 1 2 3 4 5; do (setsid {sleep} &); done; "
        )

    @property
    def count(self) -> int:
        """How many there are when all have begun."""
        return 9

    def alive(self) -> list[int]:
        """Return those that live."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"sleep\0{self.mark}\0".encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return [pid for pid in found if alive(pid)]


@pytest.fixture
def brood() -> Iterator[Brood]:
    brood = Brood()
    yield brood
    for pid in brood.alive():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["cancelled", "told", "killed", "ended"])
def test_nothing_outlives_its_token(
    pool: Pool, fleet: Fleet, report: Callable[[Figures], None], brood: Brood, tmp_path: Path, how: str
) -> None:
    # Given a token whose processes do all they can to stay
    wait = f"while [ ! -e {tmp_path}/end ]; do sleep 0.1; done"
    (token,) = pool.push(brood.command + wait)
    worker = fleet.start()
    wait_for(lambda: len(brood.alive()) == brood.count, "all of them run")
    # When it is cancelled, or its worker is told to leave, or killed, or when it simply ends
    if how == "cancelled":
        pool.cancel(token)
    elif how == "told":
        fleet.end(worker)
    elif how == "killed":
        fleet.kill(worker)
    else:
        (tmp_path / "end").touch()
    # Then nothing of it is left soon
    took = wait_for(lambda: not brood.alive(), f"{how}: {len(brood.alive())} outlived their token", GONE)
    report(Figures("", tokens=1, kills=1, notes=f"nothing left after {took:.1f}s"))
    if how == "ended":
        all_ended(pool, 1)
        assert pool.get(token).state == "done"


def test_many_forks(pool: Pool, fleet: Fleet, brood: Brood) -> None:
    # Given a token that forks three hundred times, and is over at once
    (token,) = pool.push(f"n=0; while [ $n -lt 300 ]; do (sleep {brood.mark} &); n=$((n + 1)); done")
    fleet.start()
    all_ended(pool, 1)
    wait_for(lambda: not brood.alive(), "forks outlived their token", GONE)
    assert pool.get(token).state == "done"


def test_a_child_that_is_killed_from_outside_is_a_failure_of_its_token(
    pool: Pool, fleet: Fleet, history: History
) -> None:
    # Given a token and its child
    (token,) = pool.push(history.tokens(1, gate="go", long_each=0))
    worker = fleet.start()
    wait_for(lambda: history.runs(), "it runs")
    # When somebody kills it
    os.kill(history.runs()[0].pid, signal.SIGKILL)
    all_ended(pool, 1)
    # Then the token says so, and the worker goes on
    (attempt,) = pool.get(token)["attempts"]
    assert attempt["exit_code"] in (-9, 137)
    assert attempt["failure_class"] in ("executor", "oom")
    assert attempt["counted"]
    more = pool.push(history.tokens(2, name="more", long_each=0))
    all_ended(pool, 3)
    assert {run.worker for run in history.runs() if run.token in more} == {worker.pid}


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A cgroup that holds 32 MB, where this machine lets us make one."""
    group = MEMORY / f"tokenpool-chaos-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(32 << 20))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield group
    group.rmdir()


def test_the_kernel_kills_a_child_for_its_memory(
    pool: Pool, fleet: Fleet, history: History, small_memory: Path
) -> None:
    # Given a token that takes more memory than there is for it
    eat = "exec python3 -c 'x = bytearray(1 << 28); print(len(x))'"
    (token,) = pool.push(f"echo $$ > {small_memory}/cgroup.procs; {eat}")
    fleet.start()
    all_ended(pool, 1)
    # Then it ends in error with the reason, and the worker goes on
    (attempt,) = pool.get(token)["attempts"]
    assert attempt["exit_code"] in (-9, 137)
    assert attempt["failure_class"] in ("executor", "oom")
    pool.push(history.tokens(2))
    all_ended(pool, 3)
    fleet.nobody_left()
    fleet.leave()


def test_a_supervisor_that_is_killed_loses_no_token(pool: Pool, fleet: Fleet, history: History, judge: Judge) -> None:
    # Given a worker whose tokens run below its supervisor
    ids = pool.push(history.tokens(2, gate="go", long_each=0))
    worker = fleet.start()
    wait_for(lambda: len(history.runs()) == 2, "both run")
    before = history.runs()
    # When the kernel takes that small process
    fleet.note(worker, "supervisor")
    os.kill(parent_of(before[0].pid), signal.SIGKILL)
    # Then, whether the worker goes on or leaves, others can run what it had
    fleet.start()
    wait_for(lambda: len(history.runs()) >= 4, "both run again", 2 * LEASE + PATIENCE)
    wait_for(lambda: not any(alive(run.pid) for run in before), "the first runs live on", GONE)
    history.open_gate("go")
    all_ended(pool, 2)
    fleet.leave()
    judge(fleet, pool, ids)
    assert pool.counts()["done"] == 2

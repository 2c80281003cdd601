"""R8: a worker whose disk is full: what it cannot run or keep goes to others, and nothing is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from couch_server import Couch
from figures import Figures
from fleet import Fleet, Member
from history import History
from scale import LEASE, PATIENCE
from tcp_proxy import REFUSE, TcpProxy
from waits import all_ended, wait_for, worker_docs

from tokenpool.pool import Pool

Judge = Callable[..., Figures]

KB = 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte; only root can make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"no small disk can be made here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill the disk; return the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4 * KB))
        except OSError:
            return filler


def test_a_full_scratch_disk_costs_no_token(
    pool: Pool, fleet: Fleet, history: History, judge: Judge, small_disk: Path
) -> None:
    # Given a worker on a full disk, and a healthy one
    ids = pool.push(history.tokens(20, long_each=0))
    fill(small_disk)
    full = fleet.start(workdir=small_disk)
    # When the one has tried
    wait_for(lambda: complaint(pool, full) or not full.runs() or history.ended(), "the worker notices its disk")
    # Then no token has failed by it, or ended without its logs: all are done by the other, and the one says why it is not
    assert pool.counts()["error"] == 0
    fleet.start()
    all_ended(pool, 20)
    fleet.nobody_left(but=[full])
    told = complaint(pool, full)
    fleet.leave()
    judge(fleet, pool, ids)
    assert pool.counts()["done"] == 20
    assert told, "the worker says nothing about its disk"


def complaint(pool: Pool, member: Member) -> str:
    """Return what a worker says about its disk, in its document or on its standard error."""
    notes = [str(doc.get("note") or "") for doc in worker_docs(pool).values() if doc.get("pid") == member.pid]
    return "".join(line for line in [*notes, *member.words().splitlines()] if "space" in line or "full" in line)


def test_a_disk_that_logs_fill_up_costs_no_token(pool: Pool, fleet: Fleet, history: History, small_disk: Path) -> None:
    # Given tokens whose logs fill the disk of a worker while they run, together not one by one
    ids = pool.push(history.tokens(8, seconds=0.5, long_each=1))
    small = fleet.start(workdir=small_disk, slots=4)
    wait_for(lambda: history.ended() >= 4 or not small.runs(), "the disk is full")
    # When a healthy worker comes
    fleet.start()
    all_ended(pool, 8)
    # Then every token has ended, and none that is done has lost a part of its logs without a word
    fleet.nobody_left(but=[small])
    for each in ids:
        doc = pool.get(each)
        whole = pool.logs(each).out == history.log(each, doc["attempts"][-1]["claim"], "out")
        told = doc.get("error") or doc["attempts"][-1]["failure_class"]
        assert whole or told, f"{each} is {doc.state}, and a part of its log is missing"


def test_a_full_spool_costs_no_result(
    couch_server: Couch, couch_db: str, tmp_path: Path, history: History, judge: Judge, small_disk: Path
) -> None:
    # Given a worker with a spool on a full disk
    from tokenpool.pool import connect

    fill(small_disk)
    with connect(couch_db, create=True) as pool, TcpProxy(couch_server.url) as proxy:
        with Fleet(couch_db, tmp_path / "fleet") as fleet:
            ids = pool.push(history.tokens(4, seconds=1.0, long_each=0))
            fleet.start(url=proxy.pool_url(couch_db, timeout=2), slots=4, spool=small_disk)
            wait_for(lambda: len(history.runs()) == 4, "all run")
            # When its server is away until after its tokens ended
            with proxy.partition(REFUSE):
                wait_for(lambda: history.ended() == 4, "all end")
                wait_for(lambda: "away" in fleet.words(), "the worker notices")
            # Then it keeps their results in its memory, and delivers them: nobody else looked for them
            all_ended(pool, 4, LEASE + PATIENCE)
            fleet.nobody_left()
            fleet.leave()
            judge(fleet, pool, ids)
            assert pool.counts()["done"] == 4

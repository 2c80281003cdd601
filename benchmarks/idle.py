"""What workers cost that have nothing to do, and how soon they wake: requests, CPU time, memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from functions import couch_pool, sqlite_pool, warm
from measuring import Options, Server, Table

from tokenpool.bell import ring
from tokenpool.pool import Pool, connect

HERE = Path(__file__).resolve().parent
#: Workers in one process; on SQLite all are on this machine, so there are fewer.
EACH, ON_SQLITE = 125, 50
#: Seconds until all have become quiet, over which is measured, and between two rings; rings.
SETTLE, MEASURE, PAUSE, RINGS = 240.0, 60.0, 15.0, 3


def measure(options: Options, table: Table) -> None:
    table.section("Idle workers: whole workers in threads, which hold their questions open as they always do")
    if options.idle_workers:
        with sqlite_pool() as pool:
            _idle("SQLite", pool, pool.backend.url, min(ON_SQLITE, options.idle_workers), 50, table)
        if options.couchdb:
            server = Server(options.couchdb)
            with couch_pool(server) as pool:
                url = server.pool_url(pool.backend.url.rpartition("/")[2])
                _idle("CouchDB", pool, url, options.idle_workers, 150, table)
        else:
            table.skip("CouchDB", "no server was named")
    _memory(64, table)


class Clients:
    """The processes with the workers in them."""

    def __init__(self, url: str, count: int) -> None:
        sizes = [min(EACH, count - at) for at in range(0, count, EACH)]
        command = [sys.executable, str(HERE / "idle_clients.py"), url]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._processes = [subprocess.Popen([*command, str(size)], **pipes) for size in sizes]
        for process in self._processes:
            process.stdout.readline()

    def ask(self, line: str) -> list[Any]:
        """Return what each process answers."""
        for process in self._processes:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self._processes]

    def end(self) -> None:
        for process in self._processes:
            process.stdin.write("end\n")
            process.stdin.close()
        for process in self._processes:
            process.wait()


def _idle(store: str, pool: Pool, url: str, count: int, aim: int, table: Table) -> None:
    warm(pool)
    clients = Clients(url, count)
    try:
        time.sleep(SETTLE)
        before = clients.ask("count")
        time.sleep(MEASURE)
        after = clients.ask("count")
        sent, cpu = (_sum(after, name) - _sum(before, name) for name in ("requests", "cpu"))
        listen = count - _sum(after, "deaf")
        told = f"{1000 * cpu / MEASURE / count:.2f} ms CPU a second for each; {listen:.0f} of {count} listen"
        figure = f"{sent / MEASURE:.1f} requests/s" if store == "CouchDB" else "no server"
        table.row(f"{store}, {count} idle workers", figure, "", told, "<= 20/s" if store == "CouchDB" else "")
        delays, missing = _wake(clients, pool, count)
        p50, p95 = statistics.median(delays), delays[int(0.95 * (len(delays) - 1))]
        told = f"{RINGS} rings, {missing} of {RINGS * count} heard nothing within {PAUSE:g} s"
        table.row(
            f"{store}, wake-up of {count} workers", f"p50 {p50:.0f} ms", f"p95 {p95:.0f} ms", told, f"p50 <= {aim} ms"
        )
    finally:
        clients.end()


def _sum(answers: Sequence[Any], name: str) -> float:
    return sum(answer[name] for answer in answers)


def _wake(clients: Clients, pool: Pool, count: int) -> tuple[list[float], int]:
    """Ring; return after how many milliseconds each worker heard it, sorted, and how many did not."""
    delays: list[float] = []
    clients.ask("heard")
    for _ in range(RINGS):
        began = time.monotonic()
        ring(pool.backend)
        time.sleep(PAUSE)
        delays += [1000 * (at - began) for times in clients.ask("heard") for at in times]
    return sorted(delays), RINGS * count - len(delays)


# --- memory ----------------------------------------------------------------------------------------------------------


def _memory(slots: int, table: Table) -> None:
    """Start a worker as users do, let it run tokens in all of its slots, and look at it when it is idle again."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/pool.db"
        with connect(url, create=True) as pool:
            command = [sys.executable, "-m", "tokenpool", "--pool", url, "work", "--slots", str(slots)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                try:
                    pool.push(["true"] * 10 * slots)
                    _until(lambda: pool.counts()["done"] == 10 * slots)
                    time.sleep(5)
                    own, below = _resident(process.pid), sum(map(_resident, _children(process.pid)))
                finally:
                    process.terminate()
    told = f"and {below:.0f} MB of its supervisor process; after {10 * slots} tokens"
    table.row(f"one worker of {slots} slots, idle", f"{own:.0f} MB resident", "", told, "<= 60 MB")


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.1)


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def _resident(pid: int) -> float:
    """Return the resident memory of a process in MB, 0 where nobody tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))

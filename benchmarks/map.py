"""Measures `PoolExecutor.map` on SQLite beside `dask.distributed`, two processes each, in turns, and prints the ratios.

    python benchmarks/map.py --calls 10000 --rounds 3 --peers-python build/peers/bin/python

Both start their processes before the clock runs, call once to be warm, and then make so many calls that return their
argument. Of tokenpool, `chunksize=1` is one token for each call, `automatic` what `map` does by itself. dask's processes
have one thread each.
"""

from __future__ import annotations

import argparse
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DASK = """
import operator, sys, time
from dask.distributed import Client, LocalCluster

if __name__ == "__main__":
    calls, processes = int(sys.argv[1]), int(sys.argv[2])
    with LocalCluster(n_workers=processes, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            client.gather(client.map(operator.index, range(-100, 0)))
            began = time.perf_counter()
            found = client.gather(client.map(operator.index, range(calls)))
            seconds = time.perf_counter() - began
            assert found == list(range(calls))
    print(seconds)
"""


def tokenpool(calls: int, processes: int, chunksize: int | None) -> float:
    """Return the seconds of one map; the pool is a new file."""
    from tokenpool import PoolExecutor

    with tempfile.TemporaryDirectory() as folder:
        with PoolExecutor(f"sqlite:///{folder}/pool.db", workers=processes) as executor:
            list(executor.map(operator.index, range(-100, 0), chunksize=chunksize))
            began = time.perf_counter()
            found = list(executor.map(operator.index, range(calls), chunksize=chunksize))
            seconds = time.perf_counter() - began
    assert found == list(range(calls))
    return seconds


def dask(calls: int, processes: int, python: Path) -> float:
    """Return the seconds of one map and gather of dask.distributed."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "dask_map.py"
        script.write_text(DASK, "utf-8")
        command = [str(python), str(script), str(calls), str(processes)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"dask.distributed could not be measured:\n{done.stderr[-1000:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers-python", type=Path, default=Path("build/peers/bin/python"))
    given = parser.parse_args()
    ways = {
        "dask.distributed": lambda: dask(given.calls, given.processes, given.peers_python.absolute()),
        "tokenpool, automatic": lambda: tokenpool(given.calls, given.processes, None),
        "tokenpool, chunksize=1": lambda: tokenpool(given.calls, given.processes, 1),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.rounds):
        for name, measure in ways.items():
            taken[name].append(measure())
    print(f"{given.calls} calls, {given.processes} processes, {os.cpu_count()} CPUs, median of {given.rounds} rounds")
    peer = statistics.median(taken["dask.distributed"])
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"{name:24} {median:7.2f} s  {given.calls / median:9.0f} calls/s  {peer / median:6.2f} x dask")


if __name__ == "__main__":
    main()

"""One process with many workers in threads: ``python herd.py POOL COUNT LEASE FOLDER``; ends them all when stdin ends.

A worker a process would measure this machine's memory, not the protocol. Each line it prints is what one worker did.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from tokenpool.pool import connect
from tokenpool.worker import Worker, WorkerOptions


def main(url: str, count: int, lease: float, folder: Path) -> None:
    """Run until somebody closes our standard input."""
    workers = []
    for number in range(count):
        # Each has connections of its own, as each on its own machine would.
        options = WorkerOptions(slots=1, lease=lease, poll=60.0, workdir=folder / str(number))
        workers.append(Worker(connect(url), options))
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join()
    for worker in workers:
        print(json.dumps(asdict(worker.summary)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))

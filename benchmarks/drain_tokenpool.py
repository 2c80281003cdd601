"""One tokenpool worker of the benchmark: waits for the starting signal, then drains the pool."""

import sys
import time
from pathlib import Path

from tokenpool.pool import connect
from tokenpool.worker import Worker, WorkerOptions


def main() -> None:
    url, slots, go = sys.argv[1:4]
    pool = connect(url)
    worker = Worker(pool, WorkerOptions(slots=int(slots), quit=True))
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.005)
    summary = worker.run()
    print(f"end {time.time()} {summary.done + summary.failed}", flush=True)
    pool.close_connections()


main()

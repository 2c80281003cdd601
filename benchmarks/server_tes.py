"""Measures how many tasks a server takes through GA4GH TES, one request each, beside the same writes without a server."""

from __future__ import annotations

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tokenpool.pool import connect
from tokenpool.web.tes.models import tesNewTask
from tokenpool.web.tes.to_token import token_of

TASK = {
    "name": "hello",
    "executors": [{"image": "alpine:3", "command": ["sh", "-c", "wc /data/in > /data/out"]}],
    "inputs": [{"url": "s3://bucket/in", "path": "/data/in"}],
    "outputs": [{"url": "s3://bucket/out", "path": "/data/out"}],
    "tags": {"project": "benchmark"},
    "resources": {"cpu_cores": 1, "ram_gb": 1},
}


@contextmanager
def serving(url: str) -> Iterator[str]:
    """Run `tokenpool serve` over a pool; give its address."""
    words = [sys.executable, "-m", "tokenpool", "serve", "-p", url, "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r" at (http://\S+?/)(;|$)", line.strip()):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield found.group(1)
                return
        raise SystemExit("the server did not start")
    finally:
        process.terminate()
        process.wait(30)


def in_threads(work: Callable[[int], None], number: int, threads: int) -> float:
    """Share so much work among threads; return how much was done in a second."""
    started = time.perf_counter()
    those = [threading.Thread(target=work, args=(number // threads,)) for _ in range(threads)]
    for each in those:
        each.start()
    for each in those:
        each.join()
    return number // threads * threads / (time.perf_counter() - started)


def create_over(address: str) -> Callable[[int], None]:
    """Return what creates tasks over one kept connection."""
    place, body = urlsplit(address), json.dumps(TASK)

    def work(number: int) -> None:
        link = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        for _ in range(number):
            link.request("POST", f"{place.path}ga4gh/tes/v1/tasks", body, {"Content-Type": "application/json"})
            answer = link.getresponse()
            told = answer.read()
            if answer.status != 200:
                raise SystemExit(f"refused: {told.decode()}")
        link.close()

    return work


def measure(url: str, number: int, threads: int) -> list[tuple[str, float]]:
    """Return what was measured, and tasks in a second."""
    task = tesNewTask.model_validate(TASK)
    found = []
    with connect(url, create=True) as pool:

        def push(number: int) -> None:
            for _ in range(number):
                pool.push(token_of(task))

        for count in (1, threads):
            found.append((f"raw store, {count} at a time", in_threads(push, number, count)))
        with serving(url) as address:
            in_threads(create_over(address), max(number // 10, threads), threads)  # what is made once is made now
            for count in (1, threads):
                found.append((f"TES create, {count} at a time", in_threads(create_over(address), number, count)))
        wanted = 2 * (number + number // threads * threads) + max(number // 10, threads) // threads * threads
        assert pool.counts()["todo"] == wanted, (pool.counts(), wanted)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=3000, help="tasks of each row (3000)")
    parser.add_argument("--threads", type=int, default=8, help="clients at a time (8)")
    parser.add_argument("--pool", help="an empty pool, for example couchdb+http://…; else a new file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.pool or f"sqlite:///{Path(folder).resolve()}/pool.db"
        rows = measure(url, given.number, given.threads)
    raw = {name.partition(", ")[2]: rate for name, rate in rows if name.startswith("raw")}
    print(f"{urlsplit(url).scheme}: single tasks, {given.number} in each row")
    for name, rate in rows:
        print(f"  {name:28} {rate:8.0f} /s   {rate / raw[name.partition(', ')[2]]:5.2f} of the raw store")


if __name__ == "__main__":
    main()

"""Idle workers of the benchmark, many in one process: python idle_clients.py URL COUNT.

They are whole workers in threads. Answers to lines on standard input: ``count`` → requests sent so far, by all of them;
``heard`` → the monotonic times at which each worker first heard something since the last ``heard``; ``end``.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from tokenpool.pool import connect
from tokenpool.worker import Worker, WorkerOptions

requests = 0
lock = threading.Lock()


def count_requests() -> None:
    """Count every request that this process sends, whichever library does."""
    send = http.client.HTTPConnection.putrequest

    def counted(self, *args, **options):
        global requests
        with lock:
            requests += 1
        return send(self, *args, **options)

    http.client.HTTPConnection.putrequest = counted


def listening(worker: Worker, heard: dict[int, float]) -> Worker:
    """Note when the worker's ear hears something, before the worker does."""
    ear = worker.member.ear
    tell = ear._heard

    def noted(changed: frozenset[str]) -> None:
        if changed:
            heard.setdefault(id(worker), time.monotonic())
        tell(changed)

    ear._heard = noted
    return worker


def main(url: str, count: int, lines: Iterable[str]) -> None:
    count_requests()
    threading.stack_size(256 * 1024)
    heard: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        options = WorkerOptions(slots=1, workdir=Path(folder))
        workers = [listening(Worker(connect(url), options), heard) for _ in range(count)]
        threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        for line in lines:
            if line.strip() == "end":
                break
            if line.strip() == "count":
                deaf = sum(not worker.member.ear.listens for worker in workers)
                print(json.dumps({"requests": requests, "deaf": deaf, "cpu": time.process_time()}), flush=True)
            else:
                print(json.dumps(sorted(heard.values())), flush=True)
                heard.clear()
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(20)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.stdin)

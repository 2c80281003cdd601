"""How fast a server takes tokens: single creates and bulk, beside the store without a server, in the same run.

::

    python benchmarks/server_api.py [--couchdb URL_OF_AN_EMPTY_POOL] [--tokens 20000] [--singles 2000] [--clients 8]

The server is `tokenpool serve`, a process of its own; clients and store share the machine with it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import urllib3

from tokenpool.pool import Pool, connect

#: What a server should do at least, in tokens a second.
BULK, SINGLE = 2000, 300
TES = {"name": "t", "executors": [{"image": "alpine", "command": ["echo", "hi"]}]}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--couchdb", default="", help="couchdb+http://user:password@host:5984/an_empty_database")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--singles", type=int, default=2_000)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    print(f"{options.tokens} tokens in bulk, {options.singles} one by one from {options.clients} connections")
    with tempfile.TemporaryDirectory() as folder:
        for url in [f"sqlite:///{folder}/bench.db", *([options.couchdb] if options.couchdb else [])]:
            print(f"\n{url.partition(':')[0]:<34}{'tokens/s':>10}{'goal':>8}")
            with connect(url, create=True) as pool, served(url) as address:
                measure(pool, address, options)


def measure(pool: Pool, address: str, options: argparse.Namespace) -> None:
    """Print the rows of one backend."""
    tokens = [{"input": f"echo {number}", "batch": "bench"} for number in range(options.tokens)]
    lines = b"".join(json.dumps(token).encode() + b"\n" for token in tokens)
    row("store: push in bulk", options.tokens, lambda: pool.push(tokens))
    row(
        "API: lines in bulk",
        options.tokens,
        lambda: send(address, "/api/v1/tokens", lines, "application/x-ndjson"),
        BULK,
    )
    array = json.dumps(tokens).encode()
    row(
        "API: an array in bulk",
        options.tokens,
        lambda: send(address, "/api/v1/tokens", array, "application/json"),
        BULK,
    )
    with connect(f"tokenpool+{address}") as far:
        row("tokenpool+http: push in bulk", options.tokens, lambda: far.push(tokens), BULK)
    row("store: one by one", options.singles, lambda: [pool.push(tokens[0]) for _ in range(options.singles)])
    for title, path, body in (
        ("API: one by one", "/api/v1/tokens", tokens[0]),
        ("TES: one by one", "/ga4gh/tes/v1/tasks", TES),
    ):
        for clients in (1, options.clients):
            name = f"{title}, {clients} client{'s' if clients > 1 else ''}"
            row(name, options.singles, lambda: singles(address, path, body, options.singles, clients), SINGLE)  # noqa: B023


def row(title: str, number: int, act: Callable[[], object], goal: int = 0) -> None:
    """Run something that makes so many tokens, and print how many that is a second."""
    began = time.perf_counter()
    act()
    print(f"{title:<34}{number / (time.perf_counter() - began):>10.0f}{goal or '':>8}", flush=True)


def send(address: str, path: str, body: bytes, kind: str, http: urllib3.PoolManager | None = None) -> bytes:
    """POST something that has to be accepted."""
    answer = (http or urllib3.PoolManager()).request("POST", address + path, body=body, headers={"Content-Type": kind})
    assert answer.status in (200, 201), answer.data[:300]
    return answer.data


def singles(address: str, path: str, body: object, number: int, clients: int) -> None:
    """POST tokens one by one, from several connections at once."""
    data = json.dumps(body).encode()
    http = urllib3.PoolManager(maxsize=clients)

    def run() -> None:
        for _ in range(number // clients):
            send(address, path, data, "application/json", http)

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def served(url: str) -> Iterator[str]:
    """Run a server of this pool; give its address."""
    command = [sys.executable, "-m", "tokenpool", "serve", "-p", url, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r" at (http://\S+?)/(;|$)", line.strip())
            if found:
                yield found.group(1)
                break
        else:
            raise SystemExit("the server did not start")
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()

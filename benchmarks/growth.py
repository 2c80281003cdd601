"""How cost grows with the pool: push, status, claim and close with 10³ … 10⁶ tokens in it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from functions import couch_pool, sqlite_pool
from measuring import Options, Server, Table

from tokenpool.pool import Pool

SIZES = (1_000, 10_000, 100_000, 1_000_000)
#: A CouchDB builds its views in JavaScript: more would take longer than all the rest.
MOST_ON_COUCHDB = 100_000


def measure(options: Options, table: Table) -> None:
    table.section("How cost grows with the number of tokens in the pool: milliseconds, p50 / p99")
    sizes = [size for size in SIZES if size <= options.most]
    with sqlite_pool() as pool:
        _grow("SQLite", pool, sizes, table)
    if options.couchdb:
        with couch_pool(Server(options.couchdb)) as pool:
            _grow("CouchDB", pool, [size for size in sizes if size <= MOST_ON_COUCHDB], table)
    else:
        table.skip("CouchDB", "no server was named")


def _grow(store: str, pool: Pool, sizes: list[int], table: Table) -> None:
    there, first = 0, 0.0
    for size in sizes:
        began = time.perf_counter()
        there += sum(answer.saved for answer in pool.push_stream("true" for _ in range(size - there)))
        pool.counts()
        push = time.perf_counter() - began
        status = timed(pool.status, 5)
        claims = timed(lambda: pool.claim(1), 200)
        both = timed(lambda: _claim_and_close(pool), 200)
        first = first or claims[1]
        table.row(
            f"{store}, {size:,} tokens",
            f"claim {claims[0]:.2f} / {claims[1]:.2f}",
            f"claim p99 {claims[1] / first:.2f} times",
            f"claim+close {both[0]:.2f} / {both[1]:.2f}, status {status[0]:.1f}, pushed in {push:.1f} s",
            "claim p99 <= 2 times" if size == sizes[-1] else "",
        )


def timed(action: Callable[[], Any], times: int) -> tuple[float, float]:
    """Return p50 and p99 of an action, in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        took.append(1000 * (time.perf_counter() - began))
    took.sort()
    return statistics.median(took), took[int(0.99 * (len(took) - 1))]


def _claim_and_close(pool: Pool) -> None:
    for token in pool.claim(1):
        pool.close(token)

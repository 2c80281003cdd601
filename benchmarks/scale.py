"""Prints how the cost of a pool grows: SQLite with 10³ … 10⁶ tokens, push, status, claim and close.

python benchmarks/scale.py            # --most 100000 for a short round
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from tokenpool.pool import Pool, connect


def timed(action: Callable[[], Any], times: int) -> tuple[float, float]:
    """Return p50 and p99 of an action, in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        took.append(1000 * (time.perf_counter() - began))
    took.sort()
    return statistics.median(took), took[int(0.99 * (len(took) - 1))]


def claim_and_close(pool: Pool) -> None:
    for token in pool.claim(1):
        pool.close(token)


def row(tokens: int) -> tuple[float, float]:
    """Print one size; return (claim p99, status seconds)."""
    with tempfile.TemporaryDirectory() as folder, connect(f"sqlite:///{folder}/pool.db", create=True) as pool:
        began = time.perf_counter()
        saved = sum(answer.saved for answer in pool.push_stream("true" for _ in range(tokens)))
        push = saved / (time.perf_counter() - began)
        status = timed(pool.status, 5)
        claims = timed(lambda: pool.claim(1), 200)
        both = timed(lambda: claim_and_close(pool), 200)
    print(
        f"{tokens:>9,}  push {push:>8,.0f}/s   status p50 {status[0]:>7.2f} ms   "
        f"claim p50 {claims[0]:>5.2f} p99 {claims[1]:>6.2f} ms   claim+close p50 {both[0]:>5.2f} p99 {both[1]:>6.2f} ms",
        flush=True,
    )
    return claims[1], status[0] / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=1_000_000)
    most = parser.parse_args().most
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size <= most]
    rows = [row(size) for size in sizes]
    print(
        f"\nclaim p99 at {sizes[-1]:,} is {rows[-1][0] / rows[0][0]:.2f} times that at {sizes[0]:,}; status {rows[-1][1]:.3f} s"
    )


if __name__ == "__main__":
    main()

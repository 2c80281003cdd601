"""Measures tokenpool beside its peers on this machine and prints one table; ratios are taken within one run.

    make bench                                  # all of it
    make bench BENCH="--only shell --rounds 3"  # a part, median of three

A peer that is not installed is skipped and named. Rows in which other programs took more than 5 % of the machine are
marked with ~: compare their CPU time, not their rate.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import couch
import functions
import growth
import idle
import makespan
import shell
from measuring import Options, Table, machine

PARTS = {
    "shell": shell.measure,
    "couch": couch.measure,
    "functions": functions.measure,
    "makespan": makespan.measure,
    "idle": idle.measure,
    "growth": growth.measure,
}


def options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=sorted(PARTS), help="these parts only")
    parser.add_argument("--tokens", type=int, default=5000, help="shell tokens for each tool (5000)")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="take the median of so many rounds")
    parser.add_argument("--most", type=int, default=1_000_000, help="largest pool of the part growth")
    parser.add_argument("--idle-workers", type=int, default=1000)
    parser.add_argument("--couchdb", default=os.environ.get("TOKENPOOL_TEST_COUCHDB", ""), help="URL with password")
    parser.add_argument("--peers-python", type=Path, default=Path("build/peers/bin/python"))
    given = parser.parse_args()
    return Options(
        tuple(given.only or PARTS),
        given.tokens,
        given.slots,
        given.rounds,
        given.most,
        given.idle_workers,
        given.couchdb,
        given.peers_python.absolute() if given.peers_python.exists() else None,
    )


def main() -> None:
    chosen = options()
    for line in machine(chosen):
        print(line)
    table = Table(sys.stdout)
    for name in PARTS:
        if name in chosen.only:
            PARTS[name](chosen, table)
    table.end()


if __name__ == "__main__":
    main()

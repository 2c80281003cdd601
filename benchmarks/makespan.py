"""2 000 tokens of 100 ms: how much longer they take together than if nothing but them took time."""

from __future__ import annotations

import tempfile
from pathlib import Path

from functions import Make, couch_pool, sqlite_pool, warm
from measuring import Options, Server, Table, used

from tokenpool.worker import Worker, WorkerOptions

TOKENS, SECONDS = 2000, 0.1


def measure(options: Options, table: Table) -> None:
    table.section(f"{TOKENS:,} tokens of {SECONDS:g} s: makespan / ideal")
    _on("SQLite", sqlite_pool, table, (options.slots, 16))
    if options.couchdb:
        server = Server(options.couchdb)
        _on("CouchDB", lambda: couch_pool(server), table, (options.slots, 16))
    else:
        table.skip("CouchDB", "no server was named")


def _on(store: str, make: Make, table: Table, slots: tuple[int, ...]) -> None:
    for each in slots:
        with make() as pool, tempfile.TemporaryDirectory() as folder:
            pool.push([f"sleep {SECONDS:g}"] * TOKENS)
            warm(pool)
            worker = Worker(pool, WorkerOptions(slots=each, quit=True, workdir=Path(folder)))
            with used() as cost:
                done = worker.run().done
        ideal = TOKENS * SECONDS / each
        table.row(
            f"{store}, {each} slots",
            f"{cost.wall:.1f} s",
            f"{cost.wall / ideal:.3f} of ideal {ideal:.1f} s",
            f"{done} done",
            "<= 1.05",
            cost.foreign,
        )

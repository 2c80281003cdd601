"""Shell tokens on one CouchDB, beside picas; and how many requests a token costs, counted in between."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from counting import CountingProxy
from functions import warm
from measuring import Options, Server, Table

from tokenpool.pool import Pool, connect

HERE = Path(__file__).resolve().parent
#: Tokens of one run; picas, slow as it is, gets fewer.
TOKENS, PICAS_TOKENS, COUNTED = 2000, 400, 800


@dataclass(frozen=True)
class Drained:
    """One run: tokens a second, and how many were run more than once."""

    rate: float
    repeated: int


def measure(options: Options, table: Table) -> None:
    if not options.couchdb:
        table.section("Shell tokens `true` on CouchDB, beside picas")
        table.skip("CouchDB", "no server was named")
        return
    server = Server(options.couchdb)
    table.section("Shell tokens `true` on CouchDB, beside picas 1.1.2: from ready workers to the last end")
    picas: dict[int, Drained] = {}
    for workers in (1, 4, 16):
        if options.peers_python is None:
            table.skip(f"picas, {workers} workers", "make peers installs it")
        else:
            found = picas[workers] = drain(server, picas_command(options, server), workers, PICAS_TOKENS)
            table.row(f"picas, {workers} workers", f"{found.rate:,.0f}/s", "", _twice(found))
        found = drain(server, own_command(server, 1), workers, TOKENS)
        table.row(*_compared(f"tokenpool, {workers} workers of one slot", found, picas.get(workers), workers))
    for slots in (4, 16):
        found = drain(server, own_command(server, slots), 1, TOKENS)
        aim = ">= 8 times picas" if slots == 4 else ""
        for workers in (1, slots) if picas else (1,):
            table.row(*_compared(f"tokenpool, one worker of {slots} slots", found, picas.get(workers), workers), aim)
    table.row("tokenpool, one worker of 16 slots", f"{counted(server, 16):.2f} requests/token", aim="<= 0.5")


def _twice(found: Drained) -> str:
    return f"{found.repeated} run twice"


def _compared(what: str, found: Drained, against: Drained | None, workers: int) -> tuple[str, str, str, str]:
    ratio = f"{found.rate / against.rate:.1f} times picas with {workers}" if against else ""
    return what, f"{found.rate:,.0f}/s", ratio, _twice(found)


# --- one run ---------------------------------------------------------------------------------------------------------


def own_command(server: Server, slots: int) -> list[str]:
    return [sys.executable, str(HERE / "drain_tokenpool.py"), server.pool_url("{database}"), str(slots)]


def picas_command(options: Options, server: Server) -> list[str]:
    base, user, password = server.parts
    return [str(options.peers_python), "-Wignore", str(HERE / "drain_picas.py"), base, "{database}", user, password]


@contextmanager
def filled(server: Server, tokens: int) -> Iterator[tuple[str, Pool]]:
    """Give a database with tokens in it and its views built: an index built during the race measures the server only."""
    with server.database() as database, connect(server.pool_url(database), create=True) as pool:
        pool.push([{"_id": f"token_{n}", "input": "true"} for n in range(tokens)])
        warm(pool)
        yield database, pool


def drain(server: Server, command: list[str], workers: int, tokens: int) -> Drained:
    """Start workers, wait until they are ready, let them go, measure until the last one ends."""
    with filled(server, tokens) as (database, pool), tempfile.TemporaryDirectory() as folder:
        go = Path(folder) / "go"
        argv = [word.replace("{database}", database) for word in command] + [str(go)]
        children = [
            subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for _ in range(workers)
        ]
        for child in children:
            child.stdout.readline()
        began = time.time()
        go.touch()
        ends = [child.communicate()[0].split() for child in children]
        processed = sum(int(words[2]) for words in ends if words)
        took = max(float(words[1]) for words in ends if words) - began
        done = pool.counts()["done"]
    return Drained(done / took, processed - done)


def counted(server: Server, slots: int) -> float:
    """Drain a pool through a proxy that counts; return the requests for each token."""
    with filled(server, COUNTED) as (database, pool), CountingProxy(server.parts[0]) as proxy:
        through = Server(server.url.replace(server.parts[0].partition("//")[2], proxy.address))
        with tempfile.TemporaryDirectory() as folder:
            argv = [word.replace("{database}", database) for word in own_command(through, slots)]
            go = Path(folder) / "go"
            go.touch()
            subprocess.run([*argv, str(go)], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        done = pool.counts()["done"]
        return proxy.requests / done

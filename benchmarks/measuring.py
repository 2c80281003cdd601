"""What all parts of the benchmark share: options, the machine, a CouchDB server, CPU time, and the table."""

from __future__ import annotations

import json
import os
import platform
import resource
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import urllib3

#: Share of the machine that others may take before a row is marked.
FOREIGN = 0.05


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    only: tuple[str, ...]
    tokens: int
    slots: int
    rounds: int
    most: int
    idle_workers: int
    couchdb: str
    peers_python: Path | None


def machine(options: Options) -> Iterator[str]:
    """Yield lines that tell on what the figures were taken."""
    yield f"cpu     {_cpu_model()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    yield f"kernel  {platform.system()} {platform.release()}"
    yield f"python  {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    if options.couchdb:
        told = Server(options.couchdb).call("GET", "/")
        yield f"server  {told.get('vendor', {}).get('name', '?')} {told.get('version', '?')}"
    else:
        yield "server  none: parts on CouchDB are skipped (make bench COUCHDB=http://user:password@127.0.0.1:5984)"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()


# --- CPU time --------------------------------------------------------------------------------------------------------


@dataclass
class Used:
    """What a piece of work cost: wall seconds, CPU seconds of this process and its children, others' share."""

    wall: float = 0.0
    cpu: float = 0.0
    foreign: float = 0.0


def _own_cpu() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def _busy() -> float:
    """Return the CPU seconds that the whole machine has spent so far; 0 where nobody tells."""
    try:
        numbers = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, soft, steal = map(int, numbers[:8])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


@contextmanager
def used() -> Iterator[Used]:
    """Measure what the block costs; its children count once they have been waited for."""
    found = Used()
    wall, own, busy = time.perf_counter(), _own_cpu(), _busy()
    yield found
    found.wall = time.perf_counter() - wall
    found.cpu = _own_cpu() - own
    found.foreign = max(0.0, _busy() - busy - found.cpu) / (found.wall * (os.cpu_count() or 1))


# --- a server --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A CouchDB to measure on."""

    url: str
    _pool: urllib3.PoolManager = field(default_factory=urllib3.PoolManager, compare=False)

    @property
    def parts(self) -> tuple[str, str, str]:
        """Server without credentials, user, password."""
        split = urlsplit(self.url)
        return f"{split.scheme}://{split.hostname}:{split.port}", split.username or "", split.password or ""

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        base, user, password = self.parts
        headers = {"Content-Type": "application/json"}
        if user:
            headers.update(urllib3.make_headers(basic_auth=f"{user}:{password}"))
        data = None if body is None else json.dumps(body).encode()
        answer = self._pool.request(method, base + path, body=data, headers=headers)
        told: dict[str, Any] = json.loads(answer.data or b"{}")
        return told

    def requests(self) -> int | None:
        """Requests served so far, as the server itself counts them; None where it does not."""
        return self.call("GET", "/_node/_local/_stats/couchdb/httpd/requests").get("value")

    def pool_url(self, database: str) -> str:
        return f"couchdb+{self.url}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """Give a name for a database, which is deleted at the end."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        try:
            yield name
        finally:
            self.call("DELETE", f"/{name}")


# --- the table -------------------------------------------------------------------------------------------------------


class Table:
    """Prints rows as they come: what was measured, the figure, what it is compared with, and the aim."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._skipped: list[str] = []

    def section(self, title: str) -> None:
        print(f"\n{title}", file=self._out, flush=True)

    def row(self, what: str, figure: str, ratio: str = "", note: str = "", aim: str = "", foreign: float = 0.0) -> None:
        mark = "~" if foreign > FOREIGN else " "
        told = f"  {what:<44}{mark}{figure:>22}  {ratio:<26} {note:<50}"
        print(f"{told.rstrip()}{'   aim: ' + aim if aim else ''}", file=self._out, flush=True)

    def skip(self, what: str, why: str) -> None:
        self._skipped.append(f"{what}: {why}")
        print(f"  {what:<44} skipped: {why}", file=self._out, flush=True)

    def end(self) -> None:
        if self._skipped:
            print("\nskipped: " + "; ".join(self._skipped), file=self._out)

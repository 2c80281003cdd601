"""Prints, side by side on one server in one run, what tokenpool and picas reach with tokens that run `true`.

    python benchmarks/compare.py --couchdb http://admin:secret@127.0.0.1:5984 --picas-python /path/to/venv/bin/python

Requests are counted by the server itself. Figures depend on the machine; the ratios are what to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from tokenpool.documents import new_token
from tokenpool.pool import Pool, connect

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Server:
    """The CouchDB that both are measured on."""

    url: str

    @property
    def parts(self) -> tuple[str, str, str]:
        """Server without credentials, user, password."""
        split = urlsplit(self.url)
        return f"{split.scheme}://{split.hostname}:{split.port}", split.username or "", split.password or ""

    def call(self, method: str, path: str, body: object = None) -> dict:
        base, user, password = self.parts
        headers = {"Content-Type": "application/json"}
        if user:
            headers.update(urllib3.make_headers(basic_auth=f"{user}:{password}"))
        data = None if body is None else json.dumps(body).encode()
        with urllib3.PoolManager() as http:
            answer = http.request(method, base + path, body=data, headers=headers)
            return json.loads(answer.data or b"{}")

    def requests(self) -> int | None:
        """Requests served so far; None where the server does not count."""
        told = self.call("GET", "/_node/_local/_stats/couchdb/httpd/requests")
        return told.get("value")

    def pool_url(self, database: str) -> str:
        return f"couchdb+{self.url}/{database}"


@dataclass(frozen=True)
class Drained:
    """One run: tokens a second, requests a token, tokens run more than once."""

    rate: float
    requests: float | None
    repeated: int


def fill(server: Server, database: str, tokens: int) -> Pool:
    pool = connect(server.pool_url(database), create=True)
    pool.push([{"_id": f"token_{n}", "input": "true"} for n in range(tokens)])
    return pool


def drain(server: Server, kind: str, workers: int, slots: int, tokens: int, picas_python: str) -> Drained:
    """Fill a database, start workers, wait until they are ready, let them go, measure until the last one ends."""
    database = f"bench_{uuid.uuid4().hex[:12]}"
    pool = fill(server, database, tokens)
    # Both begin with built views: an index that is built during the race measures the server only.
    for design, view in (("Monitor", "todo"), ("tokenpool", "ready")):
        pool.backend.view(design, view, {"limit": 1, "reduce": False})
    with tempfile.TemporaryDirectory() as folder:
        go = Path(folder) / "go"
        base, user, password = server.parts
        if kind == "picas":
            command = [
                picas_python,
                "-W",
                "ignore",
                str(HERE / "drain_picas.py"),
                base,
                database,
                user,
                password,
                str(go),
            ]
        else:
            command = [sys.executable, str(HERE / "drain_tokenpool.py"), server.pool_url(database), str(slots), str(go)]
        children = [
            subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for _ in range(workers)
        ]
        for child in children:
            child.stdout.readline()
        before, began = server.requests(), time.time()
        go.touch()
        ends = [child.communicate()[0].split() for child in children]
        after = server.requests()
    processed = sum(int(words[2]) for words in ends if words)
    took = max(float(words[1]) for words in ends if words) - began
    done = pool.counts()["done"]
    server.call("DELETE", f"/{database}")
    pool.close_connections()
    counted = None if before is None or after is None else (after - before) / done
    return Drained(done / took, counted, processed - done)


def push_rates(server: Server, tokens: int) -> tuple[float, float, float]:
    """Return docs/s of: raw `_bulk_docs`, our push into CouchDB, our push into SQLite."""
    docs = [new_token({"_id": f"token_{n}", "input": "true"}) for n in range(tokens)]
    raw, ours = (f"bench_{uuid.uuid4().hex[:12]}" for _ in range(2))
    server.call("PUT", f"/{raw}")
    began = time.perf_counter()
    for at in range(0, tokens, 1000):
        server.call("POST", f"/{raw}/_bulk_docs", {"docs": docs[at : at + 1000]})
    raw_rate = tokens / (time.perf_counter() - began)
    with connect(server.pool_url(ours), create=True) as pool:
        began = time.perf_counter()
        pool.push([{"_id": f"token_{n}", "input": "true"} for n in range(tokens)])
        couch_rate = tokens / (time.perf_counter() - began)
    for database in (raw, ours):
        server.call("DELETE", f"/{database}")
    return raw_rate, couch_rate, sqlite_push_rate(tokens)


def sqlite_push_rate(tokens: int) -> float:
    with tempfile.TemporaryDirectory() as folder, connect(f"sqlite:///{folder}/bench.db", create=True) as pool:
        began = time.perf_counter()
        pool.push(["true"] * tokens)
        return tokens / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--couchdb", default=os.environ.get("TOKENPOOL_TEST_COUCHDB", "http://admin:secret@127.0.0.1:5984")
    )
    parser.add_argument(
        "--picas-python", default=os.environ.get("PICAS_PYTHON", ""), help="a Python that has picas 1.1.2"
    )
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 4, 16])
    arguments = parser.parse_args()
    server = Server(arguments.couchdb)
    welcome = server.call("GET", "/")
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"server: {welcome.get('vendor', {}).get('name', '?')} {welcome.get('version', '?')}\n")
    raw, couch, sqlite = push_rates(server, 20_000)
    print(
        f"push: raw _bulk_docs {raw:,.0f}/s, tokenpool {couch:,.0f}/s (ratio {couch / raw:.2f}), SQLite {sqlite:,.0f}/s\n"
    )
    print(f"{'workers':>7}  {'':>10} {'tokens/s':>9} {'requests/token':>15} {'run twice':>10} {'ratio':>6}")
    for workers in arguments.workers:
        picas = None
        if arguments.picas_python:
            picas = drain(server, "picas", workers, 1, arguments.tokens, arguments.picas_python)
            show(workers, "picas", picas, picas)
        else:
            print(f"{workers:>7}  {'picas':>10} skipped: name a Python that has it with --picas-python")
        show(workers, "tokenpool", drain(server, "tokenpool", workers, 1, arguments.tokens, ""), picas)
    show(1, "4 slots", drain(server, "tokenpool", 1, 4, arguments.tokens, ""), None)
    show(1, "16 slots", drain(server, "tokenpool", 1, 16, arguments.tokens, ""), None)


def show(workers: int, name: str, run: Drained, against: Drained | None) -> None:
    requests = "?" if run.requests is None else f"{run.requests:.2f}"
    ratio = "" if against is None else f"{run.rate / against.rate:.1f}"
    print(f"{workers:>7}  {name:>10} {run.rate:>9.1f} {requests:>15} {run.repeated:>10} {ratio:>6}", flush=True)


if __name__ == "__main__":
    main()

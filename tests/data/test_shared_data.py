"""The whole way over real servers: many slots, several workers on one machine, and what happens when one of them dies."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cli_tools import command, environment, ids, ok, states, use
from counting_proxy import CountingProxy, counting
from data_servers import Server
from staging_tools import until

from tokenpool.storage import Storages

GENOME = b">chr1\n" + b"ACGT" * 500_000
SAMPLES = 16
Serve = Callable[[str], Server]


class Store:
    """An S3 server behind a proxy that counts."""

    def __init__(self, server: Server, proxy: CountingProxy, folder: Path) -> None:
        self.proxy, self._folder = proxy, folder
        self.server = server.at("127.0.0.1", proxy.port)
        self._direct = Storages({"s3://": server.options}).of("s3://")
        self.root = f"{self.server.url}/{folder.name}"

    def put(self, name: str, data: bytes) -> str:
        """Put a file, not through the proxy; return its URL."""
        path = self._folder / "upload"
        path.write_bytes(data)
        self._direct.write(f"{self.root}/{name}", str(path))
        return f"{self.root}/{name}"

    def get(self, name: str) -> bytes:
        """Return a file, not through the proxy."""
        return b"".join(self._direct.read(f"{self.root}/{name}"))

    def options(self, **other: Any) -> Mapping[str, Any]:
        return {**self.server.options, **other}


@pytest.fixture(params=["s3_moto", "s3_swift"])
def store(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> Iterator[Store]:
    server = serve(request.param)
    with counting(server.port) as proxy:
        yield Store(server, proxy, tmp_path)


def settings(options: Mapping[str, Any], pool: str) -> None:
    """Write what the owner of this machine says of the storage, and make the pool."""
    use(pool)
    table = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    with open("tokenpool.toml", "a") as file:
        file.write(f'[storage."s3://"]\n{table}')


def worker(*words: object) -> subprocess.Popen[bytes]:
    argv = command("work", "--slots", 8, "--workdir", "scratch", "--lease", "3s", *words)
    return subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def push(*tokens: Mapping[str, Any]) -> None:
    ok("push", "-", "--format", "jsonl", stdin="\n".join(map(json.dumps, tokens)))


def sample(store: Store, n: int, genome: str, **more: Any) -> dict[str, Any]:
    return {
        "_id": f"t{n}",
        "command": "wc -c < $RESOURCE/genome.fa > $OUTPUT/result.txt; cat $INPUT/sample.txt >> $OUTPUT/result.txt",
        "inputs": [
            {"url": store.put(f"sample {n}.txt", b"%d\n" % n), "path": "sample.txt"},
            {"url": genome, "unpack": "gunzip", "shared": True},
        ],
        "outputs": [{"path": "result.txt", "url": f"{store.root}/results/ü {n}.txt"}],
        **more,
    }


def test_two_workers_with_eight_slots_fetch_a_resource_once(store: Store, sqlite_url: str) -> None:
    # Given tokens that share a resource on S3, and whose results go there
    genome = store.put("genome.fa.gz", gzip.compress(GENOME))
    settings(store.options(), sqlite_url)
    push(*(sample(store, n, genome) for n in range(SAMPLES)))
    # When two workers of this machine run them
    workers = [worker("--quit") for _ in range(2)]
    told = [each.communicate(timeout=300)[0].decode() for each in workers]
    # Then all are done, and the resource came once
    assert states() == {"done": SAMPLES}, (told, [ok("show", name).out for name in ids("state:error")][:1])
    assert store.proxy.count("GET", "/genome.fa.gz") == 1
    for n in range(SAMPLES):
        made = store.get(f"results/ü {n}.txt")
        assert made == b"%d\n%d\n" % (len(GENOME), n)
        (file,) = ok("show", f"t{n}", "--json").json["output"]["files"]
        assert file["url"] == f"{store.root}/results/ü {n}.txt"
        assert (file["size"], file["sha256"]) == (len(made), hashlib.sha256(made).hexdigest())


def test_a_worker_killed_while_it_fetches_leaves_no_broken_entry(store: Store, sqlite_url: str) -> None:
    # Given a worker that is killed while the resource comes
    genome = store.put("genome.fa.gz", gzip.compress(GENOME))
    settings(store.options(), sqlite_url)
    push(*(sample(store, n, genome) for n in range(4)))
    store.proxy.hold(lambda method, path: method == "GET" and path.endswith("/genome.fa.gz"))
    first = worker()
    assert store.proxy.held.wait(120)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    store.proxy.release()
    # When another one comes, then the tokens of the dead one come back to it, and all is whole
    second = worker("--idle-timeout", "2m")
    try:
        until(lambda: states() == {"done": 4}, 120)
    finally:
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=60)
    for n in range(4):
        assert store.get(f"results/ü {n}.txt") == b"%d\n%d\n" % (len(GENOME), n)
    assert store.proxy.count("GET", "/genome.fa.gz") == 2
    (entry,) = ok("cache", "ls", "--json").json["entries"]
    assert entry["size"] == len(GENOME)


def test_credentials_that_are_refused_are_this_machines_fault(serve: Serve, tmp_path: Path, sqlite_url: str) -> None:
    # Given a real store that looks at credentials, and a machine whose own are wrong
    server = serve("s3_swift")
    with counting(server.port) as proxy:
        store = Store(server, proxy, tmp_path)
        token = sample(store, 1, store.put("genome.fa.gz", gzip.compress(GENOME)))
        settings(store.options(secret="not-the-secret-at-all"), sqlite_url)
        push(token)
        ok("work", "--quit", "--slots", 1, "--workdir", "scratch")
        shown = ok("show", "t1", "--json").json
        assert shown["attempts"][-1]["failure_class"] == "system"
        message = shown["error"][-1]["message"]
        assert "credentials" in message.lower() or "refuse" in message.lower()
        assert "not-the-secret" not in json.dumps(shown)


def test_credentials_come_from_a_secret_that_the_token_names(
    serve: Serve, tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("s3_swift")
    with counting(server.port) as proxy:
        store = Store(server, proxy, tmp_path)
        use(sqlite_url)
        monkeypatch.setenv("TOKENPOOL_SECRET_STORE", json.dumps(dict(store.options())))
        token = sample(store, 1, store.put("genome.fa.gz", gzip.compress(GENOME)))
        for each in (*token["inputs"], *token["outputs"]):
            each["credentials"] = "STORE"
        push(token)
        ok("work", "--quit", "--slots", 1, "--workdir", "scratch")
        shown = ok("show", "t1", "--json").json
        assert shown["exit_code"] == 0, shown["error"]
        assert store.get("results/ü 1.txt").startswith(b"%d" % len(GENOME))
        assert server.options["secret"] not in json.dumps(shown)


def test_a_server_that_stalls_is_told_and_does_not_hold_a_cancel(serve: Serve, tmp_path: Path, sqlite_url: str) -> None:
    server = serve("s3_moto")
    with counting(server.port) as proxy:
        store = Store(server, proxy, tmp_path)
        settings(store.options(), sqlite_url)
        push(sample(store, 1, store.put("genome.fa.gz", gzip.compress(GENOME))))
        proxy.hold(lambda method, path: True)
        running = worker()
        try:
            assert proxy.held.wait(120)
            # When it is cancelled, then it ends, though the server still says nothing
            ok("cancel", "t1", "--yes")
            until(lambda: states() == {"error": 1}, 30)
            assert ok("show", "t1", "--json").json["attempts"][-1]["failure_class"] == "cancelled"
        finally:
            os.kill(running.pid, signal.SIGTERM)
            running.communicate(timeout=60)

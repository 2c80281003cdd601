"""Stories of a whole way: pushed with S3 on the command line, run by a worker, and brought home."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from cli_tools import call, ok, use
from data_servers import Server

from tokenpool.storage import Storages
from tokenpool.storage.urls import below

STORES = ("s3_moto", "s3_swift")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, serve, sqlite_url, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A store whose secret only the machine knows, named in its settings."""
    server: Server = serve(request.param)
    use(sqlite_url)
    options = {**server.options, "key": "secret:LAB_KEY", "secret": "secret:LAB_SECRET"}
    with open("tokenpool.toml", "a") as file:
        file.write(
            f'[storage."{server.url}/"]\n' + "".join(f"{name} = {json.dumps(v)}\n" for name, v in options.items())
        )
    monkeypatch.setenv("TOKENPOOL_SECRET_LAB_KEY", server.options["key"])
    monkeypatch.setenv("TOKENPOOL_SECRET_LAB_SECRET", server.options["secret"])
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    return server


def fill(server: Server, files: Mapping[str, bytes]) -> None:
    """Put files into the store, not by the program that is tested."""
    storages = Storages({server.url: server.options})
    for name, data in files.items():
        Path("filling").write_bytes(data)
        storages.of(server.url).write(below(server.url, name), "filling")


def test_samples_are_pushed_worked_and_brought_home(store, tmp_path):
    # Given eight samples in a store, and a reference that all of them need
    place = below(store.url, tmp_path.name)
    samples = {f"{tmp_path.name}/raw/s {n}.txt": f"sample {n}\n".encode() for n in range(8)}
    fill(store, {**samples, f"{tmp_path.name}/ref.gz": gzip.compress(b"reference\n")})
    # When each is pushed as PYTQ would be told, and worked
    for n in range(8):
        line = f"cat \"$INPUT/s {n}.txt\" $RESOURCE/ref > $OUTPUT/out.txt; echo '{{}}' > $OUTPUT/r.json"
        data = ["-i", f"{place}/raw/s {n}.txt", "-r", f"{place}/ref.gz|gunzip", "-o", f"out.txt={place}/results/{n}/"]
        ok("push", "--id", f"t{n}", *data, "--attach", "r.json", "--", line)
    ok("work", "--quit", "--slots", "4", "--cache", "cache")
    assert ok("status", "--json").json["states"]["done"] == 8
    # Then results, small results and logs come home
    told = ok("fetch", "all", "home", "--json").json
    assert (told["fetched"], told["failed"]) == (32, [])
    for n in range(8):
        assert Path(f"home/t{n}/out.txt").read_text() == f"sample {n}\nreference\n"
        assert Path(f"home/t{n}/r.json").read_text() == "{}\n"
    # And a second call fetches nothing
    again = ok("fetch", "all", "home", "--json").json
    assert (again["fetched"], again["present"]) == (0, 32)
    # And no secret is in the pool, nor shown
    shown = ok("list", "--json").out + ok("config", "list").out + ok("show", "t0").out
    assert store.options["secret"] not in shown
    assert len(ok("cache", "ls", "--cache", "cache", "--json").json["entries"]) == 1


def test_results_that_were_removed_are_told_and_those_of_others_come(store, tmp_path):
    place = below(store.url, tmp_path.name)
    for n in range(2):
        ok("push", "--id", f"t{n}", "-o", f"{place}/{n}/", "--", f"echo {n} > $OUTPUT/r{n}.txt")
    ok("work", "--quit", "--cache", "cache")
    system = Storages({store.url: store.options}).of(store.url).system(store.url)
    system.rm_file(f"{place.partition('://')[2]}/0/r0.txt")
    answer = call("fetch", "all", "home", "--no-logs")
    assert answer.code == 4
    assert "not fetched: r0.txt of t0: " in answer.err
    assert Path("home/t1/r1.txt").read_text() == "1\n"


@pytest.mark.parametrize("store", ["s3_swift"], indirect=True)  # moto lets everybody in
def test_who_may_not_read_the_store_is_told_without_any_secret(store, tmp_path, monkeypatch):
    # Given a result in the store, and a machine whose secret is none of the store's
    ok("push", "--id", "t", "-o", f"{below(store.url, tmp_path.name)}/", "--", "echo 1 > $OUTPUT/r.txt")
    ok("work", "--quit", "--cache", "cache")
    monkeypatch.setenv("TOKENPOOL_SECRET_LAB_SECRET", "wrong-secret-of-somebody")
    answer = call("fetch", "all", "home", "--no-logs")
    assert answer.code == 77
    assert "wrong-secret-of-somebody" not in answer.err
    assert not Path("home/t/r.txt").exists()

"""The short way to S3 does what the client does, and leaves to it what it does not know."""

from __future__ import annotations

from typing import Any

import pytest
from data_servers import Server

from tokenpool.errors import NotFound
from tokenpool.storage import Storages
from tokenpool.storage.s3 import PART
from tokenpool.storage.s3_wire import Elsewhere, Line
from tokenpool.storage.urls import below

NAMES = ["plain", "a b", "ü+%41&=?#", "deep/er/~x", "quote'\"<>"]


@pytest.fixture(params=["s3_moto", "s3_swift"])
def server(request: pytest.FixtureRequest, serve: Any) -> Server:
    found: Server = serve(request.param)
    return found


def storage(server: Server, **more: Any) -> Any:
    return Storages({server.url: {**server.options, **more}}, environ={}).of(server.url)


@pytest.mark.parametrize("name", NAMES)
def test_what_one_writes_the_other_reads(server, tmp_path, name):
    # Given the short way, and a client that a wish of its owner calls for
    short, client = storage(server), storage(server, client_kwargs={"region_name": "us-east-1"})
    assert short._line(server.url) is not None
    assert client._line(server.url) is None
    own = tmp_path / "own"
    own.write_bytes(b"data of " + name.encode())
    for writer, reader in ((short, client), (client, short)):
        url = below(server.url, f"{tmp_path.name}/{name}")
        # Then both say the same of an object, and read the same
        there = writer.write(url, str(own))
        assert (there.size, there.checksum) == (own.stat().st_size, reader.stat(url).checksum)
        assert b"".join(reader.read(url)) == own.read_bytes()
        assert b"".join(reader.read(url, 3, 6)) == own.read_bytes()[3:6]
        assert b"".join(reader.read(url, 10_000)) == b""


def test_a_bucket_that_is_elsewhere_is_found_by_the_client(server, tmp_path, monkeypatch):
    # Given answers that the bucket is in another region
    def refuse(*_: Any, **__: Any) -> Any:
        raise Elsewhere("PermanentRedirect")

    monkeypatch.setattr(Line, "_ask", refuse)
    own = tmp_path / "own"
    own.write_bytes(b"data")
    url = below(server.url, f"{tmp_path.name}/x")
    # Then the client does it, from there on at once
    assert storage(server).write(url, str(own)).size == 4
    reading = storage(server)
    assert b"".join(reading.read(url)) == b"data"
    assert reading._line(url) is None


def test_progress_is_told_while_a_file_goes(server, tmp_path):
    own = tmp_path / "own"
    own.write_bytes(b"x" * 1_500_000)
    told: list[int] = []
    storage(server).write(below(server.url, f"{tmp_path.name}/x"), str(own), told.append)
    assert sum(told) == 1_500_000
    assert len(told) > 3


def test_large_files_go_in_parts_by_the_short_way(server, tmp_path, monkeypatch):
    sent: list[str] = []
    put = Line.put

    def counting(self: Line, *words: Any) -> Any:
        sent.append(words[4])
        return put(self, *words)

    monkeypatch.setattr(Line, "put", counting)
    own = tmp_path / "own"
    own.write_bytes(bytes(2 * PART + 7))
    url = below(server.url, f"{tmp_path.name}/large")
    assert storage(server).write(url, str(own)).size == 2 * PART + 7
    assert sorted(query.partition("&")[0] for query in sent) == ["partNumber=1", "partNumber=2", "partNumber=3"]
    assert sum(map(len, storage(server).read(url))) == 2 * PART + 7


def test_what_is_not_there_is_told_as_the_client_tells_it(server, tmp_path):
    with pytest.raises(NotFound) as error:
        list(storage(server).read(below(server.url, f"{tmp_path.name}/nothing")))
    assert "is not there" in str(error.value)

"""Public sequencing runs: an accession becomes its FASTQ files, with sizes and checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_servers import free_ports
from ena_server import Ena, ena_server

from tokenpool.errors import BadInput, NotFound, ServerAway
from tokenpool.storage import Storages
from tokenpool.storage.base import Entry
from tokenpool.storage.fastq import FastqStorage

FIRST, SECOND = b"@r1\nACGT\n+\nFFFF\n" * 1000, b"@r1\nTTTT\n+\nFFFF\n" * 1000


@pytest.fixture
def ena() -> Iterator[Ena]:
    with ena_server() as running:
        running.runs["SRR890934"] = {"SRR890934_1.fastq.gz": FIRST, "SRR890934_2.fastq.gz": SECOND}
        running.runs["SRR890935"] = {"SRR890935.fastq.gz": SECOND}
        running.runs["ERR000001"] = {}
        running.groups["PRJNA203012"] = running.groups["SRP022957"] = ["SRR890934", "SRR890935"]
        yield running


@pytest.fixture
def storage(ena: Ena) -> FastqStorage:
    return FastqStorage({"scheme": "http"}, {"TOKENPOOL_ENA_URL": ena.url})


def test_a_run_is_its_files(ena: Ena, storage: FastqStorage) -> None:
    found = list(storage.list("run+fastq://SRR890934"))
    # Then each file is named where it is, with what ENA says of it
    assert found == [
        Entry(f"http://{ena.place}/SRR890934/SRR890934_{n}.fastq.gz", len(data), f"md5:{digest}", digest)
        for n, data in ((1, FIRST), (2, SECOND))
        for digest in [hashlib.md5(data).hexdigest()]
    ]
    # And the scheme of those URLs finds a storage that reads them
    assert [b"".join(Storages().of(each.url).read(each.url)) for each in found] == [FIRST, SECOND]


@pytest.mark.parametrize("url", ["run+fastq://SRP022957", "run+fastq://PRJNA203012/", "run+fastq/SRP022957/"])
def test_a_study_is_the_files_of_its_runs(storage: FastqStorage, url: str) -> None:
    names = [entry.url.rpartition("/")[2] for entry in storage.list(url)]
    assert names == ["SRR890934_1.fastq.gz", "SRR890934_2.fastq.gz", "SRR890935.fastq.gz"]


def test_one_file_of_a_run(storage: FastqStorage) -> None:
    url = "run+fastq://SRR890934/SRR890934_2.fastq.gz"
    entry = storage.stat(url)
    assert (entry.url, entry.size) == (url, len(SECOND))
    assert b"".join(storage.read(url)) == SECOND
    assert b"".join(storage.read(url, 10, 30)) == SECOND[10:30]


def test_ena_is_asked_once_for_a_run(ena: Ena, storage: FastqStorage) -> None:
    for _ in range(3):
        storage.stat("run+fastq://SRR890934/SRR890934_1.fastq.gz")
    assert ena.asked == ["SRR890934"]


def test_the_files_come_over_https_from_the_archive_itself(ena: Ena) -> None:
    found = next(FastqStorage({"base_url": ena.url}, {}).list("run+fastq://SRR890934"))
    assert found.url == f"https://{ena.place}/SRR890934/SRR890934_1.fastq.gz"


def test_an_accession_that_nobody_knows(storage: FastqStorage) -> None:
    with pytest.raises(NotFound, match="no accession SRR999999999") as error:
        list(storage.list("run+fastq://SRR999999999"))
    assert "SRR999999999" in error.value.hint


def test_a_run_without_files(storage: FastqStorage) -> None:
    with pytest.raises(NotFound, match="ERR000001 has no FASTQ files") as error:
        list(storage.list("run+fastq://ERR000001"))
    assert error.value.hint


def test_a_name_that_the_run_does_not_have(storage: FastqStorage) -> None:
    with pytest.raises(NotFound, match="no file SRR890935_1") as error:
        storage.stat("run+fastq://SRR890935/SRR890935_1.fastq.gz")
    assert error.value.hint == "there are: SRR890935.fastq.gz"


@pytest.mark.parametrize("name", ["", "x", "../etc", "SRR", "SRR12", "http://x", "SRR890934;ls"])
def test_what_is_no_accession(storage: FastqStorage, name: str) -> None:
    with pytest.raises(BadInput, match="no accession") as error:
        list(storage.list(f"run+fastq://{name}"))
    assert "SRR890934" in error.value.hint


def test_a_busy_archive_is_asked_again(ena: Ena, storage: FastqStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an archive that is too busy twice
    ena.busy[:] = [429, 503]
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # Then nobody hears of it
    assert len(list(storage.list("run+fastq://SRR890934"))) == 2
    assert len(ena.asked) == 3


def test_an_archive_that_stays_busy(ena: Ena, storage: FastqStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    ena.busy[:] = [503] * 50
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(ServerAway, match="503") as error:
        list(storage.list("run+fastq://SRR890934"))
    assert error.value.hint
    assert len(ena.asked) == 6


def test_an_archive_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    storage = FastqStorage({"base_url": f"http://127.0.0.1:{free_ports()[0]}"}, {})
    with pytest.raises(ServerAway, match="cannot be reached"):
        list(storage.list("run+fastq://SRR890934"))


def test_what_is_no_archive(ena: Ena, storage: FastqStorage) -> None:
    # Given a server that answers every question with a page for people
    ena.page = b"<html>"
    with pytest.raises(ServerAway, match="no list of files") as error:
        list(storage.list("run+fastq://SRR890934"))
    assert "TOKENPOOL_ENA_URL" in error.value.hint


def test_nothing_is_written(storage: FastqStorage, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(BadInput, match="public archive"):
        storage.write("run+fastq://SRR890934/x", str(tmp_path / "x"))

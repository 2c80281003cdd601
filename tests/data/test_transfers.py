"""Transfers: whole files or none, whatever storages do; asked to stop, they stop."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cutting_proxy import HOST as CUT
from cutting_proxy import CuttingProxy
from data_servers import Server
from faulty_storage import FaultyStorage, Hanging, Only, lying, raising

from tokenpool.errors import NotFound, NotPermitted, OutOfSpace, ServerAway, TokenpoolError
from tokenpool.staging.fetching import RANGED
from tokenpool.staging.transfers import Download, Progress, Stopped, Transfers, Upload, WrongContent
from tokenpool.storage import Storages
from tokenpool.storage.base import PIECE

CONTENT = os.urandom(3 * PIECE + 17)
AWAY = ServerAway("the server is away", "is it well?")


@pytest.fixture(params=[False, True], ids=["one stream", "ranges"])
def storage(request: pytest.FixtureRequest) -> FaultyStorage:
    return FaultyStorage(request.param)


@pytest.fixture
def transfers(storage: FaultyStorage) -> Iterator[Transfers]:
    transfers = Transfers(Only(storage), width=4, attempts=3, pause=0.001)
    yield transfers
    transfers.close()


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source" / "a b.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return str(path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def left_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


# ── what goes well ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_arrives_whole_with_its_checksum(transfers: Transfers, source: str, tmp_path: Path) -> None:
    progress = Progress()
    (file,) = transfers.run([Download(source, str(tmp_path / "new" / "x"))], progress)
    assert Path(file.path).read_bytes() == CONTENT
    assert (file.size, file.sha256) == (len(CONTENT), sha256(CONTENT))
    assert (progress.files, progress.files_done) == (1, 1)
    assert progress.bytes_done == progress.bytes_total == len(CONTENT)
    assert left_in(tmp_path / "new") == ["x"]


def test_many_files_come_in_the_order_they_were_asked_for(transfers: Transfers, tmp_path: Path) -> None:
    for n in range(50):
        (tmp_path / f"{n}.src").write_text(str(n))
    files = transfers.run([Download(str(tmp_path / f"{n}.src"), str(tmp_path / "in" / str(n))) for n in range(50)])
    assert [Path(file.path).read_text() for file in files] == [str(n) for n in range(50)]


def test_an_empty_file_is_a_file(transfers: Transfers, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (file,) = transfers.run([Download(str(tmp_path / "empty"), str(tmp_path / "copy"))])
    assert (file.size, file.sha256) == (0, sha256(b""))
    assert (tmp_path / "copy").read_bytes() == b""


def test_a_file_is_put_whole_with_its_checksum(transfers: Transfers, source: str, tmp_path: Path) -> None:
    progress = Progress()
    (file,) = transfers.run([Upload(source, str(tmp_path / "there" / "x"))], progress)
    assert (tmp_path / "there" / "x").read_bytes() == CONTENT
    assert (file.size, file.sha256) == (len(CONTENT), sha256(CONTENT))
    assert progress.bytes_done == progress.bytes_total == len(CONTENT)


def test_a_large_file_comes_in_ranges_out_of_order(tmp_path: Path) -> None:
    # Given a large file whose first range breaks off while the others go on
    storage = FaultyStorage(ranges=True)
    storage.fail("read", raising(AWAY))
    content = os.urandom(PIECE) * (RANGED // PIECE + 40)
    (tmp_path / "large").write_bytes(content)
    # When it is fetched, then it is whole, and no byte that was here came again
    progress = Progress()
    (file,) = Transfers(Only(storage), width=4, pause=0.001).run(
        [Download(str(tmp_path / "large"), str(tmp_path / "copy"))], progress
    )
    assert file.sha256 == sha256(content) == sha256((tmp_path / "copy").read_bytes())
    assert len(storage.starts) > 4
    assert len(set(storage.starts)) == len(storage.starts)
    assert progress.bytes_done == len(content)


# ── what breaks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_that_breaks_is_resumed_where_it_broke(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    storage.fail("read", raising(AWAY), raising(AWAY))
    (file,) = transfers.run([Download(source, str(tmp_path / "x"))])
    assert file.sha256 == sha256(CONTENT)
    assert storage.starts == [0, PIECE // 2, PIECE]


def test_a_short_file_is_never_taken_for_a_whole_one(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    storage.fail("read", lambda: None)  # it ends in the middle, as if that were all
    (file,) = transfers.run([Download(source, str(tmp_path / "x"))])
    assert file.sha256 == sha256(CONTENT)
    # When the storage says that there is more than it ever sends, then it is an error
    storage.told = lying(size=len(CONTENT) + 5)
    with pytest.raises(ServerAway, match="broke off"):
        transfers.run([Download(source, str(tmp_path / "y"))])
    assert not (tmp_path / "y").exists()
    assert left_in(tmp_path) == ["source", "x"]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    new = os.urandom(len(CONTENT))

    def change() -> None:
        Path(source).write_bytes(new)
        raise AWAY

    storage.fail("read", change)
    (file,) = transfers.run([Download(source, str(tmp_path / "x"))])
    assert file.sha256 == sha256(new)
    assert storage.starts == [0, 0]


def test_what_has_no_version_is_never_resumed(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    storage.told = lying(size=None, version="")
    storage.fail("read", raising(AWAY))
    (file,) = transfers.run([Download(source, str(tmp_path / "x"))])
    assert file.sha256 == sha256(CONTENT)
    assert storage.starts == [0, 0]


def test_a_server_that_stays_away_is_told_after_all_attempts(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    storage.fail("stat", *[raising(AWAY)] * 9)
    with pytest.raises(ServerAway) as caught:
        transfers.run([Download(source, str(tmp_path / "x"))])
    assert "tried 3 times" in str(caught.value)
    assert storage.calls["stat"] == 3


def test_an_upload_that_breaks_is_tried_again(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    storage.fail("write", raising(AWAY), raising(AWAY))
    progress = Progress()
    transfers.run([Upload(source, str(tmp_path / "x"))], progress)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert progress.bytes_done == len(CONTENT)
    assert "trying again" in progress.note


@pytest.mark.parametrize("error", [NotFound("no", "look"), NotPermitted("no", "ask")])
def test_what_trying_again_does_not_heal_is_told_at_once(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path, error: TokenpoolError
) -> None:
    storage.fail("stat", raising(error))
    with pytest.raises(type(error)):
        transfers.run([Download(source, str(tmp_path / "x"))])
    assert storage.calls["stat"] == 1
    assert left_in(tmp_path) == ["source"]


def test_one_error_ends_all_and_leaves_nothing_half(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    wanted = [Download(source, str(tmp_path / "in" / str(n))) for n in range(20)]
    with pytest.raises(NotFound):
        transfers.run([*wanted, Download(str(tmp_path / "missing"), str(tmp_path / "in" / "no")), *wanted])
    assert not [name for name in left_in(tmp_path / "in") if name.endswith(".part")]
    assert all((tmp_path / "in" / name).read_bytes() == CONTENT for name in left_in(tmp_path / "in"))


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("told", ["md5:" + "0" * 32, "sha256:" + "0" * 64, "adler32:00000001"])
def test_a_file_that_is_not_what_its_storage_says_is_refused(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path, told: str
) -> None:
    storage.told = lying(checksum=told)
    with pytest.raises(WrongContent, match="damaged"):
        transfers.run([Download(source, str(tmp_path / "x"))])
    assert left_in(tmp_path) == ["source"]


def test_checksums_of_storages_are_understood(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    import zlib

    for told in (f"md5:{hashlib.md5(CONTENT).hexdigest()}", f"adler32:{zlib.adler32(CONTENT):x}", "crc64:77"):
        storage.told = lying(checksum=told)
        (file,) = transfers.run([Download(source, str(tmp_path / "x"))])
        assert file.sha256 == sha256(CONTENT), told


def test_a_file_that_is_not_what_the_token_wants_is_refused(transfers: Transfers, source: str, tmp_path: Path) -> None:
    transfers.run([Download(source, str(tmp_path / "x"), sha256=sha256(CONTENT))])
    with pytest.raises(WrongContent, match="its sha256 is"):
        transfers.run([Download(source, str(tmp_path / "y"), sha256=sha256(b"else"))])
    assert left_in(tmp_path) == ["source", "x"]


def test_a_file_that_came_damaged_once_is_fetched_again(source: str, tmp_path: Path) -> None:
    class Damaging(FaultyStorage):
        damage = True

        def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
            for piece in super().read(url, start, end):
                yield piece[::-1] if self.damage else piece
            self.damage = False

    wanted = Download(source, str(tmp_path / "x"), sha256=sha256(CONTENT))
    (file,) = Transfers(Only(Damaging()), pause=0.001).run([wanted])
    assert Path(file.path).read_bytes() == CONTENT


def test_an_upload_of_which_a_part_is_missing_there_is_an_error(
    transfers: Transfers, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: FaultyStorage
) -> None:
    write = FaultyStorage.write
    monkeypatch.setattr(
        FaultyStorage, "write", lambda self, url, path, tell: lying(size=1)(write(self, url, path, tell))
    )
    with pytest.raises(WrongContent, match="1 are there"):
        transfers.run([Upload(source, str(tmp_path / "x"))])


def test_a_file_for_which_there_is_no_room_is_not_begun(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    storage.told = lying(size=1 << 60)
    with pytest.raises(OutOfSpace, match="MB left"):
        transfers.run([Download(source, str(tmp_path / "x"))])
    assert storage.calls["read"] == 0
    assert left_in(tmp_path) == ["source"]


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["stat", "read", "write"])
def test_a_storage_that_hangs_does_not_keep_anybody_from_stopping(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path, method: str
) -> None:
    # Given transfers of which one hangs
    hanging = Hanging()
    storage.fail(method, hanging)
    stop = threading.Event()
    what = (
        Upload(source, str(tmp_path / "in" / "x"))
        if method == "write"
        else Download(source, str(tmp_path / "in" / "x"))
    )
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(transfers.run, [what], None, stop.is_set)
        assert hanging.reached.wait(30)
        # When it is to stop, then it does, long before the storage comes back
        asked = time.monotonic()
        stop.set()
        with pytest.raises(Stopped):
            future.result(30)
        assert time.monotonic() - asked < 30
        assert not hanging.over.is_set()
    assert left_in(tmp_path / "in") == []
    # And what comes back later leaves nothing
    others = [thread for thread in threading.enumerate() if thread.name == "tokenpool-transfer"]
    hanging.over.set()
    for thread in others:
        thread.join(30)
    assert left_in(tmp_path / "in") == [] or method == "write"


def test_threads_that_hang_are_replaced(
    storage: FaultyStorage, transfers: Transfers, source: str, tmp_path: Path
) -> None:
    # Given as many hanging transfers as there are threads, given up
    faults = [Hanging() for _ in range(transfers.width)]
    storage.fail("stat", *faults)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        wanted = [Download(source, str(tmp_path / str(n))) for n in range(transfers.width)]
        future = pool.submit(transfers.run, wanted, None, stop.is_set)
        assert all(fault.reached.wait(30) for fault in faults)
        stop.set()
        with pytest.raises(Stopped):
            future.result(30)
    # When others are asked for, then they come
    (file,) = transfers.run([Download(source, str(tmp_path / "x"))])
    assert file.sha256 == sha256(CONTENT)
    for fault in faults:
        fault.over.set()


def test_no_more_streams_than_allowed_whoever_asks(storage: FaultyStorage, source: str, tmp_path: Path) -> None:
    transfers = Transfers(Only(storage), width=3, pause=0.001)
    at_once, most, lock = 0, 0, threading.Lock()
    barrier = threading.Barrier(3)

    def count() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        barrier.wait(30)  # three come together, always
        with lock:
            at_once -= 1

    storage.fail("stat", *[count] * 12)

    def fetch(name: str) -> Callable[[], object]:
        return lambda: transfers.run([Download(source, str(tmp_path / f"{name}{n}")) for n in range(4)])

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(fetch(name)) for name in "abc"]:
            future.result(60)
    assert most == 3


def test_questions_are_asked_again_as_transfers_are(transfers: Transfers) -> None:
    answers = iter([AWAY, AWAY, "yes"])

    def question() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert transfers.ask([question]) == ["yes"]


# ── real connections ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["http_files", "s3_moto", "s3_swift"])
@pytest.mark.parametrize("trouble", ["cut", "hold"])
def test_a_connection_that_breaks_in_the_middle_is_survived(
    serve: Callable[[str], Server], tmp_path: Path, name: str, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server behind a line that fails after some bytes
    content = os.urandom(RANGED + 12345)
    (tmp_path / "source").write_bytes(content)
    server = serve(name)
    stored = f"{server.url}/{tmp_path.name}"
    if name == "http_files":
        (server.folder / tmp_path.name).write_bytes(content)
    else:
        Storages({"s3://": server.options}).of(stored).write(stored, str(tmp_path / "source"))
    with CuttingProxy([server.port]) as line:
        far = server.at(CUT)
        storages = Storages({"s3://": {**far.options, "stall": 2}, "http://": {"stall": 2}})
        transfers = Transfers(storages, width=4, attempts=100, pause=0.05)
        progress = Progress()
        with ThreadPoolExecutor(1) as pool:
            getattr(line, trouble)(RANGED // 2)
            wanted = Download(stored.replace(server.url, far.url), str(tmp_path / "x"))
            future = pool.submit(transfers.run, [wanted], progress)
            # When it is well again after a while
            deadline = time.monotonic() + 120
            while not progress.note and time.monotonic() < deadline and not future.done():
                threading.Event().wait(0.02)
            line.heal()
            (file,) = future.result(180)
    # Then the file is whole
    assert progress.note
    assert file.sha256 == sha256(content) == sha256((tmp_path / "x").read_bytes())

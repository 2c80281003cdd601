"""The file of a SQLite pool: its URL, its disk, and what is not a pool."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import random
import sqlite3
import subprocess
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenpool.backends import open_backend
from tokenpool.backends.base import ALL_DOCS, Saved
from tokenpool.backends.sqlite import SQLiteBackend
from tokenpool.backends.sqlite_files import file_system, parse_url, refuse_network
from tokenpool.errors import BadInput, NotFound, NotPermitted, OutOfSpace


@pytest.fixture
def pool(sqlite_url: str) -> Iterator[SQLiteBackend]:
    """An empty pool."""
    with SQLiteBackend(sqlite_url, create=True) as pool:
        yield pool


# ── the file's name and place ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite://", "tokenpool.db"),
        ("sqlite:///", "tokenpool.db"),
        ("sqlite:///my.db", "my.db"),
        ("sqlite:///sub/my%20pool.db", "sub/my pool.db"),
        ("sqlite:////var/pool.db?synchronous=normal", "/var/pool.db"),
        ("sqlite:////var/pool.db?network=yes", "/var/pool.db"),
    ],
)
def test_urls_name_files(url: str, path: str, tmp_path: Path) -> None:
    place = parse_url(url)
    assert place.path == os.path.join(tmp_path, path)
    # The absolute form means the same from everywhere.
    assert parse_url(place.url) == place


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://my.db",
        "sqlite://me:secret@host/my.db",
        "sqlite:///:memory:",
        "sqlite:///a.db?x=1",
        "sqlite:///a.db?network=perhaps",
    ],
)
def test_urls_that_make_no_sense(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_url(url)
    assert caught.value.hint
    assert "secret" not in str(caught.value) + caught.value.hint


def test_a_relative_pool_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a pool named from here
    with open_backend("sqlite:///my.db", create=True) as pool:
        pool.put_many([{"_id": "doc"}])
        # When the program goes elsewhere, then every thread still finds it
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.extend(pool.get_many(["doc"])))
        thread.start()
        thread.join()
        assert found[0]["_id"] == "doc"
        with open_backend(pool.url) as same:
            assert same.get("doc")


def test_odd_file_names(tmp_path: Path) -> None:
    with open_backend(f"sqlite:///{tmp_path}/50%25%20%3F%23.db", create=True) as pool:
        assert os.path.exists(tmp_path / "50% ?#.db")
        with open_backend(pool.url) as same:
            assert same.counts() == {}


def test_a_write_is_on_the_disk_unless_told_otherwise(sqlite_url: str) -> None:
    with SQLiteBackend(sqlite_url, create=True) as pool, SQLiteBackend(f"{sqlite_url}?synchronous=normal") as fast:
        assert [each.run("PRAGMA synchronous")[0][0] for each in (pool, fast)] == [2, 1]
        assert pool.run("PRAGMA journal_mode") == [("wal",)]


MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:30 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2
31 30 0:31 / /home/me/scratch rw - xfs /dev/vdb rw
32 22 0:32 / /mnt/my\\040disk rw - fuse.sshfs me@host:/ rw
33 22 0:33 / /data rw - ext4 /dev/vdc rw
34 33 0:34 / /data rw - lustre mgs:/fs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/pool.db", "ext4"),
        ("/home/me/pool.db", "nfs4"),
        ("/homes/pool.db", "ext4"),
        ("/home/me/scratch/pool.db", "xfs"),
        ("/mnt/my disk/pool.db", "fuse.sshfs"),
        ("/data/pool.db", "lustre"),
    ],
)
def test_the_file_system_is_that_of_the_longest_mount(path: str, kind: str) -> None:
    assert file_system(path, MOUNTS) == kind
    assert file_system(path, "") == ""


def test_a_network_file_system_is_refused_unless_allowed() -> None:
    with pytest.raises(BadInput, match="nfs4") as caught:
        refuse_network(parse_url("sqlite:////home/me/pool.db"), MOUNTS)
    assert "network=yes" in caught.value.hint
    refuse_network(parse_url("sqlite:////home/me/pool.db?network=yes"), MOUNTS)
    refuse_network(parse_url("sqlite:////var/pool.db"), MOUNTS)


def test_nothing_is_made_on_a_network_file_system(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"22 1 0:1 / / rw - ext4 /dev/a rw\n23 22 0:2 / {os.path.realpath(tmp_path)} rw - nfs srv:/x rw\n"
    monkeypatch.setattr("tokenpool.backends.sqlite_files.mount_table", lambda: table)
    with pytest.raises(BadInput):
        SQLiteBackend(sqlite_url, create=True)
    assert list(tmp_path.iterdir()) == []
    SQLiteBackend(f"{sqlite_url}?network=yes", create=True).close()


# ── what is not a pool ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_pool_is_not_made_by_opening_it(sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        SQLiteBackend(sqlite_url)
    assert f"tokenpool init {sqlite_url}" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    # An empty file is what a failed init may leave.
    (tmp_path / "tokenpool.db").touch()
    with pytest.raises(NotFound):
        SQLiteBackend(sqlite_url)
    SQLiteBackend(sqlite_url, create=True).close()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no folder") as caught:
        SQLiteBackend(f"sqlite:///{tmp_path}/none/my.db", create=True)
    assert "mkdir -p" in caught.value.hint


@pytest.mark.parametrize("create", [True, False])
def test_another_programs_database_is_left_alone(sqlite_url: str, tmp_path: Path, create: bool) -> None:
    path = tmp_path / "tokenpool.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE documents (id)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(BadInput, match="not a tokenpool database"):
        SQLiteBackend(sqlite_url, create=create)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_database_is_left_alone(sqlite_url: str, tmp_path: Path, create: bool) -> None:
    path = tmp_path / "tokenpool.db"
    path.write_text("a list of things to do\n" * 100)
    with pytest.raises(BadInput, match="not a tokenpool database"):
        SQLiteBackend(sqlite_url, create=create)
    assert path.read_text() == "a list of things to do\n" * 100


def test_a_damaged_pool_is_named(sqlite_url: str, tmp_path: Path) -> None:
    with SQLiteBackend(sqlite_url, create=True) as pool:
        pool.put_many([{"_id": f"doc_{i}", "type": "token", "text": "x" * 200} for i in range(500)])
    path = tmp_path / "tokenpool.db"
    data = bytearray(path.read_bytes())
    data[8192:] = random.Random(1).randbytes(len(data) - 8192)
    path.write_bytes(data)
    with SQLiteBackend(sqlite_url) as pool, pytest.raises(BadInput, match="malformed"):
        list(pool.scan())


def test_a_pool_of_the_future_is_left_alone(sqlite_url: str, tmp_path: Path) -> None:
    SQLiteBackend(sqlite_url, create=True).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "tokenpool.db", isolation_level=None)) as other:
        other.execute("PRAGMA user_version = 1000")
    with pytest.raises(BadInput, match="newer"):
        SQLiteBackend(sqlite_url)


def test_a_forgotten_pool_in_a_cycle_closes_its_file(sqlite_url: str) -> None:
    # Since 3.13 a connection that is collected open is a warning, which is an error here.
    pool = SQLiteBackend(sqlite_url, create=True)
    handle = pool._connections.use()
    vars(handle)["itself"] = handle
    path = Path(pool.place.path)
    assert path.with_name(f"{path.name}-wal").exists()

    del pool, handle
    gc.collect()

    assert not path.with_name(f"{path.name}-wal").exists(), "the last connection takes the log along"


# ── a disk that will not ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = not subprocess.run(mount, capture_output=True, check=False).returncode
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(pool: SQLiteBackend) -> list[str]:
    """Write until the disk is full; return the ids that were acknowledged."""
    told: list[str] = []
    for i in range(1000):
        docs = [{"_id": f"doc_{i}_{n}", "text": "x" * 2000} for n in range(10)]
        try:
            told += [result.id for result in pool.put_many(docs)]
        except OutOfSpace:
            return told
    pytest.fail("the disk never was full")


def test_a_full_file_keeps_what_it_has(pool: SQLiteBackend) -> None:
    # Given a file that may not grow
    pool.run("PRAGMA max_page_count = 200")
    # When it is filled, then a write that has no room is not half done
    told = fill(pool)
    assert {row.id for row in pool.view(ALL_DOCS, "", {}).rows} == set(told)
    with pytest.raises(OutOfSpace):
        pool.put_attachment(told[0], pool.get(told[0])["_rev"], "log", io.BytesIO(bytes(10**6)), 10**6, "text/plain")
    assert "_attachments" not in pool.get(told[0])
    # And with room work goes on
    pool.run("PRAGMA max_page_count = 100000")
    assert isinstance(pool.put_many([{"_id": "after"}])[0], Saved)


def test_a_full_disk_keeps_what_it_has(small_disk: Path) -> None:
    with SQLiteBackend(f"sqlite:///{small_disk}/my.db", create=True) as pool:
        told = fill(pool)
        assert {row.id for row in pool.view(ALL_DOCS, "", {}).rows} == set(told)
        assert pool.run("PRAGMA integrity_check") == [("ok",)]


def test_no_pool_is_half_made_on_a_full_disk(small_disk: Path) -> None:
    # Given a disk with no room at all
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    url = f"sqlite:///{small_disk}/my.db"
    with pytest.raises(OutOfSpace):
        SQLiteBackend(url, create=True)
    # When there is room again, then the pool can be made
    ballast.unlink()
    with SQLiteBackend(url, create=True) as pool:
        assert isinstance(pool.put_many([{"_id": "doc"}])[0], Saved)


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/my.db"
    SQLiteBackend(url, create=True).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(NotPermitted) as caught:
        SQLiteBackend(f"sqlite:///{small_disk}/new.db", create=True)
    assert caught.value.exit_code == 77
    with pytest.raises(NotPermitted), SQLiteBackend(url) as pool:
        pool.put_many([{"_id": "doc"}])


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    # Given a folder that belongs to somebody else; root may write everywhere, so it becomes nobody first
    folder = tmp_path / "theirs"
    folder.mkdir()
    SQLiteBackend(f"sqlite:///{folder}/my.db", create=True).close()
    folder.chmod(0o555)
    (folder / "my.db").chmod(0o444)

    def act() -> int:
        os.chdir(folder)
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        codes = []
        for name, create in (("new.db", True), ("my.db", False)):
            try:
                with SQLiteBackend(f"sqlite:///{name}", create=create) as pool:
                    pool.put_many([{"_id": "doc"}])
            except NotPermitted:
                codes.append(name)
        return 0 if codes == ["new.db", "my.db"] else 1

    # When a pool there is made, or written, then that is not permitted, and nothing was made
    with warnings.catch_warnings():
        # Newer Pythons warn of threads that a fork loses; other tests' threads are none of ours.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        code = 99
        with contextlib.suppress(BaseException):
            code = act()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [path.name for path in folder.iterdir()] == ["my.db"]

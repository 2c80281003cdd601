"""Datasources and their cache: what is read is whole, whoever is killed while it is fetched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import BinaryIO

import pytest
from function_tools import surroundings
from processes import until

from tokenpool.errors import BadInput, NotFound
from tokenpool.functions.cache import Cache, ShortFile
from tokenpool.functions.datasource import Datasource


def source(tmp_path: Path, place: str = "") -> Datasource:
    where = {"TOKENPOOL_DATASOURCE": place or str(tmp_path / "bucket"), "TOKENPOOL_CACHE": str(tmp_path / "cache")}
    return Datasource.of_environment(where)


@pytest.mark.parametrize("front", ["", "file://"])
def test_what_is_put_can_be_got_and_deleted(tmp_path: Path, front: str) -> None:
    # Given a folder, by its path or as a URL
    data = source(tmp_path, f"{front}{tmp_path}/bucket")

    # When something is put there
    data.put("set/a.dat", b"hello")
    data.put("set/b.dat", "text")

    # Then it can be read, from the folder and from the cache, until it is deleted
    assert (tmp_path / "bucket/set/a.dat").read_bytes() == b"hello"
    assert data.read("set/a.dat") == b"hello"
    assert data.get("set/b.dat").read_text() == "text"
    data.delete("set/a.dat")
    assert not (tmp_path / "bucket/set/a.dat").exists()
    with pytest.raises(NotFound):
        data.get("set/a.dat")


def test_the_cache_is_used_unless_told_otherwise(tmp_path: Path) -> None:
    data = source(tmp_path)
    data.put("a", b"1")
    (tmp_path / "bucket/a").write_bytes(b"2")
    assert data.read("a") == b"1"
    assert data.read("a", override_cache=True) == b"2"


def test_any_storage_that_fsspec_has_will_do(tmp_path: Path) -> None:
    pytest.importorskip("fsspec") if os.environ.get("TOKENPOOL_REQUIRE_ALL") != "1" else __import__("fsspec")
    data = source(tmp_path, "memory://bucket")
    data.put("set/a", b"remote")
    data.cache.clear()
    assert data.read("set/a") == b"remote"
    data.delete("set/a")
    with pytest.raises(NotFound):
        data.get("set/a")


def test_keys_do_not_lead_out_of_the_place(tmp_path: Path) -> None:
    data = source(tmp_path)
    with pytest.raises(BadInput, match="no key"):
        data.put("../../outside", b"x", only_cache=False)
    assert not (tmp_path.parent / "outside").exists()


def test_nobody_said_where(tmp_path: Path) -> None:
    data = Datasource.of_environment({"TOKENPOOL_CACHE": str(tmp_path)})
    with pytest.raises(BadInput, match="nobody said where"):
        data.get("a")


def test_a_short_file_is_not_published(tmp_path: Path) -> None:
    # When fewer bytes arrive than the source said
    def short(file: BinaryIO) -> int:
        file.write(b"half")
        return 8

    cache = Cache(tmp_path / "cache")
    with pytest.raises(ShortFile):
        cache.get("key", short)

    # Then there is nothing, also no part of it
    assert not cache.path("key").exists()
    assert list((tmp_path / "cache/parts").iterdir()) == []


def test_many_processes_fetch_once_and_a_killed_one_leaves_no_half(tmp_path: Path) -> None:
    # Given a process that is killed in the middle of a fetch
    script = tmp_path / "fetch.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys, time
        from tokenpool.functions.cache import Cache

        def fill(file):
            with open("fetched", "a") as log:
                log.write("x")
            file.write(b"a" * 1000)
            file.flush()
            if sys.argv[1] == "hang":
                open("hangs", "w").close()
                time.sleep(600)
            file.write(b"b" * 1000)
            return 2000

        print(len(Cache("cache").get("some/key", fill).read_bytes()))
        """)
    )

    def start(word: str) -> subprocess.Popen[str]:
        argv = [sys.executable, str(script), word]
        return subprocess.Popen(argv, cwd=tmp_path, env=surroundings(), stdout=subprocess.PIPE, text=True)

    with start("hang") as killed:
        until((tmp_path / "hangs").exists)
        killed.send_signal(signal.SIGKILL)

    # When others want the same
    others = [start("go") for _ in range(4)]

    # Then one of them fetched it, and all have the whole
    assert [each.communicate(timeout=30)[0].strip() for each in others] == ["2000"] * 4
    assert (tmp_path / "fetched").read_text() == "xx"

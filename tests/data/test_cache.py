"""The cache of a machine: one fetch whoever asks, nothing broken whoever dies, and never larger than it may be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tokenpool.staging.cache import Cache, Source
from tokenpool.staging.values import Stopped
from tokenpool.storage.base import Entry

ROOT = Path(__file__).resolve().parents[2]


def one(name: str, size: int = 4, version: str = "1", checksum: str = "") -> Source:
    """Return a source that is one file."""
    url = f"s3://bucket/{name}?X-Amz-Signature=hidden"
    return Source(f"https://host/{name}?sig=hidden", (Entry(url, size, checksum, version),))


class Filling:
    """Writes one file, and counts how often it was asked to."""

    def __init__(self, data: bytes = b"data") -> None:
        self.data, self.times = data, 0

    def __call__(self, folder: str) -> Mapping[str, str]:
        self.times += 1
        Path(folder, "file").write_bytes(self.data)
        return {}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


# ── one fetch ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_source_is_fetched_once_and_linked_read_only(cache: Cache, tmp_path: Path) -> None:
    fill = Filling()
    for n in range(3):
        cache.place(one("x"), fill, str(tmp_path / str(n) / "ref"))
    assert fill.times == 1
    inodes = {(tmp_path / str(n) / "ref").stat().st_ino for n in range(3)}
    assert len(inodes) == 1
    assert (tmp_path / "0" / "ref").read_bytes() == b"data"
    assert (tmp_path / "0" / "ref").stat().st_mode & 0o777 == 0o444


def test_a_folder_keeps_its_names_links_and_modes(cache: Cache, tmp_path: Path) -> None:
    def fill(folder: str) -> Mapping[str, str]:
        top = Path(folder)
        (top / "a" / "empty").mkdir(parents=True)
        (top / "a" / "run").write_text("#!")
        (top / "a" / "run").chmod(0o755)
        (top / "to").symlink_to("a/run")
        return {}

    source = Source("s3://b/f/", (Entry("s3://b/f/run", 2, version="1"),), names=("a/run",))
    for n in "12":
        sums = cache.place(source, fill, str(tmp_path / n))
        assert list(sums) == ["a/run"]
        assert os.access(tmp_path / n / "a" / "run", os.X_OK)
        assert (tmp_path / n / "to").read_text() == "#!"
        assert (tmp_path / n / "a" / "empty").is_dir()


def test_many_threads_and_one_fetch(cache: Cache, tmp_path: Path) -> None:
    fill, begin = Filling(), threading.Event()

    def slow(folder: str) -> Mapping[str, str]:
        begin.wait(30)
        return fill(folder)

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(cache.place, one("x"), slow, str(tmp_path / f"{n}")) for n in range(8)]
        begin.set()
        sums = [future.result(60) for future in futures]
    assert fill.times == 1
    assert len({json.dumps(each) for each in sums}) == 1


def test_who_waits_for_another_can_be_stopped(cache: Cache, tmp_path: Path) -> None:
    # Given somebody who fetches for ever
    fetching, over = threading.Event(), threading.Event()

    def endless(folder: str) -> Mapping[str, str]:
        fetching.set()
        over.wait(60)
        raise Stopped("over")

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(cache.place, one("x"), endless, str(tmp_path / "a"))
        assert fetching.wait(30)
        # When another one waits for it and is told to stop, then it stops
        asked: list[float] = []

        def stopped() -> bool:
            asked.append(time.monotonic())
            return len(asked) > 3

        with pytest.raises(Stopped):
            cache.place(one("x"), Filling(), str(tmp_path / "b"), stopped)
        over.set()
        with pytest.raises(Stopped):
            future.result(30)
    # And whoever comes then fetches it
    fill = Filling()
    cache.place(one("x"), fill, str(tmp_path / "c"))
    assert fill.times == 1


# ── what is current, and whole ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("other", [one("x", version="2"), one("x", size=5), one("x", checksum="md5:0")])
def test_a_source_that_changed_is_fetched_anew(cache: Cache, tmp_path: Path, other: Source) -> None:
    cache.place(one("x"), Filling(b"old!"), str(tmp_path / "a"))
    cache.place(other, Filling(b"new!"), str(tmp_path / "b"))
    assert (tmp_path / "a").read_bytes() == b"old!"
    assert (tmp_path / "b").read_bytes() == b"new!"


def test_a_source_that_says_nothing_of_its_version_is_not_trusted_for_ever(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill, unsure = Filling(), one("x", version="")
    cache.place(unsure, fill, str(tmp_path / "a"))
    cache.place(unsure, fill, str(tmp_path / "b"))
    assert fill.times == 1
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    cache.place(unsure, fill, str(tmp_path / "c"))
    assert fill.times == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path.chmod(0o644), path.write_bytes(b"evil")),
        lambda path: (path.chmod(0o644), path.write_bytes(b"longer than before")),
        lambda path: path.unlink(),
        lambda path: (path.chmod(0o644), os.truncate(path, 1)),
    ],
    ids=["written to", "longer", "gone", "cut"],
)
def test_a_damaged_object_is_noticed_and_fetched_again(
    cache: Cache, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    cache.place(one("x"), Filling(), str(tmp_path / "a"))
    (path,) = (tmp_path / "cache" / "objects").glob("??/*")
    damage(path)
    fill = Filling()
    cache.place(one("x"), fill, str(tmp_path / "b"))
    assert fill.times == 1
    assert (tmp_path / "b").read_bytes() == b"data"


def test_the_same_content_under_two_names_is_kept_once(cache: Cache, tmp_path: Path) -> None:
    for _ in range(2):  # and neither makes the other's damaged
        for name in ("x", "y"):
            cache.place(one(name), Filling(), str(tmp_path / name))
    assert len(list((tmp_path / "cache" / "objects").glob("??/*"))) == 1
    fill = Filling()
    cache.place(one("x"), fill, str(tmp_path / "z"))
    assert fill.times == 0


def test_a_fetch_that_fails_leaves_nothing(cache: Cache, tmp_path: Path) -> None:
    def failing(folder: str) -> Mapping[str, str]:
        Path(folder, "file").write_bytes(b"hal")
        raise Stopped("it broke")

    with pytest.raises(Stopped):
        cache.place(one("x"), failing, str(tmp_path / "a"))
    assert cache.entries() == []
    assert not (tmp_path / "a").exists()
    assert list((tmp_path / "cache" / "parts").iterdir()) == []


def test_another_disk_gets_a_copy(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    cache.place(one("x"), Filling(), str(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"data"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o444


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#: Fetches slowly into the cache, tells each step, and goes on when it is told to.
SLOW = """
import os, sys
sys.path[:0] = [{root!r}, {tests!r}]
from tokenpool.staging import cache as module
from test_cache import Cache, one
step = {step!r}

def pause(name):
    if name == step:
        print("here", flush=True)
        sys.stdin.read()

def fill(folder):
    with open(os.path.join(folder, "file"), "wb") as file:
        file.write(b"da"); file.flush(); pause("writing"); file.write(b"ta")
    pause("written")
    return {{}}

replace = os.replace
def replaced(old, new):
    pause("before " + str(new).rpartition("/")[0].split("/")[-1][:2] if "objects" in str(new) else "before manifest")
    replace(old, new)
    pause("after object" if "objects" in str(new) else "after manifest")
module.os.replace = replaced
link = os.link
def linked(old, new):
    pause("before link")
    link(old, new)
module.os.link = linked
Cache({cache!r}).place(one("x"), fill, {target!r})
"""
STEPS = ["writing", "written", "before 3a", "after object", "before manifest", "after manifest", "before link"]


@pytest.mark.parametrize("step", STEPS)
def test_who_is_killed_at_any_moment_leaves_no_broken_entry(cache: Cache, tmp_path: Path, step: str) -> None:
    # Given a process that fetches, killed at some step
    text = SLOW.format(
        root=str(ROOT), tests=str(Path(__file__).parent), step=step, cache=str(cache.root), target=str(tmp_path / "a")
    )
    process = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # When another one wants the same, then it gets it whole, fetched anew unless the entry was finished
    fill = Filling()
    cache.place(one("x"), fill, str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"data"
    assert fill.times == (0 if step in ("after manifest", "before link") else 1)
    # And nothing of the dead one is left when it was tidied up
    cache.prune(1 << 30)
    assert len(list((cache.root / "objects").glob("??/*"))) == 1
    assert list((cache.root / "parts").iterdir()) == []
    assert [each.size for each in cache.entries()] == [4]


def test_tidying_does_not_touch_what_is_just_being_fetched(cache: Cache, tmp_path: Path) -> None:
    fill = Filling()

    def tidied(folder: str) -> Mapping[str, str]:
        Path(folder, "file").write_bytes(b"data")
        cache.prune(0)
        return {}

    cache.place(one("x"), tidied, str(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"data"
    cache.place(one("x"), fill, str(tmp_path / "b"))
    assert fill.times == 0


# ── room ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def fill_with(cache: Cache, folder: Path, *names: str) -> None:
    """Bring entries of four bytes, used a second after each other, none of them in use."""
    for number, name in enumerate(names):
        source = one(name)
        cache.place(source, Filling(name.encode() * 4), str(folder / name))
        os.utime(cache.root / "manifests" / f"{source.key}.json", (number + 1000, number + 1000))
        (folder / name).unlink()


def names_in(cache: Cache) -> list[str]:
    return [each.url.partition("?")[0].rpartition("/")[2] for each in cache.entries()]


def test_what_was_not_used_for_longest_goes_first(cache: Cache, tmp_path: Path) -> None:
    fill_with(cache, tmp_path, "a", "b", "c", "d")
    # When one of them was used again, and there is room for two
    cache.place(one("a"), Filling(), str(tmp_path / "a"))
    (tmp_path / "a").unlink()
    gone = cache.prune(8)
    # Then those two stay that were used last
    assert names_in(cache) == ["d", "a"]
    assert [each.size for each in gone] == [4, 4]
    assert len(list((cache.root / "objects").glob("??/*"))) == 2


def test_the_limit_is_kept_by_those_who_fetch(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit=10)
    fill_with(cache, tmp_path, "a", "b", "c")
    assert names_in(cache) == ["b", "c"]


def test_what_a_token_uses_stays(cache: Cache, tmp_path: Path) -> None:
    fill_with(cache, tmp_path, "a", "b")
    cache.place(one("a"), Filling(), str(tmp_path / "used"))
    cache.prune(0)
    assert names_in(cache) == ["a"]
    (tmp_path / "used").unlink()
    cache.prune(0)
    assert names_in(cache) == []


def test_old_entries_go_by_their_age(cache: Cache, tmp_path: Path) -> None:
    fill_with(cache, tmp_path, "old")
    cache.place(one("new"), Filling(), str(tmp_path / "new"))
    assert [each.url.partition("?")[0] for each in cache.prune(older_than=3600)] == ["https://host/old"]
    assert names_in(cache) == ["new"]


def test_entries_are_listed_and_removed_without_their_secrets(cache: Cache, tmp_path: Path) -> None:
    fill_with(cache, tmp_path, "a", "b")
    first, second = cache.entries()
    assert (first.used, first.size) == (1000.0, 4)
    assert first.fetched <= time.time()
    assert "hidden" not in first.url
    assert [each.key for each in cache.remove([first.key, "unknown"])] == [first.key]
    assert cache.entries() == [second]
    for path in cache.root.rglob("*.json"):
        assert "hidden" not in path.read_text()


def test_nonsense_in_the_folder_is_no_entry(cache: Cache, tmp_path: Path) -> None:
    cache.place(one("x"), Filling(), str(tmp_path / "a"))
    key = cache.entries()[0].key
    for text in ("", "{", "[]", '{"schema": 2, "files": []}'):
        (cache.root / "manifests" / f"{key}.json").write_text(text)
        assert cache.entries() == []
        fill = Filling()
        cache.place(one("x"), fill, str(tmp_path / "b"))
        assert fill.times == 1

"""Grid storage by the programs srmls, srmcp and srmrm; here small scripts on a directory."""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path

import pytest

from tokenpool import srm, srmclient
from tokenpool.errors import NotFound, TokenpoolError
from tokenpool.srm import SRMClient

HOST = "srm://storage.example/"

SRMLS = r"""#!/bin/sh
path="$STORE/${1#srm://*/}"
if [ -d "$path" ]; then echo "  512 /pnfs/${1#srm://*/}/"; for f in "$path"/*; do echo "   7 /pnfs/data/${f##*/}"; done
elif [ -f "$path" ]; then echo "   7 /pnfs/${1#srm://*/}"
else echo "no such file" >&2; exit 1; fi
"""

# $FLAKY, if there: the number of times that every file still fails.
SRMCP = r"""#!/bin/sh
echo "$@" >> "$STORE/.calls"
local_path() { echo "${1#file:///}"; }
case "$3" in
srm:*) name="${3#srm://*/}"
    count="$STORE/.count.$(basename "$name")"; tries=$(cat "$count" 2>/dev/null || echo 0)
    if [ "$tries" -lt "${FLAKY:-0}" ]; then echo $((tries + 1)) > "$count"; echo "busy" >&2; exit 3; fi
    cp "$STORE/$name" "$(local_path "$4")" ;;
*) mkdir -p "$(dirname "$STORE/${4#srm://*/}")"; cp "$(local_path "$3")" "$STORE/${4#srm://*/}" ;;
esac
"""

SRMRM = r"""#!/bin/sh
rm "$STORE/${1#srm://*/}"
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage with two files, its programs on PATH, and an empty current directory."""
    programs, store, here = tmp_path / "bin", tmp_path / "store", tmp_path / "here"
    for directory in (programs, store / "data", here):
        directory.mkdir(parents=True)
    for name, script in (("srmls", SRMLS), ("srmcp", SRMCP), ("srmrm", SRMRM)):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    (store / "data" / "metadata.txt").write_text("m")
    (store / "data" / "with space.txt").write_text("s")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("STORE", str(store))
    monkeypatch.chdir(here)
    return store


@pytest.fixture
def client() -> SRMClient:
    return SRMClient(logging.getLogger("test srm"), HOST)


def calls(store: Path) -> int:
    return len((store / ".calls").read_text().splitlines())


@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("data/metadata.txt", True),
        ("data/with space.txt", True),
        ("data", True),
        ("data/", True),
        ("data/data.txt", False),
        ("nowhere", False),
    ],
)
def test_what_the_storage_lists_exists(store: Path, client: SRMClient, location: str, there: bool) -> None:
    assert client.remote_exists(location) is there


def test_a_name_inside_a_longer_one_does_not_count(client: SRMClient, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = b"  7 /pnfs/data/metadata.txt\n"
    monkeypatch.setattr(srm, "execute", lambda command: (None, 0, listed, b""))

    assert client.remote_exists("data/metadata.txt")
    assert not client.remote_exists("data/data.txt")


def test_a_file_goes_up_and_comes_down_and_goes(store: Path, client: SRMClient) -> None:
    # Given a file whose name a shell would trip over
    Path("a;b $(c).txt").write_text("content")

    # When it is uploaded
    address = client.upload("a;b $(c).txt", "new", check=True)

    # Then it is there, can be fetched, and be removed
    assert address == f"{HOST}new/a;b $(c).txt"
    assert client.remote_exists("new/a;b $(c).txt")
    Path("a;b $(c).txt").unlink()
    assert client.download("new/a;b $(c).txt", check=True) == "./a;b $(c).txt"
    assert Path("a;b $(c).txt").read_text() == "content"
    assert client.remove("new/a;b $(c).txt") is True
    assert not client.remote_exists("new/a;b $(c).txt")


def test_checks_refuse_what_is_missing_and_what_is_there(store: Path, client: SRMClient) -> None:
    Path("metadata.txt").write_text("other")

    with pytest.raises(FileNotFoundError, match=r"no file absent\.txt"):
        client.upload("absent.txt", "data", check=True)
    with pytest.raises(FileExistsError, match="is there already"):
        client.upload("metadata.txt", "data", check=True)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        client.download("data/absent.txt", check=True)

    assert (store / "data" / "metadata.txt").read_text() == "m"


def test_a_failure_is_an_oserror_that_says_what_the_program_said(store: Path, client: SRMClient) -> None:
    with pytest.raises(OSError, match=r"download failed: srmcp ended with 1: .*absent") as caught:
        client.download("data/absent.txt")
    with pytest.raises(OSError, match="remove failed"):
        client.remove("data/absent.txt")

    assert isinstance(caught.value, TokenpoolError)
    assert caught.value.hint.startswith("run it by hand: srmcp ")


def test_a_missing_program_is_named(client: SRMClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NotFound, match="no program srmls"):
        client.remote_exists("data")


def test_many_files_come_down(store: Path) -> None:
    names = [f"data/f{number}" for number in range(30)]
    for name in names:
        (store / name).write_text(name)

    srm.download_many(names, poolsize=4)

    assert {path.name: path.read_text() for path in Path().iterdir()} == {name[5:]: name for name in names}


def test_a_busy_storage_is_asked_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAKY", "3")

    srm.download_many(["data/metadata.txt"], pause=0)

    assert Path("metadata.txt").read_text() == "m"
    assert calls(store) == 4


def test_a_file_that_cannot_be_had_ends_in_an_error_and_keeps_none_from_the_others(store: Path) -> None:
    files = ["data/absent-1", "data/metadata.txt", "data/absent-2", "data/with space.txt"]

    with pytest.raises(OSError, match=r"2 not downloaded: data/absent-1, data/absent-2"):
        srm.download_many(files, poolsize=1, tries=2, pause=0)

    assert {path.name for path in Path().iterdir()} == {"metadata.txt", "with space.txt"}
    assert calls(store) == 6


def test_a_program_that_is_missing_is_not_asked_again(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(OSError, match="1 not downloaded") as caught:
        srm.download_many(["data/metadata.txt"], pause=3600)

    assert "no program srmcp" in caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize("poolsize", [0, 1, 50])
def test_no_files_are_no_work(store: Path, poolsize: int) -> None:
    srm.download_many([], poolsize=poolsize)
    srm.download_many(["data/metadata.txt"], poolsize=poolsize)

    assert [path.name for path in Path().iterdir()] == ["metadata.txt"]


def test_a_queue_of_ones_own_is_joined_even_when_files_fail(store: Path) -> None:
    q: queue.Queue[str] = queue.Queue()
    q.put("data/absent")
    downloader = srm.Downloader(q, tries=1)

    downloader.start()
    q.join()
    downloader.join()

    assert list(downloader.failures) == ["data/absent"]
    assert not downloader.daemon


def test_an_interrupt_leaves_no_queue_to_work_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a pool whose only thread is in the middle of its first file
    started, go_on = threading.Event(), threading.Event()
    q: queue.Queue[str] = queue.Queue()
    for name in ("data/metadata.txt", "data/with space.txt"):
        q.put(name)

    class Slow(srm.Downloader):
        def _download(self, srm_file: str) -> None:
            started.set()
            go_on.wait(60)

        def join(self, timeout: float | None = None) -> None:
            started.wait(60)
            raise KeyboardInterrupt

    slow = Slow(q)

    # When the user interrupts
    with pytest.raises(KeyboardInterrupt):
        srm.run_all([slow])

    # Then the second file is never begun
    assert q.empty()
    go_on.set()
    threading.Thread.join(slow, 60)
    assert not slow.is_alive()


def test_a_dictionary_of_files_comes_down(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAKY", "9")

    srmclient.download({"one": "data/metadata.txt", "two": "data/with space.txt"}, threads=2, pause=0)

    assert {path.name for path in Path().iterdir()} == {"metadata.txt", "with space.txt"}


def test_a_dictionary_with_a_file_that_is_not_there_ends_in_an_error(store: Path) -> None:
    with pytest.raises(OSError, match="1 not downloaded: data/absent"):
        srmclient.download({"one": "data/absent"}, pause=0)

    assert calls(store) == 10


def test_what_picas_never_implemented_points_to_what_works() -> None:
    for refuse in (srm.download, srm.upload, srm.upload_many):
        with pytest.raises(NotImplementedError, match="SRMClient"):
            refuse("x")  # type: ignore[arg-type]

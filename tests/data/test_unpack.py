"""Unpacking: what was packed comes out the same, and nothing comes out anywhere else."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_disks import mounted

from tokenpool.errors import BadInput, OutOfSpace
from tokenpool.staging.transfers import Stopped
from tokenpool.staging.unpack import BadArchive, unpack


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with mounted(tmp_path / "disk", "1m") as folder:
        yield folder


CONTENT = os.urandom(3 << 20) + b"text\n" * 1000


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tar_of(path: Path, *members: tarfile.TarInfo, data: bytes = b"data") -> str:
    with tarfile.open(path, "w") as archive:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return str(path)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


# ── what comes out ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_gunzip_gives_the_file(tmp_path: Path) -> None:
    # Also of several members, as bgzip writes them
    (tmp_path / "x.gz").write_bytes(gzip.compress(CONTENT) + gzip.compress(b"more"))
    unpack("gunzip", str(tmp_path / "x.gz"), str(tmp_path / "in" / "x"))
    assert (tmp_path / "in" / "x").read_bytes() == CONTENT + b"more"


@pytest.mark.parametrize("library", [True, False], ids=["library", "program"])
def test_zstd_gives_the_file(tmp_path: Path, library: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("zstd")
    if program is None:
        assert os.environ.get("TOKENPOOL_REQUIRE_ALL") != "1", "apt-get install zstd"
        pytest.skip("no zstd here: apt-get install zstd")
    (tmp_path / "x").write_bytes(CONTENT)
    subprocess.run([program, "-q", str(tmp_path / "x")], check=True)
    if not library:
        monkeypatch.setitem(sys.modules, "zstandard", None)
    elif not _has_zstandard():
        assert os.environ.get("TOKENPOOL_REQUIRE_ALL") != "1", "pip install zstandard"
        pytest.skip("pip install zstandard")
    unpack("zstd", str(tmp_path / "x.zst"), str(tmp_path / "y"))
    assert (tmp_path / "y").read_bytes() == CONTENT


def _has_zstandard() -> bool:
    try:
        import zstandard  # noqa: F401
    except ImportError:
        return False
    return True


def test_without_library_and_program_the_hint_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "x.zst").write_bytes(b"")
    with pytest.raises(BadInput) as caught:
        unpack("zstd", str(tmp_path / "x.zst"), str(tmp_path / "y"))
    assert "pip install zstandard" in caught.value.hint


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_untar_gives_files_folders_and_links(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    plain = Path(
        tar_of(
            tmp_path / "plain",
            member("a/", tarfile.DIRTYPE, mode=0o755),
            member("a/run.sh", mode=0o755),
            member("./b/two words"),
            member("a/again", tarfile.LNKTYPE, "a/run.sh"),
            member("b/to", tarfile.SYMTYPE, "../a/run.sh"),
            member("empty", tarfile.DIRTYPE, mode=0o700),
        )
    )
    (tmp_path / "x.tar").write_bytes(pack(plain.read_bytes()))
    unpack("untar", str(tmp_path / "x.tar"), str(tmp_path / "in"))
    assert tree(tmp_path / "in") == dict.fromkeys(["a/run.sh", "a/again", "b/two words", "b/to"], b"data")
    assert os.access(tmp_path / "in" / "a" / "run.sh", os.X_OK)
    assert (tmp_path / "in" / "b" / "to").is_symlink()
    assert (tmp_path / "in" / "empty").is_dir()


def test_unzip_gives_files_and_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/ü b.txt", CONTENT)
        archive.writestr("empty/", b"")
    unpack("unzip", str(tmp_path / "x.zip"), str(tmp_path / "in"))
    assert tree(tmp_path / "in") == {"a/ü b.txt": CONTENT}
    assert (tmp_path / "in" / "empty").is_dir()


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


EVIL = {
    "a name with ..": [member("../out")],
    "a name from the root": [member("/tmp/out-of-an-archive")],
    "a link from the root": [member("l", tarfile.SYMTYPE, "/etc/passwd")],
    "a link with ..": [member("a/l", tarfile.SYMTYPE, "../../out")],
    "a file through a link": [member("l", tarfile.SYMTYPE, "."), member("l/../../out")],
    "a link that leads out later": [member("l", tarfile.SYMTYPE, "d/.."), member("d", tarfile.SYMTYPE, ".")],
    "a second name of a file outside": [member("l", tarfile.LNKTYPE, "../secret")],
    "a second name of nothing": [member("l", tarfile.LNKTYPE, "nothing")],
    "a device": [member("null", tarfile.CHRTYPE)],
    "a pipe": [member("pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("name", EVIL)
def test_an_archive_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    source = tar_of(tmp_path / "x.tar", *EVIL[name])
    with pytest.raises(BadArchive) as caught:
        unpack("untar", source, str(tmp_path / "in"))
    assert caught.value.hint
    assert sorted(os.listdir(tmp_path)) == ["in", "secret", "x.tar"]
    for path in (tmp_path / "in").rglob("*"):
        assert path.resolve().is_relative_to(tmp_path / "in"), path


@pytest.mark.parametrize("name", ["../out", "/tmp/out-of-an-archive", "a/../../out", "..\\out"])
def test_a_zip_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(BadArchive):
        unpack("unzip", str(tmp_path / "x.zip"), str(tmp_path / "in"))
    assert sorted(os.listdir(tmp_path)) == ["in", "x.zip"]


@pytest.mark.parametrize("how", ["gunzip", "untar", "unzip"])
@pytest.mark.parametrize("data", [b"no archive at all", gzip.compress(CONTENT)[:-5000]], ids=["nonsense", "cut"])
def test_what_is_no_archive_is_told_and_leaves_no_file(tmp_path: Path, how: str, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BadArchive, match="cannot be unpacked"):
        unpack(how, str(tmp_path / "x"), str(tmp_path / "in" / "y"))
    assert tree(tmp_path / "in") == {}


def test_a_bomb_fills_no_disk(small_disk: Path, tmp_path: Path) -> None:
    # Given a few bytes that are a hundred megabytes
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(100 << 20)))
    # When they are unpacked where there is one, then it is told, and the disk is as empty as before
    with pytest.raises(OutOfSpace):
        unpack("gunzip", str(tmp_path / "bomb.gz"), str(small_disk / "x"))
    assert os.listdir(small_disk) == []


def test_unpacking_stops_when_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(CONTENT))
    pieces = 0

    def check() -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 2:
            raise Stopped("stop")

    with pytest.raises(Stopped):
        unpack("gunzip", str(tmp_path / "x.gz"), str(tmp_path / "in" / "x"), check)
    assert tree(tmp_path / "in") == {}

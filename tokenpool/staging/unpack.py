"""Unpacks what came packed: streamed, never out of its folder, and never until the disk is full."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from ..errors import BadInput, TokenpoolError
from ..storage.base import PIECE
from .room import expect_room, local_errors

#: Bytes that are written between two looks at the disk.
LOOK = 16 << 20


class BadArchive(TokenpoolError):
    """What came cannot be unpacked, or not safely."""


def unpack(how: str, source: str, target: str, check: Callable[[], None] = lambda: None) -> None:
    """Unpack the file `source`: gunzip and zstd into the file `target`, untar and unzip into the folder `target`.

    `check` is called between pieces and may raise. Raises BadArchive, OutOfSpace, and BadInput where a program is missing.
    """
    name = os.path.basename(source)
    try:
        with local_errors():
            if how == "gunzip":
                with gzip.open(source, "rb") as stream:
                    _write(stream, target, check)
            elif how == "zstd":
                with _zstd(source, name) as stream:
                    _write(stream, target, check)
            elif how == "untar":
                _untar(source, target, check)
            else:
                _unzip(source, target, check)
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, zipfile.BadZipFile, RuntimeError) as error:
        told = str(error) or type(error).__name__
        raise BadArchive(f"{name} cannot be unpacked by {how}: {told}", "is it whole, and packed that way?") from None


def _write(stream: Any, target: str, check: Callable[[], None], mode: int = 0o666) -> None:
    """Write a stream to a new file, which is removed where that fails."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.lexists(target):
        os.unlink(target)
    number = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(number, "wb", buffering=0) as file:
            written = 0
            while piece := stream.read(PIECE):
                check()
                if written // LOOK != (written + len(piece)) // LOOK:
                    expect_room(
                        target, LOOK, f"{os.path.basename(target)}, of which {written / 1e6:.0f} MB are unpacked,"
                    )
                written += file.write(piece)
    except BaseException:
        os.unlink(target)
        raise


@contextmanager
def _zstd(source: str, name: str) -> Iterator[IO[bytes]]:
    try:
        import zstandard
    except ImportError:
        pass
    else:
        try:
            with open(source, "rb") as file:
                reader: Any = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                yield reader
        except zstandard.ZstdError as error:
            raise BadArchive(
                f"{name} cannot be unpacked by zstd: {error}", "is it whole, and packed that way?"
            ) from None
        return
    program = shutil.which("zstd")
    if program is None:
        raise BadInput("zstd cannot be unpacked here", "pip install zstandard, or install the program zstd")
    with subprocess.Popen([program, "-dcq", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
            told = process.stderr.read(1000).decode("utf-8", "replace").strip()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise BadArchive(f"{name} cannot be unpacked by zstd: {told}", "is it whole, and packed that way?")


# --- archives ----------------------------------------------------------------------------------------------------------


def _untar(source: str, folder: str, check: Callable[[], None]) -> None:
    os.makedirs(folder, exist_ok=True)
    top = os.path.realpath(folder)
    with tarfile.open(source, "r:*") as archive:
        for member in archive:
            check()
            target = _inside(top, member.name)
            if target == top:
                continue
            if member.isdir():
                os.makedirs(target, exist_ok=True)
            elif member.isreg():
                stream = archive.extractfile(member)
                assert stream is not None
                expect_room(target, member.size, member.name)
                _write(stream, target, check, member.mode & 0o777 | 0o600)
            elif member.issym():
                _link(top, target, member.linkname)
            elif member.islnk():
                _copy(_inside(top, member.linkname), target, check)
            else:
                raise BadArchive(f"{member.name} in the archive is a device or a pipe", "pack files and folders only")
    _expect_links_inside(top)


def _unzip(source: str, folder: str, check: Callable[[], None]) -> None:
    os.makedirs(folder, exist_ok=True)
    top = os.path.realpath(folder)
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            check()
            target = _inside(top, member.filename)
            if target == top:
                continue
            if member.is_dir():
                os.makedirs(target, exist_ok=True)
                continue
            expect_room(target, member.file_size, member.filename)
            mode = member.external_attr >> 16
            with archive.open(member) as stream:
                if stat.S_ISLNK(mode):
                    _link(top, target, stream.read(4096).decode("utf-8", "replace"))
                else:
                    _write(stream, target, check, (mode or 0o644) & 0o777 | 0o600)
    _expect_links_inside(top)


def _inside(top: str, name: str) -> str:
    """Return where a member goes; raises BadArchive where that is not below `top`, be it by a link."""
    if name.startswith("/") or ".." in name.replace("\\", "/").split("/") or "\0" in name:
        raise BadArchive(f"{name!r} in the archive leads out of its folder", "pack it with relative names")
    target = os.path.normpath(os.path.join(top, name))
    if target == top:
        return top
    parent = os.path.realpath(os.path.dirname(target))
    if parent != top and not parent.startswith(f"{top}/"):
        raise BadArchive(f"{name!r} in the archive leads out of its folder by a link", "pack it without that link")
    return os.path.join(parent, os.path.basename(target))


def _link(top: str, target: str, to: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    leads = os.path.realpath(os.path.join(os.path.dirname(target), to))
    if os.path.isabs(to) or (leads != top and not leads.startswith(f"{top}/")):
        raise BadArchive(f"the link {os.path.basename(target)} leads out of the archive's folder", "pack it without")
    if os.path.lexists(target):
        os.unlink(target)
    os.symlink(to, target)


def _copy(source: str, target: str, check: Callable[[], None]) -> None:
    """Make what the archive has as a second name of a file: a copy, as whoever writes to one must not change the other."""
    try:
        number = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        raise BadArchive(
            f"{os.path.basename(target)} is a link to what is not in the archive", "pack it anew"
        ) from None
    with open(number, "rb") as stream:
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode):
            raise BadArchive(f"{os.path.basename(target)} is a link to no file", "pack it anew")
        _write(stream, target, check, mode & 0o777)


def _expect_links_inside(top: str) -> None:
    """Raise BadArchive where a link that led nowhere at first leads out now; it is removed."""
    for place, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            if os.path.islink(path):
                leads = os.path.realpath(path)
                if leads != top and not leads.startswith(f"{top}/"):
                    os.unlink(path)
                    raise BadArchive(f"the link {name} leads out of the archive's folder", "pack it without")

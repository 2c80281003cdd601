"""Files of this machine: paths and file:// URLs."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ..errors import BadInput, NotFound, NotPermitted, OutOfSpace, ServerAway, TokenpoolError
from .base import PIECE, Entry, Storage
from .urls import below, path_of, scheme_of
from .walks import Item, part_of, walk

_MISSING = {errno.ENOENT, errno.ENOTDIR}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SENSELESS = {errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY}


class LocalStorage(Storage):
    """The folders that this machine sees, also those that others share with it."""

    ranges = True

    def stat(self, url: str) -> Entry:
        """Return size and time of a file."""
        with errors_of(url):
            return _entry(url, _regular(url, os.stat(_path(url))))

    def list(self, url: str) -> Iterator[Entry]:
        """Yield the files below a folder; links are followed, though never in circles."""
        root = _path(url)

        def items(folder: str) -> list[Item]:
            path = os.path.join(root, folder) if folder else root
            return [] if folder and _leads_back(root, folder) else list(_items(path))

        with errors_of(url):
            yield from walk(items, lambda name: below(url, name))

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield a file's bytes."""
        with errors_of(url), _opened(url) as file:
            file.seek(start)
            left = None if end is None else end - start
            while left is None or left > 0:
                piece = file.read(PIECE if left is None else min(PIECE, left))
                if not piece:
                    return
                left = left if left is None else left - len(piece)
                yield piece

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Copy a file beside its place, then give it its name."""
        target = _path(url)
        if target.endswith("/"):
            raise BadInput(f"{url} is a folder", "say the file's name too")
        with contextlib.ExitStack() as stack:
            with errors_of(path):
                source = stack.enter_context(_opened(path))
            with errors_of(url):
                folder, name = os.path.split(target)
                os.makedirs(folder or ".", exist_ok=True)
                part = os.path.join(folder, part_of(name))
                try:
                    with open(part, "xb") as file:
                        _copy(source, file, tell)
                    os.replace(part, target)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(part)
                    raise
                return _entry(url, os.stat(target))

    def remove(self, url: str) -> None:
        """Unlink a file."""
        with errors_of(url), contextlib.suppress(FileNotFoundError):
            os.unlink(_path(url))


@contextlib.contextmanager
def errors_of(url: str) -> Iterator[None]:
    """Tell the errors of the operating system about a file in our words."""
    try:
        yield
    except TokenpoolError:
        raise
    except OSError as error:
        raise told(error, url) from error


def told(error: OSError, url: str) -> TokenpoolError:
    """Return our error for one of the operating system's."""
    why = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno in _MISSING:
        return NotFound(f"{url} is not there", "look at the path, as the worker's machine sees it")
    if error.errno in _FORBIDDEN:
        return NotPermitted(f"{url}: {why}", "give the worker's user the right to it, or name another place")
    if error.errno in _FULL:
        return OutOfSpace(f"{url}: {why}", "make room there, or raise the quota")
    if error.errno in _SENSELESS:
        return BadInput(f"{url}: {why}", "name a file")
    return ServerAway(f"{url}: {why}", "look at the disk, or at the server that has it")


def _path(url: str) -> str:
    if "\0" in url:
        raise BadInput(f"{url!r} is no path", "a path has no NUL in it")
    return path_of(url) if "://" in url and scheme_of(url) == "file" else url


def _regular(url: str, found: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise NotFound(f"{url} is {kind}, not a file", "a folder is meant by a / at the end")
    return found


def _opened(url: str) -> BinaryIO:
    # Without waiting: a FIFO that nobody writes to would hold us for ever.
    descriptor = os.open(_path(url), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _regular(url, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def _items(path: str) -> Iterator[Item]:
    with os.scandir(path) as found:
        for each in found:
            try:
                status = each.stat()
            except FileNotFoundError:  # a link to nowhere, or just gone
                continue
            if stat.S_ISDIR(status.st_mode):
                yield Item(each.name, is_folder=True)
            elif stat.S_ISREG(status.st_mode):
                yield Item(each.name, size=status.st_size, version=_version(status))


def _leads_back(root: str, folder: str) -> bool:
    """Tell whether a folder is one of those above it: a link made a circle."""
    path = os.path.join(root, folder)
    if not os.path.islink(path):
        return False
    own = os.stat(path)
    above = os.path.dirname(path)
    while len(above) >= len(root.rstrip("/")) and above:
        if os.path.samestat(own, os.stat(above)):
            return True
        above = os.path.dirname(above)
    return False


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"


def _entry(url: str, status: os.stat_result) -> Entry:
    return Entry(url, status.st_size, version=_version(status))


def _copy(source: BinaryIO, target: BinaryIO, tell: Callable[[int], None]) -> None:
    """Copy by the kernel where it can, else piece by piece."""
    by_kernel: Any = getattr(os, "copy_file_range", None)
    while by_kernel is not None:
        try:
            sent = by_kernel(source.fileno(), target.fileno(), 16 * PIECE)
        except OSError as error:
            if error.errno in _FULL:
                raise
            break
        if not sent:
            break  # the end, or a file system that cannot: reading tells
        tell(sent)
    target.seek(0, os.SEEK_END)
    while piece := source.read(PIECE):
        target.write(piece)
        tell(len(piece))

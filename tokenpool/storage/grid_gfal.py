"""XRootD without gfal2: by the pure-Python gfal, and the client that it rests on."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from .base import PIECE, STALL
from .grid_door import CONNECT, Door, Found

_WAIT = int(STALL)
#: XRootD's own names of errors, for those that the system's numbers name too.
_NUMBERS = {3005: errno.ENOSPC, 3006: errno.EINVAL, 3010: errno.EACCES, 3011: errno.ENOENT, 3016: errno.EISDIR,
            3018: errno.EEXIST, 3021: errno.ENOSPC}  # fmt: skip
_UNKNOWN = ("auth failed", "authentication")


class GfalDoor(Door):
    """gfal for what is known of files, XRootD's client for their bytes: gfal itself has no time-outs while it copies.

    XRootD's client finds proxies and tokens by itself, in the environment of the process.
    """

    def __init__(self) -> None:
        self._xrootd: Any = importlib.import_module("XRootD.client")
        self._flags: Any = importlib.import_module("XRootD.client.flags")
        self._gfal: Any = importlib.import_module("gfal").GfalClient(timeout=_WAIT)
        # Its own windows would hide for minutes that a server is away, or was.
        for name, value in {
            "ConnectionWindow": CONNECT, "ConnectionRetry": 1, "StreamErrorWindow": 0, "RequestTimeout": _WAIT,
            "StreamTimeout": _WAIT, "TimeoutResolution": 1,
        }.items():  # fmt: skip
            self._xrootd.EnvPutInt(name, value)

    def stat(self, url: str) -> Found:
        """Return what is known of a file or folder."""
        return _found(url.rpartition("/")[2], self._known(lambda: self._gfal.stat(_addressed(url))))

    def names(self, url: str) -> list[Found]:
        """Return what is in a folder."""
        inside = self._known(lambda: self._gfal.ls(_addressed(url).rstrip("/"), detail=True))
        return [_found(each.info["name"].rpartition("/")[2], each) for each in inside]

    def read(self, url: str, start: int, end: int | None) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` on."""
        file = self._opened(url, "READ")
        try:
            while True:
                status, piece = file.read(start, PIECE * 4, timeout=_WAIT)
                _check(status)
                if not piece:
                    return
                start += len(piece)
                yield bytes(piece)
        finally:
            file.close(timeout=5)

    def put(self, path: str, url: str, tell: Callable[[int], None]) -> None:
        """Write a new file there."""
        at = 0
        target = self._opened(url, "NEW", "MAKEPATH")
        try:
            with open(path, "rb") as source:
                while piece := source.read(PIECE * 4):
                    _check(target.write(piece, at, timeout=_WAIT)[0])
                    at += len(piece)
                    tell(len(piece))
        except BaseException:
            target.close(timeout=5)
            raise
        _check(target.close(timeout=_WAIT)[0])

    def make_folders(self, url: str) -> None:
        """Make a folder and those above it."""
        self._known(lambda: self._gfal.mkdir(_addressed(url), parents=True))

    def rename(self, old: str, new: str) -> None:
        """Give a file another name; what had that name is replaced."""
        try:
            self._known(lambda: self._gfal.rename(_addressed(old), _addressed(new)))
        except FileExistsError:
            self.remove(new)
            self._known(lambda: self._gfal.rename(_addressed(old), _addressed(new)))

    def remove(self, url: str) -> None:
        """Delete a file."""
        self._known(lambda: self._gfal.rm(_addressed(url)))

    def checksum(self, url: str, kind: str) -> str:
        """Return the checksum that the server says of a file; gfal would fetch the whole file where it says none."""
        place = self._xrootd.URL(_addressed(url))
        wanted = f"{place.path}?cks.type={kind}"
        status, said = self._xrootd.FileSystem(place.hostid).query(
            self._flags.QueryCode.CHECKSUM, wanted, timeout=_WAIT
        )
        _check(status)
        name, _, value = said.decode().strip("\0 \n").partition(" ")
        if name.lower() != kind:
            raise OSError(errno.EOPNOTSUPP, f"the server says {name} only")
        return str(value.strip().lower())

    def _opened(self, url: str, *flags: str) -> Any:
        how, modes = self._flags.OpenFlags.NONE, self._flags.AccessMode
        for each in flags:
            how |= getattr(self._flags.OpenFlags, each)
        mode = modes.UR | modes.UW | modes.GR | modes.OR if "NEW" in flags else modes.NONE
        file = self._xrootd.File()
        _check(file.open(_addressed(url), how, mode, timeout=_WAIT)[0])
        return file

    def _known(self, function: Callable[[], Any]) -> Any:
        """Call gfal, whose errors have the system's numbers, but for those of who we are."""
        try:
            return function()
        except OSError as error:
            if any(each in str(error).lower() for each in _UNKNOWN):
                raise OSError(errno.EBADE, str(error)) from error
            raise


def _check(status: Any) -> None:
    if status.ok:
        return
    text = str(status.message).strip()
    if any(each in text.lower() for each in _UNKNOWN):
        raise OSError(errno.EBADE, text)
    if status.code == _EXPIRED or "expired" in text.lower():
        raise TimeoutError(errno.ETIMEDOUT, text)
    raise OSError(_NUMBERS.get(status.errno, status.errno or errno.ECONNRESET), text)


#: The code of XRootD's client for an operation that took too long.
_EXPIRED = 206


def _addressed(url: str) -> str:
    """Return a URL as XRootD's client takes it: it knows no xroot, and cuts a name at ``#``."""
    front, _, rest = url.partition("://")
    scheme = front.lower()
    return f"{'root' if scheme == 'xroot' else scheme}://{rest}"


def _found(name: str, known: Any) -> Found:
    return Found(name, int(known.st_size), known.is_dir(), int(known.st_mtime))

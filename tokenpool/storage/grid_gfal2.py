"""Grid storage by gfal2, the Grid's own library, through its Python bindings."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from .base import PIECE, STALL
from .grid_credentials import Credentials
from .grid_door import CONNECT, Door, Found

#: What XRootD's library reads when it is loaded; its own windows would hide for minutes that a server is away.
_XROOTD = {
    "XRD_CONNECTIONWINDOW": f"{CONNECT}",
    "XRD_CONNECTIONRETRY": "1",
    "XRD_STREAMERRORWINDOW": "0",
    "XRD_REQUESTTIMEOUT": f"{STALL:g}",
    "XRD_STREAMTIMEOUT": f"{STALL:g}",
    "XRD_TIMEOUTRESOLUTION": "1",
}
#: Seconds that a single copy may take in all; that nothing moves is noticed elsewhere, long before.
_LONGEST = 7 * 86_400


class Gfal2Door(Door):
    """gfal2 contexts, as many as calls run at the same time."""

    def __init__(self, credentials: Callable[[], Credentials]) -> None:
        self._credentials = credentials
        self._idle: list[tuple[Any, Any]] = []
        self._gfal2: Any = importlib.import_module("gfal2")
        with _environment(_XROOTD):
            self._gfal2.creat_context()

    def stat(self, url: str) -> Found:
        """Return what is known of a file or folder."""
        with self._context() as context:
            return _found(url.rpartition("/")[2], context.stat(_addressed(url)))

    def names(self, url: str) -> list[Found]:
        """Return what is in a folder."""
        found: list[Found] = []
        with self._context() as context:
            folder = context.opendir(_addressed(url))
            while True:
                entry, known = folder.readpp()
                if entry is None or not entry.d_name:
                    return found
                if entry.d_name not in (".", ".."):
                    found.append(_found(entry.d_name, known))

    def read(self, url: str, start: int, end: int | None) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` on."""
        with self._context() as context:
            file = context.open(_addressed(url), "r")
            while True:
                piece = file.pread_bytes(start, PIECE * 4)
                if not piece:
                    return
                start += len(piece)
                yield piece

    def put(self, path: str, url: str, tell: Callable[[int], None]) -> None:
        """Copy a file of this machine to a new name there."""
        told = 0
        failure: list[BaseException] = []

        def hear(source: str, target: str, average: int, instant: int, moved: int, elapsed: int) -> None:
            nonlocal told
            if moved <= told or failure:
                return
            try:
                tell(moved - told)
            except BaseException as error:
                # No error gets through gfal2. What cancels waits for the copy, so this thread cannot.
                failure.append(error)
                threading.Thread(target=context.cancel, daemon=True).start()
            told = moved

        with self._context() as context:
            how = context.transfer_parameters()
            how.timeout, how.overwrite, how.create_parent = _LONGEST, False, False
            how.monitor_callback = hear
            try:
                context.filecopy(how, "file://" + quote(os.path.abspath(path)), _addressed(url))
            except self._gfal2.GError:
                if not failure:
                    raise
        if failure:
            raise failure[0]
        tell(max(os.path.getsize(path) - told, 0))

    def make_folders(self, url: str) -> None:
        """Make a folder and those above it."""
        with self._context() as context:
            try:
                context.mkdir_rec(_addressed(url), 0o755)
            except self._gfal2.GError as error:
                if error.code != errno.EEXIST:
                    raise

    def rename(self, old: str, new: str) -> None:
        """Give a file another name; what had that name is replaced."""
        with self._context() as context:
            try:
                context.rename(_addressed(old), _addressed(new))
            except self._gfal2.GError as error:
                if error.code != errno.EEXIST:
                    raise
                context.unlink(_addressed(new))
                context.rename(_addressed(old), _addressed(new))

    def remove(self, url: str) -> None:
        """Delete a file."""
        with self._context() as context:
            context.unlink(_addressed(url))

    def checksum(self, url: str, kind: str) -> str:
        """Return the checksum that the server says of a file."""
        with self._context() as context:
            return str(context.checksum(_addressed(url), kind.upper())).lower()

    @contextlib.contextmanager
    def _context(self) -> Iterator[Any]:
        """Lend a context; one whose call failed, or never ended, is not lent again."""
        credentials = self._credentials()
        # A renewed proxy has the same name: only its time tells that a context still shows the old one.
        key = credentials, _changed(credentials.proxy)
        context = None
        while self._idle and context is None:
            known, idle = self._idle.pop()
            context = idle if known == key else None
        if context is None:
            context = self._context_with(credentials)
        try:
            yield context
        except self._gfal2.GError as error:
            self._idle.append((key, context))
            raise OSError(error.code, str(error)) from error
        except GeneratorExit:
            self._idle.append((key, context))
            raise
        self._idle.append((key, context))

    def _context_with(self, credentials: Credentials) -> Any:
        context = self._gfal2.creat_context()
        context.set_opt_integer("CORE", "NAMESPACE_TIMEOUT", int(STALL))
        context.set_opt_integer("CORE", "CHECKSUM_TIMEOUT", int(STALL))
        if credentials.proxy:
            context.set_opt_string("X509", "CERT", credentials.proxy)
            context.set_opt_string("X509", "KEY", credentials.proxy)
        if credentials.authorities:
            context.set_opt_string("X509", "CA_PATH", credentials.authorities)
        if credentials.token:
            context.set_opt_string("BEARER", "TOKEN", credentials.token)
        return context


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Show values to a library that is loaded meanwhile; what somebody else set stays."""
    mine = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


def _addressed(url: str) -> str:
    """Return a URL as gfal2 takes it: it decodes names, and cuts them at ``#``."""
    front, _, rest = url.partition("://")
    scheme = front.lower()
    place, slash, path = rest.partition("/")
    return f"{'root' if scheme == 'xroot' else scheme}://{place}{slash}{quote(path, safe=' /?&=:@+,;~!$()*')}"


def _found(name: str, known: Any) -> Found:
    return Found(name, int(known.st_size), stat.S_ISDIR(known.st_mode), int(known.st_mtime))


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime if path else 0
    except OSError:
        return 0

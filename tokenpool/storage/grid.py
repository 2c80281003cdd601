"""Files on Grid storage: root, roots, xroot, davs, srm and gsiftp, with an X.509 proxy or a bearer token."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import BadInput, NotFound, NotPermitted, OutOfSpace, ServerAway, TokenpoolError
from . import base
from .base import CredentialsRefused, Entry, Stalled, Storage
from .grid_credentials import Credentials, credentials_of
from .grid_door import Beat, Door, Found, within
from .grid_webdav import WebdavDoor
from .local import errors_of
from .urls import below, name_of, scheme_of, shown
from .walks import Item, part_of, walk

T = TypeVar("T")

_INSTALL = "pip install 'tokenpool[grid]', or for a system's own Python: apt-get install python3-gfal2"
_ONLY_GFAL2 = ("srm", "gsiftp")
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EBADE})
_MISSING = frozenset({errno.ENOENT, errno.EISDIR, errno.ENOTDIR})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: What XRootD and TLS say where they did not believe who we are.
_UNKNOWN = ("auth failed", "authentication failed", "certificate expired", "certificate required", "unknown ca")
_UNTRUSTED = ("certificate_verify_failed", "certificate verify failed", "unable to get local issuer", "ca is unknown")


class GridStorage(Storage):
    """Storage on the Grid: davs by HTTP, the others by gfal2 where its bindings are, or by the pure-Python gfal.

    Options: ``x509_proxy``, ``x509_cert_dir``, ``bearer_token`` instead of what the environment says of them,
    ``library`` (``gfal2`` or ``gfal``) instead of the first that is there, ``stall`` seconds instead of `STALL`.
    """

    ranges = True

    def __init__(self, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        super().__init__(options, environ)
        self._doors: dict[str, Door] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._stall = float(options.get("stall") or base.STALL)
        #: By host: the checksum that its server knows; "" for none of them.
        self._kinds: dict[str, str] = {}

    def stat(self, url: str) -> Entry:
        """Return what is known of one file, with the checksum that the server has for it."""
        found = self._found(url)
        if found.folder:
            raise NotFound(f"{shown(url)} is a folder, no file", "end the URL in / for all files in it")
        return Entry(url, found.size, self._checksum(url), _version(found))

    def list(self, url: str) -> Iterator[Entry]:
        """Yield all files below a folder, in the order of their URLs, without checksums: those cost a request each."""
        door = self._door(url)
        if not self._found(url).folder:
            raise NotFound(f"{shown(url)} is a file, no folder", "leave out the / at its end")
        yield from walk(
            lambda name: self._items(door, below(url, name) if name else url), lambda name: below(url, name)
        )

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` to before `end`."""
        pieces = iter(self._door(url).read(url, start, end))
        at = start
        try:
            while end is None or at < end:
                piece = self._do(url, lambda: next(pieces, b""))
                if not piece:
                    return
                yield piece if end is None else piece[: end - at]
                at += len(piece)
        finally:
            close = getattr(pieces, "close", None)
            if close:
                try:
                    close()
                except ValueError:
                    # A call that never came back still runs in it; its thread is left behind.
                    pass

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Copy a file there under another name, and give it its own when it is whole and its size is right."""
        door = self._door(url)
        front, name = url.rpartition("/")[0], name_of(url)
        if not name:
            raise BadInput(f"{shown(url)} is a folder", "say the file's name too")
        part = below(front, part_of(name))
        with errors_of(path):
            size = os.path.getsize(path)
        beat = Beat()

        def moved(sent: int) -> None:
            beat()
            tell(sent)

        self._do(front, lambda: door.make_folders(front))
        try:
            self._do(url, lambda: door.put(path, part, moved), beat)
            there = self._do(url, lambda: door.stat(part)).size
            if there != size:
                raise ServerAway(f"{shown(url)} arrived with {there:,} of {size:,} bytes", "it is sent again")
            self._do(url, lambda: door.rename(part, url))
        except BaseException:
            self._forget(door, part)
            raise
        return self.stat(url)

    def _found(self, url: str) -> Found:
        door = self._door(url)
        return self._do(url, lambda: door.stat(url.rstrip("/")))

    def _items(self, door: Door, folder: str) -> Iterable[Item]:
        inside = self._do(folder, lambda: door.names(folder))
        return [Item(each.name, each.folder, each.size, "", _version(each)) for each in inside]

    def _checksum(self, url: str) -> str:
        """Return what the server says a file's checksum is; "" where it has none, or takes longer than is allowed."""
        door, place = self._door(url), urlsplit(url).netloc
        known = self._kinds.get(place)
        for kind in ("adler32", "md5") if known is None else filter(None, [known]):
            try:
                value = within(self._stall, lambda kind=kind: door.checksum(url, kind))  # type: ignore[misc]
            except OSError:
                continue
            self._kinds[place] = kind
            return f"{kind}:{value}"
        self._kinds.setdefault(place, "")
        return ""

    def _forget(self, door: Door, part: str) -> None:
        try:
            within(min(self._stall, 10), lambda: door.remove(part))
        except OSError:
            pass

    def _do(self, url: str, function: Callable[[], T], beat: Beat | None = None) -> T:
        """Call a library, and turn its errors into those that a storage may raise."""
        try:
            return within(self._stall, function, beat)
        except TokenpoolError:
            raise
        except OSError as error:
            raise self._told(url, error) from error

    def _told(self, url: str, error: OSError) -> TokenpoolError:
        number, text, place = error.errno or 0, str(error).strip(), shown(url)
        small = text.lower()
        credentials = credentials_of(self.options, self.environ)
        if any(each in small for each in _UNTRUSTED):
            what = f"the certificate of {urlsplit(url).hostname} is signed by nobody whom this machine believes"
            return CredentialsRefused(what, "X509_CERT_DIR names the folder of the authorities' certificates")
        if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
            return Stalled(f"{place}: the storage said nothing for {self._stall:g} s", "it is asked again")
        if number in _MISSING:
            return NotFound(f"there is no file {place}", "look with: gfal-ls, or xrdfs HOST ls")
        if number in _FULL:
            return OutOfSpace(f"{place}: the storage, or the quota there, is full", "delete what nobody needs")
        unknown = number == errno.EBADE or any(each in small for each in _UNKNOWN)
        if number in _REFUSED or unknown:
            complaint = credentials.complaint()
            if complaint:
                return CredentialsRefused(f"{place}: {complaint[0]}", complaint[1])
            if unknown:
                return CredentialsRefused(f"{place}: the storage does not know this proxy or token", _WHO)
            return NotPermitted(f"{place}: the storage does not allow it", "ask its owner for the right to this folder")
        if number == errno.EPROTONOSUPPORT:
            hint = f"apt-get install gfal2-plugin-{'gridftp' if scheme_of(url) == 'gsiftp' else scheme_of(url)}"
            return BadInput(f"gfal2 here cannot reach {scheme_of(url)}://", hint)
        old = credentials.expired()
        if old:
            # Servers end the connection without a word when a certificate has ended.
            return CredentialsRefused(f"{place}: {old[0]}", old[1])
        return ServerAway(
            f"{place}: {_clean(text) or 'the storage does not answer'}", "is the server up, and the URL right?"
        )

    def _door(self, url: str) -> Door:
        """Return the library for a URL, made anew in a process that was forked."""
        scheme = scheme_of(url)
        with self._lock:
            if self._process != os.getpid():
                self._doors, self._process = {}, os.getpid()
            if scheme not in self._doors:
                self._doors[scheme] = self._opened(scheme)
            return self._doors[scheme]

    def _opened(self, scheme: str) -> Door:
        wanted = str(self.options.get("library") or "")

        def credentials() -> Credentials:
            return credentials_of(self.options, self.environ)

        if scheme == "davs":
            return WebdavDoor(credentials, self._stall)
        if wanted in ("", "gfal2"):
            try:
                from .grid_gfal2 import Gfal2Door

                return Gfal2Door(credentials)
            except ImportError as absent:
                if wanted or scheme in _ONLY_GFAL2:
                    what = f"{scheme}:// needs gfal2, whose Python bindings are not installed here"
                    raise BadInput(what, "apt-get install python3-gfal2, or conda install python-gfal2") from absent
        if scheme in _ONLY_GFAL2:
            raise BadInput(
                f"{scheme}:// needs gfal2; the pure-Python gfal cannot do it", "apt-get install python3-gfal2"
            )
        try:
            from .grid_gfal import GfalDoor

            return GfalDoor()
        except ImportError as absent:
            raise BadInput(f"{scheme}:// needs gfal2 or gfal, and neither is installed here", _INSTALL) from absent


_WHO = "renew it, and ask the storage's owner whether your name is in its list"


def _version(found: Found) -> str:
    return f"{found.changed:x}-{found.size:x}"


def _clean(text: str) -> str:
    """Return a library's words without what opens doors in a URL's query."""
    return re.sub(r"(?i)(authz|token|signature|xrd\.gsiusrpxy)=[^&\s]*", r"\1=***", text)[:300]

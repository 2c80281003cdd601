"""Files of FTP servers, also with TLS: each transfer on a connection of its own."""

from __future__ import annotations

import contextlib
import ftplib
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from ..errors import NotFound, ServerAway
from .base import PIECE, Entry
from .connections import Lending, above, beside, login_of, or_else
from .fsspec_storage import FsspecStorage, arrived, opened
from .urls import below, path_of, scheme_of, shown
from .walks import Item, walk


class FtpStorage(FsspecStorage):
    """What ftp and ftps URLs mean: the path is from the server's root, the user's name may stand before the host."""

    def __init__(self, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        super().__init__(options, environ)
        self._connections: Lending[ftplib.FTP] = Lending(lambda ftp: ftp.close())

    def stat(self, url: str) -> Entry:
        """Return what SIZE and MDTM say."""
        with self._ftp(url) as ftp:
            return _stat(ftp, url)

    def list(self, url: str) -> Iterator[Entry]:
        """Yield the files below a folder."""
        root = path_of(url).rstrip("/")

        def items(folder: str) -> list[Item]:
            with self._connections.one(url, self._connected) as ftp:
                return _items(ftp, f"{root}/{folder}" if folder else root or "/")

        with self.told(url):
            yield from walk(items, lambda name: below(url, name))

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield what comes on a data connection; its end has to be where the file's is, and the server has to agree."""
        # A connection that still sends when enough came is good for nothing more: `_Enough` throws it away.
        with self.told(url), contextlib.suppress(_Enough), contextlib.ExitStack() as lent:
            ftp = lent.enter_context(self._connections.one(url, self._connected))
            size = _stat(ftp, url).size or 0
            left = max(0, min(size, size if end is None else end) - start)
            if not left:
                return
            data = lent.enter_context(ftp.transfercmd(f"RETR {path_of(url)}", rest=start or None))
            while left:
                piece = data.recv(min(PIECE, left))
                if not piece:
                    raise ServerAway(f"{shown(url)} ended {left} bytes too early", "try again later")
                left -= len(piece)
                yield piece
            if end is not None and end < size:
                raise _Enough
            _hang_up(data)
            ftp.voidresp()

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Put a file beside its place; once it is whole it gets its name."""
        target, part = beside(url)
        with opened(path) as source:
            with or_else(lambda: self._remove(url, part)), self._ftp(url) as ftp:
                for each in above(target):
                    with contextlib.suppress(ftplib.error_perm):
                        ftp.mkd(each)
                ftp.storbinary(f"STOR {part}", source, 1 << 18, lambda piece: tell(len(piece)))
                if ftp.size(part) != os.fstat(source.fileno()).st_size:
                    raise ServerAway(f"{shown(url)} did not arrive whole", "try again later")
                _rename(ftp, part, target)
            return arrived(self.stat(url), source)

    def remove(self, url: str) -> None:
        """Remove a file."""
        with contextlib.suppress(NotFound):
            self._remove(url, path_of(url))

    def _remove(self, url: str, path: str) -> None:
        with self._ftp(url) as ftp:
            ftp.delete(path)

    def _connected(self, url: str) -> ftplib.FTP:
        """Return a new connection; ftps means TLS that is asked for, on port 990 TLS from the first byte."""
        place = urlsplit(url)
        user, password = login_of(url, self.options, self.environ)
        encoding = str(self.options.get("encoding", "utf-8"))
        authority = str(self.options.get("ca_file") or self.environ.get("SSL_CERT_FILE") or "")
        ftp = _new(url, self.stall, encoding, authority)
        try:
            ftp.connect(place.hostname or "", place.port or 21)
            ftp.login(user, password)
            if isinstance(ftp, ftplib.FTP_TLS):
                ftp.prot_p()
        except BaseException:
            ftp.close()
            raise
        return ftp

    @contextlib.contextmanager
    def _ftp(self, url: str) -> Iterator[ftplib.FTP]:
        with self.told(url), self._connections.one(url, self._connected) as ftp:
            yield ftp


class _Enough(Exception):
    """No more of a file is wanted."""


class _Tls(ftplib.FTP_TLS):
    """FTP with TLS; the data connections continue the session of the first one, which many servers insist on."""

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[Any, int | None]:
        """Return a data connection."""
        data, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        session = getattr(self.sock, "session", None)
        return self.context.wrap_socket(data, server_hostname=self.host, session=session), size


def _new(url: str, timeout: float, encoding: str, authority: str) -> ftplib.FTP:
    """Return an object for a connection to be; with TLS it asks the server for a certificate that we trust."""
    if scheme_of(url) != "ftps":
        return ftplib.FTP(timeout=timeout, encoding=encoding)
    context = ssl.create_default_context(cafile=authority or None)
    if urlsplit(url).port != 990:
        return _Tls(timeout=timeout, encoding=encoding, context=context)
    from fsspec.implementations.ftp import ImplicitFTPTLS

    at_once: Any = type("AtOnce", (_Tls, ImplicitFTPTLS), {})
    return cast(ftplib.FTP, at_once(timeout=timeout, encoding=encoding, context=context))


def _stat(ftp: ftplib.FTP, url: str) -> Entry:
    path = path_of(url)
    if path.endswith("/"):
        raise NotFound(f"{shown(url)} is a folder, not a file", "leave the / at its end out")
    ftp.voidcmd("TYPE I")
    size = ftp.size(path)
    try:
        version = ftp.sendcmd(f"MDTM {path}")[4:].strip()
    except ftplib.error_perm:
        version = ""
    return Entry(url, size, version=version and f"{version}-{size}")


def _items(ftp: ftplib.FTP, path: str) -> list[Item]:
    """Return what is in a folder, by MLSD; where the server has none, as fsspec reads its list for people."""
    try:
        found = list(ftp.mlsd(path))
    except ftplib.error_perm as error:
        if str(error)[:3] == "501":
            raise NotFound(f"{path} is not there", "look at the URL") from None
        if str(error)[:3] not in ("500", "502"):
            raise
        from fsspec.implementations.ftp import _mlsd2

        found = _mlsd2(ftp, path)
    return [
        Item(
            name,
            facts.get("type") == "dir",
            int(facts["size"]) if facts.get("size", "").isdigit() else None,
            version=f"{facts['modify']}-{facts.get('size', '')}" if "modify" in facts else "",
        )
        for name, facts in found
        if facts.get("type") not in ("cdir", "pdir") and name not in (".", "..")
    ]


def _rename(ftp: ftplib.FTP, part: str, target: str) -> None:
    try:
        ftp.rename(part, target)
    except ftplib.error_perm:
        # Some servers do not rename to a name that is taken.
        ftp.delete(target)
        ftp.rename(part, target)


def _hang_up(data: Any) -> None:
    if isinstance(data, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            data.unwrap()
    data.close()

"""Grid storage by WebDAV over TLS, with urllib3: proxies, tokens and the Grid's own folder of authorities."""

from __future__ import annotations

import base64
import email.utils
import errno
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit
from xml.etree import ElementTree

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as TimedOut

from .base import PIECE, STALL
from .grid_credentials import Credentials
from .grid_door import CONNECT, Door, Found

_NUMBERS = {
    401: errno.EBADE, 403: errno.EACCES, 404: errno.ENOENT, 405: errno.EEXIST, 409: errno.ENOENT, 410: errno.ENOENT,
    412: errno.EEXIST, 413: errno.EFBIG, 507: errno.ENOSPC,
}  # fmt: skip
_AWAY = (301, 302, 303, 307, 308)
_DAV = "{DAV:}"


class WebdavDoor(Door):
    """One pool of connections for each state of the credentials."""

    def __init__(self, credentials: Callable[[], Credentials], stall: float = STALL) -> None:
        self._credentials, self._stall = credentials, stall
        self._made: tuple[Any, urllib3.PoolManager] | None = None

    def stat(self, url: str) -> Found:
        """Return what is known of a file or folder."""
        return self._propfind(url, "0")[0]

    def names(self, url: str) -> list[Found]:
        """Return what is in a folder; the answer names the folder itself too."""
        own = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
        found = self._propfind(url.rstrip("/") + "/", "1")
        return [each for n, each in enumerate(found) if not (n == 0 and each.folder and each.name == own)]

    def read(self, url: str, start: int, end: int | None) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` on."""
        headers = {}
        if start or end is not None:
            # XRootD sends nothing for a range without an end, and says a wrong length for one beyond the file's.
            size = self.stat(url).size
            end = size if end is None else min(end, size)
            if start >= end:
                return
            headers = {"Range": f"bytes={start}-{end - 1}"}
        response = self._ask("GET", url, headers, allowed=(200, 206))
        try:
            skip = start if response.status == 200 else 0
            with _told():
                for piece in response.stream(PIECE, decode_content=False):
                    if skip < len(piece):
                        yield piece[skip:]
                    skip = max(skip - len(piece), 0)
        finally:
            response.close()

    def put(self, path: str, url: str, tell: Callable[[int], None]) -> None:
        """Send a file to a new name there; a server that knows a better address for it is followed."""
        told = 0
        for _ in range(5):

            def body() -> Iterator[bytes]:
                nonlocal told
                sent = 0
                with open(path, "rb") as file:
                    while piece := file.read(PIECE):
                        yield piece
                        sent += len(piece)
                        if sent > told:
                            tell(sent - told)
                            told = sent

            headers = {"Content-Length": str(os.path.getsize(path))}
            content = body() if os.path.getsize(path) else b""
            answer = self._ask("PUT", url, headers, content, allowed=(200, 201, 204, *_AWAY), redirect=False)
            answer.drain_conn()
            if answer.status not in _AWAY:
                return
            url = urljoin(url, answer.headers["Location"])
        raise OSError(errno.ELOOP, "the storage sends us from one server to the next")

    def make_folders(self, url: str) -> None:
        """Make a folder, and those above it where the server does not do that itself."""
        answer = self._ask("MKCOL", url, allowed=(200, 201, 405, 409, 404))
        answer.drain_conn()
        if answer.status in (409, 404):
            self.make_folders(url.rstrip("/").rpartition("/")[0])
            self._ask("MKCOL", url, allowed=(200, 201, 405)).drain_conn()

    def rename(self, old: str, new: str) -> None:
        """Give a file another name; what had that name is replaced."""
        target = _addressed(new)
        # XRootD takes the name as it stands, however the standard has it; a name without such letters is both.
        if self._server(old).startswith("XrootD/v5."):
            parts = urlsplit(target)
            target = f"{parts.scheme}://{parts.netloc}{unquote(parts.path)}"
        headers = {"Destination": target.encode().decode("latin-1"), "Overwrite": "T"}
        answer = self._ask("MOVE", old, headers, allowed=(200, 201, 204, 412, 500))
        answer.drain_conn()
        if answer.status in (412, 500):
            self.remove(new)
            self._ask("MOVE", old, headers).drain_conn()

    def remove(self, url: str) -> None:
        """Delete a file."""
        self._ask("DELETE", url, allowed=(200, 202, 204)).drain_conn()

    def checksum(self, url: str, kind: str) -> str:
        """Return the checksum that the server says of a file."""
        answer = self._ask("HEAD", url, {"Want-Digest": kind})
        for each in (answer.headers.get("Digest") or "").split(","):
            name, _, value = each.strip().partition("=")
            if name.lower() == kind:
                return base64.b64decode(value).hex() if kind == "md5" else value.lower().rjust(8, "0")
        raise OSError(errno.EOPNOTSUPP, "the server says no checksum")

    def _server(self, url: str) -> str:
        answer = self._ask("HEAD", url, allowed=())
        return str(answer.headers.get("Server") or "")

    def _propfind(self, url: str, depth: str) -> list[Found]:
        answer = self._ask("PROPFIND", url, {"Depth": depth}, allowed=(207, 200))
        with _told():
            body = answer.data
        literal = str(answer.headers.get("Server") or "").startswith("XrootD/v5.")
        try:
            return [_found(each, literal) for each in ElementTree.fromstring(body).iter(f"{_DAV}response")]
        except ElementTree.ParseError as error:
            raise OSError(errno.EPROTO, f"the server's list of names makes no sense: {error}") from error

    def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        allowed: tuple[int, ...] = (200, 201, 204),
        redirect: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer, whose content is not read yet; one that is not `allowed` (empty: all are) is an OSError."""
        credentials = self._credentials()
        token = {"Authorization": f"Bearer {credentials.token}"} if credentials.token else {}
        with _told():
            answer = self._pool(credentials).request(
                method, _addressed(url), body=body, headers={**token, **(headers or {})}, preload_content=False,
                retries=urllib3.Retry(0, redirect=5 if redirect else False, raise_on_redirect=redirect),
            )  # fmt: skip
            if not allowed or answer.status in allowed:
                return answer
            text = answer.read(2000).decode("utf-8", "replace").strip()
            answer.close()
        raise OSError(_NUMBERS.get(answer.status, errno.EIO), f"{answer.status} {answer.reason}: {text[:200]}")

    def _pool(self, credentials: Credentials) -> urllib3.PoolManager:
        # A renewed proxy has the same name: only its time tells.
        key = credentials, os.stat(credentials.proxy).st_mtime if credentials.proxy else 0
        if self._made is None or self._made[0] != key:
            context = ssl.create_default_context(capath=credentials.authorities or None)
            if credentials.proxy:
                with _told():
                    context.load_cert_chain(credentials.proxy)
            timeout = urllib3.Timeout(connect=min(CONNECT, self._stall), read=self._stall)
            self._made = key, urllib3.PoolManager(16, maxsize=16, ssl_context=context, timeout=timeout)
        return self._made[1]


@contextmanager
def _told() -> Iterator[None]:
    """Turn what urllib3 raises into OSError."""
    try:
        yield
    except (HTTPError, ssl.SSLError) as error:
        cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
        if isinstance(cause, (NewConnectionError, ConnectTimeoutError)):
            raise OSError(errno.ECONNREFUSED, "nobody takes the connection") from error
        if isinstance(cause, TimedOut):
            raise TimeoutError(errno.ETIMEDOUT, "the server said nothing") from error
        if isinstance(cause, (SSLError, ssl.SSLError)):
            raise OSError(errno.EPROTO, str(cause)) from error
        raise OSError(errno.ECONNRESET, str(cause)) from error


def _addressed(url: str) -> str:
    """Return an address for HTTP of a davs URL, whose name may hold letters that HTTP refuses."""
    _, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"https://{place}{slash}{quote(path, safe='%/?&=:@+,;~!$()*')}"


def _found(response: ElementTree.Element, literal: bool) -> Found:
    path = urlsplit(response.findtext(f"{_DAV}href") or "").path if not literal else response.findtext(f"{_DAV}href")
    name = (path or "").rstrip("/").rpartition("/")[2]
    folder = response.find(f".//{_DAV}resourcetype/{_DAV}collection") is not None
    size = response.findtext(f".//{_DAV}getcontentlength") or "0"
    moment = response.findtext(f".//{_DAV}getlastmodified")
    changed = email.utils.parsedate_to_datetime(moment).timestamp() if moment else 0
    return Found(name if literal else unquote(name), int(size), folder, int(changed))

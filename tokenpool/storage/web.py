"""Files of web servers: read in one answer or a range of it, listed by the links of a page, sent by PUT."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Collection, Iterator
from html.parser import HTMLParser
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urljoin, urlsplit

from ..errors import NotFound, NotPermitted, ServerAway
from .base import PIECE, Entry
from .connections import login_of
from .fsspec_errors import made as error_made
from .fsspec_errors import of_status
from .fsspec_storage import FsspecStorage, arrived, opened
from .looped import Watched, whole
from .urls import below, shown
from .walks import Item, walk

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
#: The status of a server that gave up waiting for a request: it did nothing, and wants it once more.
_NOT_HEARD = 408
#: Bytes of the longest page of links.
_PAGE = 64 << 20


class WebStorage(FsspecStorage):
    """What http and https URLs mean. Options beside fsspec's: `username` and `password`, `token`, `headers`."""

    ours = frozenset({"stall", "username", "password", "token", "headers"})

    def stat(self, url: str) -> Entry:
        """Return what HEAD says; where a server does not like it (a signed URL holds for GET alone), one byte of GET."""
        if urlsplit(url).path.endswith("/"):
            raise NotFound(f"{shown(url)} is a folder, not a file", "leave the / at its end out")
        with self.told(url):
            answer = self._head(url)
            size = answer.headers.get("Content-Length") if answer is not None else None
            if size is None:
                answer = self._ask(url, "GET", {"Range": "bytes=0-0"}, accept=(200, 206, 416))
                self._close(url, answer)
                size = _whole_size(answer)
            if answer.url.path.endswith("/"):
                raise NotFound(f"{shown(url)} is a folder, not a file", "a folder is meant by a / at the end")
            version = answer.headers.get("ETag", "").strip('"') or answer.headers.get("Last-Modified", "")
            return Entry(url, None if size is None else int(size), version=version)

    def list(self, url: str) -> Iterator[Entry]:
        """Yield the files that a page of links names, and those on the pages of its folders."""
        root, _, query = url.partition("?")
        root = root.rstrip("/") + "/"

        def items(folder: str) -> Iterator[Item]:
            page = f"{root}{quote(folder)}/" if folder else root
            for name in self._links(page, query):
                yield Item(name.rstrip("/"), name.endswith("/"))

        with self.told(url):
            yield from walk(items, lambda name: below(url, name))

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of an answer as they come; a server that knows no ranges sends what is before, too."""
        if end is not None and end <= start:
            return
        with self.told(url):
            part = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
            answer = self._ask(url, "GET", part, accept=(200, 206, 416))
            watched = self._watched(url)
            try:
                if answer.status == 416:
                    return
                if answer.url.path.endswith("/") and not urlsplit(url).path.endswith("/"):
                    raise NotFound(f"{shown(url)} is a folder, not a file", "a folder is meant by a / at the end")
                skip, left = _place_of(answer, url, start, end)
                while left is None or left > 0:
                    piece = watched.run(whole(answer.content.read, PIECE if left is None else min(PIECE, left + skip)))
                    if not piece and left:
                        raise ServerAway(f"{shown(url)} ended {left} bytes too early", "try again later")
                    if not piece:
                        return
                    skip, piece = max(0, skip - len(piece)), piece[skip:]
                    left = left if left is None else left - len(piece)
                    if piece:
                        yield piece
            finally:
                self._close(url, answer)

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Put a file there by PUT, for servers that take it; what they show meanwhile is theirs to say."""
        with opened(path) as source, self.told(url):
            size, watched = os.fstat(source.fileno()).st_size, self._watched(url, tell)
            answer = watched.run(self._request(url, "PUT", {"Content-Length": str(size)}, pieces(source, watched)))
            self._close(url, answer)
            if not 200 <= answer.status < 300:
                raise error_made(of_status(answer.status), url, f"{answer.status} {answer.reason}")
            try:
                return arrived(self.stat(url), source)
            except NotPermitted:  # a signed URL that is good for PUT alone
                return Entry(url, size)

    def remove(self, url: str) -> None:
        """Remove a file by DELETE, where the server takes that."""
        with self.told(url):
            self._close(url, self._ask(url, "DELETE", accept=(*range(200, 300), 404)))

    def defaults(self, url: str) -> dict[str, Any]:
        """Return the options of fsspec's session: time limits between bytes, none for the whole."""
        import aiohttp

        given = dict(self.options.get("client_kwargs", {}))
        headers = {"Accept-Encoding": "identity", **self.options.get("headers", {}), **given.pop("headers", {})}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=min(30.0, self.stall), sock_read=self.stall)
        session = {"timeout": limits, "auto_decompress": False, "trust_env": True}
        return {"encoded": True, "client_kwargs": {**session, **given, "headers": headers}}

    def wire(self, url: str) -> str:
        """Return the URL as it goes over the line: what has to be encoded is."""
        parts = urlsplit(url)
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        return quote(plain, safe="%/:=&?~+!$,;'@()*[]")

    # --- requests ----------------------------------------------------------------------------------------------------

    def _head(self, url: str) -> Any:
        """Return the good answer to HEAD; None: there is none, which does not mean that there is none to GET."""
        try:
            answer = self._ask(url, "HEAD", accept=range(200, 600))
        except Exception as error:
            if getattr(error, "status", 0) == 400:  # an answer with a body, which HTTP forbids, and Swift sends
                return None
            raise
        self._close(url, answer)
        if answer.status == 404:
            raise error_made(NotFound, url)
        return answer if answer.status < 300 else None

    def _ask(self, url: str, method: str, headers: dict[str, str] | None = None, accept: Any = (200,)) -> Any:
        answer = self._watched(url).run(self._request(url, method, headers))
        if answer.status not in accept:
            self._close(url, answer)
            raise error_made(of_status(answer.status), url, f"{answer.status} {answer.reason}")
        return answer

    async def _request(self, url: str, method: str, headers: dict[str, str] | None = None, data: Any = None) -> Any:
        import yarl

        session = await self.system(url).set_session()
        headers = {**self._ticket(url), **(headers or {})}
        place = yarl.URL(self.wire(url), encoded=True)
        answer = await session.request(method, place, headers=headers, data=data, allow_redirects=True)
        if answer.status == _NOT_HEARD and (data is None or isinstance(data, bytes)):
            answer.close()
            answer = await session.request(method, place, headers=headers, data=data, allow_redirects=True)
        return answer

    def _ticket(self, url: str) -> dict[str, str]:
        """Return the header that says who we are; aiohttp keeps it from other servers that an answer leads to."""
        if self.options.get("token"):
            return {"Authorization": f"Bearer {self.options['token']}"}
        user, password = login_of(url, self.options, self.environ)
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {login}"} if user and password else {}

    def _links(self, page: str, query: str) -> Collection[str]:
        url = f"{page}?{query}" if query else page
        answer = self._ask(url, "GET")
        try:
            if "html" not in answer.headers.get("Content-Type", "html") or not answer.url.path.endswith("/"):
                raise NotFound(f"{shown(url)} is no page of links", "name the files one by one")
            text = self._watched(url).run(whole(answer.content.read, _PAGE)).decode("utf-8", "replace")
        finally:
            self._close(url, answer)
        found = _Links(page)
        found.feed(text)
        return sorted(found.names)

    def _close(self, url: str, answer: Any) -> None:
        self.system(url).loop.call_soon_threadsafe(answer.close)

    def _watched(self, url: str, tell: Callable[[int], None] | None = None) -> Watched:
        # The session's own limits come first, and say more.
        return Watched(self.system(url).loop, 1.5 * self.stall if tell is None else self.stall, tell)


class _Links(HTMLParser):
    """Collects the names that a page's links have directly below it; those of folders keep their slash."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._page, self.names = page, set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one tag."""
        target = dict(attrs).get("href") if tag == "a" else None
        if not target:
            return
        front, found = unquote(urlsplit(self._page).path), urlsplit(urljoin(self._page, target))
        path = unquote(found.path)
        name = path[len(front) :]
        same = found.netloc == urlsplit(self._page).netloc and path.startswith(front)
        if same and name and not found.query and "/" not in name.rstrip("/"):
            self.names.add(name)


async def pieces(source: BinaryIO, watched: Watched) -> Any:
    """Yield a file's bytes, and tell once they were taken."""
    sent = 0
    while piece := source.read(1 << 18):
        watched.went(sent)
        sent = len(piece)
        yield piece
    watched.went(sent)


def _whole_size(answer: Any) -> str | None:
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status == 416:
        return str(answer.headers.get("Content-Range", "*/0").rpartition("/")[2])
    size: str | None = found[3] if found else answer.headers.get("Content-Length")
    return None if size == "*" else size


def _place_of(answer: Any, url: str, start: int, end: int | None) -> tuple[int, int | None]:
    """Return how many bytes of an answer come too early, and how many after them are wanted; None: all that come."""
    length = answer.headers.get("Content-Length")
    if answer.status == 206:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not found or int(found[1]) != start:
            raise ServerAway(f"{shown(url)} came from another place than asked for", "try again later")
        return 0, int(found[2]) + 1 - start
    if length is None:
        return start, None if end is None else end - start
    size = int(length)
    return start, max(0, min(size, size if end is None else end) - start)

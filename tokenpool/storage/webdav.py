"""Files of WebDAV servers: read as from any web server, listed by PROPFIND, put beside their place and then moved."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from ..errors import BadInput, NotFound, ServerAway, TokenpoolError
from .base import Entry, Stalled
from .fsspec_errors import made as error_made
from .fsspec_errors import of_status
from .fsspec_storage import arrived, opened
from .looped import Watched, whole
from .urls import below, path_of, scheme_of, shown
from .walks import Item, part_of, walk
from .web import WebStorage, pieces

_ASK = b"""<?xml version="1.0"?><propfind xmlns="DAV:"><prop>
<resourcetype/><getcontentlength/><getetag/><getlastmodified/></prop></propfind>"""
_DAV = "{DAV:}"
#: Bytes of the longest answer about a folder.
_LONGEST = 256 << 20
#: Seconds for tidying up after a failure.
_TIDY = 5.0


class WebdavStorage(WebStorage):
    """What webdav, dav (http) and webdavs (https) URLs mean."""

    def stat(self, url: str) -> Entry:
        """Return what PROPFIND says of a file."""
        with self.told(url):
            for _, item in self._found(url, "0"):
                if item.is_folder or path_of(url).endswith("/"):
                    raise NotFound(f"{shown(url)} is a folder, not a file", "a folder is meant by a / at the end")
                return Entry(url, item.size, version=item.version)
            raise error_made(NotFound, url)

    def list(self, url: str) -> Iterator[Entry]:
        """Yield the files below a folder."""
        front, _, query = url.partition("?")
        root = front.rstrip("/") + "/"

        def items(folder: str) -> Iterator[Item]:
            place = f"{root}{quote(folder)}/" if folder else root
            own = path_of(place).rstrip("/")
            for path, item in self._found(f"{place}?{query}" if query else place, "1"):
                if path != own:
                    yield item
                elif not item.is_folder:
                    raise NotFound(f"{shown(url)} is a file, not a folder", "leave the / at its end out")

        with self.told(url):
            yield from walk(items, lambda name: below(url, name))

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Put a file beside its place; once it is whole it gets its name."""
        folder, _, name = urlsplit(url).path.rpartition("/")
        if not name:
            raise BadInput(f"{shown(url)} is a folder", "say the file's name too")
        part = urlsplit(url)._replace(path=f"{folder}/{quote(part_of(unquote(name)))}").geturl()
        with opened(path) as source, self.told(url):
            size = os.fstat(source.fileno()).st_size
            self._make_folders(url)
            try:
                watched = self._watched(url, tell)
                head = {"Content-Length": str(size)}
                self._done(part, watched.run(self._request(part, "PUT", head, pieces(source, watched))))
                if self.stat(part).size not in (size, None):
                    raise ServerAway(f"{shown(url)} did not arrive whole", "try again later")
                goal = {"Destination": self.wire(url), "Overwrite": "T"}
                self._done(url, self._watched(url).run(self._request(part, "MOVE", goal)))
            except BaseException as error:
                if not isinstance(error, Stalled):
                    self._tidy(part)
                raise
            return arrived(self.stat(url), source)

    def wire(self, url: str) -> str:
        """Return the URL as it goes over the line."""
        front, _, rest = super().wire(url).partition("://")
        return f"{'https' if front.lower() == 'webdavs' else 'http'}://{rest}"

    def kind(self, url: str) -> str:
        """Return fsspec's name for what carries it."""
        return "https" if scheme_of(url) == "webdavs" else "http"

    def _found(self, url: str, depth: str) -> Iterator[tuple[str, Item]]:
        """Yield what PROPFIND says, each with its whole path."""
        head = {"Depth": depth, "Content-Type": "application/xml"}
        answer = self._watched(url).run(self._request(url, "PROPFIND", head, _ASK))
        try:
            if answer.status != 207:
                raise error_made(of_status(answer.status), url, f"{answer.status} {answer.reason}")
            text = self._watched(url).run(whole(answer.content.read, _LONGEST))
        finally:
            self._close(url, answer)
        try:
            tree = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise ServerAway(f"{shown(url)} is described by broken XML: {error}", "look at the server") from None
        for each in tree.iter(f"{_DAV}response"):
            path = unquote(urlsplit(each.findtext(f"{_DAV}href") or "").path).rstrip("/")
            yield path, _item(path.rpartition("/")[2], each)

    def _make_folders(self, url: str) -> None:
        """Make the folders above a file, from the first one that is missing."""
        parts = urlsplit(url)
        names = parts.path.split("/")[1:-1]
        missing: list[str] = []
        for count in range(len(names), 0, -1):
            folder = parts._replace(path=f"/{'/'.join(names[:count])}/").geturl()
            if self._is_there(folder):
                break
            missing.append(folder)
        for folder in reversed(missing):
            answer = self._watched(url).run(self._request(folder, "MKCOL"))
            try:
                self._done(folder, answer)
            except TokenpoolError:
                if not self._is_there(folder):  # else somebody was faster
                    raise

    def _is_there(self, folder: str) -> bool:
        try:
            return bool(list(self._found(folder, "0")))
        except NotFound:
            return False

    def _done(self, url: str, answer: Any) -> None:
        self._close(url, answer)
        if not 200 <= answer.status < 300:
            raise error_made(of_status(answer.status), url, f"{answer.status} {answer.reason}")

    def _tidy(self, url: str) -> None:
        with contextlib.suppress(Exception):
            watched = Watched(self.system(url).loop, min(_TIDY, self.stall))
            self._close(url, watched.run(self._request(url, "DELETE")))


def _item(name: str, response: ElementTree.Element) -> Item:
    def text(tag: str) -> str:
        return next((each.text or "" for each in response.iter(f"{_DAV}{tag}")), "")

    is_folder = next(response.iter(f"{_DAV}collection"), None) is not None
    size = text("getcontentlength")
    version = text("getetag").strip('"') or text("getlastmodified")
    return Item(name, is_folder, int(size) if size.isdigit() else None, version=version)

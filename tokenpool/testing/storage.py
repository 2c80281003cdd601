"""The conformance suite of a `Storage`: subclass `StorageTests` and say where an empty folder of it is.

`ReadingTests` is its half for places that only others write to; `NetworkTests` is for storages behind a connection that
can break. The fixtures `storage` and `root_url` are the subclass's to give::

    class TestMine(StorageTests):
        @pytest.fixture
        def storage(self): return MyStorage({}, os.environ)

        @pytest.fixture
        def root_url(self): return "mine://host/empty-folder"
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import pytest

from ..errors import NotFound, NotPermitted, ServerAway
from ..storage.base import CredentialsRefused, Entry, Stalled, Storage
from ..storage.urls import below

#: Names that some protocol or other has to encode.
NAMES = (
    "plain.txt",
    "two words.txt",
    "50%.txt",
    "a%20b.txt",
    "#1.txt",
    "ü€漢.txt",
    "a+b&c=d.txt",
    "~x,y'z.txt",
    "..x",
)
#: Bytes of the large file; TOKENPOOL_TEST_LARGE sets another size.
LARGE = 200_000_000

Give = Callable[[str, bytes], str]
Ask = Callable[[], object]


class Line(Protocol):
    """A connection to the storage that fails when it is told to."""

    def cut(self, after: int) -> None:
        """Cut every connection once that many more bytes of answers, or of requests, went through it."""

    def hold(self, after: int) -> None:
        """Let nothing more pass after that many bytes, without a word."""

    def heal(self) -> None:
        """Let everything pass again."""


class ReadingTests:
    """What can be asked of any storage; `give` puts a file of a name below the root and returns its URL."""

    #: Bytes of the large file.
    large = int(os.environ.get("TOKENPOOL_TEST_LARGE", LARGE))

    @pytest.fixture
    def give(self, storage: Storage, root_url: str, tmp_path: Path) -> Give:
        def give(name: str, data: bytes) -> str:
            return storage.write(below(root_url, name), str(_file(tmp_path, data))).url

        return give

    def test_what_was_put_comes_back(self, storage: Storage, give: Give) -> None:
        data = os.urandom(3_000_000)
        url = give("folder/data.bin", data)
        assert read(storage, url) == data
        found = storage.stat(url)
        assert (found.url, found.size) == (url, len(data))
        assert _fits(found, data)

    def test_an_empty_file_is_a_file(self, storage: Storage, give: Give) -> None:
        url = give("empty", b"")
        assert read(storage, url) == b""
        assert storage.stat(url).size == 0

    @pytest.mark.parametrize("name", NAMES)
    def test_names_stand_for_themselves(self, storage: Storage, root_url: str, give: Give, name: str) -> None:
        # Given files whose names some protocols have to encode, and folders of such names
        for place in (name, f"in {name} too/{name}"):
            url = give(place, place.encode())
            assert read(storage, url) == place.encode()
            assert storage.stat(url).size == len(place.encode())
        expected = [below(root_url, place) for place in sorted((name, f"in {name} too/{name}"))]
        assert [entry.url for entry in storage.list(root_url)] == expected

    def test_a_folder_lists_all_files_below(self, storage: Storage, root_url: str, give: Give) -> None:
        for name in ("b.txt", "a/deep/er.txt", "a.txt", "a/x.txt"):
            give(name, name.encode())
        expected = [below(root_url, name) for name in ("a.txt", "a/deep/er.txt", "a/x.txt", "b.txt")]
        assert [entry.url for entry in storage.list(root_url)] == expected
        # Then a slash at the end makes no difference, and what is listed can be read
        again = list(storage.list(root_url + "/"))
        assert [read(storage, entry.url) for entry in again] == [b"a.txt", b"a/deep/er.txt", b"a/x.txt", b"b.txt"]
        assert {entry.size for entry in again} <= {5, 7, 13, None}
        assert [entry.url for entry in storage.list(below(root_url, "a"))] == expected[1:3]

    def test_a_file_that_is_missing(self, storage: Storage, root_url: str, give: Give) -> None:
        give("there", b"x")
        missing = below(root_url, "missing")
        asks: tuple[Ask, ...] = (lambda: storage.stat(missing), lambda: read(storage, missing))
        for ask in asks:
            with pytest.raises(NotFound, match="missing") as error:
                ask()
            assert error.value.hint
        with pytest.raises(NotFound):
            list(storage.list(below(root_url, "no/folder")))

    def test_a_folder_is_no_file(self, storage: Storage, root_url: str, give: Give) -> None:
        give("folder/x", b"x")
        for url in (below(root_url, "folder"), below(root_url, "folder") + "/"):
            with pytest.raises(NotFound):
                storage.stat(url)

    def test_a_part_of_a_file(self, storage: Storage, give: Give) -> None:
        data = os.urandom(2_500_000)
        url = give("parts", data)
        for start, end in ((0, 1), (5, 10), (1_000_000, 2_400_000), (2_499_999, None), (7, 2_500_000), (4, 4)):
            assert b"".join(storage.read(url, start, end)) == data[start:end]

    def test_a_reader_leaves_in_the_middle(self, storage: Storage, give: Give) -> None:
        data = os.urandom(8_000_000)
        url = give("left", data)
        for _ in range(3):
            pieces = storage.read(url)
            assert data.startswith(next(pieces))
            pieces.close()  # type: ignore[attr-defined]
        assert read(storage, url) == data

    def test_many_read_at_once(self, storage: Storage, give: Give) -> None:
        files = {give(f"many/{n}", bytes([n]) * 300_000): bytes([n]) * 300_000 for n in range(6)}
        wrong: list[str] = []

        def check(url: str) -> None:
            if read(storage, url) != files[url]:
                wrong.append(url)

        together([partial(check, url) for url in files])
        assert wrong == []


class StorageTests(ReadingTests):
    """Every sentence of `tokenpool.storage.base`, as a test."""

    def test_a_large_file(self, storage: Storage, root_url: str, tmp_path: Path) -> None:
        # Given a file that no protocol sends in one piece
        path, digest = large_file(tmp_path, self.large)
        told: list[int] = []
        url = below(root_url, "large.bin")
        # When it goes there, then the sender hears how far it is, and it comes back as it was
        assert storage.write(url, str(path), told.append).size == self.large
        path.unlink()
        assert sum(told) == self.large
        assert len(told) > 1 or self.large < 20_000_000 or storage.stat(url).url.startswith("memory:")
        back = hashlib.sha256()
        for piece in storage.read(url):
            back.update(piece)
        assert back.hexdigest() == digest

    def test_a_file_is_replaced(self, storage: Storage, give: Give) -> None:
        url = give("same", b"the first one")
        first = storage.stat(url)
        assert give("same", b"two") == url
        assert read(storage, url) == b"two"
        second = storage.stat(url)
        assert second.size == 3
        assert first.version != second.version or not second.version

    def test_what_breaks_on_the_way_is_not_seen(self, storage: Storage, root_url: str, tmp_path: Path) -> None:
        # Given a file that is there already, and one that is not
        old, new = below(root_url, "f/old"), below(root_url, "f/new")
        storage.write(old, str(_file(tmp_path, b"old")))
        path = _file(tmp_path, b"x" * 40_000_000)

        def stop(sent: int) -> None:
            raise Enough

        # When writing them ends in the middle
        for url in (old, new):
            with pytest.raises((Enough, ServerAway)):
                storage.write(url, str(path), stop)
        # Then the first is as it was, the second is not there, and nothing else either
        assert read(storage, old) == b"old"
        assert [entry.url for entry in storage.list(below(root_url, "f"))] == [old]

    def test_a_file_of_ours_that_is_missing(self, storage: Storage, root_url: str, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="nowhere"):
            storage.write(below(root_url, "x"), str(tmp_path / "nowhere"))
        with pytest.raises(NotFound):
            storage.stat(below(root_url, "x"))

    def test_many_write_at_once(self, storage: Storage, root_url: str, tmp_path: Path) -> None:
        urls = [below(root_url, f"new/{n % 2}/{n}") for n in range(8)]
        paths = [_file(tmp_path, bytes([n]) * 200_000) for n in range(8)]
        together([partial(storage.write, urls[n], str(paths[n])) for n in range(8)])
        assert sorted(entry.url for entry in storage.list(root_url)) == sorted(urls)
        assert [read(storage, url) for url in urls] == [bytes([n]) * 200_000 for n in range(8)]


class RemovingTests:
    """What may be removed, where a storage has that."""

    def test_a_file_is_removed(self, storage: Storage, root_url: str, tmp_path: Path) -> None:
        url = below(root_url, "gone soon")
        storage.write(url, str(_file(tmp_path, b"x")))
        for _ in range(2):  # none there is no error
            storage.remove(url)
            with pytest.raises(NotFound):
                storage.stat(url)


class ForbiddenTests:
    """What one may not do; the fixture `forbidden` is a storage, and a file's URL that it may neither read nor write."""

    def test_what_may_not_be_read(self, forbidden: tuple[Storage, str]) -> None:
        storage, url = forbidden
        with pytest.raises(NotPermitted) as error:
            read(storage, url)
        assert error.value.hint
        assert not isinstance(error.value, CredentialsRefused)

    def test_what_may_not_be_written(self, forbidden: tuple[Storage, str], tmp_path: Path) -> None:
        storage, url = forbidden
        with pytest.raises(NotPermitted) as error:
            storage.write(url, str(_file(tmp_path, b"x")))
        assert error.value.hint
        assert not isinstance(error.value, CredentialsRefused)


class CredentialsTests:
    """Credentials that do not count; `refused` is a storage that has such ones, with the words that may not be shown."""

    def test_credentials_that_do_not_count(
        self, refused: tuple[Storage, list[str]], root_url: str, tmp_path: Path
    ) -> None:
        storage, words = refused
        url, path = below(root_url, "x"), _file(tmp_path, b"x")
        asks: tuple[Ask, ...] = (
            lambda: storage.stat(url),
            lambda: read(storage, url),
            lambda: storage.write(url, str(path)),
        )
        for ask in asks:
            with pytest.raises(CredentialsRefused) as error:
                ask()
            assert error.value.hint
            assert [word for word in words if word in f"{error.value} {error.value.hint}"] == []


class CutTests:
    """A line that breaks while reading: `line` stands between `far`, a storage that waits a second or two, and `far_url`.

    `give` puts files there past the line; their names below `far_url` are the same.
    """

    def test_a_cut_is_never_the_end_of_a_file(self, far: Storage, far_url: str, line: Line, give: Give) -> None:
        # Given a file, and a line that breaks in the middle of it
        data = os.urandom(6_000_000)
        give("cut.bin", data)
        url = below(far_url, "cut.bin")
        assert read(far, url) == data
        line.cut(after=3_000_000)
        # When it is read, then what came is right, and the rest is an error
        came = bytearray()
        with pytest.raises(ServerAway) as error:
            _collect(far.read(url), came)
        assert error.value.hint
        assert data.startswith(bytes(came))
        assert len(came) < len(data)
        # And it goes on from there
        line.heal()
        assert bytes(came) + b"".join(far.read(url, len(came))) == data

    def test_a_server_that_falls_silent(self, far: Storage, far_url: str, line: Line, give: Give) -> None:
        data = os.urandom(6_000_000)
        give("silent.bin", data)
        url = below(far_url, "silent.bin")
        assert read(far, url) == data
        line.hold(after=3_000_000)
        with pytest.raises(Stalled):
            read(far, url)
        line.heal()
        assert read(far, url) == data

    def test_nobody_is_there(self, far: Storage, far_url: str, line: Line, give: Give) -> None:
        give("away", b"x")
        line.cut(after=0)
        with pytest.raises(ServerAway):
            read(far, below(far_url, "away"))
        line.heal()
        assert read(far, below(far_url, "away")) == b"x"


class NetworkTests(CutTests):
    """A line that breaks while writing, too."""

    def test_a_cut_leaves_no_part_of_a_file(
        self, far: Storage, far_url: str, line: Line, storage: Storage, root_url: str, tmp_path: Path
    ) -> None:
        # Given a file that is there, and a line that breaks in the middle of its successor
        storage.write(below(root_url, "f/old"), str(_file(tmp_path, b"old")))
        path = _file(tmp_path, os.urandom(6_000_000))
        for name in ("f/old", "f/new"):
            line.cut(after=3_000_000)
            with pytest.raises(ServerAway):
                far.write(below(far_url, name), str(path))
            line.heal()
        # Then nobody sees anything of it, and the next try goes through
        assert read(storage, below(root_url, "f/old")) == b"old"
        assert [entry.url for entry in storage.list(below(root_url, "f"))] == [below(root_url, "f/old")]
        assert far.write(below(far_url, "f/new"), str(path)).size == 6_000_000
        assert read(storage, below(root_url, "f/new")) == path.read_bytes()

    def test_a_server_that_takes_nothing_more(
        self, far: Storage, far_url: str, line: Line, storage: Storage, root_url: str, tmp_path: Path
    ) -> None:
        path = _file(tmp_path, os.urandom(30_000_000))
        line.hold(after=3_000_000)
        with pytest.raises(Stalled):
            far.write(below(far_url, "held"), str(path))
        line.heal()
        with pytest.raises(NotFound):
            storage.stat(below(root_url, "held"))


class Enough(Exception):
    """What a test breaks off a transfer with."""


def read(storage: Storage, url: str) -> bytes:
    """Return a whole file."""
    return b"".join(storage.read(url))


def together(works: list[Callable[[], object]]) -> None:
    """Do all at once; the first error is raised."""
    errors: list[BaseException] = []

    def do(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=do, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def large_file(folder: Path, size: int) -> tuple[Path, str]:
    """Make a file of random bytes; return it and its SHA-256."""
    path, digest = folder / "large.bin", hashlib.sha256()
    with open(path, "wb") as file:
        for piece in _random(size):
            digest.update(piece)
            file.write(piece)
    return path, digest.hexdigest()


def encoded(name: str) -> str:
    """Return a name as it stands in a URL."""
    return quote(name)


def _collect(pieces: Iterable[bytes], came: bytearray) -> None:
    for piece in pieces:
        came += piece


def _random(size: int) -> Iterator[bytes]:
    while size > 0:
        yield os.urandom(min(size, 1 << 20))
        size -= 1 << 20


def _file(folder: Path, data: bytes) -> Path:
    path = folder / f"own-{hashlib.sha256(data).hexdigest()[:20]}"
    path.write_bytes(data)
    return path


def _fits(entry: Entry, data: bytes) -> bool:
    kind, _, digest = entry.checksum.partition(":")
    return not kind or kind not in hashlib.algorithms_available or hashlib.new(kind, data).hexdigest() == digest

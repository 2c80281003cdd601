"""Grid storage: the suite of a storage over root and davs, proxies that ended, and what each library is good for."""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import grid_servers as grid
import pytest
from cutting_proxy import CuttingProxy

from tokenpool.errors import BadInput, NotPermitted
from tokenpool.storage.base import CredentialsRefused, Entry, Storage
from tokenpool.storage.grid import GridStorage
from tokenpool.storage.urls import below
from tokenpool.testing.storage import CredentialsTests, ForbiddenTests, NetworkTests, StorageTests

Refused = tuple[Storage, list[str]]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def authority(home: Path) -> grid.Authority:
    return grid.authority(home / "authority")


@pytest.fixture(scope="module")
def server(authority: grid.Authority) -> Iterator[grid.GridServer]:
    with grid.xrootd(authority) as running:
        yield running


@pytest.fixture(scope="module")
def environ(authority: grid.Authority) -> Iterator[Mapping[str, str]]:
    """The environment of ann; the process has it too, for XRootD's own library reads nothing else."""
    mine = grid.grid_environ(authority, authority.proxy("ann"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mine.items():
            patch.setenv(name, value)
        # The proxy that cuts lines stands at an address that is in no certificate of XRootD's kind.
        patch.setenv("XrdSecGSISRVNAMES", "*")
        yield mine


@pytest.fixture(scope="module")
def gfal2(home: Path) -> Iterator[None]:
    folder = grid.gfal2_bindings(home)
    grid.need(
        folder is not None, "no gfal2 for this Python: apt-get install python3-gfal2, and Debian's Python version"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


def _folder(server: grid.GridServer) -> str:
    """Make an empty folder of the server's, and return its name."""
    name = f"test{next(_numbers)}"
    (server.files / name).mkdir()
    shutil.chown(server.files / name, "nobody")
    return name


class GridTests(StorageTests, ForbiddenTests, NetworkTests):
    """What is the same over every protocol and with every library."""

    options: Mapping[str, Any] = {}
    scheme = "root"

    @pytest.fixture
    def storage(self, environ: Mapping[str, str], ready: None) -> Storage:
        return GridStorage(self.options, environ)

    @pytest.fixture
    def folder(self, server: grid.GridServer) -> str:
        return _folder(server)

    @pytest.fixture
    def root_url(self, server: grid.GridServer, folder: str) -> str:
        return getattr(server, self.scheme) + folder  # type: ignore[no-any-return]

    @pytest.fixture
    def forbidden(self, storage: Storage, server: grid.GridServer, root_url: str, folder: str) -> tuple[Storage, str]:
        shut = server.files / folder / "shut"
        shut.mkdir(mode=0o700)
        (shut / "file").write_text("x")
        return storage, below(root_url, "shut/file")

    @pytest.fixture
    def line(self, server: grid.GridServer) -> Iterator[CuttingProxy]:
        with CuttingProxy([server.port, server.http_port]) as line:
            yield line

    @pytest.fixture
    def far(self, environ: Mapping[str, str], ready: None) -> Storage:
        return GridStorage({**self.options, "stall": 2}, environ)

    @pytest.fixture
    def far_url(self, root_url: str) -> str:
        return root_url.replace("localhost", "127.0.0.2")

    def test_the_server_says_the_checksum(self, storage: Storage, root_url: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"some bytes")
        entry = storage.write(below(root_url, "file"), str(tmp_path / "file"))
        assert entry.checksum == f"adler32:{zlib.adler32(b'some bytes'):08x}"
        assert storage.stat(entry.url) == entry


class ProxyTests(CredentialsTests):
    """Who we are: each user has connections of its own, for a server knows a connection by who opened it."""

    options: Mapping[str, Any] = {}
    scheme = "root"

    @pytest.fixture
    def root_url(self, server: grid.GridServer) -> str:
        # Without a user's name, the connection of the test before would serve this one too.
        url: str = getattr(server, self.scheme)
        return url.replace("://", f"://user{next(_numbers)}@") if self.scheme == "root" else url

    @pytest.fixture(params=["ended", "missing"])
    def refused(self, request: Any, authority: grid.Authority, ready: None, monkeypatch: pytest.MonkeyPatch) -> Refused:
        proxy = authority.proxy("ann", hours=-5, name="old") if request.param == "ended" else None
        return self._of(authority, proxy, monkeypatch), []

    def test_the_message_says_when_a_proxy_ended(
        self, authority: grid.Authority, root_url: str, ready: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = self._of(authority, authority.proxy("ann", hours=-5, name="old"), monkeypatch)
        with pytest.raises(CredentialsRefused, match=r"expired at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC") as error:
            storage.stat(below(root_url, "x"))
        assert "voms-proxy-init" in error.value.hint
        assert "arcproxy" in error.value.hint

    def test_who_may_only_read_is_told_so(
        self, authority: grid.Authority, server: grid.GridServer, root_url: str, ready: None,
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    ) -> None:  # fmt: skip
        # Given bob, whom the server lets read and nothing else
        (server.files / "given").write_text("for all")
        storage = self._of(authority, authority.proxy("bob"), monkeypatch)
        assert b"".join(storage.read(below(root_url, "given"))) == b"for all"
        # Then he is not told to renew what is good
        with pytest.raises(NotPermitted) as error:
            storage.write(below(root_url, "mine"), str(server.files / "given"))
        assert not isinstance(error.value, CredentialsRefused)
        assert not (server.files / "mine").exists()

    def _of(self, authority: grid.Authority, proxy: Path | None, monkeypatch: pytest.MonkeyPatch) -> Storage:
        environ = grid.grid_environ(authority, proxy)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return GridStorage(self.options, environ)


class Elsewhere(Storage):
    """A storage whose every call has a process of its own."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage.options, dict(storage.environ))
        self._storage = type(storage), storage.options, dict(storage.environ)

    def stat(self, url: str) -> Entry:
        return self._ask("stat", url)  # type: ignore[no-any-return]

    def list(self, url: str) -> Iterator[Entry]:
        yield from self._ask("list", url)

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        yield from self._ask("read", url, start, end)

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        return self._ask("write", url, path)  # type: ignore[no-any-return]

    def _ask(self, method: str, *arguments: Any) -> Any:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_asked, self._storage, method, arguments).result()


def _asked(made: tuple[Any, Any, Any], method: str, arguments: tuple[Any, ...]) -> Any:
    kind, options, environ = made
    answer = getattr(kind(options, environ), method)(*arguments)
    return answer if isinstance(answer, Entry) else list(answer)


class _ByGfal2:
    options: Mapping[str, Any] = {"library": "gfal2"}

    @pytest.fixture
    def ready(self, gfal2: None) -> None:
        """gfal2 can be imported."""


class _ByGfal:
    options: Mapping[str, Any] = {"library": "gfal"}

    @pytest.fixture
    def ready(self) -> None:
        for module in ("gfal", "XRootD"):
            grid.need(importlib.util.find_spec(module) is not None, "no gfal: pip install 'tokenpool[grid]'")


class _ByHttp:
    scheme = "davs"

    @pytest.fixture
    def ready(self) -> None:
        """Nothing is needed."""


class TestRootByGfal2(_ByGfal2, GridTests):
    pass


class TestRootProxiesByGfal2(_ByGfal2, ProxyTests):
    pass


class TestRootByGfal(_ByGfal, GridTests):
    pass


class TestRootProxiesByGfal(_ByGfal, ProxyTests):
    """The client of the ``xrootd`` package reads only once in a process who it is."""

    def _of(self, authority: grid.Authority, proxy: Path | None, monkeypatch: pytest.MonkeyPatch) -> Storage:
        return Elsewhere(super()._of(authority, proxy, monkeypatch))


class TestDavs(_ByHttp, GridTests):
    pass


class TestDavsProxies(_ByHttp, ProxyTests):
    pass


class TestAnonymous:
    def test_an_open_server_wants_no_proxy(self, tmp_path: Path) -> None:
        # Given a server that asks nobody who he is, and a machine without a proxy
        with grid.xrootd() as server:
            storage = GridStorage({}, {"X509_USER_PROXY": str(tmp_path / "none")})
            (tmp_path / "file").write_bytes(b"hello")
            url = server.root + "folder/file"
            # Then files go there and back
            assert storage.write(url, str(tmp_path / "file")).size == 5
            assert b"".join(storage.read(url)) == b"hello"

    def test_a_server_that_nobody_vouches_for(self, server: grid.GridServer, tmp_path: Path) -> None:
        (tmp_path / "authorities").mkdir()
        storage = GridStorage({}, {"X509_CERT_DIR": str(tmp_path / "authorities")})
        with pytest.raises(CredentialsRefused, match="signed by nobody") as error:
            storage.stat(server.davs + "x")
        assert "X509_CERT_DIR" in error.value.hint


class TestLibraries:
    @pytest.mark.parametrize("scheme", ["srm", "gsiftp"])
    def test_what_only_gfal2_can(self, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tokenpool.storage.grid_gfal2", None)
        with pytest.raises(BadInput, match="gfal2") as error:
            GridStorage({}, {}).stat(f"{scheme}://host/file")
        assert "python3-gfal2" in error.value.hint

    def test_nothing_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tokenpool.storage.grid_gfal2", None)
        monkeypatch.setitem(sys.modules, "tokenpool.storage.grid_gfal", None)
        with pytest.raises(BadInput, match="neither is installed") as error:
            GridStorage({}, {}).stat("root://host//file")
        assert "tokenpool[grid]" in error.value.hint

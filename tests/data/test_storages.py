"""Every kind of storage against its real server: what the interface says holds for all of them."""

from __future__ import annotations

import ctypes
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cutting_proxy import HOST, CuttingProxy
from data_servers import Server

from tokenpool.errors import NotPermitted, OutOfSpace
from tokenpool.storage import Storages
from tokenpool.storage.base import Storage
from tokenpool.storage.local import told
from tokenpool.storage.urls import below
from tokenpool.testing.storage import (
    CredentialsTests,
    CutTests,
    ForbiddenTests,
    Give,
    NetworkTests,
    ReadingTests,
    RemovingTests,
    StorageTests,
    encoded,
)

S3 = pytest.mark.skipif(sys.version_info < (3, 10), reason="botocore for Python 3.9 wants an urllib3 older than ours")
#: Seconds that a storage of these tests waits for a byte.
STALL = 2.0


@pytest.fixture
def serve_storage(serve: Callable[[str], Server]) -> Callable[..., Storage]:
    """Make a storage for a server."""

    def make(server: Server, **options: object) -> Storage:
        return Storages({server.url.partition("//")[0]: {**server.options, **options}}, environ={}).of(server.url)

    return make


class TestFiles(StorageTests, RemovingTests):
    """Folders by path and by file:// URL."""

    @pytest.fixture
    def storage(self) -> Storage:
        return Storages().of("file:///x")

    @pytest.fixture(params=["path", "url"])
    def root_url(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        (tmp_path / "the root").mkdir()
        return f"file://{encoded(str(tmp_path))}/the%20root" if request.param == "url" else f"{tmp_path}/the root"

    def test_a_user_without_the_right(self, storage: Storage, root_url: str, tmp_path: Path) -> None:
        # Given files of somebody else in a folder of somebody else
        own = tmp_path / "own"
        own.write_bytes(b"x")
        url = storage.write(below(root_url, "f/theirs"), str(own)).url
        with nobody():
            for ask in (lambda: list(storage.read(url)), lambda: storage.stat(url)):
                with pytest.raises(NotPermitted, match="permission denied") as error:
                    ask()
                assert error.value.hint

    def test_a_full_disk(self, storage: Storage, tmp_path: Path) -> None:
        own = tmp_path / "own"
        own.write_bytes(b"x")
        with pytest.raises(OSError, match="No space") as error:
            Path("/dev/full").write_bytes(own.read_bytes())
        assert isinstance(told(error.value, "/data/x"), OutOfSpace)

    def test_links_lead_to_files_but_never_in_circles(self, storage: Storage, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "x").write_bytes(b"x")
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / "linked").symlink_to(tmp_path / "real")
        (tmp_path / "root" / "circle").symlink_to(tmp_path / "root")
        (tmp_path / "root" / "nowhere").symlink_to("missing")
        os.mkfifo(tmp_path / "root" / "fifo")
        found = [entry.url for entry in storage.list(f"{tmp_path}/root/")]
        assert found == [f"{tmp_path}/root/linked/x"]


class TestMemory(StorageTests, RemovingTests):
    """fsspec's memory, by fsspec's general calls."""

    @pytest.fixture
    def storage(self) -> Storage:
        return Storages().of("memory://x")

    @pytest.fixture
    def root_url(self) -> Iterator[str]:
        import fsspec

        root = f"memory://{secrets.token_hex(4)}"
        yield root
        fsspec.filesystem("memory").store.clear()


class Served:
    """A storage of a real server; `server_name` names its function in `data_servers`."""

    server_name = ""

    @pytest.fixture
    def server(self, serve: Callable[[str], Server]) -> Server:
        return serve(self.server_name)

    @pytest.fixture
    def storage(self, server: Server, serve_storage: Callable[..., Storage]) -> Storage:
        return serve_storage(server)

    @pytest.fixture
    def root_url(self, server: Server) -> str:
        return f"{server.url}/{secrets.token_hex(4)}"

    @pytest.fixture
    def line(self, server: Server) -> Iterator[CuttingProxy]:
        with CuttingProxy((server.port, *server.more_ports)) as line:
            yield line

    @pytest.fixture
    def far(self, server: Server, line: CuttingProxy, serve_storage: Callable[..., Storage]) -> Storage:
        return serve_storage(server.at(HOST), stall=STALL)

    @pytest.fixture
    def far_url(self, server: Server, root_url: str) -> str:
        return server.at(HOST).url + root_url[len(server.url) :]


@S3
class TestS3Moto(Served, StorageTests, RemovingTests):
    """S3 as AWS has it."""

    server_name = "s3_moto"


@S3
class TestS3Swift(Served, StorageTests, RemovingTests, NetworkTests, CredentialsTests, ForbiddenTests):
    """A store of its own that speaks S3 and checks who asks."""

    server_name = "s3_swift"

    @pytest.fixture(params=["secret", "key", "none"])
    def refused(
        self, request: pytest.FixtureRequest, server: Server, serve_storage: Callable[..., Storage]
    ) -> tuple[Storage, list[str]]:
        wrong = {
            "secret": {"secret": "not-the-secret"},
            "key": {"key": "test:nobody", "secret": "not-the-secret"},
            "none": {"key": None, "secret": None},
        }[request.param]
        return serve_storage(server, **wrong), ["not-the-secret", "test:nobody"]

    @pytest.fixture
    def forbidden(
        self, storage: Storage, root_url: str, server: Server, give: Give, serve_storage: Callable[..., Storage]
    ) -> tuple[Storage, str]:
        return serve_storage(server, key="test:guest", secret="guest-secret"), give("x", b"x")


class TestHttp(Served, ReadingTests, CutTests):
    """A web server of files, which others put there."""

    server_name = "http_files"

    @pytest.fixture
    def give(self, server: Server, root_url: str) -> Give:
        def give(name: str, data: bytes) -> str:
            path = server.folder / root_url.rpartition("/")[2] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            return below(root_url, name)

        return give


class TestFtp(Served, StorageTests, RemovingTests, NetworkTests, CredentialsTests, ForbiddenTests):
    """pyftpdlib's server."""

    server_name = "ftp_files"

    @pytest.fixture
    def refused(self, server: Server, serve_storage: Callable[..., Storage]) -> tuple[Storage, list[str]]:
        return serve_storage(server, password="not-the-password"), ["not-the-password"]

    @pytest.fixture
    def forbidden(self, server: Server, storage: Storage) -> tuple[Storage, str]:
        return storage, server.url.replace("/files", "/forbidden/x")


class TestFtps(TestFtp):
    """The same with TLS."""

    server_name = "ftps_files"
    large = 20_000_000

    def test_a_server_that_nobody_vouches_for(self, server: Server, serve_storage: Callable[..., Storage]) -> None:
        with pytest.raises(NotPermitted, match="certificate"):
            serve_storage(server, ca_file=None).stat(f"{server.url}/x")


class TestSftp(Served, StorageTests, RemovingTests, NetworkTests, CredentialsTests, ForbiddenTests):
    """OpenSSH's server."""

    server_name = "sftp_files"

    @pytest.fixture
    def refused(self, server: Server, serve_storage: Callable[..., Storage]) -> tuple[Storage, list[str]]:
        return serve_storage(server, key_filename=None, password="not-the-password"), ["not-the-password"]

    @pytest.fixture
    def forbidden(self, server: Server, storage: Storage) -> tuple[Storage, str]:
        return storage, server.url.replace("/files", "/forbidden/x")


class TestWebdav(Served, StorageTests, RemovingTests, NetworkTests, CredentialsTests):
    """WsgiDAV's server."""

    server_name = "webdav_files"

    @pytest.fixture
    def refused(self, server: Server, serve_storage: Callable[..., Storage]) -> tuple[Storage, list[str]]:
        return serve_storage(server, password="not-the-password"), ["not-the-password"]

    def test_what_may_not_be_written(self, server: Server, storage: Storage, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"x")
        with pytest.raises(NotPermitted):
            storage.write(server.url.replace("/files", "/forbidden/x"), f"{tmp_path}/x")


class nobody:
    """Lets this thread touch files as the user nobody, where we are root."""

    def __enter__(self) -> None:
        if os.getuid() or not sys.platform.startswith("linux"):
            pytest.skip("only root can be somebody else")
        ctypes.CDLL(None).setfsuid(65534)

    def __exit__(self, *error: object) -> None:
        ctypes.CDLL(None).setfsuid(0)

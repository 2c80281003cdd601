"""Files of SSH servers by SFTP: many requests on their way at once, and each transfer on a connection of its own."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..errors import BadInput, NotFound, NotPermitted, ServerAway
from .base import Entry
from .connections import Lending, above, beside, login_of, or_else
from .fsspec_storage import NEEDS, FsspecStorage, arrived, opened
from .urls import below, path_of, shown
from .walks import Item, walk

#: Bytes asked for at once, and of one answer: what every server gives.
_BATCH, _BLOCK = 4 << 20, 1 << 15
_KNOWN = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


class SftpStorage(FsspecStorage):
    """What sftp URLs mean: the path is from the server's root; keys and agents are found as ssh finds them.

    A server whose key is not the one that `known_hosts` has is refused; one that nobody knows is taken, as long as
    the option `host_key_policy` is not "reject".
    """

    def __init__(self, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        super().__init__(options, environ)
        self._connections: Lending[Any] = Lending(lambda sftp: sftp.get_channel().get_transport().close())

    def stat(self, url: str) -> Entry:
        """Return what the server says of a file."""
        with self._sftp(url) as sftp:
            return _stat(sftp, url)

    def list(self, url: str) -> Iterator[Entry]:
        """Yield the files below a folder."""
        root = path_of(url).rstrip("/")

        def items(folder: str) -> list[Item]:
            with self._connections.one(url, self._connected) as sftp:
                return list(_items(sftp, f"{root}/{folder}" if folder else root or "/"))

        with self.told(url):
            if root:
                with self._sftp(url) as sftp:
                    if not stat.S_ISDIR(sftp.stat(root).st_mode or 0):
                        raise NotFound(f"{shown(url)} is a file, not a folder", "leave the / at its end out")
            yield from walk(items, lambda name: below(url, name))

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield a file's bytes, asked for in batches."""
        with self._sftp(url) as sftp:
            size = _stat(sftp, url).size or 0
            last = min(size, size if end is None else end)
            # Not by `with`: to close a file asks the server once more, and where that is silent we left it long ago.
            file = sftp.open(path_of(url), "rb", bufsize=0)
            for at in range(start, last, _BATCH):
                until = min(at + _BATCH, last)
                blocks = [(first, min(_BLOCK, until - first)) for first in range(at, until, _BLOCK)]
                piece = b"".join(file.readv(blocks))
                if len(piece) != until - at:
                    raise ServerAway(f"{shown(url)} ended too early", "try again later")
                yield piece
            file.close()

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Put a file beside its place; once it is whole it gets its name."""
        target, part = beside(url)
        with opened(path) as source:
            with or_else(lambda: self._remove(url, part)), self._sftp(url) as sftp:
                for each in above(target):
                    with contextlib.suppress(OSError):
                        sftp.mkdir(each)
                _send(sftp, source, part, tell)
                if sftp.stat(part).st_size != os.fstat(source.fileno()).st_size:
                    raise ServerAway(f"{shown(url)} did not arrive whole", "try again later")
                _rename(sftp, part, target)
            return arrived(self.stat(url), source)

    def remove(self, url: str) -> None:
        """Remove a file."""
        with contextlib.suppress(NotFound):
            self._remove(url, path_of(url))

    def _remove(self, url: str, path: str) -> None:
        with self._sftp(url) as sftp:
            sftp.remove(path)

    @contextlib.contextmanager
    def _sftp(self, url: str) -> Iterator[Any]:
        with self.told(url), self._connections.one(url, self._connected) as sftp:
            yield sftp

    def _connected(self, url: str) -> Any:
        """Return a new connection; options beside ours are those of paramiko's `connect`, as fsspec has it."""
        try:
            import paramiko
        except ImportError as error:
            raise BadInput(f"sftp:// needs {error.name}, which is not here", f"pip install '{NEEDS['sftp']}'") from None
        place = urlsplit(url)
        user, password = login_of(url, self.options, self.environ)
        steps = dict.fromkeys(("timeout", "banner_timeout", "auth_timeout", "channel_timeout"), self.stall)
        given = {name: value for name, value in self.options.items() if name not in ("stall", "host_key_policy")}
        who = {"username": user or None, "password": password or None, "port": place.port or 22}
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(_policy(self.options.get("host_key_policy") != "reject", self.environ))
        try:
            client.connect(place.hostname or "", **{**steps, **given, **who})
            sftp = client.open_sftp()
            sftp.get_channel().settimeout(self.stall)
        except BaseException:
            client.close()
            raise
        sftp.client = client  # else it would be collected, and the connection with it
        return sftp


def _policy(accepts: bool, environ: Mapping[str, str]) -> Any:
    """Return how paramiko treats a server: by known_hosts, which fsspec does not read."""
    import paramiko

    known = paramiko.HostKeys()
    for path in _KNOWN:
        with contextlib.suppress(OSError):
            known.load(path.replace("~", environ.get("HOME", "")))

    class Known(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        """Takes the keys that are known, and perhaps those of servers that nobody knows."""

        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            """Decide about a server's key."""
            if known.check(hostname, key):
                return
            if known.lookup(hostname) is not None and key.get_name() in known.lookup(hostname):
                raise NotPermitted(
                    f"{hostname} has another key than known_hosts says", "ask its owner whether it changed"
                )
            if not accepts:
                raise NotPermitted(f"{hostname} is not in known_hosts", "ssh there once, or add its key")

    return Known()


def _stat(sftp: Any, url: str) -> Entry:
    path = path_of(url)
    found = sftp.stat(path.rstrip("/") or "/")
    if path.endswith("/") or not stat.S_ISREG(found.st_mode or stat.S_IFREG):
        raise NotFound(f"{shown(url)} is a folder, not a file", "a folder is meant by a / at the end")
    return Entry(url, found.st_size, version=_version(found))


def _items(sftp: Any, path: str) -> Iterator[Item]:
    for each in sftp.listdir_attr(path):
        if stat.S_ISLNK(each.st_mode or 0):
            try:
                name, each = each.filename, sftp.stat(f"{path}/{each.filename}")
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(each.st_mode or 0):
                continue  # it could lead in a circle
        else:
            name = each.filename
        yield Item(name, stat.S_ISDIR(each.st_mode or 0), each.st_size, version=_version(each))


def _send(sftp: Any, source: BinaryIO, path: str, tell: Callable[[int], None]) -> None:
    """Send a file without waiting for the answer to each piece; the last one tells whether all were good."""
    file = sftp.open(path, "wb", bufsize=0)
    file.set_pipelined(True)
    while piece := source.read(_BLOCK):
        file.write(piece)
        tell(len(piece))
    file.close()


def _rename(sftp: Any, part: str, target: str) -> None:
    try:
        sftp.posix_rename(part, target)
    except OSError:
        # Not every server knows how to replace a name.
        with contextlib.suppress(OSError):
            sftp.remove(target)
        sftp.rename(part, target)


def _version(found: Any) -> str:
    return f"{found.st_mtime}-{found.st_size}" if found.st_mtime is not None else ""

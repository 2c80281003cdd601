"""Opens the file behind a ``sqlite://`` URL: its name, its file system, its connections and its errors."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from ..errors import BadInput, NotFound, NotPermitted, OutOfSpace, ServerAway, TokenpoolError
from .sqlite_schema import APPLICATION_ID, SCHEMA_VERSION, make, upgrade, version_of
from .sqlite_schema import rollback as rollback

DEFAULT_FILE = "tokenpool.db"
#: Seconds that a write waits for another process's transaction.
PATIENCE = 60.0
_NETWORK = """
    nfs nfs4 cifs smb3 smbfs lustre gpfs beegfs ceph afs 9p glusterfs orangefs pvfs2 panfs ocfs2 gfs2 davfs virtiofs
    fuse.sshfs fuse.glusterfs fuse.ceph fuse.ceph-fuse fuse.s3fs fuse.goofys fuse.gcsfuse fuse.rclone fuse.juicefs
    fuse.davfs fuse.beegfs fuse.dcache fuse.cvmfs
"""
#: POSIX locks, or the shared memory of a write-ahead log, are not to be trusted on these.
NETWORK_FILE_SYSTEMS = frozenset(_NETWORK.split())
_SYNCHRONOUS = ("off", "normal", "full", "extra")
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True)
class Place:
    """What a URL says: the file by its absolute path, and the options."""

    path: str
    network: bool = False
    synchronous: str = "full"

    @property
    def url(self) -> str:
        """Return the URL that means the same from every working directory."""
        options = ["network=yes"] if self.network else []
        options += [f"synchronous={self.synchronous}"] if self.synchronous != "full" else []
        return f"sqlite:///{quote(self.path)}" + ("?" + "&".join(options) if options else "")


def parse_url(url: str) -> Place:
    """Read ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite://``; raises BadInput.

    >>> parse_url("sqlite:////data/my%20pool.db?synchronous=normal").path
    '/data/my pool.db'
    """
    rest, _, query = url.partition("://")[2].partition("?")
    host, _, path = rest.partition("/")
    if host:
        # What stands here may be a password, so it is not repeated.
        raise BadInput(
            "the URL of an SQLite pool names a file, not a host",
            "write sqlite:///relative.db or sqlite:////absolute/path.db",
        )
    path = unquote(path) or DEFAULT_FILE
    if path == ":memory:" or "\0" in path:
        raise BadInput(f"{path!r} is not a file that other processes could open", "write sqlite:///tokenpool.db")
    options = dict(parse_qsl(query, keep_blank_values=True))
    network = _YES.get(options.pop("network", "no").lower())
    synchronous = options.pop("synchronous", "full").lower()
    if options or network is None or synchronous not in _SYNCHRONOUS:
        raise BadInput(
            f"unknown option in {url!r}",
            f"known: ?network=yes and ?synchronous={'|'.join(_SYNCHRONOUS)}",
        )
    return Place(os.path.abspath(path), network, synchronous)


# --- the file system -----------------------------------------------------------------------------------------------


def mount_table() -> str:
    """Return the kernel's table of mounts, empty where the system has none."""
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def file_system(path: str, mounts: str) -> str:
    """Return the type of the file system that holds `path`, "" if unknown; `mounts` is text as in mountinfo.

    >>> file_system("/home/me/pool.db", "22 1 0:20 / / rw - ext4 /dev/a rw\\n23 22 0:21 / /home rw - nfs4 srv:/h rw")
    'nfs4'
    """
    kind, longest = "", -1
    for line in mounts.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # A later mount on the same point hides the earlier one.
        if inside and len(point) >= longest:
            kind, longest = right.split(" ")[0], len(point)
    return kind


def refuse_network(place: Place, mounts: str | None = None) -> None:
    """Raise BadInput where the file would lie on a network file system and the URL does not allow it."""
    if place.network:
        return
    kind = file_system(os.path.realpath(place.path), mount_table() if mounts is None else mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise BadInput(
            f"{place.path} is on a network file system ({kind}), where SQLite can lose tokens",
            "use a local disk, or CouchDB for many machines; ?network=yes allows it for one machine at your own risk",
        )


# --- errors --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn what sqlite3 raises into the package's errors; the one place that reads SQLite's words."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(path, error) from error


def _translate(path: str, error: sqlite3.Error) -> TokenpoolError:
    words = str(error).lower()
    if any(word in words for word in ("readonly", "unable to open", "permission", "not authorized")):
        return NotPermitted(f"{path} cannot be written: {error}", "check the owner and mode of the file and its folder")
    if "is full" in words or ("disk i/o" in words and _disk_is_full(path)):
        return OutOfSpace(f"the disk of {path} is full", "make room; nothing was half written, so work can go on")
    if "locked" in words or "busy" in words:
        return ServerAway(f"{path} was locked for {PATIENCE:.0f} s by another process", f"see who: fuser -v {path}")
    if any(word in words for word in ("not a database", "malformed", "no such table", "no such column", "encrypted")):
        return not_a_pool(path, str(error))
    if "disk i/o" in words:
        return ServerAway(f"the disk of {path} does not answer: {error}", "check the disk, then try again")
    return TokenpoolError(f"{path}: {error}", "this is a fault of tokenpool; please report it")


def _disk_is_full(path: str) -> bool:
    try:
        return os.statvfs(os.path.dirname(path)).f_bavail == 0
    except OSError:
        return False


def not_a_pool(path: str, why: str) -> BadInput:
    """Return the error for a file that is something else."""
    return BadInput(f"{path} is not a tokenpool database: {why}", "name another file, or move this one away")


# --- connections ---------------------------------------------------------------------------------------------------


#: Seconds that closing waits for a statement of another thread.
CLOSING = 5.0


class _Handle:
    """A connection that closes itself with its thread, but never in a process that inherited it by fork.

    It is used in a ``with``, so that no other thread closes it under a statement: that would crash the process.
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.pid = os.getpid()
        self.lock = threading.RLock()
        # Not __del__: a handle that dies in a cycle takes its connection along, in any order, unless somebody keeps that.
        self._closing = weakref.finalize(self, _let_go, connection, self.pid)
        # At exit other threads may still use it.
        self._closing.atexit = False

    # A class, not a generator: it is entered for every statement.
    def __enter__(self) -> sqlite3.Connection:
        self.lock.acquire()
        if not self._closing.alive:
            self.lock.release()
            raise _was_closed(self.path)
        return self.connection

    def __exit__(self, *exc: object) -> None:
        self.lock.release()

    def close(self) -> None:
        self._closing()


_INHERITED: list[sqlite3.Connection] = []


def _let_go(connection: sqlite3.Connection, pid: int) -> None:
    if pid == os.getpid():
        connection.close()
    else:
        # Closing would drop locks and the log that the parent still uses.
        _INHERITED.append(connection)


def _was_closed(path: str) -> TokenpoolError:
    return TokenpoolError(f"{path} was closed by this process", "open the pool again")


class Connections:
    """One connection to the file for each thread of each process, all closable from any thread."""

    def __init__(self, place: Place, functions: Mapping[str, Callable[[str, str], bool]]) -> None:
        self._place = place
        self._functions = functions
        self._local = threading.local()
        self._handles: list[weakref.ref[_Handle]] = []
        self._closed = False

    def use(self) -> _Handle:
        """Return this thread's connection, opened on first use, for a ``with``: nobody closes it meanwhile."""
        handle: _Handle | None = getattr(self._local, "handle", None)
        return self._open() if handle is None or handle.pid != os.getpid() else handle

    def _open(self) -> _Handle:
        if self._closed:
            raise _was_closed(self._place.path)
        handle = self._local.handle = _Handle(self._place.path, connect(self._place))
        for name, function in self._functions.items():
            handle.connection.create_function(name, 2, function)
        self._handles.append(weakref.ref(handle, self._forget))
        return handle

    def _forget(self, handle: weakref.ref[_Handle]) -> None:
        with contextlib.suppress(ValueError):
            self._handles.remove(handle)

    def close(self) -> None:
        """Close what this process opened, for all threads."""
        self._closed = True
        for reference in list(self._handles):
            handle = reference()
            # One that is busy for long is left to the end of its thread.
            if handle is not None and handle.lock.acquire(timeout=CLOSING):
                try:
                    handle.close()
                finally:
                    handle.lock.release()


def connect(place: Place, create: bool = False) -> sqlite3.Connection:
    """Open the file; it is not made here unless `create`."""
    connection = sqlite3.connect(
        f"file:{quote(place.path)}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for pragma in (
            f"synchronous = {place.synchronous}",
            "foreign_keys = OFF",
            "temp_store = MEMORY",
            "cache_size = -64000",
            # A larger log than the usual 4 MB: pushing a million tokens is a third faster.
            "wal_autocheckpoint = 8000",
            "journal_size_limit = 67108864",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


# --- the pool in the file ------------------------------------------------------------------------------------------


def prepare(place: Place, create: bool) -> None:
    """Check that the file is a pool, or with `create` make it one; every other file stays as it is."""
    try:
        size = os.stat(place.path).st_size
    except PermissionError as error:
        raise NotPermitted(f"{place.path} cannot be read: {error.strerror}", "check the mode of its folder") from error
    except OSError:
        size = -1
    if size <= 0 and not create:
        raise NotFound(f"there is no pool in {place.path}", f"make one: tokenpool init {place.url}")
    folder = os.path.dirname(place.path)
    if not os.path.isdir(folder):
        raise NotFound(f"there is no folder {folder}", f"make it first: mkdir -p {folder}")
    with translated(place.path), contextlib.closing(connect(place, create)) as connection:
        if _is_pool(connection, place):
            return
        if not create:
            raise NotFound(f"there is no pool in {place.path}", f"make one: tokenpool init {place.url}")
        make(connection)


def _is_pool(connection: sqlite3.Connection, place: Place) -> bool:
    """Tell whether the file holds our tables, and bring them up to date; False means none at all."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = version_of(connection)
    if application == APPLICATION_ID and {"documents", "pieces"} <= tables:
        if version > SCHEMA_VERSION:
            raise BadInput(f"{place.path} was made by a newer tokenpool", "update: pip install -U tokenpool")
        if version < SCHEMA_VERSION:
            upgrade(connection)
        return True
    if tables or application:
        raise not_a_pool(place.path, "it belongs to another program")
    return False

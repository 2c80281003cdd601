"""A proxy before an HTTP server that fails like a network: seeded faults in any share, and partitions on demand.

::

    with TcpProxy("http://admin:secret@127.0.0.1:5984", seed=7) as proxy:
        proxy.share = 0.2                     # a fifth of all requests meet a fault
        use(proxy.url)
        proxy.share = 0.0
        with proxy.partition(HANG):           # nothing passes; what was sent arrives late, as TCP does it
            ...

Answers are passed on as they come, so a long poll and its signs of life look as they do without the proxy.
"""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

#: What may happen to a request. Of those from `DROPPED` on, the server has applied it.
RESET, ERROR, BUSY, LATE = "reset", "error", "busy", "late"
DROPPED, CUT, GATEWAY, SLOW, TRICKLE = "dropped", "cut", "gateway", "slow", "trickle"
FAULTS = (RESET, ERROR, BUSY, LATE, DROPPED, CUT, GATEWAY, SLOW, TRICKLE)

#: Two kinds of partition: the other side is silent, or there is nobody.
HANG, REFUSE = "hang", "refuse"

PAGE = b"<html><body>The proxy is not well.</body></html>"
PIECE = 1 << 16


class Gone(Exception):
    """One side of a connection is not there any more, or must not be."""


@dataclass(frozen=True)
class Message:
    """The head of a request or of an answer, and what is already known of its body."""

    head: bytes
    rest: bytes

    @property
    def first(self) -> str:
        """Return the request or status line."""
        return self.head.partition(b"\r\n")[0].decode("latin-1")

    def header(self, name: bytes) -> bytes:
        """Return a header's value, empty where there is none."""
        found = re.search(rb"\r\n" + name + rb":[ \t]*([^\r]*)", self.head, re.IGNORECASE)
        return found.group(1).lower() if found else b""


class TcpProxy:
    """Listens on a port of 127.0.0.1 and passes on to `upstream`; each connection has a thread of its own."""

    def __init__(self, upstream: str, seed: int = 0, faults: tuple[str, ...] = FAULTS, stall: float = 2.0) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        #: How many requests meet a fault (0-1), which faults there are, and the longest stall in seconds.
        self.share, self.kinds, self.stall = 0.0, faults, stall
        self.requests = 0
        #: The request lines, in the order of their arrival.
        self.asked: list[str] = []
        self.met: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._passing = threading.Event()
        self._passing.set()
        self._closed = False
        self._refuses = False
        self._lost = 0
        self._open: set[socket.socket] = set()
        self._listener = _listen(0)
        self.port: int = self._listener.getsockname()[1]
        account = parts.netloc.rpartition("@")[0]
        self.url = f"http://{f'{account}@' if account else ''}127.0.0.1:{self.port}"

    def pool_url(self, pool_url: str, **options: object) -> str:
        """Return the URL of the same pool behind this proxy."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"couchdb+{self.url}{urlsplit(pool_url).path}" + (f"?{query}" if query else "")

    def __enter__(self) -> TcpProxy:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        self._passing.set()
        _close(self._listener)
        self.reset_all()

    # --- partitions ----------------------------------------------------------------------------------------------------

    @contextmanager
    def partition(self, kind: str = HANG, late: bool = True) -> Iterator[None]:
        """Let nothing pass as long as the body runs; with `late`, what hung arrives afterwards, else it is lost."""
        self.split(kind)
        try:
            yield
        finally:
            self.heal(late)

    def split(self, kind: str = HANG) -> None:
        """Begin a partition."""
        self._refuses = kind == REFUSE
        self._passing.clear()
        if self._refuses:
            _close(self._listener)
            self.reset_all()

    def heal(self, late: bool = True) -> None:
        """End a partition."""
        if not late:
            self._lost += 1
            self.reset_all()
        self._refuses = False
        if self._listener.fileno() < 0:
            self._listener = _listen(self.port)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        self._passing.set()

    def reset_all(self) -> None:
        """Cut every connection that is open."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            # Its thread closes it; until then a shutdown wakes it up.
            _reset(connection, now=False)

    # --- connections ---------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        rest = b""
        try:
            while not self._closed:
                request = _read_head(client, rest)
                body, rest = _read_body(client, request)
                fault = self._choose(request.first)
                self._pass()
                if server is None or _is_over(server):
                    server = self._connect(server)
                self._exchange(client, server, request, body, fault)
        except (Gone, OSError):
            pass
        finally:
            with self._lock:
                self._open.discard(client)
            for connection in (client, server):
                if connection is not None:
                    _close(connection)

    def _connect(self, old: socket.socket | None) -> socket.socket:
        if old is not None:
            _close(old)
        connection = socket.create_connection(self.upstream, timeout=30)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _choose(self, line: str = "") -> str:
        with self._lock:
            self.requests += 1
            self.asked.append(line)
            if self._random.random() >= self.share:
                return ""
            kind = self._random.choice(self.kinds)
            self.met[kind] += 1
            return kind

    def _pass(self) -> None:
        """Wait while there is a partition."""
        lost = self._lost
        if self._refuses:
            raise Gone
        self._passing.wait()
        if self._closed or self._lost != lost:
            raise Gone

    def _nap(self) -> None:
        with self._lock:
            seconds = self._random.uniform(0.2, 1.0) * self.stall
        time.sleep(seconds)

    # --- one request ---------------------------------------------------------------------------------------------------

    def _exchange(
        self, client: socket.socket, server: socket.socket, request: Message, body: bytes, fault: str
    ) -> None:
        """Pass one request on and its answer back, with this fault."""
        if fault == RESET:
            _reset(client)
            raise Gone
        if fault in (ERROR, BUSY):
            with self._lock:
                status = "429 Too Many Requests" if fault == BUSY else self._random.choice(("500 x", "502 x", "503 x"))
            client.sendall(_answer(status))
            return
        if fault == LATE:
            self._nap()
        server.sendall(request.head + body)
        if fault in (DROPPED, GATEWAY):
            for _ in _answer_of(server, client, request):
                pass
            if fault == DROPPED:
                _reset(client)
                raise Gone
            client.sendall(_answer("504 Gateway Timeout"))
            return
        if fault == SLOW:
            self._nap()
        for number, piece in enumerate(_answer_of(server, client, request)):
            self._pass()
            if fault == CUT:
                client.sendall(piece[: len(piece) // 2])
                _reset(client)
                raise Gone
            if fault == TRICKLE:
                _trickle(client, piece, pause=number == 0)
            else:
                client.sendall(piece)


# --- sockets -----------------------------------------------------------------------------------------------------------


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    return listener


def _close(connection: socket.socket) -> None:
    """Close a socket; a thread that waits in it wakes up."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _reset(connection: socket.socket, now: bool = True) -> None:
    """Hang up with RST, as a machine does that knows nothing of the connection."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if now:
            connection.close()
        else:
            connection.shutdown(socket.SHUT_RD)


def _is_over(server: socket.socket) -> bool:
    """Tell whether the server has hung up an idle connection."""
    return bool(select.select([server], [], [], 0)[0])


def _trickle(client: socket.socket, piece: bytes, pause: bool) -> None:
    for at in range(len(piece)):
        client.sendall(piece[at : at + 1])
        if pause and at % 50 == 0 and at < 1000:
            time.sleep(0.002)


# --- HTTP --------------------------------------------------------------------------------------------------------------


def _answer(status: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(PAGE)}\r\n\r\n"
    return head.encode() + PAGE


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(PIECE)
    if not data:
        raise Gone
    return data


def _read_head(connection: socket.socket, data: bytes) -> Message:
    """Read up to the empty line; `data` is what came already."""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, rest = data.partition(b"\r\n\r\n")
    return Message(head + b"\r\n\r\n", rest)


def _read_body(client: socket.socket, request: Message) -> tuple[bytes, bytes]:
    """Read a request's body; return it as it came, and what came behind it."""
    frame, data = _Frame(request, is_answer=False), request.rest
    while (end := frame.end(data)) is None:
        data += _receive(client)
    return data[:end], data[end:]


def _answer_of(server: socket.socket, client: socket.socket, request: Message) -> Iterator[bytes]:
    """Yield an answer piece by piece as it comes; a client that hangs up meanwhile ends it."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _await(server, client)
    head, _, rest = data.partition(b"\r\n\r\n")
    answer = Message(head + b"\r\n\r\n", rest)
    frame = _Frame(answer, is_answer=True, bodyless=request.first.startswith("HEAD "))
    yield data
    body = answer.rest
    while frame.end(body) is None:
        try:
            piece = _await(server, client)
        except Gone:
            if frame.until_closed:
                raise Gone from None
            raise
        body = frame.forget(body + piece)
        yield piece


def _await(server: socket.socket, client: socket.socket) -> bytes:
    """Return what the server sends next; a client that hangs up is noticed meanwhile."""
    while True:
        ready = select.select([server, client], [], [])[0]
        if server in ready:
            return _receive(server)
        if not client.recv(1, socket.MSG_PEEK):
            raise Gone
        select.select([server], [], [], 0.05)  # it sent the next request before this answer: that waits


class _Frame:
    """Finds where a body ends: by its length, by its last chunk, or nowhere (until the connection is closed)."""

    def __init__(self, message: Message, is_answer: bool, bodyless: bool = False) -> None:
        self.chunked = message.header(b"Transfer-Encoding") == b"chunked"
        length = message.header(b"Content-Length")
        status = message.first.split(" ")[1] if is_answer else ""
        self.length = int(length) if length else 0
        if bodyless or status in ("204", "304") or status.startswith("1"):
            self.chunked, self.length = False, 0
        self.until_closed = is_answer and not bodyless and not self.chunked and not length and status == "200"

    def end(self, data: bytes) -> int | None:
        """Return where the body ends in `data`, None where it is not there yet."""
        if self.until_closed:
            return None
        if not self.chunked:
            return self.length if len(data) >= self.length else None
        at = 0
        while (line := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:line].split(b";")[0], 16)
            at = line + 2 + size + 2
            if at > len(data):
                return None
            if size == 0:
                return at
        return None

    def forget(self, data: bytes) -> bytes:
        """Return the part of a body that is needed to find its end: whole chunks are not."""
        if self.until_closed:
            return b""
        if not self.chunked:
            return data
        at = 0
        while (line := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:line].split(b";")[0], 16)
            after = line + 2 + size + 2
            if size == 0 or after > len(data):
                break
            at = after
        return data[at:]

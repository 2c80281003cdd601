"""Passes TCP connections on to a server, and cuts them, or holds them, after as many bytes as it is told.

It listens on the server's own port numbers at another address of loopback, so that FTP's second connection, whose port
the server says, comes through it too.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable

PIECE = 1 << 16
#: Where it listens: another machine's address, as far as clients can tell.
HOST = "127.0.0.2"


class CuttingProxy:
    """One before all ports of a server; counts the bytes of both directions."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._left: int | None = None
        self._holds = False
        self._news = threading.Condition()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listeners = [_listen(port) for port in ports]

    def __enter__(self) -> CuttingProxy:
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True
        for listener in self._listeners:
            _close(listener)
        self.heal()
        self._cut_all()

    def cut(self, after: int) -> None:
        """Cut every connection once that many more bytes went through, and all new ones."""
        self._set(after, holds=False)

    def hold(self, after: int) -> None:
        """Let nothing more pass after that many bytes; connections stay open."""
        self._set(after, holds=True)

    def heal(self) -> None:
        """Let everything pass; what was held is lost, as after a machine's restart."""
        if self._holds:
            self._cut_all()
        self._set(None, holds=False)

    def _set(self, left: int | None, holds: bool) -> None:
        with self._news:
            self._left, self._holds = left, holds
            self._news.notify_all()
        if left == 0 and not holds:
            self._cut_all()

    def _accept(self, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", port), timeout=30)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            with self._news:
                self._open |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(PIECE):
                allowed = self._take(len(data))
                target.sendall(data[:allowed])
                if allowed < len(data):
                    self._end(source, target)
                    return
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for each in (source, target):
                _reset(each)

    def _take(self, count: int) -> int:
        """Return how many of these bytes may pass."""
        with self._news:
            if self._left is None:
                return count
            allowed = min(count, self._left)
            self._left -= allowed
            return allowed

    def _end(self, source: socket.socket, target: socket.socket) -> None:
        if not self._holds:
            self._cut_all()
            return
        with self._news:
            self._news.wait_for(lambda: not self._holds or self._closed)

    def _cut_all(self) -> None:
        with self._news:
            connections, self._open = self._open, set()
        for each in connections:
            _reset(each)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen(64)
    return listener


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _reset(connection: socket.socket) -> None:
    """Hang up with RST, as a machine does that knows nothing of the connection."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()

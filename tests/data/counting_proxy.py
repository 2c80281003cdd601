"""Stands before an HTTP server and counts what it is asked for."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_REQUEST = re.compile(rb"(?:^|\r\n\r\n)([A-Z]+) ([^ ?]+)[^ ]* HTTP/1")


class CountingProxy:
    """Passes everything on; `requests` counts (method, path). `hold` keeps answers to matching requests back."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: Counter[tuple[str, str]] = Counter()
        self.held = threading.Event()
        self._hold: Callable[[str, str], bool] = lambda method, path: False
        self._released = threading.Event()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, matches: Callable[[str, str], bool]) -> None:
        """Let connections on which something is asked that matches give no answer, until `release`; `held` is set then."""
        self._released.clear()
        self.held.clear()
        self._hold = matches

    def release(self) -> None:
        """Let everything pass."""
        self._hold = lambda method, path: False
        self._released.set()

    def count(self, method: str, ending: str) -> int:
        """Return how often paths that end so were asked for."""
        return sum(n for (asked, path), n in self.requests.items() if asked == method and path.endswith(ending))

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            self._sockets |= {client, server}
            threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if asks:
                    self._note(data)
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _note(self, data: bytes) -> None:
        for method, path in _REQUEST.findall(data):
            asked = method.decode(), path.decode()
            self.requests[asked] += 1
            if self._hold(*asked):
                self.held.set()
                self._released.wait(120)

    def close(self) -> None:
        """Hang up."""
        self.release()
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.close()


@contextmanager
def counting(port: int) -> Iterator[CountingProxy]:
    """Stand before the server of a port."""
    proxy = CountingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()

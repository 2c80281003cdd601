"""A proxy before an HTTP server that fails on demand: it drops answers, refuses, or holds requests back, exactly where told.

::

    with FaultyProxy("http://admin:secret@127.0.0.1:5984") as proxy:
        fault = proxy.drop_answer("POST", "/_bulk_docs")     # the next one is applied, its answer never comes
        use(proxy.url)
        assert fault.hits == 1

A fault meets requests whose method is the one given and whose path (with query) holds a match of the expression; with
`body`, only those whose body holds these bytes as well. It meets `times` of them and then lets everything pass.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

#: Seconds that a held request waits at most: a test that forgets to let go must end.
LONGEST_HOLD = 60.0


@dataclass
class Fault:
    """One order to fail; `met` is set with its first hit, before (`early`) or after the server did what was asked."""

    method: str
    path: str
    times: int
    act: Callable[[Handler], None]
    body: bytes = b""
    hits: int = 0
    early: bool = True
    met: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def meets(self, method: str, path: str, body: bytes) -> bool:
        """Tell whether this request is the one."""
        return (
            self.hits < self.times and method == self.method and bool(re.search(self.path, path)) and self.body in body
        )


class FaultyProxy:
    """Listens on a free port of 127.0.0.1 and passes requests on to `upstream`, one connection for each."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.requests: list[tuple[str, str]] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.proxy = self
        account = parts.netloc.rpartition("@")[0]
        self.url = f"http://{f'{account}@' if account else ''}127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for fault in self._faults:
            fault.release.set()
        self._server.shutdown()
        self._server.cut()
        self._server.server_close()
        self._thread.join()

    def pool_url(self, name: str) -> str:
        """Return the URL of a database behind this proxy, as tokenpool spells it."""
        return f"couchdb+{self.url}/{name}"

    # --- faults ----------------------------------------------------------------------------------------------------

    def drop_answer(self, method: str, path: str, times: int = 1, body: bytes = b"") -> Fault:
        """Let the server do what is asked, then cut the line instead of answering."""
        return self._add(method, path, times, Handler.apply_and_cut, body)

    def drop_request(self, method: str, path: str, times: int = 1, body: bytes = b"") -> Fault:
        """Cut the line before the server hears of it."""
        return self._add(method, path, times, Handler.cut, body)

    def answer(
        self, status: int, method: str, path: str, times: int = 1, body: bytes = b"", apply: bool = False,
        text: bytes = b'{"error":"faulty","reason":"as ordered"}',
    ) -> Fault:  # fmt: skip
        """Answer this status by ourselves; with `apply` the server does what is asked all the same."""

        def act(handler: Handler) -> None:
            if apply:
                handler.forward()
            handler.reply(status, {"Content-Type": "application/json"}, text)

        return self._add(method, path, times, act, body)

    def hold(self, method: str, path: str, times: int = 1, body: bytes = b"", lose: bool = False) -> Fault:
        """Wait with the request until ``fault.release.set()``, then pass it on, or `lose` it for ever."""

        def act(handler: Handler) -> None:
            fault.release.wait(LONGEST_HOLD)
            if lose:
                handler.cut()
            else:
                handler.pass_on()

        fault = self._add(method, path, times, act, body)
        return fault

    def hold_answer(self, method: str, path: str, times: int = 1, body: bytes = b"") -> Fault:
        """Pass the request on, then keep the answer until ``fault.release.set()``; `met` says that the server answered."""

        def act(handler: Handler) -> None:
            answer = handler.forward()
            fault.met.set()
            fault.release.wait(LONGEST_HOLD)
            handler.reply(*answer)

        fault = self._add(method, path, times, act, body)
        fault.early = False
        return fault

    def accepted(
        self, method: str, path: str, times: int = 1, body: bytes = b"", then: Callable[[], Any] = lambda: None
    ) -> Fault:
        """Answer 202 as a cluster without a quorum does, after the server did it and `then` something happened."""

        def act(handler: Handler) -> None:
            status, headers, data = handler.forward()
            then()
            handler.reply(202 if status == 201 else status, headers, data)

        return self._add(method, path, times, act, body)

    def before(self, method: str, path: str, call: Callable[[], Any], times: int = 1, body: bytes = b"") -> Fault:
        """Do something of the test's own, then pass the request on: somebody else is faster."""

        def act(handler: Handler) -> None:
            call()
            handler.pass_on()

        return self._add(method, path, times, act, body)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse every request with 503 as long as the body runs."""
        faults = [self.answer(503, method, "", times=1 << 30) for method in ("GET", "HEAD", "PUT", "POST", "DELETE")]
        try:
            yield
        finally:
            with self._lock:
                self._faults = [fault for fault in self._faults if fault not in faults]

    def _add(self, method: str, path: str, times: int, act: Callable[[Handler], None], body: bytes) -> Fault:
        fault = Fault(method, path, times, act, body)
        with self._lock:
            self._faults.append(fault)
        return fault

    def _take(self, method: str, path: str, body: bytes) -> Fault | None:
        with self._lock:
            self.requests.append((method, path))
            for fault in self._faults:
                if fault.meets(method, path, body):
                    fault.hits += 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Listening with a longer queue than the default of 5: many workers come at once.
    request_queue_size = 128
    proxy: FaultyProxy

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End every connection that is still open."""
        for connection in list(self._open):
            self.shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news here."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body of an answer leave together
    server: _Server
    payload = b""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        self.payload = self._read_body()
        fault = self.server.proxy._take(self.command, self.path, self.payload)
        if fault is None:
            self.pass_on()
            return
        if fault.early:
            fault.met.set()
        fault.act(self)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def forward(self) -> tuple[int, dict[str, str], bytes]:
        """Ask the server and return what it says."""
        upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=60)
        headers = {
            name: value for name, value in self.headers.items()
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "accept-encoding")
        }  # fmt: skip
        try:
            upstream.request(
                self.command, self.path, self.payload, {**headers, "Content-Length": str(len(self.payload))}
            )
            answer = upstream.getresponse()
            data = answer.read()
            return answer.status, dict(answer.getheaders()), data
        finally:
            upstream.close()

    def pass_on(self) -> None:
        """Ask the server and hand its answer on."""
        self.reply(*self.forward())

    def reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
        """Answer the client."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)
        self.wfile.flush()

    def cut(self) -> None:
        """Hang up without a word."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def apply_and_cut(self) -> None:
        """Let the server do it, hang up."""
        self.forward()
        self.cut()

"""A tiny HTTP server that does what a test's script says, request by request, and remembers what it was asked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Seen(NamedTuple):
    """What a request held."""

    command: str
    path: str
    headers: Any
    body: bytes


class Request(BaseHTTPRequestHandler):
    """One request, given to the test's script; the script says what happens."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Scripted
    body = b""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.seen.append(Seen(self.command, self.path, self.headers, self.body))
            act = self.server.script.pop(0) if self.server.script else answer(200)
        act(self)


class Scripted(ThreadingHTTPServer):
    """Does what its script says, request by request, then answers 200."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        self.script: list[Callable[[Request], None]] = []
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Request)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news here."""

    @property
    def paths(self) -> list[str]:
        return [f"{request.command} {request.path}" for request in self.seen]


def answer(status: int, body: Any = None, **headers: str) -> Callable[[Request], None]:
    data = body if isinstance(body, bytes) else json.dumps({"ok": True} if body is None else body).encode()

    def act(request: Request) -> None:
        request.send_response_only(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
        request.wfile.flush()

    return act


def cut(request: Request) -> None:
    """Hang up without a word."""
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def scripted_server() -> Iterator[Scripted]:
    """Start one, and end it."""
    server = Scripted()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def over_tls(server: Scripted, folder: Path) -> None:
    """Have it speak TLS, with a certificate of its own making in ``ca.pem``; without openssl the test is skipped."""
    if shutil.which("openssl") is None:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail("openssl is not installed", pytrace=False)
        pytest.skip("openssl is not installed")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "ca.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    # The handshake belongs to the connection's own thread, or a client that refuses us would hold up the others.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.url = server.url.replace("http:", "https:")

"""Makes urllib3's pools of connections to one server: TLS, proxies, and a way to cut connections that others wait on."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import urllib.request
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

#: Connections kept open for later requests; more are made when they are needed, never waited for.
KEPT = 32


@dataclass(frozen=True)
class Options:
    """How to reach a server; read once from the pool's URL and the environment."""

    username: str = ""
    password: str = ""
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    attempts: int = 5
    backoff: float = 0.1
    backoff_limit: float = 5.0
    verify: bool = True
    cafile: str | None = None
    capath: str | None = None
    cert: str | None = None
    key: str | None = None
    proxies: Mapping[str, str] = field(default_factory=urllib.request.getproxies)


def connection_pools(url: str, options: Options) -> urllib3.PoolManager:
    """Return what makes and keeps connections to the server of `url`."""
    parts = urlsplit(url)
    arguments: dict[str, Any] = {"maxsize": KEPT, "retries": False}
    if parts.scheme == "https":
        arguments["ssl_context"] = _tls_context(options)
    proxy = options.proxies.get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        credentials = urlsplit(proxy).username
        if credentials:
            user, password = credentials, urlsplit(proxy).password or ""
            arguments["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}")
        return urllib3.ProxyManager(proxy, **arguments)
    return urllib3.PoolManager(**arguments)


def _tls_context(options: Options) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.cafile, capath=options.capath)
    if options.cert:
        context.load_cert_chain(options.cert, options.key)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Cutter:
    """Knows every connection of the pools that it watches, and cuts them under the threads that read from them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._done = False

    def watch(self, pools: urllib3.PoolManager) -> urllib3.PoolManager:
        """Have these pools, which have made no connection yet, tell of each that they make."""
        noted = self._note

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                noted(self)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                noted(self)

        plain = type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": Plain})
        secure = type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": Secure})
        pools.pool_classes_by_scheme = {"http": plain, "https": secure}
        return pools

    def _note(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._open.add(connection)
            late = self._done
        if late:
            _shut_down(connection)

    def cut(self) -> None:
        """End every connection, those too that are being made; who reads is told that the other side left."""
        with self._lock:
            self._done = True
            connections = list(self._open)
        for connection in connections:
            _shut_down(connection)


def _shut_down(connection: HTTPConnection) -> None:
    # TLS inside TLS, through a proxy, is an object that has the socket.
    wrapped: Any = getattr(connection, "sock", None)
    plain: Any = getattr(wrapped, "socket", wrapped)
    with contextlib.suppress(OSError, TypeError):
        # Not the method of an SSL socket: that takes its state from under the thread that reads.
        socket.socket.shutdown(plain, socket.SHUT_RDWR)

"""Lets python-couchdb speak through our transport: its own session loses uploads, resends claims and never times out."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .couch_errors import couchdb
from .transport import Transport


class PoolSession:
    """What ``couchdb.Server(url, session=…)`` takes: one method, `request`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._others: dict[tuple[str, str], Transport] = {}

    @property
    def _disable_ssl_verification(self) -> bool:
        return not self._transport.options.verify

    def disable_ssl_verification(self) -> None:
        """Accept any certificate from now on."""
        options = replace(self._transport.options, verify=False)
        self._transport = Transport(self._transport.url, options)

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        credentials: tuple[str, str] | None = None,
        num_redirects: int = 0,
    ) -> tuple[int, Mapping[str, str], Any]:
        """Send a request of python-couchdb's; returns (status, headers, file) or raises its exception."""
        transport = self._for(credentials)
        path = url[len(transport.url) :] if url.startswith(transport.url) else "/" + url.split("/", 3)[-1]
        sent = dict(headers or {})
        if method in ("GET", "HEAD") and "feed=" in path:
            answer, pieces = transport.stream(path)
            self._check(answer.status, answer.data)
            return answer.status, answer.headers, Feed(pieces)
        payload = body if body is None or isinstance(body, bytes) or hasattr(body, "read") else _encode(body, sent)
        if hasattr(payload, "read") and "Content-Length" not in sent:
            # Read whole: an upload that breaks off half-way must not be stored as if it were complete.
            data = payload.read()
            payload = data.encode() if isinstance(data, str) else data
        reads = True if method == "POST" and any(word in path for word in ("/_view/", "/_all_docs", "/_find")) else None
        answer = transport.request(method.upper(), path, payload, sent, reads=reads)
        self._check(answer.status, answer.data)
        return answer.status, answer.headers, io.BytesIO(answer.data)

    def _for(self, credentials: tuple[str, str] | None) -> Transport:
        ours = self._transport.options
        if not credentials or tuple(credentials) == (ours.username, ours.password):
            return self._transport
        user, password = credentials
        if (user, password) not in self._others:
            options = replace(ours, username=user, password=password)
            self._others[user, password] = Transport(self._transport.url, options)
        return self._others[user, password]

    @staticmethod
    def _check(status: int, data: bytes) -> None:
        if status < 400:
            return
        try:
            told = json.loads(data)
            error: Any = (told.get("error"), told.get("reason"))
        except (ValueError, AttributeError):
            error = data.decode("utf-8", "replace")
        kinds = {
            401: couchdb.http.Unauthorized,
            403: couchdb.http.Forbidden,
            404: couchdb.http.ResourceNotFound,
            409: couchdb.http.ResourceConflict,
            412: couchdb.http.PreconditionFailed,
        }
        raise kinds[status](error) if status in kinds else couchdb.http.ServerError((status, error))


class Feed:
    """The body of a continuous feed, line by line."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def iterchunks(self) -> Iterator[bytes]:
        """Yield the lines as they come."""
        rest = b""
        for piece in self._pieces:
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line + b"\n" for line in lines if line)

    def read(self, size: int | None = None) -> bytes:
        """Return everything there is."""
        return b"".join(self._pieces)

    def close(self) -> None:
        """Stop listening."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


def _encode(body: Any, headers: dict[str, str]) -> bytes:
    if isinstance(body, str):
        return body.encode("utf-8")
    headers.setdefault("Content-Type", "application/json")
    return json.dumps(body).encode("utf-8")

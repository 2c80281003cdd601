"""Reads and writes objects of S3 over plain connections, signed by botocore: what is done very often, without the rest of a client.

A client of botocore spends two milliseconds of CPU on a request, most of it on choices that are the same every time. For
two thousand small files that is what takes the time. Whoever wants a choice of their own has the client: `line_of` gives None.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies_environment

from ..errors import ServerAway
from .base import PIECE, Entry

#: The options that this knows; with any other one the client does the work.
_KNOWN = frozenset({"key", "secret", "token", "endpoint_url", "region", "profile", "stall"})
#: Bytes that are given to the kernel at a time: so many have to go within the time limit.
_BLOCK = 256 << 10
#: Seconds for which credentials are taken as they are; the client renews them.
_FRESH = 60.0
#: What the client knows to answer: a bucket that is elsewhere.
_ELSEWHERE = frozenset({"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"})


class Elsewhere(Exception):
    """The bucket is in another region: the client has to find it."""


class Line:
    """The way to one store. Safe from several threads."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop, stall: float, environ: Mapping[str, str]) -> None:
        import urllib3
        from botocore.httpsession import get_cert_path

        self._client, self._loop = client, loop
        self._endpoint = str(client.meta.endpoint_url).rstrip("/")
        authority = environ.get("AWS_CA_BUNDLE") or get_cert_path(True)
        more = {"ca_certs": authority} if self._endpoint.startswith("https:") else {}
        # The first limit holds while something is sent too, for each block of it.
        limit = urllib3.Timeout(connect=stall, read=stall)
        self._pool = urllib3.connection_from_url(
            self._endpoint, maxsize=64, timeout=limit, retries=False, blocksize=_BLOCK, **more
        )
        self._credentials: tuple[float, Any] = (0.0, None)
        self._lock = threading.Lock()

    def read(self, place: Mapping[str, str], start: int, end: int | None) -> Iterator[bytes]:
        """Yield the bytes of an object in pieces; nothing where the range begins behind the end."""
        ranged = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
        answer = self._ask("GET", place, headers=ranged)
        if answer is None:
            return
        whole = False
        try:
            yield from answer.stream(PIECE, decode_content=False)
            whole = True
        finally:
            if whole:
                answer.release_conn()
            else:
                answer.close()

    def put(
        self, url: str, place: Mapping[str, str], file: int, span: tuple[int, int], query: str = "",
        moves: Callable[[int], None] = lambda sent: None,
    ) -> Entry:  # fmt: skip
        """Send a span of an open file as an object, or with `query` as a part of one; never more than a block is in memory.

        The entry has a checksum where the store says what it keeps.
        """
        sent, md5 = _Sent(file, span, moves), hashlib.md5(usedforsecurity=False)
        for at in range(*span, PIECE):
            md5.update(os.pread(file, min(PIECE, span[1] - at), at))
        headers = {"Content-MD5": base64.b64encode(md5.digest()).decode(), "Content-Length": str(span[1] - span[0])}
        answer = self._ask("PUT", place, query, headers, sent)
        answer.drain_conn()
        sent.finish()
        tag = str(answer.headers.get("ETag", "")).strip('"')
        checksum = f"md5:{tag}" if tag == md5.hexdigest() else ""
        return Entry(url, span[1] - span[0], checksum, str(answer.headers.get("x-amz-version-id") or tag))

    def _ask(
        self,
        method: str,
        place: Mapping[str, str],
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Any:
        """Return the answer to a request, its body not read yet; None: the range is beyond the end."""
        path = f"/{quote(place['Bucket'], safe='')}/{quote(place['Key'], safe='/~')}" + (f"?{query}" if query else "")
        signed = self._signed(method, path, dict(headers or {}))
        answer = self._pool.urlopen(
            method,
            f"{urlsplit(self._endpoint).path}{path}",
            body=body,
            headers=signed,
            preload_content=False,
            redirect=False,
        )
        if answer.status in (200, 206):
            return answer
        text = answer.read(64 << 10).decode("utf-8", "replace")
        answer.release_conn()
        if answer.status == 416:
            return None
        raise self._refusal(answer.status, text, method)

    def _refusal(self, status: int, text: str, method: str) -> Exception:
        from botocore.exceptions import ClientError

        told = {name: unescape("".join(re.findall(f"<{name}>([^<]*)<", text)[:1])) for name in ("Code", "Message")}
        code = told["Code"] or str(status)
        if code in _ELSEWHERE:
            return Elsewhere(code)
        answer = {"Error": {**told, "Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        refusal: Exception = ClientError(answer, method)
        return refusal

    def _signed(self, method: str, path: str, headers: dict[str, str]) -> dict[str, str]:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method, f"{self._endpoint}{path}", headers=headers)
        # What is sent is covered by its MD5, which is signed.
        request.context["client_config"] = SimpleNamespace(s3={"payload_signing_enabled": False})
        region = str(self._client.meta.region_name or "aws-global").replace("aws-global", "us-east-1")
        S3SigV4Auth(self._frozen(), "s3", region).add_auth(request)
        return dict(request.headers.items())

    def _frozen(self) -> Any:
        with self._lock:
            since, found = self._credentials
            if found is None or time.monotonic() - since > _FRESH:
                asked = self._client._request_signer._credentials.get_frozen_credentials()
                found = asyncio.run_coroutine_threadsafe(asked, self._loop).result(60)
                self._credentials = time.monotonic(), found
            return found


class _Sent:
    """A span of a file, read block by block while it is sent; `moves` hears of each block when the next one is wanted."""

    def __init__(self, file: int, span: tuple[int, int], moves: Callable[[int], None]) -> None:
        self._file, self._at, self._end, self._told, self._moves = file, *span, span[0], moves

    def read(self, size: int = -1) -> bytes:
        """Hand out the next block."""
        self.finish()
        left = self._end - self._at
        piece = os.pread(self._file, left if size < 0 else min(size, left), self._at)
        if left and not piece:
            raise ServerAway("the file became shorter while it was sent", "leave it alone until it is away")
        self._at += len(piece)
        return piece

    def finish(self) -> None:
        """Tell of what went."""
        if self._at > self._told:
            self._moves(self._at - self._told)
            self._told = self._at


def line_of(system: Any, options: Mapping[str, Any], stall: float, environ: Mapping[str, str]) -> Line | None:
    """Return the line to the store of s3fs' file system; None where only its client knows how it is reached."""
    from fsspec.asyn import sync

    if not set(options) <= _KNOWN or getproxies_environment().keys() & {"http", "https", "all"}:
        return None
    client = sync(system.loop, system.set_session)
    if client._request_signer._credentials is None or (client.meta.config.s3 or {}).get("payload_signing_enabled"):
        return None
    return Line(client, system.loop, stall, environ)

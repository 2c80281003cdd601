"""Speaks HTTP to a CouchDB server: one pool of connections a process, time-outs, cookie sessions, safe retries only.

A request is sent again only where that cannot do harm: it reads, or it never reached the server, or the server says
that it refused to look at it (429). A write whose answer was lost raises `AnswerLost`.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Union
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)

from .. import chance
from ..errors import AnswerLost, BadInput, NotPermitted, ServerAway
from .connections import Options as Options
from .connections import connection_pools

Body = Union[None, bytes, BinaryIO]

#: Answers that a proxy or a busy server gives in passing.
PASSING = frozenset({429, 500, 502, 503, 504})
#: A cookie is renewed when this share of its life has gone.
RENEW_AT = 0.8


@dataclass(frozen=True)
class Answer:
    """What the server said: status, headers (any case), whole body."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        """Return the body as JSON; an answer that is none (a proxy's page) counts as lost."""
        try:
            return json.loads(self.data)
        except ValueError:
            raise AnswerLost(f"the server answered {self.status} without JSON: {self.data[:80]!r}") from None

    def reason(self) -> tuple[str, str]:
        """Return CouchDB's (error, reason), empty where the body is not CouchDB's."""
        try:
            told = json.loads(self.data)
            return str(told.get("error", "")), str(told.get("reason", ""))
        except (ValueError, AttributeError):
            return "", self.data[:200].decode("utf-8", "replace")


class Transport:
    """One server. Safe from many threads, and in a forked child, which gets connections of its own."""

    def __init__(self, url: str, options: Options | None = None) -> None:
        self.url = url.rstrip("/")
        self.options = options or Options()
        self._host = urlsplit(self.url).netloc
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._pool: urllib3.PoolManager | None = None
        self._cookie = ""
        self._renew_at = 0.0
        self._basic_only = False
        self._date = ("", 0.0)
        #: Seconds that the server's clock is ahead of ours.
        self.clock_offset = 0.0

    # --- requests ----------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        reads: bool | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Send one request and return the whole answer, whatever its status below 500.

        `reads` marks a POST that changes nothing. Raises ServerAway, AnswerLost (writes only), NotPermitted (401).
        """
        response = self._send(method, path, body, headers, reads, timeout, stream=False)
        return Answer(response.status, response.headers, response.data)

    def stream(self, path: str, chunk: int = 1 << 16) -> tuple[Answer, Iterator[bytes]]:
        """GET an answer that may be large; its pieces must be read to the end or dropped."""
        response = self._send("GET", path, None, None, True, None, stream=True)
        if response.status >= 400:
            return Answer(response.status, response.headers, response.read()), iter(())
        return Answer(response.status, response.headers, b""), self._pieces(response, chunk)

    def _pieces(self, response: urllib3.BaseHTTPResponse, chunk: int) -> Iterator[bytes]:
        try:
            yield from response.stream(chunk)
        except HTTPError as error:
            raise ServerAway(f"the download from {self._host} broke off: {_why(error)}", "try again") from error
        finally:
            response.release_conn()

    def _send(
        self,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str] | None,
        reads: bool | None,
        timeout: float | None,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        harmless = method in ("GET", "HEAD") if reads is None else reads
        begin = body.tell() if body is not None and not isinstance(body, bytes) else 0
        renewed = False
        for attempt in range(1, self.options.attempts + 1):
            if attempt > 1 and body is not None and not isinstance(body, bytes):
                body.seek(begin)
            last = attempt == self.options.attempts
            try:
                response = self._once(method, path, body, headers, timeout, stream)
            except HTTPError as error:
                self.judge(error, method, path, harmless, last)
            else:
                if response.status == 401 and self._cookie and not renewed:
                    renewed = True
                    self.forget_cookie()
                    continue
                if response.status not in PASSING:
                    return response
                answer = Answer(response.status, response.headers, response.data)
                self.judge_status(answer, method, path, harmless, last)
            time.sleep(chance.uniform(0, min(self.options.backoff_limit, self.options.backoff * 2**attempt)))
        raise ServerAway(f"{self._host} does not answer", "is the server up? tokenpool doctor")

    def _once(
        self,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str] | None,
        timeout: float | None,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        given = {"Accept": "application/json", **self.authorization(), **(headers or {})}
        sent = time.time()
        response = self._connections().request(
            method,
            self.url + path,
            body=body,
            headers=given,
            retries=False,
            redirect=False,
            preload_content=not stream,
            timeout=urllib3.Timeout(connect=self.options.connect_timeout, read=timeout or self.options.read_timeout),
        )
        self.learn_time(response, sent)
        return response

    def learn_time(self, response: urllib3.BaseHTTPResponse, sent: float) -> None:
        """Learn the server's clock from an answer; `sent` is our time when it was asked for.

        A Date is cut to whole seconds, so that one answer only says between which bounds the difference lies. What is
        remembered moves no further than it must, and with every answer the bounds draw nearer.
        """
        date = response.headers.get("Date", "")
        if date != self._date[0] or not date:
            try:
                self._date = date, parsedate_to_datetime(date).timestamp()
            except (TypeError, ValueError):
                return
        seconds = self._date[1]
        self.clock_offset = min(max(self.clock_offset, seconds - time.time()), seconds + 1 - sent)

    def judge(self, error: HTTPError, method: str, path: str, harmless: bool, last: bool) -> None:
        """Return where the request may be sent again; raise where it may not."""
        if isinstance(error, LocationParseError):
            raise BadInput(f"{self.url} is not an address", "write couchdb+https://user@host:6984/database") from error
        if _is_certificate_error(error):
            raise ServerAway(
                f"the certificate of {self._host} is not trusted: {_why(error)}",
                "name your authority: …?cafile=/path/ca.pem, or set SSL_CERT_FILE",
            ) from error
        if not (harmless or _never_sent(error)):
            raise AnswerLost(
                f"no answer to {method} {path} at {self._host}: {_why(error)}", "it is read back"
            ) from error
        if last:
            raise ServerAway(
                f"{self._host} cannot be reached: {_why(error)}",
                "is the server up, and the URL right? tokenpool doctor",
            ) from error

    def judge_status(self, answer: Answer, method: str, path: str, harmless: bool, last: bool) -> None:
        """Return where the request may be sent again after a passing error; raise where it may not."""
        if answer.status != 429 and not harmless:
            raise AnswerLost(
                f"{method} {path} at {self._host}: {answer.status} {answer.reason()[1]}", "it is read back"
            )
        if last:
            raise ServerAway(f"{self._host} answers {answer.status}: {' '.join(answer.reason())}", "try again later")

    # --- connections ---------------------------------------------------------------------------------------------

    def _connections(self) -> urllib3.PoolManager:
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                # A forked child must not share sockets: two processes would read each other's answers.
                self._pool, self._pid = connection_pools(self.url, self.options), os.getpid()
            return self._pool

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            if self._pool is not None and self._pid == os.getpid():
                self._pool.clear()
            self._pool = None

    # --- who we are ------------------------------------------------------------------------------------------------

    def authorization(self) -> dict[str, str]:
        """Return the headers that say who we are; may log in."""
        if not self.options.username:
            return {}
        if not self._basic_only:
            with self._lock:
                fresh = self._cookie and time.monotonic() < self._renew_at
            if not fresh:
                self._log_in()
        if self._basic_only:
            plain = f"{self.options.username}:{self.options.password}".encode()
            return {"Authorization": "Basic " + base64.b64encode(plain).decode("ascii")}
        return {"Cookie": self._cookie}

    @property
    def has_cookie(self) -> bool:
        """We are logged in, or were until the server forgot it."""
        return bool(self._cookie)

    def forget_cookie(self) -> None:
        """Log in anew with the next request."""
        with self._lock:
            self._cookie = ""

    def _log_in(self) -> None:
        """Get a session cookie; a server without sessions is asked with the password every time."""
        form = json.dumps({"name": self.options.username, "password": self.options.password}).encode()
        response = self._connections().request(
            "POST",
            self.url + "/_session",
            body=form,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            retries=False,
            timeout=urllib3.Timeout(connect=self.options.connect_timeout, read=self.options.read_timeout),
        )
        if response.status in (401, 403):
            raise NotPermitted(
                f"{self._host} does not accept the password of {self.options.username!r}",
                "set TOKENPOOL_PASSWORD or TOKENPOOL_PASSWORD_FILE, or write it into ~/.netrc",
            )
        if response.status in PASSING:
            raise ServerAway(f"{self._host} answers {response.status} to a login", "try again later")
        cookie = response.headers.get("Set-Cookie", "")
        with self._lock:
            if response.status != 200 or "AuthSession=" not in cookie:
                self._basic_only = True
                return
            self._cookie = cookie.partition(";")[0]
            self._renew_at = time.monotonic() + RENEW_AT * _max_age(cookie)


def _max_age(cookie: str) -> float:
    for part in cookie.split(";"):
        name, _, value = part.strip().partition("=")
        if name.lower() == "max-age" and value.isdigit():
            return float(value)
    return 600.0  # CouchDB's default life of a session


def _root(error: BaseException) -> BaseException:
    """Return the first cause inside urllib3's wrappings."""
    inner = getattr(error, "original_error", None) or getattr(error, "reason", None)
    return _root(inner) if isinstance(inner, BaseException) else error


def _never_sent(error: HTTPError) -> bool:
    if isinstance(error, ProxyError):
        return isinstance(_root(error), (NewConnectionError, ConnectTimeoutError, OSError))
    return isinstance(error, (NewConnectionError, NameResolutionError, ConnectTimeoutError))


def _is_certificate_error(error: HTTPError) -> bool:
    return isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def _why(error: BaseException) -> str:
    text = str(_root(error))
    return text.rpartition(": ")[2] if "Failed to establish" in text else text

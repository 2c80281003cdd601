"""Speaks HTTP to a tokenpool server: who we are goes along with every request, and its clock comes back."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from ..errors import AnswerLost, BadInput, NotFound, NotPermitted, ServerAway, TokenpoolError
from .couchdb import reach
from .remote_errors import error_of
from .transport import Answer, Options, Transport

log = logging.getLogger(__name__)

#: Where the server's JSON API begins.
API = "/api/v1"
#: The header in which the server tells the pool's time, in seconds since 1970.
CLOCK = "Tokenpool-Clock"
EXAMPLE = "tokenpool+https://host, or tokenpool+https://user@host:8443/prefix"
_LOOPBACK = ("127.", "localhost", "[::1]", "::1")


class ServerTransport(Transport):
    """One server. A password without a user is an API token."""

    def authorization(self) -> dict[str, str]:
        """Return the header that says who we are: a server of ours is asked with it every time."""
        if self.options.username:
            plain = f"{self.options.username}:{self.options.password}".encode()
            return {"Authorization": "Basic " + base64.b64encode(plain).decode("ascii")}
        return {"Authorization": f"Bearer {self.options.password}"} if self.options.password else {}

    def learn_time(self, response: urllib3.BaseHTTPResponse, sent: float) -> None:
        """Learn the pool's clock: it was read between the question and the answer."""
        try:
            told = float(response.headers.get(CLOCK, ""))
        except ValueError:
            return
        self.clock_offset = min(max(self.clock_offset, told - time.time()), told - sent)

    def judge_status(self, answer: Answer, method: str, path: str, harmless: bool, last: bool) -> None:
        """Return where the request may be sent again after a passing error; raise where it may not."""
        told = error_of(_json(answer), answer.status)
        if told is None:
            super().judge_status(answer, method, path, harmless, last)
        elif answer.status != 429 and not harmless:
            raise AnswerLost(told.message, told.hint or "it is read back")
        elif last:
            raise ServerAway(told.message, told.hint or "try again later")

    def _pieces(self, response: urllib3.BaseHTTPResponse, chunk: int) -> Iterator[bytes]:
        """Yield the pieces of an answer; one that is not read to its end costs the connection."""
        whole = False
        try:
            yield from response.stream(chunk)
            whole = True
        except HTTPError as error:
            raise ServerAway(f"what came from {self.url} broke off: {error}", "try again") from error
        finally:
            if whole:
                response.release_conn()
            else:
                response.close()

    def expect(self, answer: Answer) -> Any:
        """Return what a good answer says; raise what another one means."""
        told = _json(answer)
        if answer.status < 300:
            return answer.json() if told is None else told
        error = error_of(told, answer.status)
        if answer.status == 401:
            raise NotPermitted(
                f"{self.url} does not know who asks" if error is None else error.message,
                "set TOKENPOOL_PASSWORD to an API token, or write tokenpool+https://user@host and give the password",
            )
        if error is not None:
            raise error
        if answer.status == 413:
            raise BadInput(f"that is too large for {self.url}", "send less at once; store large data elsewhere")
        if answer.status in (404, 405):
            raise NotFound(f"no tokenpool server answers at {self.url}", f"check the address: {EXAMPLE}")
        raise TokenpoolError(f"{self.url} answers {answer.status}", "is that a tokenpool server? tokenpool doctor")


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.data)
    except ValueError:
        return None


def parse_url(url: str, password: str | None = None) -> tuple[str, Options]:
    """Return (the server's address, how to reach it) of a pool's URL; raises BadInput.

    >>> parse_url("tokenpool+http://127.0.0.1:8080/lab/")[0]
    'http://127.0.0.1:8080/lab'
    """
    scheme, _, rest = url.partition("://")
    protocol = scheme.rpartition("+")[2]
    try:
        parts = urlsplit(f"{protocol}://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadInput(f"this is not the URL of a server: {error}", f"write {EXAMPLE}") from None
    if not host:
        raise BadInput(f"{scheme}:// names no server", f"write {EXAMPLE}")
    options = dict(parse_qsl(parts.query))
    if protocol == "http" and not host.startswith(_LOOPBACK):
        if options.get("insecure") != "true":
            raise BadInput(
                f"{host} would be sent your password in the clear",
                "use tokenpool+https://, or add ?insecure=true to the URL",
            )
        log.warning("what goes to %s can be read by everybody on the way: use tokenpool+https://", host)
    address = f"{protocol}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    secret = unquote(parts.password) if parts.password else password or ""
    return address + parts.path.rstrip("/"), Options(
        username=unquote(parts.username or ""), password=secret, **reach(options)
    )


def named(address: str, username: str) -> str:
    """Return the URL of the pool behind a server, without a password.

    >>> named("https://host/lab", "me")
    'tokenpool+https://me@host/lab'
    """
    return f"tokenpool+{address.replace('://', f'://{quote(username)}@' if username else '://', 1)}"


def query(path: str, **values: Any) -> str:
    """Return a path with its query; what is None is left out.

    >>> query("/a", x="b c", y=None)
    '/a?x=b%20c'
    """
    given: Mapping[str, Any] = {name: value for name, value in values.items() if value is not None}
    spelled = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in given.items())
    return f"{path}?{spelled}" if spelled else path

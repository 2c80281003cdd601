"""Asks what the server answers only when something happens, on connections of its own that `close` can cut."""

from __future__ import annotations

import math
import os
import threading
import time

import urllib3
from urllib3.exceptions import HTTPError, ReadTimeoutError

from .. import chance
from ..errors import TokenpoolError
from .connections import Cutter, connection_pools
from .transport import PASSING, Answer, Transport

#: Seconds without a sign of life after which the question is asked anew: a line that died tells nobody.
SILENCE = 70.0
#: A question that was held for so many seconds and then broke off was cut by a proxy; that is no failure.
HELD = 5.0


#: Seconds over which signs of life are counted.
WATCHED = 10.0


class Restless(Exception):
    """The server gives so many signs of life, `pace` a second, that the question costs it more than it is worth."""

    def __init__(self, pace: float) -> None:
        super().__init__(pace)
        self.pace = pace


class LongPolls:
    """Questions to one server that it holds. Safe from many threads, and in a forked child.

    A question is withdrawn where the server gives more than `most` signs of life a second: it gives one for every
    write into the database.
    """

    def __init__(self, transport: Transport, most: float = math.inf) -> None:
        self._transport, self._most = transport, most
        self._lock = threading.Lock()
        self._pools: urllib3.PoolManager | None = None
        self._pid = 0
        self._cutter = Cutter()
        self._closed = threading.Event()

    def ask(self, path: str, body: bytes, seconds: float) -> Answer | None:
        """POST a question and return the answer, None where none came within so many seconds.

        It is asked again where the line broke. Raises Restless, ServerAway, NotPermitted, TokenpoolError after `close`.
        """
        ends = time.monotonic() + seconds
        failures = renewals = 0
        while True:
            self._expect_open()
            began = time.monotonic()
            if began >= ends:
                return None
            problem: Answer | HTTPError
            try:
                problem = self._hold(path, body, ends)
            except ReadTimeoutError:
                continue
            except HTTPError as error:
                problem = error
            if isinstance(problem, Answer) and problem.status == 401 and not renewals and self._transport.has_cookie:
                renewals += 1
                self._transport.forget_cookie()
                continue
            if isinstance(problem, Answer) and problem.status not in PASSING:
                return problem
            failures = 1 if time.monotonic() - began > HELD else failures + 1
            self._judge(problem, path, failures)
            options = self._transport.options
            self.pause(chance.uniform(0, min(options.backoff_limit, options.backoff * 2**failures)))

    def _judge(self, problem: Answer | HTTPError, path: str, failures: int) -> None:
        self._expect_open()
        last = failures >= self._transport.options.attempts
        if isinstance(problem, Answer):
            self._transport.judge_status(problem, "POST", path, True, last)
        else:
            self._transport.judge(problem, "POST", path, True, last)

    def _hold(self, path: str, body: bytes, ends: float) -> Answer:
        transport = self._transport
        headers = {"Accept": "application/json", "Content-Type": "application/json", **transport.authorization()}
        sent = time.time()
        response = self._connections().request(
            "POST",
            transport.url + path,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=transport.options.connect_timeout, read=self._patience(ends)),
        )
        transport.learn_time(response, sent)
        try:
            pieces = []
            since, signs = time.monotonic(), 0
            for piece in response.stream(1 << 16):
                if piece.strip(b"\r\n"):
                    pieces.append(piece)
                else:
                    now = time.monotonic()
                    if now - since > WATCHED:
                        since, signs = now, 0
                    signs += piece.count(b"\n")
                    if signs > self._most * WATCHED:
                        raise Restless(signs / max(0.1, now - since))
                # Each sign of life starts the time-out of the socket anew; the end stays where it was.
                sock = getattr(response.connection, "sock", None)
                if sock is not None:
                    sock.settimeout(self._patience(ends))
            return Answer(response.status, response.headers, b"".join(pieces))
        except BaseException:
            # Not to be used again: the rest of an answer may still come.
            response.close()
            raise

    @staticmethod
    def _patience(ends: float) -> float:
        return max(0.001, min(SILENCE, ends - time.monotonic()))

    def pause(self, seconds: float) -> None:
        """Wait; `close` ends it, and raises here."""
        self._closed.wait(seconds)
        self._expect_open()

    def _expect_open(self) -> None:
        if self._closed.is_set():
            raise TokenpoolError(f"{self._transport.url} was closed by this process", "open the pool again")

    def _connections(self) -> urllib3.PoolManager:
        with self._lock:
            self._expect_open()
            if self._pools is None or self._pid != os.getpid():
                self._cutter = Cutter()
                self._pools = self._cutter.watch(connection_pools(self._transport.url, self._transport.options))
                self._pid = os.getpid()
            return self._pools

    def close(self) -> None:
        """End every question that is open, in whatever thread, and all that would be asked later."""
        self._closed.set()
        with self._lock:
            if self._pools is not None and self._pid == os.getpid():
                self._cutter.cut()
                self._pools.clear()
            self._pools = None

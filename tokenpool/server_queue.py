"""Sends tasks in the background, many at once, and knows which of them are there yet."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Any

from .errors import BadInput, TokenpoolError

Json = dict[str, Any]

#: Tasks sent in one request.
CHUNK = 500


class SendQueue:
    """Tasks on their way, sent in order by one thread, which lives while there are any."""

    def __init__(self, send: Callable[[list[Json]], list[str]]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._waiting: dict[str, Json] = {}
        self._refused: dict[str, str] = {}
        self._error: TokenpoolError | None = None
        self._thread: threading.Thread | None = None
        # A script that just ends has its tasks sent all the same.
        atexit.register(self._at_exit)

    def put(self, token: Json) -> None:
        """Send this one soon; raises what kept the ones before from being sent for good."""
        with self._changed:
            self._raise_error()
            self._waiting[token["_id"]] = token
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tokenpool-send", daemon=True)
                self._thread.start()

    def wait_for(self, token_id: str) -> None:
        """Wait until this one is there; raises BadInput where it was refused. One that is not ours is not waited for."""
        with self._changed:
            self._changed.wait_for(lambda: token_id not in self._waiting or self._error is not None)
            self._raise_error()
            if token_id in self._refused:
                raise BadInput(f"task {token_id} was refused: {self._refused[token_id]}", "create another one")

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all were sent; raises BadInput for the first refused one, once, and TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._waiting or self._error is not None, timeout):
                raise TimeoutError(f"{len(self._waiting)} tasks were not sent within {timeout:g} s")
            self._raise_error()
            refused, self._refused = self._refused, {}
        for token_id, why in refused.items():
            raise BadInput(f"{len(refused)} tasks were refused, first {token_id}: {why}", "create them anew")

    def close(self) -> None:
        """Nothing is sent at the end of the process any more."""
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._error is not None)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                some = list(self._waiting.values())[:CHUNK]
                if not some:
                    self._thread = None
                    return
            try:
                reasons = self._send(some)
            except TokenpoolError as error:
                with self._changed:
                    self._error, self._thread = error, None
                    self._changed.notify_all()
                return
            with self._changed:
                for token, why in zip(some, reasons):
                    del self._waiting[token["_id"]]
                    if why:
                        self._refused[token["_id"]] = why
                self._changed.notify_all()

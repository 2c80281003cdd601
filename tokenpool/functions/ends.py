"""One call as the worker sees it: waiting, in a host, ended. It stands where a command's child stands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..children import GRACE, Finished
from ..links import SupervisorLost

if TYPE_CHECKING:
    from .host_handle import Host
    from .hosts import Hosts


@dataclass(frozen=True)
class Answered(Finished):
    """How a call ended; `answer` is what its host said, None where the host ended instead."""

    answer: Mapping[str, Any] | None = field(default=None)


class Call:
    """A call that was handed in; may be asked from any thread, and killed."""

    def __init__(
        self,
        hosts: Hosts,
        number: int,
        request: bytes,
        timeout: float | None,
        on_end: Callable[[Any], None] | None = None,
        file: str = "",
    ) -> None:
        #: Where a large request lies.
        self.file = file
        self.number, self.request, self.timeout, self.on_end = number, request, timeout, on_end
        self.host: Host | None = None
        self.sent = False
        self.over = False
        #: Somebody wants it ended; the seconds between SIGTERM and SIGKILL.
        self.grace: float | None = None
        self.timed_out = False
        #: When its host took it (monotonic, and since 1970).
        self.took = self.began = 0.0
        self._hosts = hosts
        self._result: Finished | None = None
        self._done = threading.Event()

    @property
    def pid(self) -> int:
        """The process that it runs in; 0 until it does."""
        return self.host.child.pid if self.host is not None else 0

    def kill(self, grace: float = GRACE) -> None:
        """End it: SIGTERM to the tree of its host, and SIGKILL after `grace` seconds. Returns at once."""
        self._hosts.kill(self, grace)

    def wait(self) -> Finished:
        """Wait until it is over. Raises SupervisorLost."""
        self._done.wait()
        return self.result()

    def result(self) -> Finished:
        """Return how it ended, once it has. Raises SupervisorLost."""
        if self._result is None:
            raise SupervisorLost("The process of this call is gone, and its supervisor", "The token can be run again.")
        return self._result

    def settle(self, result: Finished | None) -> None:
        """Take note of the end; `tell` says it to who waits."""
        self._result, self.over, self.host = result, True, None

    def tell(self) -> None:
        """Release all who wait."""
        self._done.set()
        if self.on_end is not None:
            self.on_end(self)

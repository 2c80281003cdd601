"""A protocol server that keeps its data on disk, so that it can be killed and started again on the same port."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from couch_server import CouchServer


class KeptServer(CouchServer):
    """pouchdb-server with LevelDB below it; data and port stay from one start to the next."""

    packages = Path(__file__).resolve().parents[1] / "chaos_server"
    options: dict[str, Any] = {"adapter": "leveldb"}

    def __init__(self, admin: tuple[str, str] | None = None) -> None:
        super().__init__(admin)
        self.options = {**self.options, "port": urlsplit(self.url).port}
        self.restarts = 0

    def kill(self) -> None:
        """End it with SIGKILL, amid whatever it does; its data stay as they are at that moment."""
        self._http.clear()
        self._end_process()

    def start(self) -> None:
        """Start it again on its port and its data; return when it answers."""
        assert self._start_process() == self.options["port"]
        self.restarts += 1

    def freeze(self) -> None:
        """Stop it where it stands: connections stay open, nothing is answered."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

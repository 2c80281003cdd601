"""The worker that a workflow starts for itself, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

#: Seconds that a worker gets to leave, and for which one without a workflow stays.
GRACE, ORPHAN = 30.0, "2m"


class LocalWorker:
    """One `tokenpool work` with so many slots, for one batch. One without work for long leaves: its workflow may be dead."""

    def __init__(self, url: str, slots: int, batch: str, log: Path, cwd: str = "") -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        words = ["work", "--slots", str(slots), "--cpus", str(slots), "--batch", batch, "--idle-timeout", ORPHAN]
        words += ["--poll", "1s", "--allow-module", __package__ or ""]
        words += ["--cwd", cwd] if cwd else []
        self._command = [sys.executable, "-m", "tokenpool", *words]
        self._environment = {**os.environ, "TOKENPOOL_POOL": url}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.keep()

    def keep(self) -> str:
        """Start it unless it is there; return why it cannot be kept, empty where it can. One that was idle left with 0."""
        with self._lock:
            process = self._process
            if process is not None and process.poll() is None:
                return ""
            if process is not None and process.returncode != 0:
                said = self._log.read_bytes()[-400:].decode("utf-8", "replace").strip().rpartition("\n")[2]
                return f"the worker has ended with exit code {process.returncode}: {said} (see {self._log})"
            with self._log.open("ab") as file:
                self._process = subprocess.Popen(
                    self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                    start_new_session=True,
                )  # fmt: skip
            return ""

    def close(self) -> None:
        """End it: what it runs is given back."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

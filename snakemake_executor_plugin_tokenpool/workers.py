"""The worker that a workflow starts for itself, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

#: Seconds that a worker gets to leave, and for which one without a workflow stays.
GRACE, ORPHAN = 30.0, "2m"


class LocalWorker:
    """One `tokenpool work` with so many slots, for one batch. One whose workflow was killed leaves by itself."""

    def __init__(self, url: str, slots: int, batch: str, log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        words = ["work", "--slots", str(slots), "--cpus", str(slots), "--batch", batch, "--idle-timeout", ORPHAN]
        words += ["--poll", "1s", "--allow-module", __package__ or ""]
        with log.open("ab") as file:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                [sys.executable, "-m", "tokenpool", *words], env={**os.environ, "TOKENPOOL_POOL": url},
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def ended(self) -> str:
        """Return why the worker is not there any more; empty while it is."""
        if self._process is None or self._process.poll() is None:
            return ""
        said = self._log.read_bytes()[-400:].decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"the worker has ended with exit code {self._process.returncode}: {said} (see {self._log})"

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

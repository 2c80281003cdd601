"""Ends what `unshare --pid --fork` has started, whole."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path


def first_process(unshare: subprocess.Popen[bytes]) -> str:
    """Return the process that all others of the namespace are below; empty while there is none."""
    try:
        return Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().strip()
    except OSError:
        return ""


def end_namespace(unshare: subprocess.Popen[bytes]) -> None:
    """Kill all processes of the namespace, and return when there are none."""
    # The kernel reports the first one's end when all others have ended; `unshare` waits for nothing when it is killed.
    first = first_process(unshare) if unshare.poll() is None else ""
    if first:
        os.kill(int(first), signal.SIGKILL)
    else:
        unshare.kill()
    unshare.wait()

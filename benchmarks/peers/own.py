"""tokenpool on SQLite, as a user starts it: push, then one worker process that leaves when all is done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from base import COMMAND, Measured

from tokenpool.pool import connect


def version() -> str:
    return f"tokenpool {metadata.version('tokenpool')}"


def run(tokens: int, slots: int, folder: Path) -> Measured:
    url = f"sqlite:///{folder}/pool.db"
    with connect(url, create=True) as pool:
        began = time.perf_counter()
        pool.push([COMMAND] * tokens)
        command = [sys.executable, "-m", "tokenpool", "--pool", url, "work", "--slots", str(slots), "--quit"]
        environment = {**os.environ, "TMPDIR": str(folder)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took = time.perf_counter() - began
        docs = list(pool.backend.scan("done"))
    codes = sum(doc["exit_code"] == 0 for doc in docs)
    return Measured(took, codes, sum(len(doc["_attachments"]) for doc in docs), "SQLite: exit code, logs, history")

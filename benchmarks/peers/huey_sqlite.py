"""Huey on SQLite with worker processes; exit code and output are each task's stored result."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import time
from pathlib import Path

from base import Measured

HERE = Path(__file__).resolve().parent


def version() -> str:
    return f"Huey {importlib.metadata.version('huey')}"


def run(tokens: int, slots: int, folder: Path) -> Measured:
    os.environ["BENCH_HUEY"] = str(folder / "huey.db")
    import huey_app

    consumer = str(Path(sys.executable).with_name("huey_consumer"))
    if not Path(consumer).exists():
        consumer += ".py"
    began = time.perf_counter()
    handles = [huey_app.shell_token(number) for number in range(tokens)]
    command = [sys.executable, consumer, "huey_app.huey", f"-w{slots}", "-kprocess", "-q", "-d0.01", "-m0.05"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while huey_app.huey.storage.result_store_size() < tokens:
            time.sleep(0.02)
        took = time.perf_counter() - began
        process.terminate()
    results = [handle.get() for handle in handles]
    codes = sum(result is not None and result[0] == 0 for result in results)
    logs = sum(result is not None and len(result) == 3 for result in results)
    return Measured(took, codes, 2 * logs, "SQLite, results")

"""python-task-queue on a folder of files; it keeps only a count, so the task itself writes its three results."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import subprocess
import time
from functools import partial
from pathlib import Path

import taskqueue
from base import COMMAND, SHELL, Measured, files_below


def version() -> str:
    return f"python-task-queue {importlib.metadata.version('task-queue')}"


@taskqueue.queueable
def shell_token(number: int) -> None:
    with open(f"results/{number}.out", "wb") as out, open(f"results/{number}.err", "wb") as err:
        code = subprocess.run([SHELL, "-c", COMMAND], stdout=out, stderr=err, check=False).returncode
    Path(f"results/{number}.code").write_text(str(code))


def _work(address: str) -> None:
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    queue = taskqueue.TaskQueue(address)
    queue.poll(lease_seconds=600, tally=True, stop_fn=queue.is_empty, verbose=False)


def run(tokens: int, slots: int, folder: Path) -> Measured:
    results = folder / "results"
    results.mkdir()
    address = f"fq://{folder}/queue"
    began = time.perf_counter()
    taskqueue.TaskQueue(address).insert([partial(shell_token, number) for number in range(tokens)])
    workers = [multiprocessing.get_context("fork").Process(target=_work, args=(address,)) for _ in range(slots)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - began
    codes = sum(path.read_text() == "0" for path in results.glob("*.code"))
    return Measured(took, codes, files_below(results, "*.out", "*.err"), "three files each, written by the task")

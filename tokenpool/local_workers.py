"""Starts a worker on this machine for one executor, which imports what that submits, and ends it with the executor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

from .functions.exchange import RemoteError
from .pool import connect
from .runners.base import Policy
from .worker import Worker
from .worker_options import WorkerOptions

#: Seconds without a sign of life after which the tokens of a local worker come back, and starts of it that are tried.
LEASE, STARTS = 20.0, 3


class LocalWorkers:
    """The worker that an executor starts here: one process with a slot for each of its functions' processes."""

    def __init__(self, url: str, number: int, batch: str) -> None:
        self._url, self._number, self._batch = url, number, batch
        self._folder = tempfile.mkdtemp(prefix="tokenpool-") if number else ""
        self._modules: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._lock = threading.Lock()

    def knows(self, module: str) -> bool:
        """Tell whether a module belongs to a package whose functions were submitted."""
        return module.partition(".")[0] in {each.partition(".")[0] for each in self._modules}

    def allow(self, module: str) -> None:
        """Let the worker import a module."""
        with self._lock:
            if not module or module in self._modules:
                return
            self._modules.add(module)
            if self._number:
                path = os.path.join(self._folder, "modules")
                with open(f"{path}.part", "w", encoding="utf-8") as file:
                    file.write("\n".join(sorted(self._modules)))
                os.replace(f"{path}.part", path)

    def see_to_it(self) -> None:
        """Start the worker, again where it has ended; raises where it does so again and again."""
        if not self._number or (self._process is not None and self._process.poll() is None):
            return
        self._starts += 1
        log = os.path.join(self._folder, "worker.err")
        if self._starts > STARTS:
            with open(log, "rb") as file:
                said = file.read()[-500:].decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise RemoteError(f"the local worker has ended {STARTS} times: {said}")
        modules = os.path.join(self._folder, "modules")
        if not os.path.exists(modules):
            with open(modules, "w", encoding="utf-8"):
                pass
        paths = dict.fromkeys(os.path.abspath(path) for path in [*sys.path, os.path.dirname(os.path.dirname(__file__))])
        with open(log, "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from tokenpool.local_workers import work; work()"],
                stdin=subprocess.PIPE, stdout=errors, stderr=errors, start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )  # fmt: skip
        assert self._process.stdin is not None
        told = {"url": self._url, "slots": self._number, "batch": self._batch, "modules": f"@{modules}"}
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Let the worker end, and see that it does."""
        process, self._process, self._number = self._process, None, 0
        if process is not None:
            assert process.stdin is not None
            try:
                process.stdin.close()
            except OSError:
                pass
            try:
                process.wait(15.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def work() -> None:
    """Be the local worker of an executor, until it closes our standard input or is gone."""
    told = json.loads(sys.stdin.readline())
    policy = Policy(modules=(told["modules"],), pickles=True)
    with connect(told["url"]) as pool:
        options = WorkerOptions(
            slots=told["slots"], batches=(told["batch"],), lease=LEASE, grace=2.0, cleanup="always", policy=policy
        )
        worker = Worker(pool, options)

        def wait_for_end() -> None:
            sys.stdin.read()
            worker.stop()

        threading.Thread(target=wait_for_end, daemon=True).start()
        worker.run()

"""A worker of a Grid node has urllib3 and couchdb, and nothing else of what is installed elsewhere."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {elsewhere!r}:
            raise ModuleNotFoundError("no module named " + name)

sys.meta_path.insert(0, Nowhere())
from tokenpool.pool import connect
from tokenpool.worker import Worker, WorkerOptions

with connect("sqlite:///pool.db", create=True) as pool:
    pool.push("echo hi")
    print(Worker(pool, WorkerOptions(quit=True)).run().done)
"""
ELSEWHERE = {
    "click", "rich", "yaml", "cryptography", "tomli", "docker", "cwltool", "cloudpickle", "fsspec", "pydantic",
}  # fmt: skip


def test_a_worker_needs_no_library_of_other_uses() -> None:
    program = PROGRAM.format(elsewhere=ELSEWHERE)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr

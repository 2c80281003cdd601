"""The tasks of the Huey peer, as its consumer imports them."""

from __future__ import annotations

import os
import subprocess

from base import COMMAND, SHELL
from huey import SqliteHuey

# Every commit reaches the disk, as it does in a pool of tokenpool.
huey = SqliteHuey(filename=os.environ["BENCH_HUEY"], fsync=True)


@huey.task()
def shell_token(number: int) -> tuple[int, bytes, bytes]:
    done = subprocess.run([SHELL, "-c", COMMAND], capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr

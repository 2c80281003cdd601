"""A disk that is soon full, where the tests may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of that size."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = not subprocess.run(mount, capture_output=True, check=False).returncode
    except FileNotFoundError:
        done = False
    if not done:
        assert os.environ.get("TOKENPOOL_REQUIRE_ALL") != "1" or os.geteuid() != 0, "a small disk cannot be mounted"
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)

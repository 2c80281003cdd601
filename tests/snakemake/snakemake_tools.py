"""A workflow of the real Snakemake in the present folder, with a pool beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Workflow:
    """A workflow in the present folder, with a pool beside it."""

    pool: str

    def command(self, *words: object) -> list[str]:
        """Return the command line that runs it through the pool."""
        words = ("--executor", "tokenpool", "--tokenpool-pool", self.pool, "-j", 50, *words)
        return [sys.executable, "-m", "snakemake", *map(str, words)]

    @property
    def environment(self) -> dict[str, str]:
        """An environment in which Snakemake finds this checkout."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "TOKENPOOL_LEASE": "10"}

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(*words), env=self.environment, capture_output=True, text=True, timeout=240, check=False
        )

    def spawn(self, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a process that finds this checkout."""
        with log.open("ab") as file:
            return subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

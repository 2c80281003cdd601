"""What the tests of Snakemake share: the real Snakemake, and a workflow in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Snakemake looks for its plugins in the folders of the path; a checkout that was installed to be edited is in none of them.
sys.path.insert(0, str(ROOT))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the files alone whose imports cannot work here; `test_there_is_a_snakemake` tells about it."""
    if collection_path.name == "test_own_suite.py" and not has_snakemake():
        return True
    return None


def has_snakemake() -> bool:
    """Tell whether the real Snakemake is here."""
    try:
        import snakemake.common.tests  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture
def snakemake() -> None:
    """Insist on the real Snakemake."""
    if has_snakemake():
        return
    if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail("no Snakemake: pip install 'tokenpool[snakemake]'", pytrace=False)
    pytest.skip("no Snakemake: pip install 'tokenpool[snakemake]'")


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


@pytest.fixture
def workflow(snakemake: None, tmp_path: Path) -> Workflow:
    """An empty workflow."""
    return Workflow(f"sqlite:///{tmp_path}/pool.db")

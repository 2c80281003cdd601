"""What the tests of Snakemake share: the real Snakemake, and a workflow in a folder of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from snakemake_tools import ROOT, Workflow

# Snakemake looks for its plugins in the folders of the path; a checkout that was installed to be edited is in none of them.
sys.path.insert(0, str(ROOT))
sys.path += [str(ROOT / "tests" / name) for name in ("acceptance", "data")]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the files alone whose imports cannot work here; all other tests tell about it."""
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


@pytest.fixture
def workflow(snakemake: None, tmp_path: Path) -> Workflow:
    """An empty workflow."""
    return Workflow(f"sqlite:///{tmp_path}/pool.db")

"""A real systemd for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "acceptance"))

from service_tools import PYTHON, Manager, need

from tokenpool.sandbox import build


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """The systemd of this test's user."""
    need(shutil.which("systemctl") and Path("/lib/systemd/systemd").exists(), "systemd is not installed")
    need(os.geteuid() == 0, "a systemd beside the machine's own is started by root only")
    home = Path(os.environ["HOME"])
    monkeypatch.delenv("XDG_CONFIG_HOME")
    with Manager(home) as manager:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(manager.runtime))
        yield manager


@pytest.fixture(scope="module")
def desk() -> Iterator[Path]:
    """A folder that everybody may use, and tokenpool as one file in it; pytest's own folders are closed to others."""
    need(os.geteuid() == 0 and shutil.which("setpriv"), "only root can be somebody else: setpriv")
    need(os.access(PYTHON, os.X_OK), f"there is no {PYTHON}")
    with tempfile.TemporaryDirectory(prefix="desk-") as folder:
        os.chmod(folder, 0o777)
        build(Path(folder, "sandbox"), [PYTHON], None)
        os.chmod(Path(folder, "sandbox"), 0o755)
        yield Path(folder)

"""The real client of DIRAC in a virtual environment of its own: its libraries do not go together with ours."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from couch_server import REAL_ENVIRONMENT

VERSION = "9.1.22"
#: It is needed for Grid storage only, and compiles only where Grid libraries are.
OVERRIDES = "gfal2-python ; sys_platform == 'never'\n"
INSTALL_SECONDS = 580


class DiracMissing(Exception):
    """The client cannot be installed here; the text says why."""


def ensure_dirac() -> Path:
    """Install the client once; return the folder of its commands."""
    if shutil.which("swig") is None:
        raise DiracMissing("swig is not installed (Debian: apt install swig libssl-dev)")
    return ensure_venv(f"dirac-{VERSION}", [f"DIRAC=={VERSION}"])


def ensure_venv(name: str, requirements: Sequence[str]) -> Path:
    """Install something of DIRAC's once, by itself; return the folder of its commands."""
    if sys.version_info < (3, 11):
        raise DiracMissing("DIRAC needs Python 3.11 or newer")
    cache = Path(REAL_ENVIRONMENT.get("XDG_CACHE_HOME") or Path(REAL_ENVIRONMENT.get("HOME", "/root"), ".cache"))
    folder = cache / "tokenpool-tests" / f"{name}-{sys.version_info[0]}.{sys.version_info[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _install(folder, requirements)
            (folder / "complete").touch()
    return folder / "venv" / "bin"


def _install(folder: Path, requirements: Sequence[str]) -> None:
    (folder / "overrides").write_text(OVERRIDES)
    python = folder / "venv" / "bin" / "python"
    uv = [str(python), "-m", "uv", "pip", "install", "--quiet", "--python", str(python), "--overrides", "overrides"]
    for argv in (
        [sys.executable, "-m", "venv", "--clear", "venv"],
        [str(python), "-m", "pip", "install", "--quiet", "uv"],
        [*uv, *requirements],
    ):
        done = subprocess.run(
            argv, cwd=folder, env=dict(REAL_ENVIRONMENT), capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
        if done.returncode != 0:
            raise DiracMissing(f"{requirements[0]} cannot be installed: {done.stderr.strip()[-1000:]}")


def ask_dirac(commands: Path, folder: Path, verb: str, jdl: Path) -> Any:
    """Have DIRAC's own Python read a JDL: `expand` returns its jobs, `run` runs the first as its local mode does."""
    environment = {"PATH": f"{commands}:{os.defpath}", "HOME": str(folder), "LANG": "C.UTF-8"}
    script = Path(__file__).with_name("inside_dirac.py")
    answer = folder / "answer.json"
    done = subprocess.run(
        [str(commands / "python"), str(script), verb, str(jdl), str(answer)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert answer.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(answer.read_text())

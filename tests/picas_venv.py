"""Gives the tests the real picas from PyPI, in a virtual environment of its own that is made once and kept."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from couch_server import REAL_ENVIRONMENT, Unavailable

PICAS = "picas==1.1.2"
#: picas declares a notebook kernel and an old cryptography besides; without them these are all that it imports.
ALONE = [PICAS, "stopit", "couchdb", "setuptools<81"]
LIBRARIES = ["cryptography", "jsonschema", "pyyaml", "requests"]
INSTALL_SECONDS = 300


def picas_python() -> str:
    """Return a Python that imports picas; raises Unavailable where it cannot be installed."""
    cache = REAL_ENVIRONMENT.get("XDG_CACHE_HOME") or Path(REAL_ENVIRONMENT.get("HOME") or Path.home(), ".cache")
    version = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    folder = Path(cache, "tokenpool-tests", f"{PICAS.replace('==', '-')}-whole-{version}")
    python, complete = folder / "bin" / "python", folder / "complete"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*install, "--no-deps", *ALONE])
            _run([*install, *LIBRARIES])
            complete.touch()
    return str(python)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(
            command, env=dict(REAL_ENVIRONMENT), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=INSTALL_SECONDS, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"picas cannot be installed: {error.stdout.strip()[-1000:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"picas cannot be installed: {error}") from error


def picas_environment() -> dict[str, str]:
    """Return the environment of a picas process: nothing of ours on its path."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "PYTHONWARNINGS": "ignore"}

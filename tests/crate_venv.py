"""Gives the tests roc-validator from PyPI, in a virtual environment of its own that is made once and kept.

It wants an older rich than we do.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from couch_server import REAL_ENVIRONMENT, Unavailable

VALIDATOR = "roc-validator==0.13.0"
INSTALL_SECONDS = 600


def issues_of(crate: Path, severity: str = "REQUIRED") -> list[list[str]]:
    """Return what the validator has against a crate, as [check, severity, message, entity]; raises Unavailable."""
    context = Path(_module_folder("rocrate"), "data", "ro-crate.jsonld")
    script = Path(__file__).with_name("crate_check.py")
    done = subprocess.run(
        [validator_python(), str(script), str(crate), str(context), severity], capture_output=True, text=True, timeout=600,
        env={name: value for name, value in REAL_ENVIRONMENT.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["passed"] is not bool(told["issues"])
    issues: list[list[str]] = told["issues"]
    return issues


def validator_python() -> str:
    """Return a Python that imports the validator; raises Unavailable where it cannot be installed."""
    cache = REAL_ENVIRONMENT.get("XDG_CACHE_HOME") or Path(REAL_ENVIRONMENT.get("HOME") or Path.home(), ".cache")
    version = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    folder = Path(cache, "tokenpool-tests", f"{VALIDATOR.replace('==', '-')}-{version}")
    python, complete = folder / "bin" / "python", folder / "complete"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", VALIDATOR])
            complete.touch()
    return str(python)


def _module_folder(name: str) -> Path:
    import importlib.util

    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise Unavailable(f"the library {name} is not installed: pip install 'tokenpool[crate]'")
    return Path(found.origin).parent


def _run(command: list[str]) -> None:
    try:
        subprocess.run(
            command, env=dict(REAL_ENVIRONMENT), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=INSTALL_SECONDS, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{VALIDATOR} cannot be installed: {error.stdout.strip()[-1000:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{VALIDATOR} cannot be installed: {error}") from error

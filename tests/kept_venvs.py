"""Makes virtual environments of tools that cannot be installed beside ours; each is made once and kept."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from couch_server import REAL_ENVIRONMENT, Unavailable

INSTALL_SECONDS = 600


def kept_python(name: str, *installs: Sequence[str]) -> str:
    """Return the Python of an environment in which pip installed all of that; raises Unavailable where it cannot."""
    cache = REAL_ENVIRONMENT.get("XDG_CACHE_HOME") or Path(REAL_ENVIRONMENT.get("HOME") or Path.home(), ".cache")
    version = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    folder = Path(cache, "tokenpool-tests", f"{name}-{version}")
    python, complete = folder / "bin" / "python", folder / "complete"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            _run(name, [sys.executable, "-m", "venv", "--clear", str(folder)])
            for words in installs:
                _run(name, [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words])
            complete.touch()
    return str(python)


def _run(name: str, command: list[str]) -> None:
    try:
        subprocess.run(
            command, env=dict(REAL_ENVIRONMENT), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=INSTALL_SECONDS, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{name} cannot be installed: {error.stdout.strip()[-1000:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{name} cannot be installed: {error}") from error

"""The services of OpenStack in a virtual environment of their own: their libraries do not go together with ours."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from couch_server import REAL_ENVIRONMENT, Unavailable

#: Names the folder that keeps the environment from run to run.
CACHE = "TOKENPOOL_TEST_OPENSTACK"
PACKAGES = (
    "keystone==30.0.0",
    "nova==34.0.0",
    "glance==33.0.0",
    "openstack-placement==16.0.0",
    "neutron==29.0.0",
    "uwsgi==2.0.31",
    "pymysql==1.1.2",
)
INSTALL_SECONDS = 580


def ensure_openstack() -> Path:
    """Install the services once; return the environment's folder. Raises Unavailable."""
    if sys.version_info < (3, 11):
        raise Unavailable("these releases of OpenStack need Python 3.11 or newer")
    if shutil.which("gcc") is None:
        raise Unavailable("uwsgi is compiled here, and there is no gcc (Debian: apt install gcc python3-dev)")
    folder = _cache() / f"openstack-34-py{sys.version_info[0]}.{sys.version_info[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "complete"
        if not stamp.exists() or stamp.read_text() != "\n".join(PACKAGES):
            stamp.unlink(missing_ok=True)
            _install(folder)
            stamp.write_text("\n".join(PACKAGES))
    return folder / "venv"


def _cache() -> Path:
    named = REAL_ENVIRONMENT.get(CACHE)
    if named:
        return Path(named)
    base = REAL_ENVIRONMENT.get("XDG_CACHE_HOME") or Path(REAL_ENVIRONMENT.get("HOME", "/root"), ".cache")
    return Path(base) / "tokenpool-tests"


def _install(folder: Path) -> None:
    python = str(folder / "venv" / "bin" / "python")
    for argv in (
        [sys.executable, "-m", "venv", "--clear", "venv"],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"],
        [python, "-m", "uv", "pip", "install", "--quiet", "--python", python, *PACKAGES],
    ):
        try:
            done = subprocess.run(
                argv, cwd=folder, env={**os.environ, **REAL_ENVIRONMENT}, capture_output=True, text=True,
                timeout=INSTALL_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{' '.join(argv[:6])} took more than {INSTALL_SECONDS} s") from None
        if done.returncode != 0:
            raise Unavailable(f"OpenStack cannot be installed: {done.stderr.strip()[-1000:]}")

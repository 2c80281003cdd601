"""A root of Debian trixie with HTCondor in it: bookworm has no package of it, and the two do not mix."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from couch_server import REAL_ENVIRONMENT, Unavailable

SUITE, USER, UID = "trixie", "tester", 5001
NEEDED = ("debootstrap", "chroot", "unshare", "nsenter")
INSTALL_SECONDS = 590
DEFAULT_MIRROR = "http://deb.debian.org/debian/"
#: Inside of the root: nothing is started by packages, and only what is asked for is installed.
STEPS = (
    "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d",
    "apt-get update -q",
    "apt-get install -y -q --no-install-recommends condor python3",
    f"useradd --create-home --uid {UID} --shell /bin/bash {USER}",
    "apt-get clean && rm -rf /var/lib/apt/lists",
)


def ensure_root() -> Path:
    """Make the root where it is missing (a minute); return its folder. Raises Unavailable."""
    if os.getuid() != 0:
        raise Unavailable("only root can make a root of its own for HTCondor")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise Unavailable(f"no {', '.join(missing)} here (Debian: apt install debootstrap)")
    home = REAL_ENVIRONMENT.get("XDG_CACHE_HOME") or Path(REAL_ENVIRONMENT.get("HOME", "/root"), ".cache")
    folder = Path(home, "tokenpool-tests", f"condor-{SUITE}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder / "root", ignore_errors=True)
            _make(folder / "root")
            (folder / "complete").touch()
    return folder / "root"


def _make(root: Path) -> None:
    _call(["debootstrap", "--variant=minbase", SUITE, str(root), mirror()])
    for step in STEPS:
        # Its own /proc and /dev, which are gone with this command.
        inside = f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && exec chroot {root} sh -c '{{}}'"
        quoted = step.replace("'", "'\\''")
        _call(["unshare", "--mount", "sh", "-c", inside.replace("{}", quoted)])


def mirror() -> str:
    """Return where this machine gets Debian from."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    return next((url for url in said if url.rstrip("/").endswith("/debian")), DEFAULT_MIRROR)


def _call(argv: list[str]) -> None:
    environment = {**REAL_ENVIRONMENT, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"HTCondor's root took more than {INSTALL_SECONDS} s: {argv[0]}") from None
    if done.returncode != 0:
        raise Unavailable(f"HTCondor's root cannot be made: {(done.stdout + done.stderr).strip()[-1500:]}")


if __name__ == "__main__":
    print(ensure_root(), file=sys.stderr)

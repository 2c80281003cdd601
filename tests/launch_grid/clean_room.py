"""A root that holds nothing but one Python and busybox, as another user, without an environment, its home read-only."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from couch_server import REAL_ENVIRONMENT

NEEDED = ("unshare", "chroot", "mount", "busybox")
OLDEST, NEWEST = 9, 13
NOBODY = 65534
#: Where programs of C find their libraries: Python itself, and its extensions.
LIBRARIES = ("/lib", "/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")


def pythons_at_hand() -> dict[str, Path]:
    """Return the interpreters from 3.9 to 3.13 that this machine has, by version."""
    home = Path(REAL_ENVIRONMENT.get("HOME") or Path.home())
    found = {}
    for minor in range(OLDEST, NEWEST + 1):
        named = shutil.which(f"python3.{minor}", path=REAL_ENVIRONMENT.get("PATH"))
        here = [sys.executable] if sys.version_info[1] == minor else []
        installed = map(str, sorted((home / ".pyenv" / "versions").glob(f"3.{minor}.*/bin/python3")))
        for candidate in [*here, *installed, *([named] if named else [])]:
            said = _base(candidate)
            if said is not None:
                found[f"3.{minor}"] = said
                break
    return found


def _base(python: str) -> Path | None:
    """Return the interpreter behind a virtual environment or a version manager's command; None if it does not start."""
    code = "import os, sys; print(os.path.realpath(getattr(sys, '_base_executable', sys.executable)))"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, env=dict(REAL_ENVIRONMENT))
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def missing() -> str:
    """Return what keeps this machine from having a clean room; empty if nothing does."""
    if os.geteuid() != 0:
        return "only root can make a root of its own"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"{', '.join(absent)} is not installed" if absent else ""


@dataclass(frozen=True)
class Room:
    """The root; `job` is the only folder in it that can be written to."""

    root: Path
    python: Path

    @property
    def job(self) -> Path:
        return self.root / "job"

    def make(self) -> None:
        """Make the folders, and the commands of a shell script."""
        for name in ("job", "home/user", "bin", "usr/bin", "dev", "proc"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for library in self._mounts():
            (self.root / library.lstrip("/")).mkdir(parents=True, exist_ok=True)
        shutil.copy(shutil.which("busybox") or "", self.root / "bin" / "busybox")
        for name in ("sh", "tar", "chmod", "dirname", "mkdir", "cat", "env", "id"):
            (self.root / "bin" / name).symlink_to("busybox")
        (self.root / "usr/bin/env").symlink_to("/bin/busybox")
        shutil.copy(shutil.which("bash") or "", self.root / "bin" / "bash")
        (self.root / "home" / "user").chmod(0o555)
        os.chown(self.job, NOBODY, NOBODY)

    def run(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the job's folder, with nothing in its environment but what is given."""
        binds = [f"mount --bind {shlex.quote(path)} {shlex.quote(str(self.root) + path)}" for path in self._mounts()]
        binds.append(f"mount -t proc proc {shlex.quote(str(self.root / 'proc'))}")
        for device in ("null", "urandom"):
            (self.root / "dev" / device).touch()
            binds.append(f"mount --bind /dev/{device} {shlex.quote(str(self.root / 'dev' / device))}")
        words = [f"{name}={value}" for name, value in environment.items()]
        inside = shlex.join(["/bin/env", "-i", *words, "/bin/sh", "-c", f"cd /job && exec {shlex.join(argv)}"])
        away = f"exec chroot --userspec={NOBODY}:{NOBODY} --groups= {shlex.quote(str(self.root))} {inside}"
        script = " && ".join([*binds, away])
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def _mounts(self) -> list[str]:
        """The libraries, and the Python at its own place: it finds its parts by its path."""
        prefix = self.python.parents[1]
        own = ["/usr/bin", "/usr/lib"] if prefix == Path("/usr") else [str(prefix)]
        return list(dict.fromkeys([path for path in LIBRARIES if os.path.isdir(path)] + own))

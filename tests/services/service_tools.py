"""What tests of services share: what has to be here, and a real systemd of a user beside whatever runs this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

#: A Python that every account of this machine can reach.
PYTHON = "/usr/bin/python3"
CONFINED = Path(__file__).with_name("confined.sh")


def need(there: object, why: str) -> None:
    """Skip, or fail where all is to be there, unless something is."""
    if not there:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)


class Manager:
    """The systemd of a user with an empty home, in a control group of its own; to be used as a context manager."""

    def __init__(self, home: Path) -> None:
        # A socket's path may have 107 characters.
        self.runtime = Path(tempfile.mkdtemp(prefix="run"))
        self.log = home / "systemd.log"
        self._home, self._group = home, f"tokenpool-test-{os.getpid()}"
        self._others = _others()

    def __enter__(self) -> Manager:
        environment = {"HOME": str(self._home), "XDG_RUNTIME_DIR": str(self.runtime), "PATH": os.environ["PATH"]}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", str(CONFINED), self._group, "/lib/systemd/systemd", "--user"], env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 60
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                need(False, f"no systemd --user here: {self.log.read_text()[-500:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *exc: object) -> None:
        self.ask("exit", "--force")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.runtime, ignore_errors=True)
        for top in ("", "systemd"):
            for folder, _, _ in os.walk(f"/sys/fs/cgroup/{top}/{self._group}", topdown=False):
                os.rmdir(folder)
        assert _others() == self._others, "it has moved processes of others"

    def answers(self) -> bool:
        """Tell whether it is up."""
        return (self.runtime / "systemd" / "private").exists() and bool(self.ask("show", "--property=Version"))

    def ask(self, *words: str) -> str:
        """Return what its systemctl says."""
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime)}
        done = subprocess.run(
            ["systemctl", "--user", *words], env=environment, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def told(self, unit: str, what: str) -> str:
        """Return one property of a unit."""
        return self.ask("show", f"--property={what}", "--value", unit).strip()


def _others() -> str:
    """Return the control groups of a process that is certainly not ours."""
    return Path("/proc/1/cgroup").read_text()

"""A real computing element of the Grid on this machine: NorduGrid ARC with a certificate authority of its own."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = ("arcctl", "arcproxy", "arcsub", "arcstat", "openssl", "cc")
PARTS = "/usr/share/arc"
START_SECONDS = 60
CONFIGURATION = """
[common]
hostname = localhost
x509_host_key = {0}/hostkey.pem
x509_host_cert = {0}/hostcert.pem
x509_cert_dir = {0}/certificates
[authgroup:all]
file = {0}/allowed
[mapping]
map_to_user = all nobody:nogroup
[lrms]
lrms = fork
[arex]
controldir = {0}/control
sessiondir = {0}/session
logfile = {0}/log/arex.log
pidfile = {0}/arex.pid
joblog = {0}/log/jobs.log
delegationdb = sqlite
wakeupperiod = 3
[arex/ws]
wsurl = https://localhost:{1}/arex
logfile = {0}/log/ws.log
pidfile = {0}/ws.pid
[arex/ws/jobs]
allowaccess = all
[infosys]
logfile = {0}/log/infosys.log
[infosys/glue2]
[infosys/cluster]
[queue:fork]
"""


class ArcMissing(Exception):
    """This machine has no computing element; the text says what is missing."""


class ArcServer:
    """An A-REX that takes jobs by REST and runs them as `nobody` on this machine; its users have proxies."""

    def __init__(self, folder: Path) -> None:
        missing = [name for name in NEEDED if shutil.which(name) is None]
        if os.geteuid() != 0:
            raise ArcMissing("ARC starts jobs as other users: only root can start it")
        if missing or not Path(PARTS, "arc-arex-start").exists():
            raise ArcMissing(
                f"no {', '.join(missing) or 'arc-arex-start'}: apt install nordugrid-arc-arex and its client"
            )
        self.folder, self.port = folder, _free_port()
        self.url = f"https://localhost:{self.port}/arex"
        self._certificates = folder / "certificates"
        self._home = folder / "home"
        self._make()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def environment(self) -> dict[str, str]:
        """What a user's commands need."""
        return {
            "HOME": str(self._home),
            "X509_CERT_DIR": str(self._certificates),
            "X509_USER_PROXY": str(self.folder / "proxy.pem"),
        }

    @property
    def words(self) -> list[str]:
        """The options of arcsub that name this computing element."""
        return ["-C", self.url, "-T", "arcrest", "-Q", "NONE"]

    def log(self) -> str:
        """Return the last that its parts have written, for a test that fails."""
        return "\n".join(
            f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in self.folder.glob("log/*.log")
        )

    def outputs(self) -> str:
        """Return what the jobs have written, for a test that fails."""
        found = self.folder.glob("session/**/pilot.*")
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in found)

    def stop(self) -> None:
        """End the server, and its jobs: it leaves those alone that were cancelled before they ran."""
        for name in ("ws", "arex"):
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.folder / f"{name}.pid").read_text())
                os.kill(pid, signal.SIGKILL)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str((process / "cwd").readlink()).startswith(f"{self.folder}/session/"):
                    os.kill(int(process.name), signal.SIGKILL)

    # --- how it is made --------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        # Jobs run as nobody: the way to them must be open.
        for part in ("control", "session", "log", "home", "certificates"):
            (self.folder / part).mkdir(parents=True)
        for path in (self.folder, self.folder / "session"):
            path.chmod(0o755)
        authority = ["arcctl", "test-ca", "--ca-dir", str(self._certificates), "--ca-id", "tokenpool"]
        self._run(*authority, "init")
        self._run(*authority, "hostcert", "-n", "localhost", "-t")
        self._run("tar", "-xzf", "hostcert-localhost.tar.gz", "./hostcert.pem", "./hostkey.pem")
        self._run(*authority, "usercert", "-n", "user", "-t", "--no-auth")
        self._run("tar", "-xzf", "usercert-user.tar.gz", "--strip-components=1", "--wildcards", "*/user*.pem")
        subject = self._run("openssl", "x509", "-in", "usercert.pem", "-noout", "-subject", "-nameopt", "compat")
        (self.folder / "allowed").write_text(f'"{subject.partition("=")[2].strip()}"\n')
        key = ["-C", str(self.folder / "usercert.pem"), "-K", str(self.folder / "userkey.pem")]
        proxy = ["-P", str(self.folder / "proxy.pem"), "-T", str(self._certificates)]
        self._run("arcproxy", *key, *proxy, settings={**os.environ, **self.environment})
        # A server without it makes one, which takes minutes.
        self._run("openssl", "dhparam", "-out", str(self.folder / "control" / "dhparam.pem"), "-dsaparam", "2048")
        self._run("cc", "-shared", "-fPIC", "-o", "loopback.so", str(HERE / "loopback.c"), "-ldl")
        (self.folder / "arc.conf").write_text(CONFIGURATION.format(self.folder, self.port))

    def _start(self) -> None:
        settings = {
            **os.environ,
            "LD_PRELOAD": str(self.folder / "loopback.so"),
            "ARC_CONFIG": str(self.folder / "arc.conf"),
            "ARC_LOCATION": "/usr",
        }
        for part in ("arc-arex-start", "arc-arex-ws-start"):
            self._run(f"{PARTS}/{part}", settings=settings)
        context = ssl.create_default_context(cafile=str(self._certificates / "ARC-TestCA-tokenpool.pem"))
        until = time.monotonic() + START_SECONDS
        while not self._answers(context):
            if time.monotonic() > until:
                raise RuntimeError(f"the computing element does not answer: {self.log()}")
            select.select([], [], [], 0.1)

    def _answers(self, context: ssl.SSLContext) -> bool:
        try:
            with socket.create_connection(("localhost", self.port), 5) as plain:
                with context.wrap_socket(plain, server_hostname="localhost"):
                    return True
        except OSError:
            return False

    def _run(self, *argv: str, settings: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            argv, cwd=self.folder, env=settings, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        if done.returncode != 0:
            raise RuntimeError(f"{argv}: {done.stdout}{done.stderr}")
        return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

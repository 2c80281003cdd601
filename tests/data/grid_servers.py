"""Grid storage on loopback: real xrootd servers, a certificate authority of their own, and proxies made by ARC's tools."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_PROGRAMS = ("xrootd", "arcctl", "arcproxy", "gcc")
_PACKAGES = "apt-get install xrootd-server nordugrid-arc-arcctl nordugrid-arc-client gcc"
_COMMON = """\
all.export /data
oss.localroot {root}
xrd.port {port}
all.adminpath {home}/admin
all.pidpath {home}/admin
xrd.network nodnr
xrootd.chksum max 2 adler32 md5
"""
_GSI = """\
xrootd.seclib libXrdSec.so
sec.protocol gsi -certdir:{ca} -cert:{cert} -key:{key} -gridmap:{gridmap} -crl:0 -gmapopt:2 -vomsat:0
sec.protbind * only gsi
xrd.tls {cert} {key}
xrd.tlsca certdir {ca}
xrd.protocol http:{http_port} libXrdHttp.so
http.cert {cert}
http.key {key}
http.cadir {ca}
http.gridmap {gridmap}
http.listingdeny no
acc.authdb {authdb}
ofs.authorize 1
"""
# xrootd has no option to listen on one address only.
_LOOPBACK = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

int bind(int fd, const struct sockaddr *given, socklen_t length) {
  static int (*real)(int, const struct sockaddr *, socklen_t);
  struct sockaddr_storage changed;
  if (!real) real = dlsym(RTLD_NEXT, "bind");
  if (!given || length > sizeof changed) return real(fd, given, length);
  memcpy(&changed, given, length);
  if (given->sa_family == AF_INET) {
    struct sockaddr_in *place = (struct sockaddr_in *)&changed;
    if (place->sin_addr.s_addr == INADDR_ANY) place->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  } else if (given->sa_family == AF_INET6) {
    struct sockaddr_in6 *place = (struct sockaddr_in6 *)&changed;
    if (!memcmp(&place->sin6_addr, &in6addr_any, sizeof in6addr_any)) place->sin6_addr = in6addr_loopback;
  }
  return real(fd, (struct sockaddr *)&changed, length);
}
"""


def need(what: bool, why: str) -> None:
    """Skip with a reason, or fail where everything has to be there."""
    if not what and os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail(why)
    if not what:
        pytest.skip(why)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the tests, with one host and some users."""

    home: Path

    @property
    def certificates(self) -> Path:
        """The folder for X509_CERT_DIR."""
        return self.home / "ca"

    @property
    def host_cert(self) -> Path:
        """The certificate of ``localhost``."""
        return self.home / "host-localhost-cert.pem"

    @property
    def host_key(self) -> Path:
        """The key of ``localhost``."""
        return self.home / "host-localhost-key.pem"

    def proxy(self, user: str, hours: int = 12, name: str = "") -> Path:
        """Make a proxy of a user and return its file; one with negative `hours` ended that long ago."""
        path = self.home / f"proxy-{name or user}"
        begin = time.time() + min(hours, 0) * 3600 - 7200
        spans = [f"validityStart={_utc(begin)}", f"validityEnd={_utc(begin + 7200 + max(hours, 0) * 3600)}"]
        command = ["arcproxy", "-C", self._of(user, "cert"), "-K", self._of(user, "key"), "-P", str(path)]
        command += ["-T", str(self.certificates)]
        for span in spans:
            command += ["-c", span]
        _call(command, self.home)
        return path

    def subject(self, user: str) -> str:
        """Return who a user is to a server."""
        answer = _call(["openssl", "x509", "-noout", "-subject", "-nameopt", "compat", "-in", self._of(user, "cert")])
        return answer.partition("=")[2].strip()

    def _of(self, user: str, what: str) -> str:
        return str(self.home / f"client-{user}-{what}.pem")


def authority(home: Path, users: tuple[str, ...] = ("ann", "bob")) -> Authority:
    """Make an authority with a certificate for localhost and for each of the users."""
    for program in _PROGRAMS:
        need(shutil.which(program) is not None, f"no {program} here: {_PACKAGES}")
    home.mkdir(parents=True)
    made = Authority(home)
    front = ["arcctl", "test-ca", "--ca-dir", str(made.certificates), "--ca-id", home.name]
    _call([*front, "init"], home)
    _host_certificate(made)
    for user in users:
        _call([*front, "usercert", "-n", user], home)
    return made


@dataclass(frozen=True)
class GridServer:
    """A running xrootd: where it keeps its files, and its URLs."""

    files: Path
    port: int
    http_port: int = 0

    @property
    def root(self) -> str:
        """The URL of its folder of data, by XRootD's own protocol."""
        return f"root://localhost:{self.port}//data/"

    @property
    def davs(self) -> str:
        """The same folder by WebDAV over TLS."""
        return f"davs://localhost:{self.http_port}/data/"


@contextlib.contextmanager
def xrootd(signed_by: Authority | None = None, user: str = "ann") -> Iterator[GridServer]:
    """Run an xrootd server: open to all, or with `signed_by` over root and davs to `user` alone, bob may only read."""
    need(shutil.which("xrootd") is not None, f"no xrootd here: {_PACKAGES}")
    need(os.geteuid() == 0, "xrootd drops root's rights, so the tests have to be root")
    # Not in pytest's folder: whoever runs pytest meanwhile shuts that to all others, and the server is nobody.
    with tempfile.TemporaryDirectory(prefix="xrootd-") as folder, _running(Path(folder), signed_by, user) as server:
        yield server


@contextlib.contextmanager
def _running(home: Path, signed_by: Authority | None, user: str) -> Iterator[GridServer]:
    files = home / "files"
    (files / "data").mkdir(parents=True)
    (home / "admin").mkdir()
    ports = _free_port(), _free_port() if signed_by else 0
    text = _COMMON.format(root=files, port=ports[0], home=home)
    if signed_by:
        text += _secured(home, signed_by, user, ports[1])
    (home / "xrootd.cfg").write_text(text)
    _own(home)
    (home / "log").mkdir()
    shutil.chown(home / "log", "nobody")
    command = ["xrootd", "-c", str(home / "xrootd.cfg"), "-R", "nobody", "-I", "v4", "-l", str(home / "log" / "xrootd")]
    environ = {**os.environ, "LD_PRELOAD": str(_loopback_library(home))}
    with _visible_to_all(home):
        child = subprocess.Popen([*command, "-p", str(ports[0])], env=environ, cwd=home, stdout=subprocess.DEVNULL)
        try:
            for port in filter(None, ports):
                _wait_for(port, child, home / "log")
            yield GridServer(files / "data", *ports)
        finally:
            child.kill()
            child.wait()


def gfal2_bindings(home: Path) -> Path | None:
    """Return a folder for PYTHONPATH that shows this Python the system's gfal2 bindings; None: there are none for it."""
    tag = f"cpython-{sys.version_info[0]}{sys.version_info[1]}-"
    found = sorted(Path("/usr/lib/python3/dist-packages").glob(f"gfal2.{tag}*.so"))
    if not found:
        return None
    folder = home / "gfal2-bindings"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / found[0].name
    if not link.exists():
        link.symlink_to(found[0])
    return folder


def grid_environ(authority: Authority, proxy: Path | None) -> dict[str, str]:
    """Return the environment of somebody who holds a proxy, or none."""
    environ = {"X509_CERT_DIR": str(authority.certificates)}
    environ["X509_USER_PROXY"] = str(proxy or authority.home / "no-proxy")
    return environ


def _host_certificate(made: Authority) -> None:
    """Sign a certificate for all addresses that the tests call this machine by; ARC's tool knows one name only."""
    front = made.certificates / f"ARC-TestCA-{made.home.name}"
    asked, names = made.home / "host.csr", made.home / "host.ext"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:127.0.0.2")
    subject = "/DC=org/DC=nordugrid/DC=ARC/O=TestCA/CN=localhost"
    ask = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", subject]
    _call([*ask, "-keyout", str(made.host_key), "-out", str(asked)])
    sign = ["openssl", "x509", "-req", "-days", "30", "-sha256", "-CA", f"{front}.pem", "-CAkey", f"{front}-key.pem"]
    sign += ["-set_serial", "4711", "-in", str(asked), "-extfile", str(names), "-out", str(made.host_cert)]
    _call(sign)


def _secured(home: Path, signed_by: Authority, user: str, http_port: int) -> str:
    people = [(signed_by.subject(name), name) for name in ("ann", "bob")]
    gridmap, authdb = home / "gridmap", home / "authdb"
    gridmap.write_text("".join(f'"{subject}" {name}\n' for subject, name in people))
    authdb.write_text(f"u {user} /data a\nu bob /data rl\n")
    for each in (signed_by.host_cert, signed_by.host_key):
        shutil.copy(each, home)
    shutil.copytree(signed_by.certificates, home / "ca", symlinks=False)
    (home / signed_by.host_key.name).chmod(0o400)
    names = {"cert": home / signed_by.host_cert.name, "key": home / signed_by.host_key.name, "ca": home / "ca"}
    return _GSI.format(gridmap=gridmap, authdb=authdb, http_port=http_port, **names)


def _loopback_library(home: Path) -> Path:
    source, library = home / "loopback.c", home / "loopback.so"
    source.write_text(_LOOPBACK)
    _call(["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], home)
    library.chmod(0o755)
    return library


@contextlib.contextmanager
def _visible_to_all(home: Path) -> Iterator[None]:
    """Let the server, which is nobody, go down to its folder: pytest's own are shut to others."""
    changed: list[tuple[Path, int]] = []
    for folder in (home, *home.parents):
        mode = folder.stat().st_mode & 0o7777
        if not mode & 0o001:
            folder.chmod(mode | 0o011)
            changed.append((folder, mode))
    try:
        yield
    finally:
        for folder, mode in changed:
            folder.chmod(mode)


def _own(home: Path) -> None:
    for each in (home, *home.rglob("*")):
        shutil.chown(each, "nobody")


def _wait_for(port: int, child: subprocess.Popen[Any], log: Path) -> None:
    until = time.monotonic() + 60
    pause = 0.02
    while time.monotonic() < until and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        # Nothing tells when a server of another make begins to listen.
        time.sleep(pause)
    said = "".join(each.read_text(errors="replace")[-3000:] for each in log.rglob("*") if each.is_file())
    pytest.fail(f"xrootd did not start on port {port}: {said}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _call(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.fail(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout

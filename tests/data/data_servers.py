"""Real servers of data on loopback, each a context manager that yields where it is and how one gets in.

::

    with s3_moto(folder) as server:
        Storages({server.url: server.options}).of(f"{server.url}/x")

Each takes an empty folder to keep its data and logs in, and raises `Missing` where a program of it is not installed.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Seconds within which a server answers.
PATIENCE = 60.0
USER, PASSWORD = "ann", "open-sesame-77"


class Missing(Exception):
    """A program or library that a server needs is not here."""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    #: The URL of an empty place, without a slash at its end.
    url: str
    #: What a storage needs to get in, and the same as an environment where the protocol has one.
    options: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    #: Further ports on which data comes.
    more_ports: tuple[int, ...] = ()
    #: The folder that is served, where there is one.
    folder: Path = Path()

    def at(self, host: str, port: int | None = None) -> Server:
        """Return the same server as seen through another address."""
        parts = urlsplit(self.url)
        was, now = f"127.0.0.1:{self.port}", f"{host}:{port or self.port}"
        options = {
            name: value.replace(was, now) if isinstance(value, str) else value for name, value in self.options.items()
        }
        environ = {name: value.replace(was, now) for name, value in self.environ.items()}
        url = parts._replace(netloc=parts.netloc.replace(was, now)).geturl()
        return Server(url, options, environ, port or self.port, self.more_ports, self.folder)


def free_ports(count: int = 1) -> list[int]:
    """Return ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


# --- S3 ----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def s3_moto(folder: Path) -> Iterator[Server]:
    """Moto's S3: it knows all of the protocol, and does not look at credentials."""
    _library("moto.server", "moto[server]")
    (port,) = free_ports()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, folder / "moto.log", port):
        yield _bucket(port, "AKIAMOTO", "any-secret-will-do", "pail")


@contextlib.contextmanager
def s3_swift(folder: Path) -> Iterator[Server]:
    """OpenStack Swift with its S3 face: a real store, which checks credentials."""
    for program in ("swift-proxy-server", "swift-object-server", "memcached"):
        _program(program, "swift-proxy swift-account swift-container swift-object memcached")
    names = ("proxy", "account", "container", "object", "memcached")
    ports = dict(zip(names, free_ports(5)))
    etc = _swift_settings(folder, ports)
    log = folder / "swift.log"
    with contextlib.ExitStack() as stack:
        memcached = ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(ports["memcached"]), "-U", "0"]
        stack.enter_context(_running(memcached, log, ports["memcached"]))
        for name in ("account", "container", "object", "proxy"):
            program = [shutil.which(f"swift-{name}-server") or "", str(etc / f"{name}.conf")]
            stack.enter_context(_running(program, log, ports[name], wait=name == "proxy"))
        for name in ("account", "container", "object"):
            _answers(ports[name])
        yield _bucket(ports["proxy"], "test:tester", "testing-secret", "pail")


_RINGS = """
import sys
from swift.common.ring import RingBuilder
for path, port in zip(sys.argv[1::2], sys.argv[2::2]):
    ring = RingBuilder(4, 1, 0)
    ring.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1", weight=1, meta="",
                      replication_ip="127.0.0.1", replication_port=int(port)))
    ring.rebalance()
    ring.get_ring().save(path + ".ring.gz")
"""


def _bucket(port: int, key: str, secret: str, bucket: str) -> Server:
    from botocore.config import Config
    from botocore.session import get_session

    endpoint = f"http://127.0.0.1:{port}"
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10, "mode": "standard"})
    client = get_session().create_client(
        "s3", "us-east-1", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, config=config
    )
    client.create_bucket(Bucket=bucket)
    client.close()
    options = {"endpoint_url": endpoint, "key": key, "secret": secret}
    environ = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return Server(f"s3://{bucket}", options, environ, port)


def _swift_settings(folder: Path, ports: Mapping[str, int]) -> Path:
    etc, node = folder / "etc", folder / "node"
    etc.mkdir()
    (node / "d1").mkdir(parents=True)
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n"
        "[storage-policy:0]\nname = gold\ndefault = yes\n"
    )
    common = f"[DEFAULT]\nbind_ip = 127.0.0.1\nswift_dir = {etc}\nworkers = 0\nuser = root\n"
    for name in ("account", "container", "object"):
        (etc / f"{name}.conf").write_text(
            f"{common}bind_port = {ports[name]}\ndevices = {node}\nmount_check = false\n"
            f"[pipeline:main]\npipeline = {name}-server\n[app:{name}-server]\nuse = egg:swift#{name}\n"
        )
    # Debian's Python has Swift's library; its command for rings would start nine times.
    rings = [str(part) for name in ("account", "container", "object") for part in (etc / name, ports[name])]
    done = subprocess.run(["/usr/bin/python3", "-c", _RINGS, *rings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    middle = {
        "catch_errors": "", "cache": f"memcache_servers = 127.0.0.1:{ports['memcached']}\n", "listing_formats": "",
        "bulk": "", "s3api": "s3_acl = no\ncheck_bucket_owner = no\n",
        "tempauth": "user_test_tester = testing-secret .admin\nuser_test_guest = guest-secret\n"
        "storage_url_scheme = http\n",
        "copy": "", "slo": "", "dlo": "",
    }  # fmt: skip
    text = f"{common}bind_port = {ports['proxy']}\n[pipeline:main]\npipeline = {' '.join(middle)} proxy-server\n"
    for name, settings in middle.items():
        text += f"[filter:{name}]\nuse = egg:swift#{'memcache' if name == 'cache' else name}\n{settings}"
    (etc / "proxy.conf").write_text(f"{text}[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n")
    return etc


# --- HTTP --------------------------------------------------------------------------------------------------------------


class _Files(SimpleHTTPRequestHandler):
    """A folder's files with ranges, which the standard library's server lacks; /secret asks for a password."""

    protocol_version = "HTTP/1.1"

    def send_head(self) -> Any:
        if self.path.startswith("/secret") and self.headers.get("Authorization") != self.server.ticket:  # type: ignore[attr-defined]
            return self._refuse(401)
        if self.path.startswith("/forbidden"):
            return self._refuse(403)
        path = Path(self.translate_path(self.path))
        asked = self.headers.get("Range", "")
        if not asked or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        first, _, last = asked.partition("=")[2].partition("-")
        start, end = int(first), min(int(last or size - 1), size - 1)
        if start >= size:
            return self._refuse(416)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
        file.seek(start)
        return _Limited(file, end + 1 - start)

    def _refuse(self, status: int) -> None:
        self.send_error(status)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Limited:
    """The first bytes of what is left of a file."""

    def __init__(self, file: Any, left: int) -> None:
        self._file, self._left = file, left

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


@contextlib.contextmanager
def http_files(folder: Path) -> Iterator[Server]:
    """A web server of a folder, read only."""
    import base64

    (folder / "www").mkdir()
    server = _Quiet(("127.0.0.1", 0), partial(_Files, directory=str(folder)))
    server.ticket = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    port = server.server_address[1]
    try:
        yield Server(f"http://127.0.0.1:{port}/www", port=port, folder=folder / "www")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- FTP ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ftps_files(folder: Path) -> Iterator[Server]:
    """The same with TLS for both connections, and a certificate of its own."""
    _library("OpenSSL", "pyopenssl")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,IP:127.0.0.2"]
    keys = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = ["openssl", "req", "-x509", "-days", "2", *names, *keys]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    (folder / "both.pem").write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    with ftp_files(folder, tls=folder / "both.pem") as plain:
        options = {**plain.options, "ca_file": str(folder / "cert.pem")}
        yield replace(plain, url=plain.url.replace("ftp://", "ftps://"), options=options)


@contextlib.contextmanager
def ftp_files(folder: Path, tls: Path | None = None) -> Iterator[Server]:
    """An FTP server; its folder /forbidden may be looked at, and nothing else."""
    _library("pyftpdlib", "pyftpdlib")
    for name in ("all", "all/files", "all/forbidden"):
        (folder / name).mkdir()
    (folder / "all" / "forbidden" / "x").write_bytes(b"x")
    port, *more = free_ports(13)
    program = Path(__file__).with_name("ftp_program.py")
    command = [sys.executable, str(program), USER, PASSWORD, str(port), ",".join(map(str, more)), str(folder / "all")]
    with _running([*command, *([str(tls)] if tls else [])], folder / "ftp.log", port):
        options = {"username": USER, "password": PASSWORD}
        yield Server(f"ftp://127.0.0.1:{port}/files", options, {}, port, tuple(more), folder / "all" / "files")


# --- SFTP --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sftp_files(folder: Path) -> Iterator[Server]:
    """OpenSSH's SFTP; root's server serves the user nobody, who may do less than root."""
    sshd = _program("sshd", "openssh-server")
    user = "nobody" if os.getuid() == 0 else getpass.getuser()
    (port,) = free_ports()
    for name in ("host", "own"):
        keys = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(keys, check=True, stdin=subprocess.DEVNULL)
    # What nobody reads cannot be in a folder of root's alone, as pytest's are.
    home = Path(tempfile.mkdtemp(prefix="tokenpool-sftp-"))
    home.chmod(0o755)
    (home / "files").mkdir()
    (home / "keys").write_bytes((folder / "own.pub").read_bytes())
    (home / "forbidden").mkdir()
    (home / "forbidden" / "x").write_bytes(b"x")
    (home / "forbidden").chmod(0o700 if os.getuid() == 0 else 0)
    if os.getuid() == 0:
        shutil.chown(home / "files", user)
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd.conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {home}/keys\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"AllowUsers {user}\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
    )
    options = {"username": user, "key_filename": str(folder / "own"), "allow_agent": False, "look_for_keys": False}
    try:
        with _running([sshd, "-D", "-e", "-f", str(folder / "sshd.conf")], folder / "sshd.log", port):
            yield Server(f"sftp://127.0.0.1:{port}{home}/files", options, {}, port, (), home / "files")
    finally:
        (home / "forbidden").chmod(0o700)
        shutil.rmtree(home)


# --- WebDAV ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def webdav_files(folder: Path) -> Iterator[Server]:
    """A WebDAV server with a password; nobody may write to /forbidden."""
    _library("wsgidav", "wsgidav cheroot")
    _library("cheroot", "wsgidav cheroot")
    for name in ("files", "forbidden"):
        (folder / name).mkdir()
    (folder / "forbidden" / "x").write_bytes(b"x")
    (port,) = free_ports()
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "server": "cheroot",
        "server_args": {"numthreads": 12},
        "provider_mapping": {
            "/files": str(folder / "files"),
            "/forbidden": {"root": str(folder / "forbidden"), "readonly": True},
        },
        "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
        "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
        "verbose": 2,
    }
    (folder / "webdav.json").write_text(json.dumps(settings))
    command = [sys.executable, "-c", "from wsgidav.server.server_cli import run; run()"]
    with _running([*command, "--config", str(folder / "webdav.json")], folder / "webdav.log", port):
        options = {"username": USER, "password": PASSWORD}
        yield Server(f"webdav://127.0.0.1:{port}/files", options, {}, port, (), folder / "files")


# --- processes ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _running(command: list[str], log: Path, port: int, wait: bool = True) -> Iterator[None]:
    """Run a server until the body ends; it is ready when its port answers."""
    with open(log, "ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=log.parent)
    try:
        if wait:
            _answers(port, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int, process: subprocess.Popen[bytes] | None = None, log: Path | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            ended = process is not None and process.poll() is not None
            said = log.read_text("utf-8", "replace")[-2000:] if log else ""
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"nobody answers on port {port}: {said}") from None
            time.sleep(0.02)


def _program(name: str, packages: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        raise Missing(f"no {name}: apt-get install {packages}")
    return found


def _library(name: str, package: str) -> None:
    import importlib.util

    try:
        found = importlib.util.find_spec(name)
    except ImportError:
        found = None
    if found is None:
        raise Missing(f"no {name}: pip install '{package}'")

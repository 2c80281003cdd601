"""Starts real container engines for tests, each on private paths: dockerd, and Podman behind its socket."""

from __future__ import annotations

import base64
import http.client
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import docker

#: The image of all tests: nothing but busybox, made here, so that no registry is needed.
IMAGE = "localhost/tokenpool-test:1"
#: Machines without CAP_SYS_RESOURCE refuse the limits that engines choose by themselves.
LIMITS = ("nofile=16384:16384", "nproc=32768:32768")
PODMAN = f"""
[containers]
default_ulimits = ["{LIMITS[0]}", "{LIMITS[1]}"]
netns = "none"
default_sysctls = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/data"
runroot = "{folder}/run"
"""
REGISTRIES = """
[[registry]]
location = "127.0.0.1:{port}"
insecure = true
"""


class Missing(Exception):
    """This machine cannot run the engine."""


class EngineServer:
    """One engine in an own folder, to be used as a context manager."""

    def __init__(self, name: str, folder: Path, registry_port: int = 5001) -> None:
        self.name, self.folder, self.registry_port = name, folder, registry_port
        self.socket = folder / "engine.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EngineServer:
        program = {"docker": "dockerd", "podman": "podman"}[self.name]
        found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found is None:
            raise Missing(f"{program} is not installed")
        if os.geteuid() != 0:
            raise Missing(f"{program} is started by root only")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = open(self.folder / "log", "ab")
        argv, env = getattr(self, f"_{self.name}")(found)
        self._process = subprocess.Popen(
            argv, cwd=self.folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True,
        )  # fmt: skip
        try:
            self._wait()
            self._import()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.log.close()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([each for each in mounts if each.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self) -> docker.DockerClient:
        """Return a client of its own kind, to be closed."""
        return docker.DockerClient(base_url=self.url, timeout=60)

    def _docker(self, program: str) -> tuple[list[str], dict[str, str]]:
        argv = [program, "--host", self.url, "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec",
                "--pidfile", f"{self.folder}/pid", "--iptables=false", "--ip6tables=false", "--bridge=none",
                "--ip-forward=false", "--ip-masq=false", "--default-ulimit", LIMITS[0]]  # fmt: skip
        return argv, {}

    def _podman(self, program: str) -> tuple[list[str], dict[str, str]]:
        files = {"CONTAINERS_CONF": PODMAN, "CONTAINERS_STORAGE_CONF": STORAGE.format(folder=self.folder),
                 "CONTAINERS_REGISTRIES_CONF": REGISTRIES.format(port=self.registry_port)}  # fmt: skip
        for variable, text in files.items():
            (self.folder / variable).write_text(text)
        policy = self.folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        env = {variable: str(self.folder / variable) for variable in files}
        return [program, "system", "service", "-t", "0", self.url], env

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                raise Missing(f"{self.name} ended: {self.tail()}")
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self.socket)) == 0:
                    return
            if time.monotonic() > end:
                raise Missing(f"{self.name} did not answer: {self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        """Return the end of what it said."""
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def _import(self) -> None:
        client = self.client()
        try:
            import_image(client, busybox_tar(), IMAGE)
        finally:
            client.close()


class RegistryServer:
    """A registry of images on loopback that asks for user and password, to be used as a context manager."""

    USER, PASSWORD = "ann", "opensesame"
    _HASH = "$2b$04$irV7VOpVtLAwD0mqPZvOCeuJkhbbiMLYGw8GSac0h1UXGmzhP0jua"
    _CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: tests, path: {folder}/users}}}}
"""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RegistryServer:
        program = shutil.which("docker-registry")
        if program is None:
            raise Missing("docker-registry is not installed")
        (self.folder / "users").write_text(f"{self.USER}:{self._HASH}\n")
        (self.folder / "config.yml").write_text(self._CONFIG.format(folder=self.folder, port=self.port))
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen([program, "serve", f"{self.folder}/config.yml"], stdout=log, stderr=log)
        end = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            if self._process.poll() is not None or time.monotonic() > end:
                raise Missing(f"docker-registry did not start: {(self.folder / 'log').read_text()[-1000:]}")
            time.sleep(0.05)

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def put(self, engine: EngineServer, name: str) -> str:
        """Push the test image under a name; return its digest."""
        client = engine.client()
        try:
            whole = f"127.0.0.1:{self.port}/{name}"
            client.images.get(IMAGE).tag(whole, "1")
            login = {"username": self.USER, "password": self.PASSWORD}
            news = list(client.api.push(whole, "1", stream=True, decode=True, auth_config=login))
            assert not [each for each in news if "error" in each], news
            client.images.remove(f"{whole}:1")
            return self._digest(name)
        finally:
            client.close()

    def _digest(self, name: str) -> str:
        token = base64.b64encode(f"{self.USER}:{self.PASSWORD}".encode()).decode()
        # Each engine writes its own kind of manifest.
        kinds = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
        headers = {"Authorization": f"Basic {token}", "Accept": kinds}
        link = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            link.request("HEAD", f"/v2/{name}/manifests/1", headers=headers)
            answer = link.getresponse()
            answer.read()
            return str(answer.headers["Docker-Content-Digest"])
        finally:
            link.close()


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def busybox_tar() -> bytes:
    """Return the archive of a system that is only busybox."""
    program = shutil.which("busybox", path=f"{os.environ.get('PATH', '')}:/bin:/usr/bin")
    if program is None:
        raise Missing("busybox-static is not installed")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("proc", 0o555), ("dev", 0o755)):
            archive.addfile(_entry(folder, tarfile.DIRTYPE, mode))
        archive.add(program, "bin/busybox", filter=_root)
        for applet in applets:
            if applet != "busybox":
                link = _entry(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
                link.linkname = "busybox"
                archive.addfile(link)
        users = b"root:x:0:0:root:/:/bin/sh\nguest:x:4242:4242::/:/bin/sh\n"
        entry = _entry("etc/passwd", tarfile.REGTYPE, 0o644)
        entry.size = len(users)
        archive.addfile(entry, io.BytesIO(users))
    return buffer.getvalue()


def import_image(client: docker.DockerClient, archive: bytes, name: str, changes: tuple[str, ...] = ()) -> None:
    """Make an image of an archive; Podman does not heed the name, so it is given by the id."""
    repository, _, tag = name.rpartition(":")
    answer = client.api.import_image_from_data(archive, repository=repository, tag=tag, changes=list(changes) or None)
    found = [part for part in answer.replace('"', " ").split() if len(part.split(":")[-1]) == 64]
    client.images.get(found[-1].split(":")[-1]).tag(repository, tag)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.mode = 0o755
    return entry

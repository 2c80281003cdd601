"""The image of a worker, built by a real dockerd on a Debian made here, and the compose file with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import ROOT, ok, states, use
from couch_server import CouchServer, Unavailable
from service_tools import need

from tokenpool.cli import verbs
from tokenpool.cli.session import Session, without_password

sys.path.append(str(ROOT / "tests" / "container"))

try:
    import docker
    from engines import EngineServer, Missing
except ImportError:
    docker = None

BASE, IMAGE = "localhost/python-root:1", "localhost/tokenpool-image:1"
PASSWORD = "only in a file"


def until(what: str, found: Callable[[], object], patience: float = 120.0) -> None:
    """Wait until `found()` is true."""
    end = time.monotonic() + patience
    while not found():
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.2)


def mirror() -> str:
    """Return where this machine has its packages from."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    texts = "\n".join(path.read_text() for path in sources if path.is_file())
    found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?) *(https?://\S*debian/?)\s", texts, re.MULTILINE)
    return found.group(1) if found else "http://deb.debian.org/debian"


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineServer]:
    """A dockerd that has an image of Debian with Python."""
    need(docker, "Python's docker is not installed: pip install docker")
    need(shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin"), "debootstrap is not installed")
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        try:
            with EngineServer("docker", Path(folder, "engine")) as server:
                client = server.client()
                with debian(Path(folder)).open("rb") as data:
                    client.api.import_image_from_data(data, repository=BASE.partition(":")[0], tag="1")
                client.close()
                yield server
        except Missing as error:
            need(False, f"no docker: {error}")


def debian(folder: Path) -> Path:
    """Make a small Debian with Python; return its archive."""
    root, archive = folder / "root", folder / "root.tar"
    more = "--include=python3,python3-venv,ca-certificates"
    words = ["debootstrap", "--variant=minbase", more, "bookworm", str(root), mirror()]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    # Where pip finds what it installs is this machine's own business.
    for path in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
        if Path(path).exists():
            shutil.copyfile(path, f"{root}{path}")
    with tarfile.open(archive, "w") as file:
        file.add(root, ".", filter=_worth_keeping)
    shutil.rmtree(root)
    return archive


def _worth_keeping(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if re.match(r"\./(dev|proc|sys|var/cache|var/lib/apt)/.", entry.name) else entry


@pytest.fixture(scope="module")
def image(engine: EngineServer) -> str:
    """The image that the recipe makes, with no extras: those are many."""
    client = engine.client()
    variables = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    try:
        client.images.build(
            path=str(ROOT), tag=IMAGE, network_mode="host", rm=True, buildargs={"BASE": BASE, "EXTRAS": "", **variables}
        )
    except docker.errors.BuildError as error:
        pytest.fail("".join(str(line.get("stream", line)) for line in error.build_log)[-3000:], pytrace=False)
    finally:
        client.close()
    return IMAGE


@pytest.fixture(scope="module")
def guarded() -> Iterator[CouchServer]:
    """A CouchDB that asks for a password."""
    try:
        server = CouchServer(admin=("me", PASSWORD))
    except Unavailable as error:
        need(False, f"no CouchDB server: {error}")
    with server:
        yield server


@pytest.fixture
def pool(request: pytest.FixtureRequest, guarded: CouchServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A pool with a password; its URL has none."""
    monkeypatch.setenv("TOKENPOOL_PASSWORD", PASSWORD)
    return use(without_password(guarded.create_database(request.node.name)))


@pytest.fixture
def start(engine: EngineServer, image: str, pool: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start a container of the image, with the pool and a file that holds its password."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o400)
    os.chown(secret, 1000, 1000)  # the image's own user
    client = engine.client()
    started: list[Any] = []

    def start(*words: str) -> Any:
        environment = {"TOKENPOOL_POOL": pool, "TOKENPOOL_PASSWORD_FILE": "/run/password"}
        volumes = {str(secret): {"bind": "/run/password", "mode": "ro"}}
        container = client.containers.run(
            image, list(words) or None, detach=True, init=True, network_mode="host", environment=environment,
            volumes=volumes,
        )  # fmt: skip
        started.append(container)
        return container

    yield start
    for container in started:
        container.remove(force=True, v=True)
    client.close()


def test_a_container_of_the_image_is_a_worker(start: Callable[..., Any], tmp_path: Path) -> None:
    # Given tokens
    ok("push", "--", "sh", "-c", "id -un; pwd")
    ok("push", "--", "true")
    # When a container of the image runs until nothing waits
    container = start("work", "--quit", "--slots", "2")
    # Then all are done, as a user that is not root
    assert container.wait()["StatusCode"] == 0, container.logs()
    assert states() == {"done": 2}
    assert "tokenpool\n" in {
        ok("logs", each, "--out").out.partition("\n")[0] + "\n" for each in ok("list", "-q").out.split()
    }
    # And the password is nowhere in what the engine knows of it
    assert PASSWORD not in json.dumps(container.attrs)


def test_docker_stop_gives_tokens_back_and_sigusr1_lets_them_end(start: Callable[..., Any]) -> None:
    # Given a worker that runs something long
    ok("push", "--", "sleep", "1000")
    container = start()
    until("a running token", lambda: states() == {"locked": 1})
    # When it is stopped; then the token waits again
    container.stop(timeout=60)
    assert container.wait()["StatusCode"] == 0
    assert states() == {"todo": 1}
    # When another one is told to drain; then what it runs ends first
    ok("rm", "all", "--yes")
    ok("push", "--", "sleep", "3")
    container = start("work", "--slots", "1")
    until("a running token", lambda: states() == {"locked": 1})
    ok("push", "--", "true")
    container.kill("SIGUSR1")
    assert container.wait()["StatusCode"] == 0
    assert states() == {"done": 1, "todo": 1}


# ── compose ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def compose(engine: EngineServer | None, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Call compose, the plug-in or the program."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    need(plugin or shutil.which("docker-compose"), "docker-compose is not installed")
    argv = ["docker", "compose"] if plugin else ["docker-compose"]
    environment = {**os.environ, **({"DOCKER_HOST": engine.url} if engine else {}), **variables}
    return subprocess.run([*argv, *words], env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_compose_understands_its_file() -> None:
    import yaml

    # When compose reads the file, with all its profiles
    words = ("-f", str(ROOT / "docker-compose.yml"))
    done = compose(None, *words, "--profile", "workers", "--profile", "server", "config", COUCHDB_PASSWORD="geheim")
    assert done.returncode == 0, done.stderr
    # Then there are a CouchDB, a server, and two workers on one pool
    told = yaml.safe_load(done.stdout)["services"]
    assert set(told) == {"couchdb", "pool", "worker", "server"}
    assert told["worker"]["scale"] == 2
    assert told["worker"]["environment"]["TOKENPOOL_PASSWORD"] == "geheim"
    # And the server is asked for what it knows, on all addresses of its container, and shown to this machine alone
    serve = verbs()["serve"].make_context("serve", list(told["server"]["command"][1:]), obj=Session())
    assert told["server"]["command"][0] == "serve"
    assert (serve.params["host"], serve.params["couchdb_users"]) == ("0.0.0.0", True)
    (port,) = told["server"]["ports"]  # a text, or an object, as compose likes it
    assert "127.0.0.1" in str(port)
    assert str(serve.params["port"]) in str(port)
    # And without a profile there is the CouchDB alone, as before
    assert [name for name, service in told.items() if not service.get("profiles")] == ["couchdb"]


def test_two_workers_of_compose_drain_a_pool(
    engine: EngineServer, image: str, guarded: CouchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the compose file, on a CouchDB and an image that are there already: nothing can be downloaded here
    url = without_password(guarded.create_database("compose"))
    guarded.delete_database(url)
    monkeypatch.setenv("TOKENPOOL_PASSWORD", PASSWORD)
    Path("tokenpool.toml").write_text(f"pool = {json.dumps(url)}\n")
    here = {
        "image": image,
        "network_mode": "host",
        "environment": {"TOKENPOOL_POOL": url, "TOKENPOOL_PASSWORD": PASSWORD},
    }
    (tmp_path / "here.json").write_text(json.dumps({"services": {"pool": here, "worker": here}}))
    words = (
        "-p",
        "tptest",
        "-f",
        str(ROOT / "docker-compose.yml"),
        "-f",
        str(tmp_path / "here.json"),
        "--profile",
        "workers",
    )
    try:
        # When the pool is made, and the workers are started
        made = compose(engine, *words, "up", "--no-build", "--no-deps", "pool")
        assert made.returncode == 0, made.stderr + made.stdout
        up = compose(engine, *words, "up", "--no-build", "--no-deps", "-d", "worker")
        assert up.returncode == 0, up.stderr
        for _ in range(4):
            ok("push", "--", "sleep", "1")
        # Then there are two, and they drain it
        until("two workers", lambda: len(ok("worker", "list", "--json").json["workers"]) == 2)
        until("the end of the tokens", lambda: states() == {"done": 4})
        # When they are stopped; then what runs has ended first
        ok("push", "--", "sleep", "3")
        until("a running token", lambda: states().get("locked"))
        compose(engine, *words, "stop", "worker")
        assert states() == {"done": 5}
    finally:
        compose(engine, *words, "down", "--volumes")

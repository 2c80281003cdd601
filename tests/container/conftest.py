"""Real engines for all tests of this folder, and the promise that no test leaves anything behind."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "acceptance"))

from cli_tools import ok, use
from engines import IMAGE, EngineServer, Missing, RegistryServer, free_port

ENGINES = ("docker", "podman")
Token = dict[str, Any]


@pytest.fixture(scope="session")
def registry_port() -> int:
    """Where the registry is, or will be: engines have to know it before."""
    return free_port()


@pytest.fixture(scope="session")
def registry(registry_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A private registry."""
    try:
        with RegistryServer(tmp_path_factory.mktemp("registry"), registry_port) as registry:
            yield registry
    except Missing as error:
        _missing(str(error))


@pytest.fixture(scope="session", params=ENGINES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, registry_port: int
) -> Iterator[EngineServer]:
    """Each engine in turn."""
    # A socket's path may have 107 characters.
    folder = tmp_path_factory.mktemp(request.param[0])
    try:
        with EngineServer(request.param, folder, registry_port) as server:
            yield server
    except Missing as error:
        _missing(f"no {request.param}: {error}")


def _missing(why: str) -> None:
    if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture
def engine(
    server: EngineServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_url: str
) -> Iterator[EngineServer]:
    """An engine that workers find, and a pool; at the end nothing of the test may be left."""
    monkeypatch.setenv("DOCKER_HOST", server.url)
    use(sqlite_url)
    yield server
    client = server.client()
    try:
        left = client.containers.list(all=True, ignore_removed=True)
        names = [each.name for each in left]
        for each in left:
            each.remove(force=True)
    finally:
        client.close()
    assert names == []
    assert list(tmp_path.with_name(f"{tmp_path.name}-home").rglob("containers/*/*.json")) == []
    # An attempt's folder stays under its token's name where the test asked for that.
    assert [each for each in Path("scratch").glob("*/*") if not each.name.startswith("t.")] == []


@pytest.fixture
def run(engine: EngineServer) -> Callable[..., Token]:
    """Push one token of the test image, work, and return what became of it."""

    def run(*options: object, **fields: Any) -> Token:
        work_off(*options, **fields)
        return shown("t")

    return run


def work_off(*options: object, **fields: Any) -> None:
    """Push one token and run a worker until nothing waits; failed attempts leave their folders to be looked at."""
    push(**fields)
    ok("work", "--quit", "--slots", 1, "--workdir", "scratch", *options)


def kept(*path: str) -> Path:
    """Return a file in the folder that an attempt left."""
    (folder,) = (each for each in Path("scratch").glob("*/t.*") if each.is_dir())
    return folder.joinpath(*path)


def push(**fields: Any) -> None:
    """Push one token of the test image, named t."""
    image = {} if fields.get("executors") else {"image": IMAGE}
    ok("push", "-", "--format", "jsonl", stdin=json.dumps({"_id": "t", **image, **fields}))


def shown(name: str) -> Token:
    """Return a token."""
    found: Token = ok("show", name, "--json").json
    return found


def failure(token: Token) -> tuple[int, str | None]:
    """Return the exit code and the class of the last attempt's failure."""
    return token["exit_code"], token["attempts"][-1]["failure_class"]


def message(token: Token) -> str:
    """Return what the token says of its failure."""
    return str(token["error"][-1]["message"])


def out(name: str = "t") -> str:
    """Return what a token printed."""
    return ok("logs", name, "--out").out

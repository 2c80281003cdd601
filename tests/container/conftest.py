"""Real engines for all tests of this folder, and the promise that no test leaves anything behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "acceptance"))

from cli_tools import use
from container_tools import Token, shown, work_off
from engines import EngineServer, Missing, RegistryServer, free_port

ENGINES = ("docker", "podman")


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
        left = client.containers.list(all=True, sparse=True)
        names = [each.id for each in left]
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

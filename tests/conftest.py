"""What every test may ask for: a clean place to run in, a CouchDB server, and the URL of an empty pool.

Set for a whole run: ``TOKENPOOL_TEST_COUCHDB=http://admin:secret@127.0.0.1:5984`` uses that Apache CouchDB instead of
pouchdb-server; ``TOKENPOOL_REQUIRE_ALL=1`` (CI) makes a missing server a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from couch_server import Couch, CouchServer, RawCouch, Unavailable, raw_couch

#: Tests with these marks need what only the owner of a machine can give: a server, a control group.
GIVEN = {"real_couchdb": "TOKENPOOL_TEST_COUCHDB", "control_group": "TOKENPOOL_TEST_CGROUP"}
KEPT = {*GIVEN.values(), "TOKENPOOL_REQUIRE_ALL"}
PROXIES = {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}

# A busy machine is no fault of a test.
hypothesis.settings.register_profile(
    "tokenpool", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tokenpool")

MISSING = pytest.StashKey[str]()
LEFT_OUT = pytest.StashKey[dict[str, int]]()


# ── the run as a whole ───────────────────────────────────────────────────────────────────────────────────────────────


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, not skip, what this machine's owner has not given: a skip would look like work to do."""
    config.stash[LEFT_OUT] = {}
    for marker, variable in GIVEN.items():
        left_out = [] if os.environ.get(variable) else [item for item in items if item.get_closest_marker(marker)]
        if left_out:
            items[:] = [item for item in items if not item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=left_out)
        config.stash[LEFT_OUT][marker] = len(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Let ``--dist loadscope`` run whole folders side by side: a folder's tests share servers that start slowly."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):  # type: ignore[misc, no-any-unimported, unused-ignore]
        def _split_scope(self, nodeid: str) -> str:
            return str(Path(nodeid.partition("::")[0]).parent)

    return ByFolder(config, log)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    given = os.environ.get("TOKENPOOL_TEST_COUCHDB")
    server = "the server that TOKENPOOL_TEST_COUCHDB names" if given else "pouchdb-server"
    counts = config.stash.get(LEFT_OUT, {})
    left_out = [f"{n} tests left out that need {GIVEN[marker]}" for marker, n in counts.items() if n]
    return [f"CouchDB: {server}", *left_out]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run side by side, each process tells the one that reports."""
    if hasattr(session.config, "workeroutput") and MISSING in session.config.stash:
        session.config.workeroutput["missing"] = session.config.stash[MISSING]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if "missing" in getattr(node, "workeroutput", {}):
        node.config.stash[MISSING] = node.workeroutput["missing"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if MISSING in config.stash:
        terminalreporter.section("NO TEST RAN AGAINST COUCHDB", red=True)
        terminalreporter.write_line(config.stash[MISSING])


# ── every test ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def isolated(request: pytest.FixtureRequest) -> None:
    """Run in an own empty directory, with an own empty home and none of the user's settings."""
    # Not arguments: hypothesis refuses tests whose autouse fixtures ask for function-scoped ones by name.
    tmp_path: Path = request.getfixturevalue("tmp_path")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name in list(os.environ):
        ours = name.startswith("TOKENPOOL_") and name not in KEPT
        if ours or name == "MAKEITSO_SERVER" or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    home = tmp_path.with_name(f"{tmp_path.name}-home")  # beside, so that the test's directory is empty
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.chdir(tmp_path)


# ── pools ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def couch_server(request: pytest.FixtureRequest) -> Iterator[Couch]:
    """The run's CouchDB server, real or not; a request that would have ended it fails the run."""
    given = os.environ.get("TOKENPOOL_TEST_COUCHDB")
    try:
        server = Couch(given) if given else CouchServer()
    except Unavailable as error:
        request.config.stash[MISSING] = str(error)
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail(f"no CouchDB server: {error}", pytrace=False)
        pytest.skip(f"no CouchDB server: {error}")
    with server:
        yield server
        crashes = server.crashes()
    if crashes:
        pytest.fail("\n    ".join(["requests ended the CouchDB server:", *crashes]), pytrace=False)


@pytest.fixture
def couch_db(request: pytest.FixtureRequest, couch_server: Couch) -> Iterator[str]:
    """An own empty database as ``couchdb+http://…``; requests are counted from here."""
    url = couch_server.create_database(request.node.name)
    couch_server.reset_requests()
    yield url
    couch_server.delete_database(url)


@pytest.fixture
def raw_couch_url(couch_db: str) -> RawCouch:
    """The same database as python-couchdb and picas spell it: server URL and name."""
    return raw_couch(couch_db)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite pool that does not exist yet."""
    return f"sqlite:///{tmp_path}/tokenpool.db"


@pytest.fixture(params=["sqlite", "couchdb"])
def pool_url(request: pytest.FixtureRequest) -> str:
    """Each backend in turn; the server is only started when its turn comes."""
    url: str = request.getfixturevalue({"sqlite": "sqlite_url", "couchdb": "couch_db"}[request.param])
    return url

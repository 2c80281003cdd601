"""The tests' CouchDB server can be relied on: it runs views, counts, survives bad requests and names them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import couch_server as couch_server_module
import pytest
from couch_server import REAL_ENVIRONMENT, Couch, CouchServer, RawCouch, Unavailable, ensure_installed, raw_couch
from hypothesis import given, strategies

TESTS = Path(couch_server_module.__file__).parent

STATES_VIEW = {
    "views": {
        "states": {
            "map": "function(doc) { emit(doc.lock > 0 ? 'locked' : 'todo', 1); }",
            "reduce": "_sum",
        },
        "longest": {
            "map": "function(doc) { emit(null, doc._id.length); }",
            "reduce": "function(keys, values, rereduce) { return Math.max.apply(null, values); }",
        },
    }
}


@pytest.fixture
def own_server(couch_server: Couch) -> Iterator[CouchServer]:
    """A server for bad treatment; asking for the session's first skips this where none can run."""
    with CouchServer() as server:
        yield server


def test_views_are_run_by_javascript_with_reduce(couch_server: Couch, couch_db: str) -> None:
    name = raw_couch(couch_db).name
    docs = [{"_id": f"t{n}", "lock": n % 3} for n in range(9)]
    assert couch_server.call("PUT", f"/{name}/_design/Monitor", STATES_VIEW)[0] == 201
    assert couch_server.call("POST", f"/{name}/_bulk_docs", {"docs": docs})[0] == 201

    _, states = couch_server.call("GET", f"/{name}/_design/Monitor/_view/states?group=true")
    _, longest = couch_server.call("GET", f"/{name}/_design/Monitor/_view/longest")

    assert states["rows"] == [{"key": "locked", "value": 6}, {"key": "todo", "value": 3}]
    assert [row["value"] for row in longest["rows"]] == [2]


def test_two_databases_know_nothing_of_each_other(couch_server: Couch, couch_db: str) -> None:
    other = couch_server.create_database()
    try:
        mine, theirs = raw_couch(couch_db).name, raw_couch(other).name
        couch_server.call("PUT", f"/{mine}/t1", {})
        assert couch_server.call("GET", f"/{mine}/t1")[0] == 200
        assert couch_server.call("GET", f"/{theirs}/t1")[0] == 404
    finally:
        couch_server.delete_database(other)
    assert couch_server.call("GET", f"/{mine}/t1")[0] == 200


def test_a_stale_revision_is_refused(couch_server: Couch, couch_db: str) -> None:
    name = raw_couch(couch_db).name
    _, first = couch_server.call("PUT", f"/{name}/t1", {})
    assert couch_server.call("PUT", f"/{name}/t1", {"_rev": first["rev"]})[0] == 201
    assert couch_server.call("PUT", f"/{name}/t1", {"_rev": first["rev"]})[0] == 409


@pytest.mark.real_couchdb
def test_a_real_server_deletes_no_document_without_its_revision(couch_server: Couch, couch_db: str) -> None:
    name = raw_couch(couch_db).name
    couch_server.call("PUT", f"/{name}/t1", {})
    assert couch_server.call("DELETE", f"/{name}/t1")[0] == 409


def test_requests_that_would_end_the_server_are_named_and_the_data_stays(own_server: CouchServer) -> None:
    # Given a database with a token
    own_server.call("PUT", "/pool")
    own_server.call("PUT", "/pool/t1", {"type": "token"})
    filters = {"throws": "function() { throw new Error('no'); }", "syntax": "function("}
    own_server.call("PUT", "/pool/_design/bad", {"filters": filters})
    assert own_server.crashes() == []

    # When pouchdb-server would have gone down, again and again
    bad = [f"/pool/_changes?filter={name}" for name in ("nosuch/x", "_selector", "_view", "bad/throws", "bad/syntax")]
    for path in bad:
        own_server.call("GET", path)

    # Then we know what did it, and nobody else is harmed
    assert [crash.partition(": ")[0] for crash in own_server.crashes()] == [f"GET {path}" for path in bad]
    assert own_server.call("GET", "/pool/t1")[1]["type"] == "token"
    own_server.stop()
    assert len(own_server.crashes()) == len(bad)


def test_the_guilty_request_is_named_among_many(own_server: CouchServer) -> None:
    own_server.call("PUT", "/pool")
    own_server.call("PUT", "/pool/t1", {})
    bad = [f"/pool/_changes?filter=nosuch/{n}" for n in range(8)]
    good = ["/pool/t1", "/pool/_all_docs", "/pool/_changes"] * 20
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda path: own_server.call("GET", path)[0], [*good, *bad, *good]))
    assert statuses.count(200) == 2 * len(good)
    assert sorted(crash.partition(": ")[0] for crash in own_server.crashes()) == [f"GET {path}" for path in bad]


def test_an_administrator_is_asked_for(couch_server: Couch) -> None:
    with CouchServer(admin=("ad min", "s/e:cret")) as server:
        assert server.call("PUT", "/pool")[0] == 201
        assert "ad%20min:s%2Fe%3Acret@127.0.0.1" in server.url
        port = urlsplit(server.url).port
        with Couch(f"http://127.0.0.1:{port}") as stranger:
            assert stranger.call("GET", "/_config")[0] == 401


def test_requests_of_every_client_are_counted(couch_server: Couch, own_server: CouchServer) -> None:
    assert own_server.requests() == []
    with Couch(own_server.url) as other:
        other.call("PUT", "/pool")
        own_server.call("GET", "/pool/_all_docs?limit=1")
        assert own_server.requests() == [("GET", "/"), ("PUT", "/pool"), ("GET", "/pool/_all_docs?limit=1")]
    own_server.reset_requests()
    assert own_server.requests() == []
    if couch_server.real:
        assert couch_server.requests() is None


def test_a_stopped_server_is_gone(couch_server: Couch) -> None:
    server = CouchServer()
    assert not server.stopped
    server.stop()
    server.stop()
    assert server.stopped
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=5).close()


def test_a_server_that_dies_is_a_crash_too(own_server: CouchServer) -> None:
    os.kill(own_server._process.pid, signal.SIGKILL)
    own_server._process.wait()
    (crash,) = own_server.crashes()
    assert "ended by itself with status -9" in crash


def test_the_server_dies_with_the_tests(couch_server: Couch, tmp_path: Path) -> None:
    # Given a test run with a server
    code = "import couch_server, sys; s = couch_server.CouchServer(); print(s.url, flush=True); sys.stdin.read()"
    environment = {**REAL_ENVIRONMENT, "PYTHONPATH": str(TESTS), "TMPDIR": str(tmp_path)}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with run:
        assert run.stdout is not None
        port = urlsplit(run.stdout.readline().decode().strip()).port or 0
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            # When the run is killed
            run.kill()
            # Then its server closes our connection, and soon takes no other
            await_close(connection)
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                    await_close(connection)


def await_close(connection: socket.socket) -> None:
    """Wait for the other side to close; if it never does, the connection's timeout is raised."""
    with contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""


# ── installation ─────────────────────────────────────────────────────────────────────────────────────────────────────


def npm_that(does: str, folder: Path) -> dict[str, str]:
    """An environment whose npm is a line of shell."""
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{does}\n")
    npm.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}


def test_packages_are_installed_once_for_all(tmp_path: Path) -> None:
    environment = npm_that(f"echo $* >> {tmp_path}/calls; test -f package-lock.json && mkdir node_modules", tmp_path)
    with ThreadPoolExecutor(8) as threads:
        folders = set(threads.map(lambda _: ensure_installed(environment=environment), range(8)))
    (folder,) = folders
    assert folder.parent == tmp_path / ".cache" / "tokenpool-tests"
    assert (folder / "node_modules").is_dir()
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("ci --omit=optional --ignore-scripts")


def test_a_broken_installation_says_why_and_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no route to the registry"):
        ensure_installed(tmp_path, npm_that("echo no route to the registry; exit 1", tmp_path))
    assert ensure_installed(tmp_path, npm_that("mkdir node_modules", tmp_path)).is_dir()


def test_no_npm_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="apt install nodejs npm"):
        ensure_installed(tmp_path, {"PATH": str(tmp_path)})


def test_the_lock_names_no_private_registry() -> None:
    lock = (TESTS / "couchdb_server" / "package-lock.json").read_text()
    addresses = {line.split('"')[3] for line in lock.splitlines() if line.strip().startswith('"resolved"')}
    assert addresses
    assert {address for address in addresses if not address.startswith("https://registry.npmjs.org/")} == set()


# ── fixtures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def run_pytest(folder: Path, test: str, **changes: str) -> tuple[int, str]:
    """Run one test file below our conftest, in a process of its own."""
    (folder / "test_inner.py").write_text(test)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = real_couchdb: needs Apache CouchDB\n")
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "test_inner.py"]
    environment = {**REAL_ENVIRONMENT, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **changes}
    environment = {name: value for name, value in environment.items() if value}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_crash_fails_the_run_and_names_its_request(couch_server: Couch, tmp_path: Path) -> None:
    test = """
def test_that_passes_but_should_not(couch_server, couch_db):
    name = couch_db.rpartition("/")[2]
    couch_server.call("GET", f"/{name}/_changes?filter=nosuch/x")
"""
    status, output = run_pytest(tmp_path, test, TOKENPOOL_TEST_COUCHDB="")
    assert status == 1, output
    assert "GET /tokenpool-test-test-that-passes-but-should-not-" in output


@pytest.mark.parametrize(("require_all", "status", "summary"), [("", 0, "1 skipped"), ("1", 1, "1 error")])
def test_without_node_tests_are_skipped_aloud_or_fail(
    tmp_path: Path, require_all: str, status: int, summary: str
) -> None:
    changes = {"TOKENPOOL_TEST_COUCHDB": "", "TOKENPOOL_REQUIRE_ALL": require_all, "XDG_CACHE_HOME": str(tmp_path)}
    test = "def test_it(couch_db):\n    pass\n"
    result, output = run_pytest(tmp_path, test, PATH=str(tmp_path), **changes)
    assert result == status, output
    assert summary in output
    assert "NO TEST RAN AGAINST COUCHDB" in output
    assert "apt install nodejs npm" in output


def test_what_only_a_real_server_can_judge_is_left_out_and_counted(tmp_path: Path) -> None:
    test = """
import pytest

@pytest.mark.real_couchdb
def test_it(couch_db):
    raise AssertionError

def test_other():
    pass
"""
    status, output = run_pytest(tmp_path, test, TOKENPOOL_TEST_COUCHDB="")
    assert status == 0, output
    assert "1 passed, 1 deselected" in output
    assert "1 tests left out that need TOKENPOOL_TEST_COUCHDB" in output


def test_a_server_that_is_named_is_used_as_it_is(own_server: CouchServer, tmp_path: Path) -> None:
    test = """
import pytest

@pytest.mark.real_couchdb
def test_it(couch_server, couch_db):
    assert couch_server.real
    assert couch_server.crashes() == []
    assert couch_server.requests() is None
    assert couch_db.startswith("couchdb+http://127.0.0.1:")
"""
    status, output = run_pytest(tmp_path, test, TOKENPOOL_TEST_COUCHDB=own_server.url + "/")
    assert status == 0, output
    assert "1 passed" in output
    paths = [method for method, path in own_server.requests() if path.startswith("/tokenpool-test-test-it-")]
    assert paths == ["PUT", "DELETE"]


def test_a_server_that_is_named_but_away_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://admin:secret@127.0.0.1:{taken.getsockname()[1]}"
        status, output = run_pytest(tmp_path, "def test_it(couch_db):\n    pass\n", TOKENPOOL_TEST_COUCHDB=url)
    assert status == 1
    assert "no CouchDB answers at http://127.0.0.1:" in output


def test_pool_urls_name_each_backend(pool_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    backend = request.node.callspec.params["pool_url"]
    assert pool_url.startswith({"sqlite": f"sqlite:///{tmp_path}/", "couchdb": "couchdb+http"}[backend])


def test_the_raw_url_is_for_other_clients(couch_server: Couch, raw_couch_url: RawCouch) -> None:
    assert raw_couch_url.url == couch_server.url
    assert couch_server.call("GET", f"/{quote(raw_couch_url.name)}")[0] == 200
    assert raw_couch("couchdb+https://me:p%40w@h:6984/a%2Fb") == ("https://me:p%40w@h:6984", "a/b")


def test_tests_see_nothing_of_the_user(tmp_path: Path) -> None:
    test = """
import os
from pathlib import Path

def test_it(tmp_path):
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert Path.home() not in (tmp_path, tmp_path.parent)
    assert list(Path.home().iterdir()) == []
    assert Path(os.environ["XDG_CONFIG_HOME"]).parent == Path(os.environ["XDG_CACHE_HOME"]).parent == Path.home()
    names = [n for n in os.environ if n.startswith("TOKENPOOL_") or "proxy" in n.lower() or n == "MAKEITSO_SERVER"]
    assert names == ["TOKENPOOL_REQUIRE_ALL"]
"""
    changes = {"TOKENPOOL_POOL": "x", "TOKENPOOL_REQUIRE_ALL": "1", "MAKEITSO_SERVER": "x", "https_proxy": "x"}
    status, output = run_pytest(tmp_path, test, TOKENPOOL_TEST_COUCHDB="", HTTP_PROXY="x", **changes)
    assert status == 0, output


@given(strategies.integers())
def test_hypothesis_takes_the_isolation(number: int) -> None:
    assert isinstance(number, int)

"""`tokenpool serve` and `tokenpool access` as processes: they start, say where, outlive their pool, and stop cleanly."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty_proxy import FaultyProxy
from processes import until
from server_parts import People, Server, csrf_of, log_in, password_of, serving

from tokenpool.cli import main
from tokenpool.pool import connect

EVENTS = "api/v1/events"


# --- start and stop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT])
def test_a_server_starts_says_where_and_stops(sqlite_url: str, order: signal.Signals) -> None:
    # Given a server of a pool that is not there yet, as SQLite pools may be
    with serving(sqlite_url) as server:
        # Then it says what it serves, where, and who may come
        assert server.said[-1].startswith(sqlite_url)
        assert "nobody has to log in" in server.said[-1]
        with server.client() as client:
            assert client.get("readyz").json() == {"status": "ok"}

        # When it is told to stop, as service managers and people do
        server.process.send_signal(order)

        # Then it does, and that is no failure
        assert server.process.wait(30) == 0


def test_a_server_stops_while_people_watch(server: Server, pool_url: str) -> None:
    # Given open event streams: two of the pool, two of the log of a token that waits
    with connect(pool_url) as pool:
        [token] = pool.push("echo one")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(server.client())
        places = [EVENTS, EVENTS, f"api/v1/tokens/{token}/follow", f"api/v1/tokens/{token}/follow"]
        streams = [stack.enter_context(client.stream("GET", place)) for place in places]
        for stream in streams:
            assert stream.status_code == 200
            assert next(stream.iter_raw())

        # When the server is told to stop
        code = server.stop()

    # Then it does not wait for them, and cuts none of them
    assert code == 0
    assert not [line for line in server.said if "exceeded" in line or "Traceback" in line]


def test_what_is_being_asked_is_answered_before_the_end(server: Server) -> None:
    # Given half of a request
    place = httpx.URL(server.url)
    with socket.create_connection((place.host, place.port or 80), 30) as line:
        body = b'{"executors": [{"image": "i", "command": ["true"]}]}'
        line.sendall(b"POST /ga4gh/tes/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        line.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body[:20]))
        with server.client() as client:
            client.get("healthz")

        # When the server is told to stop, and then the other half comes
        server.process.terminate()
        line.sendall(body[20:])

        # Then it is answered
        assert b" 200 OK" in line.recv(1000)
    assert server.process.wait(30) == 0


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--host", "0.0.0.0"], "nobody would have to log in"),
        (["--host", "::"], "nobody would have to log in"),
        (["--proxy", "10.0.0.1"], "a proxy shows the server to others"),
        (["--users", "nowhere.json"], "nowhere.json is not there"),
        (["--couchdb-users"], "has no users of its own"),
        (["--upload-limit", "much"], "is no size"),
    ],
)  # fmt: skip
def test_what_would_be_unsafe_is_refused_in_two_lines(
    sqlite_url: str, capsys: pytest.CaptureFixture[str], options: list[str], what: str
) -> None:
    # When a server is started so
    code = main(["serve", "-p", sqlite_url, "--port", "0", *options])

    # Then it is not, and the second line says what to do
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert what in lines[0]


def test_people_that_cannot_be_read_are_told_before_the_start(
    sqlite_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a file of people that somebody has damaged
    (tmp_path / "people.json").write_text("{bad")

    # When a server is started with it, then it does not begin to refuse everybody
    assert main(["serve", "-p", sqlite_url, "--port", "0", "--users", str(tmp_path / "people.json")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert "people.json is no file of people" in lines[0]


def test_a_name_that_is_none_is_told(sqlite_url: str, people: People, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--host", "no.such.host.invalid", "--users", str(people.file)]
    assert main(["serve", "-p", sqlite_url, *options]) == 2
    assert "is no address of this computer" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "-p", sqlite_url, "--port", port]) == 2
    assert f"port {port} of 127.0.0.1 cannot be opened" in capsys.readouterr().err


def test_other_addresses_are_served_where_people_log_in(sqlite_url: str, people: People) -> None:
    with serving(sqlite_url, "--host", "0.0.0.0", "--users", str(people.file)) as server:
        assert "may log in" in server.said[-1]
        with httpx.Client(base_url=server.url.replace("0.0.0.0", "127.0.0.1"), trust_env=False) as client:
            assert client.get("openapi.json").status_code == 401
            assert client.get("openapi.json", headers=people.bearer("viewer")).status_code == 200


# --- a pool that is away -----------------------------------------------------------------------------------------------


def test_a_pool_that_is_away_comes_and_goes(couch_server: Any, couch_db: str) -> None:
    # Given a pool behind a line that can be cut
    with connect(couch_db, create=True) as pool:
        [token] = pool.push("echo one")
    with FaultyProxy(couch_server.url) as line, contextlib.ExitStack() as running:
        task = f"ga4gh/tes/v1/tasks/{token}"
        # When a server is started while it is
        with line.away():
            server = running.enter_context(serving(line.pool_url(couch_db.rpartition("/")[2])))
            client = running.enter_context(server.client())

            # Then it lives, and says that the pool is away
            assert any("the pool is away" in each for each in server.said)
            assert client.get("healthz").status_code == 200
            away = client.get("readyz")
            assert away.status_code == 503
            assert int(away.headers["retry-after"]) > 0
            assert client.get(task).status_code == 503
        # And when the pool is back, so is the server, by itself
        until(lambda: client.get("readyz").status_code == 200, 60)
        assert client.get(task).json()["id"] == token
        # And the same again, while it runs
        with line.away():
            until(lambda: client.get("readyz").status_code == 503, 60)
            assert client.get(task).status_code == 503
        until(lambda: client.get("readyz").status_code == 200, 60)
        assert client.get(task).status_code == 200


def test_the_server_opens_what_waits(server: Server, pool_url: str) -> None:
    # Given a token that waits for its time, and no worker that would see that it has come
    with connect(pool_url) as pool:
        pool.push({"input": "true", "not_before": "2020-01-01T00:00:00Z"})

        # Then the server lets it run
        until(lambda: pool.counts()["todo"] == 1, 60)
        assert pool.counts()["held"] == 0


# --- behind a proxy ----------------------------------------------------------------------------------------------------

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location /pool/ {{
      proxy_pass {upstream};
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_buffering off;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(upstream: str, folder: Path) -> Iterator[str]:
    """Run nginx before a server, under ``/pool/``; its address."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail("nginx is not installed", pytrace=False)
        pytest.skip("nginx is not installed (Debian: apt install nginx-light)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(file)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port) or process.poll() is not None)
        yield f"http://127.0.0.1:{port}/pool/"
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("strips", [True, False], ids=["strips the path", "keeps the path"])
def test_a_server_lives_under_a_path_behind_nginx(
    sqlite_url: str, people: People, tmp_path: Path, strips: bool
) -> None:
    # Given a server behind nginx, which speaks HTTPS to the outside and names us by our own address
    options = ["--users", str(people.file), "--root-path", "/pool", "--proxy", "127.0.0.1", "--folder", str(tmp_path)]
    with serving(sqlite_url, *options) as server:
        upstream = server.url.replace("/pool/", "/" if strips else "")
        with nginx(upstream, tmp_path) as address, httpx.Client(base_url=address, trust_env=False) as client:
            # When a browser comes, logs in, and looks around
            refused = client.get("tokens", headers={"Accept": "text/html"})
            assert refused.headers["location"] == "/pool/login?next=%2Ftokens"
            right = {"name": "operator", "password": password_of("operator")}
            entered = client.post("login", data=right, headers={"Sec-Fetch-Site": "same-origin"})

            # Then all that it is told lies below that path
            assert entered.headers["location"] == "/pool/"
            cookie = entered.headers["set-cookie"]
            assert "Path=/pool" in cookie
            assert "Secure" in cookie
            client.headers["Cookie"] = cookie.partition(";")[0]
            assert client.get("docs").text.count('="/pool/static/') > 3
            assert client.get("openapi.json").json()["servers"] == [{"url": "/pool"}]
            assert client.get("static/docs.js").status_code == 200
            # And events come through
            with client.stream("GET", EVENTS) as stream:
                assert next(stream.iter_raw())
            # And forms work
            assert client.post("logout", data={"csrf_token": csrf_of(client)}).headers["location"] == "/pool/login"
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {line["address"] for line in lines} == {"127.0.0.1"}


# --- people ------------------------------------------------------------------------------------------------------------


def test_people_are_added_changed_and_removed(
    sqlite_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        capsys.readouterr()
        assert main(["access", *words]) == 0
        return capsys.readouterr().out

    # Given somebody who was added to the usual file
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    run("add", "ann", "--role", "operator", "--password-file", str(secret))
    file = Path(os.environ["XDG_CONFIG_HOME"], "tokenpool", "users.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    # When a server runs, then it has found that file by itself
    with serving(sqlite_url) as server, server.client() as client:
        log_in(client, "ann", "correct horse")
        assert client.get("openapi.json").status_code == 200
        # And obeys what is changed beside it
        made = run("token", "nextflow", "--role", "viewer", "--expires", "1h").strip()
        bearer = {"Authorization": f"Bearer {made}", "Cookie": ""}
        assert client.get("openapi.json", headers=bearer).status_code == 200
        listed = json.loads(run("list", "--json"))
        assert listed["users"] == [{"name": "ann", "role": "operator"}]
        run("revoke", listed["tokens"][0]["id"])
        assert client.get("openapi.json", headers=bearer).status_code == 401
        secret.write_text("another horse\n")
        run("passwd", "ann", "--password-file", str(secret))
        assert client.get("openapi.json").status_code == 401
        run("role", "ann", "viewer")
        log_in(client, "ann", "another horse")
        run("remove", "ann")
        assert client.get("openapi.json").status_code == 401
    assert json.loads(run("list", "--json")) == {"schema": 1, "users": [], "tokens": []}


def test_mistakes_with_people_are_told_in_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = tmp_path / "short"
    short.write_text("1234\n")
    mistakes = [
        (["add", "ann", "--password-file", str(short)], 2, "too short"),
        (["remove", "ann"], 4, "nobody has the name"),
        (["revoke", "00000000"], 4, "there is no API token"),
        (["add", "ann"], 2, "cannot be asked for here"),
    ]
    for words, code, what in mistakes:
        assert main(["access", *words]) == code
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(":")[0] for line in lines] == ["error", "hint"]
        assert what in lines[0]


def test_a_chunked_body_without_end_is_cut(sqlite_url: str) -> None:
    # Given a server that takes a kilobyte, and a sender that does not say how much will come
    with serving(sqlite_url, "--upload-limit", "1kB") as server:
        place = httpx.URL(server.url)
        with socket.create_connection((place.host, place.port or 80), 30) as line:
            line.sendall(b"POST /ga4gh/tes/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            line.sendall(b"100\r\n" + b" " * 256 + b"\r\n")
            line.sendall((b"100\r\n" + b" " * 256 + b"\r\n") * 4)

            # Then it is told before the end, and the line is cut
            answer = line.makefile("rb").read()
        assert b" 413 " in answer.splitlines()[0]
        # And the server goes on
        with server.client() as client:
            assert client.get("readyz").status_code == 200


def test_a_library_that_is_missing_is_named(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    assert main(["serve", "-p", sqlite_url]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "uvicorn" in lines[0]
    assert "tokenpool[web]" in lines[1]

"""Requests over real sockets: sent again only where that does no harm, answered for, and never with a password in an error."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Request, Scripted, answer, cut, over_tls, scripted_server
from urllib3.exceptions import InsecureRequestWarning, NewConnectionError

from tokenpool.backends import transport as transport_module
from tokenpool.backends.transport import Answer, Options, Transport
from tokenpool.errors import AnswerLost, BadInput, NotPermitted, ServerAway, TokenpoolError

COOKIE = "AuthSession=abc; Version=1; Max-Age=600; Path=/; HttpOnly"


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server() as server:
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, noted instead of slept."""
    slept: list[float] = []

    class Clock:
        monotonic = staticmethod(time.monotonic)
        time = staticmethod(time.time)

        @staticmethod
        def sleep(seconds: float) -> None:
            slept.append(seconds)

    monkeypatch.setattr(transport_module, "time", Clock)
    return slept


def connect(server: Scripted, **options: Any) -> Transport:
    return Transport(server.url, Options(proxies={}, **options))


# ── what is sent again ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("method", "reads"), [("GET", None), ("HEAD", None), ("POST", True)])
def test_a_read_whose_answer_was_lost_is_sent_again(server: Scripted, method: str, reads: bool | None) -> None:
    server.script = [cut, cut]
    assert connect(server).request(method, "/db", reads=reads).status == 200
    assert server.paths == [f"{method} /db"] * 3


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_write_whose_answer_was_lost_is_not(server: Scripted, method: str) -> None:
    server.script = [cut]
    with pytest.raises(AnswerLost):
        connect(server).request(method, "/db", b"{}")
    assert server.paths == [f"{method} /db"]


def test_a_write_on_a_connection_that_the_server_closed_meanwhile_is_not_sent_twice(server: Scripted) -> None:
    transport = connect(server)
    server.script = [answer(200), cut]
    transport.request("GET", "/")  # the connection is kept, and reused
    with pytest.raises(AnswerLost):
        transport.request("POST", "/db", b"{}")
    assert server.paths == ["GET /", "POST /db"]


def test_a_write_that_never_left_is_tried_again_and_then_the_server_is_away(pauses: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"  # nobody listens
        with pytest.raises(ServerAway) as away:
            Transport(url, Options(proxies={}, attempts=4)).request("POST", "/db", b"{}")
    assert not isinstance(away.value, AnswerLost)
    assert len(pauses) == 3
    assert "cannot be reached" in str(away.value)


def test_a_write_is_delivered_when_the_server_comes_up(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = connect(server)
    once, tried = transport._once, []

    def flaky(*args: Any) -> Any:
        tried.append(args)
        if len(tried) < 3:
            raise NewConnectionError(None, "refused")  # type: ignore[arg-type]
        return once(*args)

    monkeypatch.setattr(transport, "_once", flaky)
    assert transport.request("POST", "/db", b"{}").status == 200
    assert server.paths == ["POST /db"]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_passing_error_is_waited_out_by_reads_only(server: Scripted, status: int) -> None:
    server.script = [answer(status), answer(status), answer(200), answer(status)]
    transport = connect(server)
    assert transport.request("GET", "/a").status == 200
    with pytest.raises(AnswerLost, match=str(status)):
        transport.request("POST", "/b", b"{}")
    assert server.paths == ["GET /a"] * 3 + ["POST /b"]


def test_an_error_that_does_not_pass_is_told_with_its_reason(server: Scripted, pauses: list[float]) -> None:
    server.script = [answer(503, {"error": "busy", "reason": "maintenance"})] * 5
    with pytest.raises(ServerAway, match="answers 503: busy maintenance"):
        connect(server).request("GET", "/a")
    assert (len(server.seen), len(pauses)) == (5, 4)


def test_429_is_waited_out_by_writes_too(server: Scripted) -> None:
    server.script = [answer(429), answer(429)]
    assert connect(server).request("POST", "/db", b"{}").status == 200
    assert server.paths == ["POST /db"] * 3
    assert [request.body for request in server.seen] == [b"{}"] * 3


def test_429_without_end_is_a_server_away_not_a_lost_answer(server: Scripted) -> None:
    server.script = [answer(429)] * 3
    with pytest.raises(ServerAway) as away:
        connect(server, attempts=3).request("POST", "/db", b"{}")
    assert not isinstance(away.value, AnswerLost)


def test_pauses_grow_up_to_a_limit(server: Scripted, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    monkeypatch.setattr(transport_module.chance, "uniform", lambda least, most: most)
    server.script = [cut] * 7
    connect(server, attempts=8, backoff=0.1, backoff_limit=1.0).request("GET", "/")
    assert pauses == [0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("status", [200, 201, 202, 304, 400, 403, 404, 409, 412, 413])
def test_every_other_answer_is_handed_on(server: Scripted, status: int) -> None:
    server.script = [answer(status, b"" if status == 304 else None)]
    assert connect(server).request("PUT", "/db", b"{}").status == status


def test_a_server_that_never_answers_is_given_up(server: Scripted) -> None:
    let_go = threading.Event()
    server.script = [lambda request: let_go.wait(60)] * 3  # type: ignore[list-item]
    transport = connect(server, attempts=2, read_timeout=0.1)
    try:
        with pytest.raises(AnswerLost):
            transport.request("POST", "/db", b"{}")
        with pytest.raises(ServerAway):
            transport.request("GET", "/db")
    finally:
        let_go.set()
    assert server.paths == ["POST /db", "GET /db", "GET /db"]


def test_an_upload_begins_anew_when_it_is_sent_again(server: Scripted) -> None:
    server.script = [answer(429), answer(429), answer(201)]
    file = io.BytesIO(b"skipped" + b"x" * 300_000)
    file.seek(7)
    assert connect(server).request("PUT", "/db/a/log", file, {"Content-Length": "300000"}).status == 201
    assert [request.body for request in server.seen] == [b"x" * 300_000] * 3
    assert {request.headers["Transfer-Encoding"] for request in server.seen} == {None}


# ── downloads ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_download_comes_in_pieces(server: Scripted) -> None:
    server.script = [answer(200, b"x" * 100_000), answer(404, {"error": "not_found"})]
    transport = connect(server)
    told, pieces = transport.stream("/db/a/log", chunk=4096)
    data = list(pieces)
    assert (told.status, b"".join(data), len(data) > 10) == (200, b"x" * 100_000, True)
    missing, nothing = transport.stream("/db/a/none")
    assert (missing.status, missing.reason()[0], list(nothing)) == (404, "not_found", [])


def test_a_download_that_breaks_off_is_not_taken_for_whole(server: Scripted) -> None:
    def half(request: Request) -> None:
        request.send_response_only(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x" * 500)
        request.wfile.flush()
        cut(request)

    server.script = [half]
    _, pieces = connect(server).stream("/db/a/log")
    with pytest.raises(ServerAway, match="broke off"):
        b"".join(pieces)


def test_a_page_that_is_no_json_counts_as_lost() -> None:
    with pytest.raises(AnswerLost, match="without JSON"):
        Answer(200, {}, b"<html>Please log in").json()
    assert Answer(500, {}, b"<html>").reason() == ("", "<html>")
    assert Answer(500, {}, b"[]").reason() == ("", "[]")


# ── who we are ───────────────────────────────────────────────────────────────────────────────────────────────────────

ME = {"username": "me", "password": "sec/ret"}


def test_the_password_is_sent_once_then_a_cookie(server: Scripted) -> None:
    server.script = [answer(200, Set_Cookie=COOKIE)]
    transport = connect(server, **ME)
    transport.request("GET", "/a")
    transport.request("POST", "/b", b"{}")
    assert server.paths == ["POST /_session", "GET /a", "POST /b"]
    assert json.loads(server.seen[0].body) == {"name": "me", "password": "sec/ret"}
    assert [request.headers["Cookie"] for request in server.seen[1:]] == ["AuthSession=abc"] * 2
    assert [request.headers["Authorization"] for request in server.seen] == [None] * 3


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_cookie_that_ran_out_is_renewed_once(server: Scripted, method: str) -> None:
    server.script = [
        answer(200, Set_Cookie=COOKIE),
        answer(401),
        answer(200, Set_Cookie=COOKIE.replace("abc", "def")),
        answer(200),
    ]
    assert connect(server, **ME).request(method, "/a", b"{}" if method == "POST" else None).status == 200
    assert server.paths == ["POST /_session", f"{method} /a", "POST /_session", f"{method} /a"]
    assert server.seen[-1].headers["Cookie"] == "AuthSession=def"


def test_a_cookie_that_is_refused_twice_is_the_answer(server: Scripted) -> None:
    login = answer(200, Set_Cookie=COOKIE)
    server.script = [login, answer(401), login, answer(401)]
    assert connect(server, **ME).request("GET", "/a").status == 401


def test_a_cookie_is_renewed_before_it_runs_out(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(transport_module.time, "monotonic", lambda: now[0])
    server.script = [answer(200, Set_Cookie=COOKIE), answer(200), answer(200), answer(200, Set_Cookie=COOKIE)]
    transport = connect(server, **ME)
    transport.request("GET", "/a")
    now[0] += 479
    transport.request("GET", "/b")
    now[0] += 2  # 480 of 600 s have gone
    transport.request("GET", "/c")
    assert server.paths == ["POST /_session", "GET /a", "GET /b", "POST /_session", "GET /c"]


def test_a_server_without_sessions_gets_the_password_each_time(server: Scripted) -> None:
    server.script = [answer(404)]
    transport = connect(server, **ME)
    transport.request("GET", "/a")
    transport.request("GET", "/b")
    assert server.paths == ["POST /_session", "GET /a", "GET /b"]
    assert {request.headers["Authorization"] for request in server.seen[1:]} == {"Basic bWU6c2VjL3JldA=="}


def test_a_wrong_password_is_told_without_it(server: Scripted) -> None:
    server.script = [answer(401, {"error": "unauthorized", "reason": "sec/ret is wrong"})]
    with pytest.raises(NotPermitted) as refused:
        connect(server, **ME).request("GET", "/a")
    assert "'me'" in str(refused.value)
    assert "sec/ret" not in str(refused.value) + refused.value.hint


def test_no_error_holds_the_password(server: Scripted) -> None:
    login = answer(200, Set_Cookie=COOKIE)
    errors: list[TokenpoolError] = []
    for script, method in (
        ([login, cut], "POST"),
        ([login] + [cut] * 2, "GET"),
        ([login] + [answer(503)] * 2, "GET"),
        ([login, answer(503)], "PUT"),
        ([cut] * 2, "GET"),
        ([cut], "POST"),
    ):
        server.script = script
        with pytest.raises(TokenpoolError) as failed:
            connect(server, attempts=2, **ME).request(method, "/db", b"{}")
        errors.append(failed.value)
    for error in errors:
        chain: BaseException | None = error
        while chain is not None:
            assert "sec/ret" not in f"{chain} {chain!r} {getattr(chain, 'hint', '')}"
            chain = chain.__cause__


# ── ways ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_proxy_of_the_environment_is_used(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//user:pw@"))
    Transport("http://couch.example.org:5984").request("GET", "/db")
    assert server.paths == ["GET http://couch.example.org:5984/db"]
    assert server.seen[0].headers["Proxy-Authorization"] == "Basic dXNlcjpwdw=="


def test_no_proxy_goes_past_it(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Transport(server.url, Options(attempts=1)).request("GET", "/db").status == 200


def test_a_proxy_that_is_away_is_a_server_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(ServerAway) as away:
        Transport("http://couch.example.org", Options(attempts=1)).request("POST", "/db", b"{}")
    assert not isinstance(away.value, AnswerLost)


@pytest.fixture
def tls_server(server: Scripted, tmp_path: Path) -> Scripted:
    """The same server over TLS, with a certificate of its own making beside it: ca.pem."""
    over_tls(server, tmp_path)
    return server


def test_an_authority_of_ones_own_is_trusted(tls_server: Scripted, tmp_path: Path) -> None:
    assert connect(tls_server, cafile=str(tmp_path / "ca.pem"), attempts=1).request("GET", "/db").status == 200


def test_a_certificate_of_nobody_is_refused_with_a_hint(tls_server: Scripted, pauses: list[float]) -> None:
    with pytest.raises(ServerAway, match="not trusted") as refused:
        connect(tls_server).request("GET", "/db")
    assert "cafile" in refused.value.hint
    assert (tls_server.seen, pauses) == ([], [])  # asking again would not help


def test_a_certificate_of_nobody_is_taken_where_that_was_asked_for(tls_server: Scripted) -> None:
    with pytest.warns(InsecureRequestWarning):
        assert connect(tls_server, verify=False, attempts=1).request("GET", "/db").status == 200


def test_an_address_that_is_none_is_bad_input() -> None:
    with pytest.raises(BadInput, match="not an address"):
        Transport(f"http://{'a' * 64}.org", Options(proxies={})).request("GET", "/")


def test_a_forked_child_gets_connections_of_its_own(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = connect(server)
    parents = transport._connections()
    assert transport._connections() is parents
    monkeypatch.setattr(transport_module.os, "getpid", lambda: -1)
    childs = transport._connections()
    assert childs is not parents
    transport.close()
    assert transport._connections() is not childs


def test_many_threads_share_one_transport(server: Scripted) -> None:
    server.script = [answer(200, Set_Cookie=COOKIE)] * 16
    transport = connect(server, **ME)
    statuses: list[int] = []

    def ask(n: int) -> None:
        for _ in range(5):
            statuses.append(transport.request("GET", f"/{n}").status)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [200] * 80

"""Questions that a CouchDB server holds: what ends them, what does not, and the clock that every answer tells."""

from __future__ import annotations

import contextlib
import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from scripted_server import Request, Scripted, answer, cut, over_tls, scripted_server

from tokenpool.backends import longpoll
from tokenpool.backends.base import Heard
from tokenpool.backends.couchdb import CouchDBBackend
from tokenpool.errors import AnswerLost, NotPermitted, ServerAway, TokenpoolError

#: Seconds that no test waits for unless it fails.
LONG = 60.0


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def pool(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[CouchDBBackend]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with CouchDBBackend(f"couchdb+{server.url}/db?attempts=3") as pool:
        server.seen.clear()
        yield pool


def changes(*ids: str, last: Any = "2-b") -> Callable[[Request], None]:
    """Answer that these documents changed."""
    return answer(200, {"results": [{"id": each, "seq": last, "changes": []} for each in ids], "last_seq": last})


def holding(begin: threading.Event, end: threading.Event, *pieces: bytes) -> Callable[[Request], None]:
    """Begin an answer, or not even that without pieces; say so, then hold it until the test lets go, and hang up."""

    def act(request: Request) -> None:
        if pieces:
            request.send_response_only(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            for piece in pieces:
                request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            request.wfile.flush()
        begin.set()
        end.wait(LONG)
        request.close_connection = True

    return act


def question(server: Scripted, number: int = 0) -> tuple[dict[str, list[str]], Any]:
    """Return the query and the body of a request."""
    seen = server.seen[number]
    assert seen.command == "POST"
    return parse_qs(urlsplit(seen.path).query), json.loads(seen.body)


def test_the_question_names_documents_and_marker(server: Scripted, pool: CouchDBBackend) -> None:
    # Given a server that tells of a change
    server.script = [changes("bell", last="3-é+/ ")]
    # When somebody listens
    heard = pool.listen(["bell", "worker_1"], "1-a b&c", LONG)
    # Then it was asked about these documents, from that marker on, with signs of life
    query, body = question(server)
    assert heard == Heard(frozenset({"bell"}), "3-é+/ ")
    assert {name: values[0] for name, values in query.items()} == {
        "feed": "longpoll", "filter": "_doc_ids", "since": "1-a b&c", "heartbeat": "25000",
    }  # fmt: skip
    assert sorted(body["doc_ids"]) == ["bell", "worker_1"]


def test_a_marker_may_be_a_number(server: Scripted, pool: CouchDBBackend) -> None:
    # PouchDB counts its changes.
    server.script = [changes(last=7), changes("bell", last=8)]
    marker = pool.listen(["bell"]).marker
    assert (marker, server.paths) == ("7", ["GET /db/_changes?since=now&limit=0"])
    assert pool.listen(["bell"], marker, LONG) == Heard(frozenset({"bell"}), "8")
    assert question(server, 1)[0]["since"] == ["7"]


def test_without_time_it_only_looks(server: Scripted, pool: CouchDBBackend) -> None:
    server.script = [changes("bell")]
    assert pool.listen(["bell"], "1-a", 0).changed == {"bell"}
    assert "feed" not in question(server)[0]


def test_a_server_that_knows_no_filter_is_asked_on(server: Scripted, pool: CouchDBBackend) -> None:
    # Given a server that tells of every document, and at times of none
    server.script = [changes("x", last="2-b"), changes(last="3-c"), changes("x", "bell", last="4-d")]
    # Then it is asked on, each time from where it was, until what is wanted changed
    assert pool.listen(["bell"], "1-a", LONG) == Heard(frozenset({"bell"}), "4-d")
    assert [question(server, number)[0]["since"] for number in range(3)] == [["1-a"], ["2-b"], ["3-c"]]


def test_a_server_that_answers_for_nothing_is_not_hurried(
    server: Scripted, pool: CouchDBBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that holds no question
    pauses: list[float] = []
    monkeypatch.setattr(pool._listener._polls, "pause", pauses.append)
    server.script = [changes("x")] * 8 + [changes("bell")]
    pool.listen(["bell"], "1-a", LONG)
    # Then the pauses between two questions grow, up to a limit
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5]


def test_the_time_passes_although_the_server_gives_signs_of_life(server: Scripted, pool: CouchDBBackend) -> None:
    # Given a server that begins to answer and breathes, and one that does not even begin
    begin, end = threading.Event(), threading.Event()

    def breathe(request: Request) -> None:
        request.send_response_only(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        with contextlib.suppress(OSError):
            while not end.wait(0.05):
                request.wfile.write(b"1\r\n\n\r\n")
                request.wfile.flush()

    server.script = [breathe, holding(begin, end)]
    # Then both are left after the time, with the marker that one had
    for _ in range(2):
        assert pool.listen(["bell"], "1-a", 0.3) == Heard(frozenset(), "1-a")
    assert len(server.seen) == 2
    end.set()


def test_a_line_that_died_is_noticed(server: Scripted, pool: CouchDBBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a server that is silent for longer than its signs of life may take
    begin, end = threading.Event(), threading.Event()
    monkeypatch.setattr(longpoll, "SILENCE", 0.1)
    server.script = [*[holding(begin, end), holding(begin, end, b"\n")] * 2, changes("bell")]
    # Then it is asked anew
    assert pool.listen(["bell"], "1-a", LONG).changed == {"bell"}
    end.set()


@pytest.mark.parametrize("trouble", [cut, answer(503), answer(502, b"<html>"), answer(429), answer(504)])
def test_trouble_on_the_way_is_waited_out(
    server: Scripted, pool: CouchDBBackend, trouble: Callable[[Request], None]
) -> None:
    server.script = [trouble, trouble, changes("bell")]
    assert pool.listen(["bell"], "1-a", LONG).changed == {"bell"}


def test_an_answer_that_breaks_off_is_asked_for_again(server: Scripted, pool: CouchDBBackend) -> None:
    begin, end = threading.Event(), threading.Event()
    end.set()
    server.script = [holding(begin, end, b'{"results":[{"id":"bell"', b"\n"), changes("bell")]
    assert pool.listen(["bell"], "1-a", LONG).changed == {"bell"}


@pytest.mark.parametrize("body", [{"ok": True}, [], {"results": [5], "last_seq": 1}])
def test_an_answer_of_something_else_counts_as_lost(server: Scripted, pool: CouchDBBackend, body: Any) -> None:
    server.script = [answer(200, body)]
    with pytest.raises(AnswerLost, match="_changes"):
        pool.listen(["bell"], "1-a", LONG)


@pytest.mark.parametrize("trouble", [cut, answer(503)])
def test_trouble_without_end_is_a_server_away(
    server: Scripted, pool: CouchDBBackend, trouble: Callable[[Request], None]
) -> None:
    server.script = [trouble] * 3
    with pytest.raises(ServerAway):
        pool.listen(["bell"], "1-a", LONG)
    assert len(server.seen) == 3


def test_a_proxy_that_cuts_long_questions_is_no_trouble(
    server: Scripted, pool: CouchDBBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a proxy that lets a question live only so long, more often than there are attempts
    monkeypatch.setattr(longpoll, "HELD", -1.0)
    server.script = [cut, answer(504)] * 4 + [changes("bell")]
    # Then the question is asked on
    assert pool.listen(["bell"], "1-a", LONG).changed == {"bell"}


def test_a_user_who_may_not_listen_is_told(server: Scripted, pool: CouchDBBackend) -> None:
    server.script = [answer(403, {"error": "forbidden", "reason": "not you"})]
    with pytest.raises(NotPermitted, match="not you"):
        pool.listen(["bell"], "1-a", LONG)


def test_a_session_that_ran_out_is_renewed(server: Scripted) -> None:
    # Given a login whose cookie the server forgets
    cookies = [answer(200, Set_Cookie=f"AuthSession={each}; Version=1; Max-Age=600") for each in ("one", "two")]
    server.script = [cookies[0], answer(200), answer(401), cookies[1], changes("bell")]
    with CouchDBBackend(f"couchdb+{server.url}/db".replace("//", "//me:secret@")) as pool:
        # Then the question is asked again with a new one
        assert pool.listen(["bell"], "1-a", LONG).changed == {"bell"}
    assert [seen.headers.get("Cookie") for seen in server.seen if "_changes" in seen.path] == [
        "AuthSession=one",
        "AuthSession=two",
    ]


@pytest.mark.parametrize("pieces", [(), (b'{"results":[\n', b"\n")], ids=["silent", "begun"])
def test_closing_ends_a_question_that_is_held(
    server: Scripted, pool: CouchDBBackend, pieces: tuple[bytes, ...]
) -> None:
    # Given a thread whose question the server holds
    begin, end = threading.Event(), threading.Event()
    server.script = [holding(begin, end, *pieces)]
    with ThreadPoolExecutor(1) as threads:
        wait = threads.submit(pool.listen, ["bell"], "1-a", LONG)
        assert begin.wait(LONG)
        # When the pool is closed elsewhere
        pool.close()
        # Then the thread is told, although the server still holds it
        with pytest.raises(TokenpoolError, match="closed"):
            wait.result(LONG / 2)
    end.set()


@pytest.mark.parametrize("pieces", [(), (b'{"results":[\n', b"\n")], ids=["silent", "begun"])
def test_closing_ends_a_question_over_tls(server: Scripted, tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    over_tls(server, tmp_path)
    begin, end = threading.Event(), threading.Event()
    server.script = [answer(200), holding(begin, end, *pieces)]
    pool = CouchDBBackend(f"couchdb+{server.url}/db?cafile={tmp_path}/ca.pem")
    with ThreadPoolExecutor(1) as threads:
        wait = threads.submit(pool.listen, ["bell"], "1-a", LONG)
        assert begin.wait(LONG)
        pool.close()
        with pytest.raises(TokenpoolError, match="closed"):
            wait.result(LONG / 2)
    end.set()


def test_questions_use_no_connection_of_others(server: Scripted, pool: CouchDBBackend) -> None:
    # Given more threads that listen than connections are kept
    number = 40
    begun = threading.Barrier(number + 1)
    end = threading.Event()

    def hold(request: Request) -> None:
        begun.wait(LONG)
        end.wait(LONG)
        changes("bell")(request)

    server.script = [hold] * number
    with ThreadPoolExecutor(number) as threads:
        waits = [threads.submit(pool.listen, ["bell"], "1-a", LONG) for _ in range(number)]
        begun.wait(LONG)
        # Then a request comes through at once, and every thread hears
        assert pool.get("doc") == {"ok": True}
        end.set()
        assert {wait.result(LONG).changed for wait in waits} == {frozenset({"bell"})}


def test_a_pool_that_nobody_closed_leaves_no_connection_behind(server: Scripted) -> None:
    # Given a pool that listened and was forgotten
    server.script = [answer(200), changes("bell")]
    pool = CouchDBBackend(f"couchdb+{server.url}/db")
    pool.listen(["bell"], "1-a", LONG)
    # Then Python may forget its connections as well, without a warning
    del pool
    gc.collect()


# ── a busy pool ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Hours:
    """A clock that only pauses move."""

    def __init__(self, pool: CouchDBBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        monkeypatch.setattr(pool._listener, "_clock", lambda: self.now)
        monkeypatch.setattr(pool._listener._polls, "pause", self.pause)
        monkeypatch.setattr("tokenpool.chance.uniform", lambda low, high: (low + high) / 2)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def hours(pool: CouchDBBackend, monkeypatch: pytest.MonkeyPatch) -> Hours:
    return Hours(pool, monkeypatch)


def kinds(server: Scripted) -> list[str]:
    """Return whether each question was to be held or answered at once."""
    return ["held" if "feed=longpoll" in seen.path else "looked" for seen in server.seen]


BEGUN = b'{"results":[\n'


def test_a_busy_pool_is_looked_at_now_and_then(server: Scripted, pool: CouchDBBackend, hours: Hours) -> None:
    # Given a server that gives a sign of life for each of many writes, and holds a question
    begin, end = threading.Event(), threading.Event()
    looks = [changes(last=f"{count}-x") for count in (100, 600, 2000, 6000, 12000)]
    server.script = [holding(begin, end, BEGUN, *[b"\n"] * 40), *looks, changes("bell", last="20000-x")]
    # Then the question is withdrawn, and the pool looked at, more and more seldom, until something changed
    assert pool.listen(["bell"], "60-x", 300) == Heard(frozenset({"bell"}), "20000-x")
    assert kinds(server) == ["held", *["looked"] * 6]
    assert hours.pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    # And it is remembered: the next one begins with a look
    server.script = [changes("bell", last="20500-x")]
    assert pool.listen(["bell"], "20000-x", 300).changed == {"bell"}
    assert kinds(server)[-1] == "looked"
    end.set()


def test_a_pool_that_is_quiet_again_holds_the_question(server: Scripted, pool: CouchDBBackend, hours: Hours) -> None:
    begin, end = threading.Event(), threading.Event()
    looks = [changes(last="100-x"), changes(last="101-x")]
    server.script = [holding(begin, end, BEGUN, *[b"\n"] * 40), *looks, changes("bell", last="102-x")]
    assert pool.listen(["bell"], "60-x", 300).changed == {"bell"}
    assert kinds(server) == ["held", "looked", "looked", "held"]
    end.set()


def test_that_a_pool_was_busy_is_forgotten(server: Scripted, pool: CouchDBBackend, hours: Hours) -> None:
    begin, end = threading.Event(), threading.Event()
    server.script = [holding(begin, end, BEGUN, *[b"\n"] * 40), changes("bell"), changes("bell")]
    pool.listen(["bell"], "60-x", 300)
    hours.now += 60
    pool.listen(["bell"], "61-x", 300)
    assert kinds(server) == ["held", "looked", "held"]
    end.set()


def test_a_busy_pool_is_looked_at_once_more_when_the_time_is_over(
    server: Scripted, pool: CouchDBBackend, hours: Hours
) -> None:
    begin, end = threading.Event(), threading.Event()
    looks = [changes(last=f"{1000 * count}-x") for count in range(1, 4)]
    server.script = [holding(begin, end, BEGUN, *[b"\n"] * 40), *looks]
    assert pool.listen(["bell"], "60-x", 3.0) == Heard(frozenset(), "3000-x")
    assert hours.pauses == [0.5, 1.0, 1.5]
    end.set()


def test_a_few_writes_do_not_end_a_question(server: Scripted, pool: CouchDBBackend) -> None:
    def act(request: Request) -> None:
        data = BEGUN + b"\n" * 5 + b'{"id":"bell"}\n],\n"last_seq":"2-b"}\n'
        request.send_response_only(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for place in range(len(data)):
            request.wfile.write(b"1\r\n%s\r\n" % data[place : place + 1])
        request.wfile.write(b"0\r\n\r\n")
        request.wfile.flush()

    server.script = [act]
    assert pool.listen(["bell"], "1-a", LONG) == Heard(frozenset({"bell"}), "2-b")


# ── the clock ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hours", [-3, 0, 1])
def test_now_is_the_time_of_the_server(server: Scripted, pool: CouchDBBackend, hours: int) -> None:
    # Given a server whose clock is hours off
    server.script = [answer(200, Date=formatdate(time.time() + 3600 * hours, usegmt=True))]
    # When anything was asked, then its time is known
    before = time.time()
    pool.get("doc")
    assert before - 10 < pool.now() - 3600 * hours < time.time() + 10


def test_the_clock_is_learned_from_questions_too(server: Scripted, pool: CouchDBBackend) -> None:
    def act(request: Request) -> None:
        answer(200, {"results": [{"id": "bell"}], "last_seq": "2"}, Date=formatdate(time.time() + 7200, usegmt=True))(
            request
        )

    server.script = [act]
    pool.listen(["bell"], "1-a", LONG)
    assert pool.now() - time.time() > 7000


@pytest.mark.parametrize("date", ["", "soon", "Sat, 99 Nov 2026 07:20:48 GMT"])
def test_a_date_that_is_none_says_nothing(server: Scripted, pool: CouchDBBackend, date: str) -> None:
    server.script = [answer(200, Date=date)]
    pool.get("doc")
    assert abs(pool.now() - time.time()) < 10


def test_many_answers_make_the_clock_exact(pool: CouchDBBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a server that is 3.7 s ahead, and tells whole seconds
    ours = [1_800_000_000.0]
    monkeypatch.setattr("tokenpool.backends.transport.time", type("Clock", (), {"time": lambda: ours[0]}))

    class Told:
        headers: dict[str, str] = {}

    # When it answers again and again, at any time within a second
    for step in range(50):
        ours[0] += 1.03
        Told.headers = {"Date": formatdate(int(ours[0] + 3.7), usegmt=True)}
        pool.transport.learn_time(Told, ours[0] - 0.001 * step)  # type: ignore[arg-type]
    # Then the difference is known far better than a second
    assert abs(pool.transport.clock_offset - 3.7) < 0.1

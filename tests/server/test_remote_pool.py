"""Workers and clients that know only a server: they drain its pool, outlive its restart, and repeat no write."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import FaultyProxy
from picas_scripts import Script, finish
from scripted_server import Scripted, answer, over_tls, scripted_server
from server_parts import People, Server, serving

from tokenpool import connect
from tokenpool.backends import open_backend
from tokenpool.backends.base import Json, Saved, Want
from tokenpool.clients import CouchDB
from tokenpool.documents import Task
from tokenpool.errors import AnswerLost, BadInput, NotFound, NotPermitted, ServerAway
from tokenpool.pool import Pool
from tokenpool.worker import Worker, WorkerOptions

HELLO: Json = {"ordered": True, "protocol": 1, "limit": 1000}


def url_of(server: Server) -> str:
    return "tokenpool+" + server.url.rstrip("/")


@pytest.fixture
def far(server: Server) -> Iterator[Pool]:
    """The pool through a real server, over each backend in turn."""
    with connect(url_of(server)) as pool:
        yield pool


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with scripted_server() as server:
        yield server


# ── work ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_knows_only_the_server_drains_its_pool(server: Server, far: Pool) -> None:
    # Given tokens in the pool of a server, one of them with output that is no text
    (odd,) = far.push({"command": ["printf", r"\377\000out"]})
    far.push([f"echo {number}; echo err >&2" for number in range(20)], batch="night")
    # When a worker is started with nothing but the server's URL
    command = [sys.executable, "-m", "tokenpool", "work", "-S", url_of(server), "--slots", "2", "--quit"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    # Then all are done, with both logs attached
    assert far.counts()["done"] == 21
    assert far.logs(odd).out == b"\xff\x00out"
    for task in far.tokens("batch:night"):
        assert far.logs(task.id).err == b"err\n"
        assert len(task["attempts"]) == 1
    assert far.workers() == []


def test_an_actor_of_picas_works_through_a_server(server: Server, far: Pool) -> None:
    # Given tokens
    ids = far.push([f"echo {number}" for number in range(5)])

    def run(token: Task) -> None:
        token["output"] = f"ran {token['input']}"
        finish(token)

    # When a script that is written for picas is given the server's URL
    client = CouchDB(url_of(server))
    Script(client, run).run()
    client.pool.close_connections()
    # Then it has run them
    assert far.counts()["done"] == 5
    assert {far.get(each)["output"] for each in ids} == {f"ran echo {number}" for number in range(5)}


def test_only_what_fits_is_taken_and_a_full_batch_is_left(far: Pool) -> None:
    # Given a batch with room for one, whose first tokens do not fit, and tokens of another one behind it
    far.push([{"input": "big", "priority": 2}] * 30, batch="a")
    far.push([{"input": "small", "priority": 1}] * 30, batch="a")
    far.push([{"input": "small"}] * 5, batch="b")
    far.set_batch("a", max_running=1)
    want = Want(fits=lambda doc: doc["input"] == "small")
    # Then the window has the one for which there is room, and those of the other batch
    window = far.backend.candidates(want, 10, 0.5)
    assert sorted(doc["batch"] for doc in window.tokens) == ["a", "b", "b", "b", "b", "b"]
    assert window.rooms == {"a": 1}


def test_an_idle_worker_is_woken_by_a_push_past_the_server(server: Server, far: Pool, pool_url: str) -> None:
    # Given a worker that waits for work through the server
    worker = Worker(far, WorkerOptions(slots=1, max_tasks=1, poll=600, workdir=Path("work")))
    running = threading.Thread(target=worker.run)
    running.start()
    while not far.workers():
        time.sleep(0.05)
    # When a token is pushed straight into the pool
    with connect(pool_url) as near:
        near.push(["echo hi"])
    # Then it runs long before the worker would look again
    running.join(60)
    assert not running.is_alive()
    assert far.counts()["done"] == 1


# ── trouble ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_restart_of_the_server_is_survived(sqlite_url: str) -> None:
    # Given somebody who reads, writes and listens through a server
    with serving(sqlite_url) as first:
        port = int(first.url.rstrip("/").rpartition(":")[2])
        far = connect(url_of(first), create=True)
        far.push(["echo 1"])
        marker = far.backend.listen(["bell", "x"]).marker
        heard: list[Any] = []

        def listen() -> None:
            while not heard:
                with contextlib.suppress(ServerAway):  # for so long as it is away
                    heard.append(far.backend.listen(["x"], marker, 60))

        listening = threading.Thread(target=listen)
        listening.start()
        assert first.stop() == 0
    # When it is stopped and started again, then they go on
    with serving(sqlite_url, port=port):
        far.push(["echo 2"])
        assert far.counts()["todo"] == 2
        assert isinstance(far.backend.put_many([{"_id": "x"}])[0], Saved)
        listening.join(60)
        assert [each.changed for each in heard] == [frozenset({"x"})]
    far.close_connections()


def test_a_worker_outlives_a_restart_of_the_server(sqlite_url: str) -> None:
    # Given a worker in the midst of its work
    with connect(sqlite_url, create=True) as near:
        near.push(["sleep 0.2; echo hi"] * 20)
        with serving(sqlite_url) as first:
            port = int(first.url.rstrip("/").rpartition(":")[2])
            far = connect(url_of(first))
            worker = Worker(far, WorkerOptions(slots=2, idle_timeout=4, poll=0.5, workdir=Path("work")))
            running = threading.Thread(target=worker.run)
            running.start()
            while near.counts()["done"] < 2:
                time.sleep(0.05)
            assert first.stop() == 0
        # When the server is away for a while and comes back
        with serving(sqlite_url, port=port):
            running.join(120)
            assert not running.is_alive()
        # Then every token ran once, and has its log
        assert near.counts()["done"] == 20
        for task in near.tokens():
            assert len(task["attempts"]) == 1
            assert near.logs(task.id).out == b"hi\n"
        far.close_connections()


def test_a_write_whose_answer_was_lost_is_not_sent_again(server: Server) -> None:
    # Given a line that drops the answer to a write
    with FaultyProxy(server.url.rstrip("/")) as proxy:
        far = open_backend(f"tokenpool+{proxy.url}")
        fault = proxy.drop_answer("POST", "/backend/put")
        # When a document is written, then we are told that nobody knows, and it was sent once
        with pytest.raises(AnswerLost):
            far.put_many([{"_id": "x", "n": 1}])
        assert fault.hits == 1
        assert far.get("x")["n"] == 1
        # And a question whose answer was lost is asked again
        fault = proxy.drop_answer("POST", "/backend/get")
        assert far.get("x")["n"] == 1
        assert fault.hits == 1
        far.close()


def test_a_scan_that_breaks_off_is_no_end(scripted: Scripted) -> None:
    scripted.script = [answer(200, HELLO), answer(200, b'{"_id": "a"}\n{"_id": "b"}\n')]
    far = open_backend(f"tokenpool+{scripted.url}")
    scan = far.scan()
    assert [next(scan)["_id"], next(scan)["_id"]] == ["a", "b"]
    with pytest.raises(ServerAway):
        next(scan)
    far.close()


def test_answers_that_are_not_those_of_the_documents_are_not_believed(scripted: Scripted) -> None:
    for told in ({"results": []}, {"results": [{"id": "other", "rev": "1-a"}]}, {}, []):
        scripted.script = [answer(200, HELLO), answer(200, told)]
        far = open_backend(f"tokenpool+{scripted.url}")
        with pytest.raises(AnswerLost):
            far.put_many([{"_id": "x"}])
        far.close()


def test_documents_that_are_too_many_for_one_request_are_sent_in_several(scripted: Scripted) -> None:
    # Given a server that takes little at once
    def stored(request: Any) -> None:
        ids = re.findall(rb'"_id":"(\w+)"', request.body)
        answer(200, {"results": [{"id": each.decode(), "rev": "1-a"} for each in ids]})(request)

    scripted.script = [answer(200, HELLO), *([stored] * 20)]
    far = open_backend(f"tokenpool+{scripted.url}")
    # When more is written, and one document that is too large by itself
    results = far.put_many(
        [*({"_id": f"d{n}", "text": "x" * 100} for n in range(16)), {"_id": "huge", "text": "x" * 2000}]
    )
    # Then each is answered for in its place
    assert [result.id for result in results] == [*(f"d{n}" for n in range(16)), "huge"]
    assert [isinstance(result, Saved) for result in results] == [True] * 16 + [False]
    assert all(len(seen.body) <= 1000 for seen in scripted.seen)
    far.close()


# ── who may ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_machine_comes_with_its_token_or_a_name_and_password(
    sqlite_url: str, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server where everybody has to log in
    with connect(sqlite_url, create=True), serving(sqlite_url, "--users", str(people.file)) as server:
        url = url_of(server)
        # Then nobody gets in without, or with a wrong one, or as somebody who only looks
        for password in (None, "tp_wrong", people.tokens["viewer"]):
            with pytest.raises(NotPermitted) as caught:
                open_backend(url, password)
            assert caught.value.hint
        # And a worker does with its token, from the settings too, or by name
        open_backend(url, people.tokens["worker"]).close()
        open_backend(url.replace("//", "//worker@"), "the worker's password").close()
        monkeypatch.setenv("TOKENPOOL_PASSWORD", people.tokens["worker"])
        with connect(url) as far:
            far.push(["echo"])
            Worker(far, WorkerOptions(slots=1, quit=True, workdir=Path("work"))).run()
            assert far.counts()["done"] == 1
            assert people.tokens["worker"] not in far.url


def test_a_password_is_not_sent_in_the_clear(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BadInput) as caught:
        open_backend("tokenpool+http://example.org", "secret")
    assert "insecure" in caught.value.hint
    with pytest.raises(ServerAway):
        open_backend("tokenpool+http://nowhere.invalid?insecure=true&attempts=1", "secret")
    assert "can be read by everybody" in caplog.text


@pytest.mark.parametrize(
    "url", ["tokenpool+http://", "tokenpool+https://host:port", "tokenpool+http://127.0.0.1?colour=red"]
)
def test_a_url_that_names_no_server_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_backend(url)
    assert caught.value.hint


def test_another_kind_of_server_is_told_apart(scripted: Scripted) -> None:
    scripted.script = [answer(404, b"<html>not here</html>")]
    with pytest.raises(NotFound) as caught:
        open_backend(f"tokenpool+{scripted.url}")
    assert "no tokenpool server" in caught.value.message


def test_a_certificate_that_nobody_knows_is_not_trusted(scripted: Scripted, tmp_path: Path) -> None:
    over_tls(scripted, tmp_path)
    scripted.script = [answer(200, HELLO)]
    with pytest.raises(ServerAway) as caught:
        open_backend(f"tokenpool+{scripted.url}")
    assert "certificate" in caught.value.message
    open_backend(f"tokenpool+{scripted.url}?cafile={tmp_path}/ca.pem").close()

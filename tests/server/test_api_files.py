"""The JSON API: logs and attachments, whole and in part, whatever they hold; and event streams."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from server_parts import Server, serving

from tokenpool.pool import Pool, connect
from tokenpool.transitions import close

if TYPE_CHECKING:
    from starlette.testclient import TestClient

API = "api/v1/"
HOSTILE = b"<script>alert(1)</script>\x00\xff\x1b[31m\r\nX: y\n"


def attached(pool: Pool, name: str, data: bytes, kind: str = "text/plain") -> str:
    """Return the id of a token that ended and has this file."""
    (token_id,) = pool.push(["echo"])
    (task,) = pool.claim()
    pool.close(task)
    rev = pool.get(token_id).doc["_rev"]
    pool.backend.put_attachment(token_id, rev, name.replace("ID", token_id), io.BytesIO(data), len(data), kind)
    return token_id


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_is_returned_whole_and_in_part(client: TestClient, pool: Pool) -> None:
    # Given a token with a log of a megabyte
    data = bytes(range(256)) * 4096
    token_id = attached(pool, "logs_ID.out", data)
    path = API + f"tokens/{token_id}/logs/out"
    # Then it is returned whole, and any part of it
    whole = client.get(path)
    assert (whole.status_code, whole.content) == (200, data)
    for asked, part in (
        ("0-9", data[:10]),
        ("-5", data[-5:]),
        ("1048570-", data[1048570:]),
        ("300-299999", data[300:300000]),
    ):
        answer = client.get(path, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, part)
        assert answer.headers["content-length"] == str(len(part))
    assert client.get(path, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
    assert client.get(path, headers={"Range": "lines=1-2"}).content == data
    # And a browser that has it is told that it is the same
    assert client.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_a_hostile_log_is_only_text(client: TestClient, pool: Pool) -> None:
    token_id = attached(pool, "logs_ID.err", HOSTILE, "text/html")
    answer = client.get(API + f"tokens/{token_id}/logs/err")
    assert answer.content == HOSTILE
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["page.html", 'a"b; filename=x', "../../etc/passwd", "ü €.svg", "dir/a b.txt"])
def test_a_hostile_file_is_only_saved(sqlite_pool: Pool, serve: Callable[..., TestClient], name: str) -> None:
    token_id = attached(sqlite_pool, name, HOSTILE, "image/svg+xml")
    client = serve(sqlite_pool)
    answer = client.get(API + f"tokens/{token_id}/attachments/{quote(name, safe='')}")
    assert (answer.status_code, answer.content) == (200, HOSTILE)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert "\n" not in answer.headers["content-disposition"]
    assert "x" not in answer.headers


def test_what_is_not_there_is_not_found(client: TestClient, pool: Pool) -> None:
    (token_id,) = pool.push(["echo"])
    for path in (f"tokens/{token_id}/logs/out", f"tokens/{token_id}/attachments/x", "tokens/none/logs/err"):
        answer = client.get(API + path)
        assert answer.status_code == 404
        assert answer.json()["error"]["hint"]
    assert client.get(API + f"tokens/{token_id}/logs/out?attempt=3").status_code == 404


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Yield the name and data of each event as it comes."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


@pytest.fixture
def running(sqlite_url: str) -> Iterator[tuple[Server, Pool]]:
    """A real server over a file, and its pool."""
    with connect(sqlite_url, create=True) as pool, serving(sqlite_url) as server:
        yield server, pool


def test_a_log_is_followed_to_its_end(running: tuple[Server, Pool]) -> None:
    # Given a token that waits, and somebody who follows it
    server, pool = running
    (token_id,) = pool.push(["echo"])
    with server.client() as client, client.stream("GET", f"{API}tokens/{token_id}/follow") as answer:
        told = events(answer)
        assert next(told) == ("begin", {"token": token_id})
        assert next(told) == ("note", {"text": "it waits (todo)"})
        # When it runs and ends with a log
        (task,) = pool.claim()
        rev = task.doc["_rev"]
        text = "héllo <b>\n".encode()
        rev = pool.backend.put_attachment(
            token_id, rev, f"logs_{token_id}.out", io.BytesIO(text), len(text), "text/plain"
        )
        doc = pool.get(token_id).doc
        doc["exit_code"] = 0
        pool.backend.put_many([close(doc)])
        # Then they read it, and are told of the end
        rest = list(told)
    assert ("out", {"text": text.decode()}) in rest
    assert rest[-1] == ("end", {"token": token_id})


def test_the_pool_is_seen_to_change(running: tuple[Server, Pool]) -> None:
    # Given somebody who watches
    server, pool = running
    with server.client() as client, client.stream("GET", f"{API}events") as answer:
        told = events(answer)
        name, first = next(told)
        assert (name, first["states"]["todo"]) == ("snapshot", 0)
        # When tokens are pushed, then they see it
        pool.push(["echo"] * 3, batch="night")
        seen = next(data for _, data in told if data["states"]["todo"] == 3)
        assert seen["batches"]["night"]["todo"] == 3


def test_many_may_leave_while_they_follow(running: tuple[Server, Pool]) -> None:
    # Given many that follow a token
    server, pool = running
    (token_id,) = pool.push(["echo"])
    ready = threading.Barrier(21)

    def follow() -> None:
        with server.client() as client, client.stream("GET", f"{API}tokens/{token_id}/follow") as answer:
            next(events(answer))
            ready.wait(60)

    threads = [threading.Thread(target=follow) for _ in range(20)]
    for thread in threads:
        thread.start()
    ready.wait(60)
    for thread in threads:
        thread.join(60)
    # When all have left, then the server still answers, and stops when it is asked to
    with server.client() as client:
        assert client.get(f"{API}status").json()["states"]["todo"] == 1
    assert server.stop() == 0


def test_everybody_is_told_the_same(as_role: Callable[[str], TestClient], sqlite_pool: Pool) -> None:
    token_id = attached(sqlite_pool, "logs_ID.out", b"hi")
    for role in ("viewer", "submitter", "worker", "operator"):
        assert as_role(role).get(API + f"tokens/{token_id}/logs/out").content == b"hi"
    assert as_role("").get(API + f"tokens/{token_id}/logs/out").status_code == 401

"""The JSON API: the pool as a whole, its batches and workers, its figures, and what each role may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tokenpool.pool import Pool

if TYPE_CHECKING:
    from starlette.testclient import TestClient

API = "api/v1/"


def test_the_status_is_that_of_the_command_line(client: TestClient, pool: Pool) -> None:
    pool.push(["echo"] * 2, batch="night")
    told = client.get(API + "status").json()
    assert told == {**pool.status(), "workers": told["workers"]}
    assert told["batches"]["night"]["todo"] == 2


def test_a_batch_is_steered(client: TestClient, pool: Pool) -> None:
    # Given a batch
    pool.push(["echo"], batch="a/b c")
    # When it is paused and limited
    answer = client.patch(API + "batches/a%2Fb%20c", json={"paused": True, "priority": 2.5, "max_running": 3})
    # Then the pool does so, and the list shows it
    assert (answer.status_code, answer.json()["paused"]) == (200, True)
    assert pool.batch("a/b c").max_running == 3
    (shown,) = client.get(API + "batches").json()["batches"]
    assert (shown["name"], shown["priority"], shown["states"]["todo"]) == ("a/b c", 2.5, 1)
    assert client.patch(API + "batches/a%2Fb%20c", json={"max_running": None}).json()["max_running"] is None


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("batches/none", {"paused": True}, 404),
        ("batches/night", {"paused": "yes"}, 400),
        ("batches/night", {"colour": "red"}, 400),
        ("batches/night", {"max_running": 0}, 400),
        ("batches/night", {"create": True}, 400),
        ("batches/night", [1], 400),
        ("workers/none", {"slots": 2}, 404),
        ("workers/none", {"slots": "2"}, 400),
        ("workers/none", {"prefetch": 1}, 404),
        ("workers/none", {"prefetch": "1"}, 400),
        ("workers/none", {"look": True}, 400),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(
    client: TestClient, pool: Pool, path: str, body: Any, status: int
) -> None:
    pool.push(["echo"], batch="night")
    answer = client.patch(API + path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["hint"]


def test_a_worker_is_steered(client: TestClient, pool: Pool) -> None:
    # Given a worker
    pool.push(["echo"])
    pool.claim()
    (worker,) = client.get(API + "workers").json()["workers"]
    assert worker["running"] == 1
    # When it is told to run four at once, to claim one ahead, and to leave
    answer = client.patch(API + f"workers/{worker['id']}", json={"slots": 4, "prefetch": 1, "drain": True})
    assert answer.status_code == 200, answer.text
    assert [answer.json()[name] for name in ("slots", "prefetch", "state")] == [4, 1, "draining"]
    # And nonsense is refused, and changes nothing
    for wrong in ({"prefetch": -1}, {"prefetch": True}, {"slots": 5, "prefetch": 1.5}):
        assert client.patch(API + f"workers/{worker['id']}", json=wrong).status_code == 400
    assert client.get(API + "workers").json()["workers"][0]["slots"] == 4
    pool.leave()


def test_prometheus_is_told_of_tokens_and_names_are_escaped(client: TestClient, pool: Pool) -> None:
    pool.push(["echo"] * 2, batch='a"b\\c')
    answer = client.get("metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'tokenpool_tokens{state="todo",batch="a\\"b\\\\c"} 2' in lines
    assert "tokenpool_up 1" in lines
    assert all(line.startswith(("# ", "tokenpool_")) for line in lines)


ASKED: list[tuple[str, str, str]] = [
    ("GET", "status", "viewer"),
    ("GET", "tokens", "viewer"),
    ("GET", "batches", "viewer"),
    ("GET", "workers", "viewer"),
    ("POST", "tokens", "submitter"),
    ("POST", "tokens/change", "submitter"),
    ("PATCH", "batches/x", "operator"),
    ("PATCH", "workers/x", "operator"),
    ("GET", "backend", "worker"),
    ("POST", "backend/put", "worker"),
    ("POST", "backend/get", "worker"),
    ("GET", "backend/scan", "worker"),
]
ROLES = ("viewer", "submitter", "worker", "operator")


@pytest.mark.parametrize(("method", "path", "least"), ASKED)
def test_each_role_may_do_its_part(as_role: Callable[[str], TestClient], method: str, path: str, least: str) -> None:
    assert as_role("").request(method, API + path).status_code == 401
    for role in ROLES:
        status = as_role(role).request(method, API + path, content=b"{}").status_code
        assert (status == 403) == (ROLES.index(role) < ROLES.index(least)), (role, status)


def test_a_worker_writes_no_views(as_role: Callable[[str], TestClient], sqlite_pool: Pool) -> None:
    # Given the machine of a worker
    worker = as_role("worker")
    design = sqlite_pool.backend.get("_design/Monitor")
    evil = {**design, "views": {"todo": {"map": "function(doc) { emit(doc); }"}}}
    # When it sends a view of its own, then nothing is written
    assert worker.post(API + "backend/put", json={"docs": [evil]}).status_code == 403
    assert worker.post(API + "backend/create", json={"designs": [evil]}).status_code == 403
    assert sqlite_pool.backend.get("_design/Monitor") == design
    # And that which is there already is no harm
    assert worker.post(API + "backend/create", json={"designs": []}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("get", {"ids": "x"}),
        ("put", {"docs": ["x"]}),
        ("put", {}),
        ("listen", {"ids": ["x"], "timeout": "long"}),
        ("candidates", {"limit": -1}),
        ("candidates", {"limit": 5, "start": 7}),
        ("waiting", {"kind": "dew"}),
        ("get", [1]),
    ],
)
def test_a_broken_question_of_a_machine_is_refused(client: TestClient, path: str, body: Any) -> None:
    answer = client.post(API + f"backend/{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "bad_input"

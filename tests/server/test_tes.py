"""GA4GH TES over a pool: tasks are made, found page by page, told in three views, cancelled; by everybody who may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tokenpool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.testclient import TestClient

    Clients = Callable[[str], TestClient]

Json = dict[str, Any]
TES = "ga4gh/tes/v1"
EXECUTOR = {"image": "alpine:3", "command": ["echo", "hi"]}


def create(client: TestClient, **fields: Any) -> str:
    answer = client.post(f"{TES}/tasks", json={"executors": [EXECUTOR], **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def get(client: TestClient, id: str, view: str = "FULL") -> Json:
    answer = client.get(f"{TES}/tasks/{id}", params={"view": view})
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def every(client: TestClient, **params: Any) -> list[Json]:
    """Return all tasks of a list, going from page to page to its end."""
    found: list[Json] = []
    place = ""
    while True:
        answer = client.get(f"{TES}/tasks", params={**params, **({"page_token": place} if place else {})})
        assert answer.status_code == 200, answer.text
        found += answer.json()["tasks"]
        place = answer.json().get("next_page_token", "")
        if not place:
            return found


def finish(pool: Pool, exit_code: int = 0, **fields: Any) -> str:
    """Do the work of the one token that waits."""
    (token,) = pool.claim()
    pool.close(token, exit_code, **fields)
    return token.id


# ── one task ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_is_a_token_that_workers_take(pool: Pool, client: TestClient) -> None:
    id = create(client, name="hello", tags={"project": "x"})
    assert get(client, id, "MINIMAL") == {"id": id, "state": "QUEUED"}
    token = pool.get(id)
    assert token["executors"] == [{**EXECUTOR, "workdir": ""}]
    (claimed,) = pool.claim()
    assert get(client, id, "BASIC")["state"] == "RUNNING"
    pool.close(claimed)
    assert get(client, id)["state"] == "COMPLETE"


def test_the_minimal_view_is_what_is_told_without_a_word(client: TestClient) -> None:
    id = create(client, name="hello")
    assert client.get(f"{TES}/tasks/{id}").json() == {"id": id, "state": "QUEUED"}
    assert client.get(f"{TES}/tasks").json() == {"tasks": [{"id": id, "state": "QUEUED"}]}


def test_a_token_that_was_pushed_is_a_task(pool: Pool, client: TestClient) -> None:
    (id,) = pool.push("echo hi", name="by hand")
    assert get(client, id, "BASIC")["executors"] == [{"image": "", "command": ["/bin/sh", "-c", "echo hi"]}]


def test_what_is_no_token_is_no_task(pool: Pool, client: TestClient) -> None:
    pool.set_batch("night", create=True, paused=True)
    for id in ("nothing", "batch_night", "_design/tokenpool", "", "a/b", "%2e%2e"):
        answer = client.get(f"{TES}/tasks/{id}")
        assert (answer.status_code, answer.json().get("status_code")) == (404, 404), id
    assert client.post(f"{TES}/tasks/nothing:cancel").status_code == 404


def test_a_waiting_task_is_cancelled_at_once_and_a_finished_one_stays(pool: Pool, client: TestClient) -> None:
    id = create(client)
    assert client.post(f"{TES}/tasks/{id}:cancel").json() == {}
    assert get(client, id, "MINIMAL")["state"] == "CANCELED"
    assert pool.claim() == []
    done = create(client)
    finish(pool)
    assert client.post(f"{TES}/tasks/{done}:cancel").status_code == 200
    assert get(client, done, "MINIMAL")["state"] == "COMPLETE"


def test_a_running_task_is_canceling_until_its_worker_has_heard(pool: Pool, client: TestClient) -> None:
    id = create(client)
    (token,) = pool.claim()
    client.post(f"{TES}/tasks/{id}:cancel")
    assert get(client, id, "MINIMAL")["state"] == "CANCELING"
    pool.release(pool.get(token.id))
    assert pool.get(id)["cancel"]


def test_a_strict_task_with_an_unknown_parameter_fails_and_says_why(pool: Pool, client: TestClient) -> None:
    id = create(client, resources={"backend_parameters": {"VmSize": "x"}, "backend_parameters_strict": True})
    task = get(client, id)
    assert task["state"] == "SYSTEM_ERROR"
    assert "backend parameter 'VmSize' is not supported" in " ".join(task["logs"][-1]["system_logs"])
    assert pool.claim() == []


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pages_show_every_task_once(client: TestClient) -> None:
    made = {create(client) for _ in range(7)}
    first = client.get(f"{TES}/tasks", params={"page_size": 3}).json()
    assert len(first["tasks"]) == 3
    assert first["next_page_token"]
    for view in ("MINIMAL", "BASIC", "FULL"):
        listed = [task["id"] for task in every(client, page_size=3, view=view)]
        assert sorted(listed) == sorted(made)


def test_lists_are_filtered_by_state_name_and_tags(pool: Pool, client: TestClient) -> None:
    done = create(client, name="align 1", tags={"foo": "bar"})
    finish(pool)
    failed = create(client, name="align 2", tags={"foo": "bar", "baz": "bat"})
    finish(pool, 3)
    waits = create(client, name="sort", tags={"foo": ""})

    def ids(**params: Any) -> set[str]:
        return {task["id"] for task in every(client, page_size=1, **params)}

    assert ids(state="COMPLETE") == {done}
    assert ids(state="EXECUTOR_ERROR") == {failed}
    assert ids(state="SYSTEM_ERROR") == ids(state="UNKNOWN") == ids(state="RUNNING") == set()
    assert ids(name_prefix="align") == {done, failed}
    assert ids(tag_key="foo") == {done, failed, waits}
    assert ids(tag_key="foo", tag_value="bar") == {done, failed}
    assert ids(tag_key=["foo", "baz"], tag_value=["bar", "bat"]) == {failed}
    assert ids(tag_key=["foo", "baz"], tag_value=["bar"]) == {failed}
    assert ids(tag_key="none") == set()


def test_running_tasks_are_listed_by_what_their_workers_do(pool: Pool, client: TestClient) -> None:
    data = create(client, inputs=[{"url": "s3://b/x", "path": "/d/x"}])
    pool.claim()
    plain = create(client)
    pool.claim()
    assert [task["id"] for task in every(client, state="INITIALIZING")] == [data]
    assert [task["id"] for task in every(client, state="RUNNING")] == [plain]
    pool.cancel([plain])
    assert [task["id"] for task in every(client, state="CANCELING")] == [plain]


def test_a_page_that_is_none_is_told(client: TestClient) -> None:
    answer = client.get(f"{TES}/tasks", params={"page_token": "nonsense"})
    assert (answer.status_code, answer.json()["status_code"]) == (404, 404)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED: dict[str, Json] = {
    "no executor": {"executors": []},
    "no command": {"executors": [{"image": "alpine:3", "command": []}]},
    "no image": {"executors": [{"image": "", "command": ["x"]}]},
    "a relative path": {"inputs": [{"content": "x", "path": "x"}]},
    "a path that leads out": {"inputs": [{"content": "x", "path": "/data/../../etc/x"}]},
    "neither url nor content": {"inputs": [{"path": "/data/x"}]},
    "a url with a password": {"inputs": [{"url": "https://ann:pw@host/x", "path": "/data/x"}]},
    "more content than a token holds": {"inputs": [{"content": "x" * 131_073, "path": "/data/x"}]},
    "an output that goes nowhere": {"outputs": [{"path": "/data/x"}]},
    "a number that is a text": {"resources": {"cpu_cores": "4"}},
    "less than nothing": {"resources": {"ram_gb": -1}},
    "a tag that is no text": {"tags": {"a": 1}},
    "a volume that is everything": {"volumes": ["/"]},
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_a_task_that_makes_no_sense_is_refused(
    sqlite_pool: Pool, serve: Callable[..., TestClient], fields: Json
) -> None:
    client = serve(sqlite_pool)
    answer = client.post(f"{TES}/tasks", json={"executors": [EXECUTOR], **fields})
    assert (answer.status_code, answer.json()["status_code"]) == (400, 400)
    assert answer.json()["msg"]
    assert sqlite_pool.count("all") == dict.fromkeys(sqlite_pool.count("all"), 0)


def test_what_is_no_json_is_refused(client: TestClient) -> None:
    for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff"):
        answer = client.post(f"{TES}/tasks", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["status_code"]) == (400, 400), body


def test_null_counts_as_not_given(client: TestClient) -> None:
    nothing = dict.fromkeys(("name", "description", "inputs", "outputs", "resources", "volumes", "tags"))
    id = create(client, **nothing)
    assert get(client, id, "BASIC").keys() == {"id", "state", "executors", "creation_time"}


def test_words_that_the_standard_does_not_know_are_left_aside(client: TestClient) -> None:
    id = create(client, id="mine", state="COMPLETE", logs=[], creation_time="never", lock=5, vendor={"x": 1})
    assert id != "mine"
    assert get(client, id)["state"] == "QUEUED"


OTHERS = [("service-info", "GET"), ("tasks", "GET, POST"), ("tasks/x", "GET"), ("tasks/x:cancel", "POST")]


@pytest.mark.parametrize(("path", "taken"), OTHERS)
def test_other_methods_are_refused_with_those_that_are_taken(
    sqlite_pool: Pool, serve: Callable[..., TestClient], path: str, taken: str
) -> None:
    client = serve(sqlite_pool)
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - set(taken.split(", ")):
        answer = client.request(method, f"{TES}/{path}")
        assert (answer.status_code, answer.headers["Allow"]) == (405, taken), method


# ── service info ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_service_tells_what_it_is(client: TestClient) -> None:
    told = client.get(f"{TES}/service-info").json()
    assert told["type"] == {"group": "org.ga4gh", "artifact": "tes", "version": "1.1.0"}
    assert {"s3://", "file://"} <= set(told["storage"])
    assert "priority" in told["tesResources_backend_parameters"]


# ── who may ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_looks_may_not_make_and_who_makes_may_cancel_their_own(as_role: Clients, sqlite_pool: Pool) -> None:
    body = {"executors": [EXECUTOR]}
    assert as_role("").get(f"{TES}/tasks").status_code == 401
    assert as_role("viewer").get(f"{TES}/tasks").status_code == 200
    assert as_role("viewer").post(f"{TES}/tasks", json=body).status_code == 403
    own = create(as_role("submitter"))
    others = create(as_role("operator"))
    assert as_role("viewer").post(f"{TES}/tasks/{own}:cancel").status_code == 403
    assert as_role("submitter").post(f"{TES}/tasks/{others}:cancel").status_code == 403
    assert sqlite_pool.get(others)["lock"] == 0
    assert as_role("submitter").post(f"{TES}/tasks/{own}:cancel").status_code == 200
    assert sqlite_pool.get(own)["cancel"]["by"] == sqlite_pool.get(own)["submitter"]
    assert as_role("operator").post(f"{TES}/tasks/{others}:cancel").status_code == 200

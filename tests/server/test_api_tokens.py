"""The JSON API: tokens are pushed, listed, looked at, edited and changed in bulk."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tokenpool.errors import BadInput
from tokenpool.pool import Pool
from tokenpool.pushes import make_token
from tokenpool.web.api.together import Together

if TYPE_CHECKING:
    from starlette.testclient import TestClient

API = "api/v1/"
LINES = {"Content-Type": "application/x-ndjson"}
PLAIN = {"Content-Type": "text/plain"}


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# ── pushed ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_token_is_pushed_and_seen(client: TestClient, pool: Pool) -> None:
    # When somebody pushes a token
    answer = client.post(API + "tokens", json={"input": "echo hi", "batch": "night", "tags": {"a": "b"}})
    # Then it is in the pool, and the API shows it with its state
    assert answer.status_code == 201, answer.text
    token_id = answer.json()["id"]
    assert pool.get(token_id).doc["input"] == "echo hi"
    shown = client.get(API + f"tokens/{token_id}").json()
    assert (shown["_id"], shown["state"], shown["batch"]) == (token_id, "todo", "night")


def test_an_id_that_is_taken_is_a_conflict_unless_the_work_is_known(client: TestClient) -> None:
    token = {"_id": "mine", "input": "echo"}
    assert client.post(API + "tokens", json=token).status_code == 201
    assert client.post(API + "tokens", json=token).status_code == 409
    answers = [client.post(API + "tokens?dedupe=true", json={"input": "same"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert [answer.json().get("known") for answer in answers] == [None, True]
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"input": "x", "max_retries": "many"},
        {"input": "x", "_id": "_own"},
        {"input": "x", "_rev": "1-a"},
        {"input": "x", "lock": 5},
        {"input": "x", "attempts": []},
        {"input": "x", "type": "worker"},
        {"input": "x", "depends_on": ["nobody"]},
        7,
        None,
    ],
    ids=repr,
)
def test_a_token_that_makes_no_sense_is_refused_with_two_lines(client: TestClient, pool: Pool, bad: Any) -> None:
    answer = client.post(API + "tokens", json=bad)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "bad_input"
    assert answer.json()["error"]["message"]
    assert sum(pool.counts().values()) == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b'["a" "b"]x', b'{"input": "a"} nonsense', b"\xff\xfe", b"[[["])
def test_a_body_that_cannot_be_read_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(API + "tokens", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400), answer.text
    assert answer.status_code == 400 or answer.json()["refused"] > 0


def test_a_list_is_answered_for_one_by_one(client: TestClient, pool: Pool) -> None:
    # Given a list in which two make no sense, and one is there already
    client.post(API + "tokens", json={"_id": "there", "input": "x"})
    items = ["echo 1", {"input": "echo 2", "batch": "own"}, {"lock": 1}, {"_id": "there", "input": "y"}, 5]
    # When it is pushed
    answer = client.post(API + "tokens?batch=night", json=items)
    # Then the others are saved, and each is answered for in its place
    told = answer.json()
    assert (answer.status_code, told["saved"], told["refused"]) == (200, 2, 3)
    assert ["refused" in each for each in told["tokens"]] == [False, False, True, True, True]
    assert [pool.get(told["tokens"][i]["id"]).doc["batch"] for i in (0, 1)] == ["night", "own"]


def test_lines_of_any_number_are_streamed(client: TestClient, pool: Pool) -> None:
    # Given thousands of lines, sent in pieces that end anywhere, some of them empty or broken
    body = b"".join(b'{"input": "echo %d", "batch": "a"}\n' % i for i in range(2500)) + b"\n{broken\n" + b'"echo last"'

    def pieces() -> Iterator[bytes]:
        yield from (body[at : at + 777] for at in range(0, len(body), 777))

    # When they are pushed
    answer = client.post(API + "tokens", content=pieces(), headers=LINES)
    # Then there is a line for each, and a summary
    *each, summary = lines(answer.text)
    assert summary == {"schema": 1, "saved": 2501, "known": 0, "refused": 1}
    assert len(each) == 2502
    assert "line 2502" in each[2500]["refused"]
    assert pool.counts()["todo"] == 2501
    assert pool.get(each[7]["id"]).doc["input"] == "echo 7"


def test_an_array_is_streamed_whatever_its_pieces(client: TestClient, pool: Pool) -> None:
    items = [{"input": f'é "{i}" ] , {{', "env": {"x": "y" * (i % 50)}} for i in range(1500)]
    body = json.dumps(items, ensure_ascii=False, indent=1).encode()

    def pieces() -> Iterator[bytes]:
        yield from (body[at : at + 501] for at in range(0, len(body), 501))

    answer = client.post(API + "tokens", content=pieces(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["saved"]) == (201, 1500)
    assert pool.get(answer.json()["tokens"][-1]["id"]).doc["input"] == items[-1]["input"]


def test_who_sends_half_an_array_is_told_how_much_was_saved(client: TestClient, pool: Pool) -> None:
    # When an array of many breaks off
    body = json.dumps([{"input": f"echo {i}", "description": "x" * 200} for i in range(2500)])[:-10]
    answer = client.post(API + "tokens", content=body, headers={"Content-Type": "application/json"})
    # Then nobody has to guess what is in the pool
    assert answer.status_code == 400
    saved = pool.counts()["todo"]
    assert saved > 0
    assert f"the first {saved} tokens were saved" in answer.json()["error"]["message"]


def test_plain_lines_are_commands(client: TestClient, pool: Pool) -> None:
    answer = client.post(API + "tokens?batch=x", content="echo 1\n\n  echo 2  \r\n", headers=PLAIN)
    *each, summary = lines(answer.text)
    assert summary["saved"] == 2
    assert [pool.get(one["id"]).doc["input"] for one in each] == ["echo 1", "echo 2"]


def test_parents_may_come_before_their_children(client: TestClient, pool: Pool) -> None:
    items = [{"_id": "a", "input": "x"}, {"_id": "b", "input": "y", "depends_on": ["a"]}]
    lost = {"_id": "c", "input": "z", "depends_on": ["nobody"]}
    answer = client.post(API + "tokens", json=[*items, lost])
    assert ["refused" in each for each in answer.json()["tokens"]] == [False, False, True]
    assert pool.counts()["held"] == 1


def test_who_pushes_is_the_submitter(as_role: Callable[[str], TestClient], sqlite_pool: Pool) -> None:
    # When a submitter pushes a token in somebody else's name
    answer = as_role("submitter").post(API + "tokens", json={"input": "x", "submitter": "boss"})
    # Then it is theirs
    assert sqlite_pool.get(answer.json()["id"]).doc["submitter"] == "submitter's machine"
    assert as_role("viewer").post(API + "tokens", json={"input": "x"}).status_code == 403
    assert as_role("submitter").post(API + "tokens", json={"_id": "worker_1", "input": "x"}).status_code == 400


# ── listed ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pages_have_every_token_once(client: TestClient, pool: Pool) -> None:
    # Given tokens of two batches
    ids = set(pool.push([f"echo {i}" for i in range(25)], batch="a"))
    pool.push(["echo other"], batch="b")
    # When a client turns the pages
    seen: list[str] = []
    after = ""
    while True:
        page = client.get(API + "tokens", params={"batch": "a", "state": "todo", "limit": 10, "after": after}).json()
        seen += [token["_id"] for token in page["tokens"]]
        after = page["next"]
        if not page["more"]:
            break
    # Then it has seen each of that batch once
    assert len(seen) == 25
    assert set(seen) == ids


def test_tokens_are_found_by_tag_text_and_submitter(client: TestClient, pool: Pool) -> None:
    pool.push([{"input": "red", "tags": {"colour": "red"}}, {"input": "blue", "tags": {"colour": "blue"}}])

    def found(**params: str) -> list[str]:
        return [token["input"] for token in client.get(API + "tokens", params=params).json()["tokens"]]

    assert found(tag="colour:red") == ["red"]
    assert found(text="BLU") == ["blue"]
    assert found(submitter="nobody") == []
    assert client.get(API + "tokens?limit=0").status_code == 400
    assert client.get(API + "tokens?after=zzz").status_code == 400
    assert client.get(API + "tokens?state=sleeping").status_code == 400


def test_ids_of_every_kind_are_addresses(client: TestClient, pool: Pool) -> None:
    for name in ("a/b", "a b", "ünï", "a?b#c", "x/logs/y"):
        pool.push({"_id": name, "input": "echo"})
        from urllib.parse import quote

        assert client.get(API + "tokens/" + quote(name, safe="")).json()["_id"] == name
        assert client.get(API + f"tokens/{quote(name, safe='')}/explain").json()["id"] == name


def test_what_is_no_token_is_not_found(client: TestClient, pool: Pool) -> None:
    pool.set_batch("night", create=True, paused=True)
    for name in ("none", "batch_night", "_design/Monitor"):
        answer = client.get(API + f"tokens/{name}")
        assert answer.status_code == 404
        assert answer.json()["error"]["hint"]


# ── changed ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_edited_and_deleted(client: TestClient, pool: Pool) -> None:
    (token_id,) = pool.push(["echo hi"])
    answer = client.patch(API + f"tokens/{token_id}", json={"priority": 5, "tags": {"a": "b"}})
    assert (answer.status_code, answer.json()["priority"]) == (200, 5)
    assert pool.get(token_id).doc["tags"] == {"a": "b"}
    assert client.patch(API + f"tokens/{token_id}", json={"lock": 5}).status_code == 400
    assert client.patch(API + "tokens/none", json={"priority": 5}).status_code == 404
    assert client.delete(API + f"tokens/{token_id}").status_code == 200
    assert client.get(API + f"tokens/{token_id}").status_code == 404


def test_a_token_that_runs_is_neither_edited_nor_deleted_by_mistake(client: TestClient, pool: Pool) -> None:
    (token_id,) = pool.push(["sleep 100"])
    pool.claim()
    assert client.patch(API + f"tokens/{token_id}", json={"priority": 5}).status_code == 400
    assert client.delete(API + f"tokens/{token_id}").status_code == 400
    assert client.delete(API + f"tokens/{token_id}?running=true").status_code == 200


def test_many_are_changed_after_a_look_at_their_number(client: TestClient, pool: Pool) -> None:
    # Given tokens that wait in two batches
    pool.push(["echo"] * 4, batch="a")
    pool.push(["echo"], batch="b")
    order = {"verb": "cancel", "selection": ["batch:a"]}
    # When somebody asks how many a change would meet, then nothing changes
    told = client.post(API + "tokens/change", json={**order, "dry_run": True}).json()
    assert (told["matched"], told["changed"]) == (4, 4)
    assert pool.counts()["todo"] == 5
    # When they do it, then so many were changed
    assert client.post(API + "tokens/change", json=order).json()["changed"] == 4
    assert (pool.counts()["error"], pool.counts()["todo"]) == (4, 1)
    # And all of them run again by another verb
    assert (
        client.post(API + "tokens/change", json={"verb": "retry", "selection": ["state:error"]}).json()["changed"] == 4
    )
    edit = {"verb": "edit", "selection": "all", "fields": {"priority": 3}}
    assert client.post(API + "tokens/change", json=edit).json()["changed"] == 5


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"verb": "burn", "selection": "all"},
        {"verb": "retry", "selection": []},
        {"verb": "retry", "selection": {"state": "error"}},
        {"verb": "edit", "selection": "all", "fields": [1]},
        {"verb": "edit", "selection": "all", "fields": {"lock": 1}},
        [],
    ],
    ids=repr,
)
def test_a_change_that_makes_no_sense_is_refused(client: TestClient, pool: Pool, order: Any) -> None:
    pool.push(["echo"])
    assert client.post(API + "tokens/change", json=order).status_code == 400
    assert pool.counts()["todo"] == 1


def test_submitters_change_what_is_theirs(as_role: Callable[[str], TestClient], sqlite_pool: Pool) -> None:
    # Given a token of a submitter, and one of somebody else
    submitter = as_role("submitter")
    own = submitter.post(API + "tokens", json={"input": "x"}).json()["id"]
    (other,) = sqlite_pool.push(["echo"], submitter="boss")
    # Then the submitter edits and cancels their own only, in bulk too
    assert submitter.patch(API + f"tokens/{own}", json={"priority": 1}).status_code == 200
    assert submitter.patch(API + f"tokens/{own}", json={"submitter": "boss"}).status_code == 403
    assert submitter.patch(API + f"tokens/{other}", json={"priority": 1}).status_code == 403
    assert submitter.delete(API + f"tokens/{other}").status_code == 403
    edit = {"verb": "edit", "selection": "all", "fields": {"priority": 7}}
    told = submitter.post(API + "tokens/change", json=edit).json()
    assert (told["matched"], told["changed"], told["skipped"]) == (2, 1, 1)
    told = submitter.post(API + "tokens/change", json={"verb": "cancel", "selection": "all"}).json()
    assert (told["changed"], told["skipped"]) == (1, 1)
    assert sqlite_pool.get(other).doc.get("priority") in (None, 0)
    assert sqlite_pool.get(own).doc["cancel"]["by"] == "submitter's machine"
    # And an operator changes all
    told = as_role("operator").post(API + "tokens/change", json={"verb": "cancel", "selection": "all"}).json()
    assert told["changed"] == 1


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_single_pushes_of_one_moment_share_a_write(pool: Pool) -> None:
    # Given a store that takes its time
    together, writes = Together(pool), []
    first, go_on = threading.Event(), threading.Event()
    push_stream = pool.push_stream

    def slow(items: Any, *more: Any) -> Any:
        docs = list(items)
        writes.append(len(docs))
        first.set()
        go_on.wait(60)
        return push_stream(docs, *more)

    pool.push_stream = slow  # type: ignore[method-assign]
    # When many push while one is being written, one of them what makes no sense
    with ThreadPoolExecutor(20) as threads:
        answers = [threads.submit(together.push, make_token("echo 0", {}))]
        assert first.wait(60)
        answers += [threads.submit(together.push, make_token(f"echo {number}", {})) for number in range(1, 12)]
        lost = threads.submit(together.push, make_token({"input": "x", "depends_on": ["nobody"]}, {}))
        while len(together._waiting) < 12:
            time.sleep(0.01)
        go_on.set()
        # Then each has its own answer
        ids = {answer.result(60).id for answer in answers}
        with pytest.raises(BadInput):
            lost.result(60)
    assert ids == {task.id for task in pool.tokens()}
    # And they were tried in one write
    assert writes[:2] == [1, 12]

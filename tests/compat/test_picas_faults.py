"""The measured faults of picas that must not be here: double claims, lost results, dead pilots, tokens locked by nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from couch_server import Couch, raw_couch
from faulty_proxy import FaultyProxy
from picas_scripts import Script, client_of, finish, push, state, stored
from processes import alive

from tokenpool.clients import CouchDB
from tokenpool.documents import Task
from tokenpool.errors import Conflict
from tokenpool.executers import execute
from tokenpool.iterators import EndlessViewIterator, TaskViewIterator
from tokenpool.modifiers import BasicTokenModifier
from tokenpool.transitions import state_of


@pytest.fixture
def client(pool_url: str) -> Iterator[CouchDB]:
    client = client_of(pool_url)
    yield client
    client.pool.close_connections()


@pytest.fixture
def proxy(couch_server: Couch) -> Iterator[FaultyProxy]:
    with FaultyProxy(couch_server.url) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: FaultyProxy, couch_db: str) -> CouchDB:
    """A client that reaches its database through the proxy."""
    return client_of(proxy.pool_url(raw_couch(couch_db).name))


@pytest.fixture
def near(couch_db: str) -> CouchDB:
    """A client of the same database that nothing disturbs."""
    return client_of(couch_db)


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_was_locked_between_look_and_read_is_not_claimed(far: CouchDB, near: CouchDB) -> None:
    class Slow(CouchDB):
        """A client with picas' methods only, whose view is a moment old."""

        def __init__(self) -> None:
            self.rows = ["a", "a", "b"]

        def get_single_from_view(self, view: str, **params: Any) -> Any:
            if not self.rows:
                raise IndexError
            return near.get(self.rows.pop(0))

        def save(self, doc: Any) -> Any:
            return near.save(doc)

    push(near, "a", "b")
    near.save(Task(stored(near, "a")).lock())
    held = stored(near, "a")

    assert [token.id for token in TaskViewIterator(Slow(), "todo")] == ["b"]
    assert stored(near, "a") == held


@pytest.mark.parametrize("fields", [{"lock": 5}, {"lock": 5, "done": 6, "exit_code": 0}])
def test_a_stale_window_neither_steals_nor_repeats(client: CouchDB, fields: dict[str, Any]) -> None:
    push(client, *(f"t{n}" for n in range(5)))
    iterator = TaskViewIterator(client, "todo")
    first = next(iterator)
    others = {f"t{n}" for n in range(5)} - {first.id}
    client.save_documents([Task({**stored(client, each), **fields}) for each in others])
    before = {each: stored(client, each) for each in others}

    assert list(iterator) == []
    assert {each: stored(client, each) for each in others} == before


def test_a_claim_whose_answer_was_lost_is_recognised_as_ours(proxy: FaultyProxy, far: CouchDB, near: CouchDB) -> None:
    push(near, "a")
    lost = proxy.drop_answer("POST", "/_bulk_docs$", body=b'"claim"')

    script = Script(far)
    script.run()

    assert lost.hits == 1
    assert "process_task a" in script.calls
    assert state(near, "a") == "done"


def test_a_claim_that_never_arrived_is_made_again(proxy: FaultyProxy, far: CouchDB, near: CouchDB) -> None:
    push(near, "a")
    lost = proxy.drop_request("POST", "/_bulk_docs$", body=b'"claim"')
    script = Script(far)
    script.run()
    assert lost.hits == 1
    assert (script.calls.count("process_task a"), state(near, "a")) == (1, "done")


def test_a_claim_while_the_server_is_away_does_not_end_the_pilot(
    proxy: FaultyProxy, far: CouchDB, near: CouchDB
) -> None:
    push(near, "a")
    refused = [proxy.answer(503, method, "", times=7) for method in ("GET", "POST")]
    script = Script(far)
    script.run()
    assert refused[0].hits == 7
    assert state(near, "a") == "done"


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_an_operator_writes_in_mid_run_and_the_result_both_survive(client: CouchDB) -> None:
    push(client, "a")

    def work(token: Task) -> None:
        theirs = client.get("a")
        theirs["note"] = "seen by me"
        theirs["priority"] = 7
        theirs.put_attachment("operator.txt", "theirs")
        client.save(theirs)
        token["output"] = {"answer": 42}
        token.put_attachment("logs_a.out", "ours")
        finish(token)

    Script(client, work).run()

    now = stored(client, "a")
    assert state_of(now) == "done"
    assert (now["note"], now["priority"], now["output"]) == ("seen by me", 7, {"answer": 42})
    assert client.pool.attachment("a", "operator.txt") == b"theirs"
    assert client.pool.attachment("a", "logs_a.out") == b"ours"


def test_fields_of_the_scripts_own_survive_a_conflict_too(client: CouchDB) -> None:
    push(client, {"_id": "a", "times": {}})

    def work(token: Task) -> None:
        theirs = client.get("a")
        theirs["note"] = "seen by me"
        client.save(theirs)
        token["times"] = {"calibrated": 5}
        token["uploads"] = {"result": "srm://x"}
        finish(token)

    Script(client, work).run()

    now = stored(client, "a")
    assert (now["note"], now["times"], now["uploads"]) == ("seen by me", {"calibrated": 5}, {"result": "srm://x"})


def test_a_token_that_somebody_else_took_meanwhile_is_not_overwritten(client: CouchDB) -> None:
    push(client, "a")

    def work(token: Task) -> None:
        theirs = Task({**stored(client, "a"), "lock": 12345, "hostname": "picas.example.org"})
        client.save(theirs)
        finish(token)

    Script(client, work).run()

    now = stored(client, "a")
    assert (now["lock"], now["hostname"], now["done"]) == (12345, "picas.example.org", 0)
    # Not even its history is written to: picas would lose its result to the conflict.
    assert "attempts" not in now


def test_a_503_at_the_final_save_does_not_end_the_pilot(proxy: FaultyProxy, far: CouchDB, near: CouchDB) -> None:
    push(near, "a", "b")
    busy = proxy.answer(503, "POST", "/_bulk_docs$", times=3, body=b'"exit_code":0,')
    script = Script(far)
    script.run()
    assert busy.hits == 3
    assert [state(near, each) for each in "ab"] == ["done", "done"]
    assert script.tasks_processed == 2


def test_a_server_that_is_long_away_at_the_final_save_gets_the_result(
    proxy: FaultyProxy, far: CouchDB, near: CouchDB
) -> None:
    push(near, "a")
    busy = proxy.answer(503, "POST", "/_bulk_docs$", times=12, body=b'"exit_code":0,')
    Script(far).run()
    assert busy.hits == 12
    assert state(near, "a") == "done"


def test_a_result_whose_answer_was_lost_is_written_once(proxy: FaultyProxy, far: CouchDB, near: CouchDB) -> None:
    push(near, "a")
    lost = proxy.drop_answer("POST", "/_bulk_docs$", body=b'"exit_code":0,')
    Script(far).run()
    now = stored(near, "a")
    assert lost.hits == 1
    assert (state_of(now), len(now["attempts"]), now["_rev"].split("-")[0]) == ("done", 1, "3")


@pytest.mark.parametrize("code", [0, 1])
def test_a_token_deleted_while_it_runs_does_not_end_the_pilot(client: CouchDB, code: int) -> None:
    push(client, "a", "b")

    def work(token: Task) -> None:
        if len(script.calls) < 4:
            client.delete(client.get(token.id))
        finish(token, code)

    script = Script(client, work)
    script.run(max_scrub=1)

    left = [each for each in "ab" if each in {token.id for token in client.pool.tokens()}]
    assert len(left) == 1
    assert script.tasks_processed == 2 + code  # the deleted one, the other one, and its second run where it failed


def test_a_field_that_is_no_json_is_the_tokens_error_not_the_pilots(client: CouchDB) -> None:
    push(client, "a", "b")

    def work(token: Task) -> None:
        if token.id == "a":
            token["output"], token["ratio"] = {"set": {1}}, float("nan")
        finish(token)

    Script(client, work).run()
    assert [state(client, each) for each in "ab"] == ["error", "done"]
    assert "output, ratio" in stored(client, "a")["error"][0]["message"]


# ── the script's own faults ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hook", ["prepare_run", "cleanup_run"])
def test_an_exception_in_a_hook_ends_nothing_and_locks_nothing(client: CouchDB, hook: str) -> None:
    class Broken(Script):
        def fail_once(self) -> None:
            self.calls.append(hook)
            if self.calls.count(hook) == 1:
                raise RuntimeError("a scratch disk is full")

    setattr(Broken, hook, Broken.fail_once)
    push(client, "a", "b")

    Broken(client).run()

    states = sorted(state(client, each) for each in "ab")
    assert states == (["done", "error"] if hook == "prepare_run" else ["done", "done"])


def test_a_stale_exit_code_of_zero_with_an_exception_is_an_error(client: CouchDB) -> None:
    push(client, {"_id": "a", "exit_code": 0, "error": None})

    def work(token: Task) -> None:
        raise OSError("no")

    Script(client, work).run()
    assert [row.id for row in client.view("error")] == ["a"]
    assert state(client, "a") == "error"


def test_tokens_that_lack_fields_or_hold_odd_ones_do_not_end_the_pilot(client: CouchDB) -> None:
    bare = {"type": "token", "lock": 0, "done": 0}
    client.pool.backend.put_many(
        [
            {"_id": "bare", **bare},
            {"_id": "odd", **bare, "scrub_count": "two", "exit_code": [], "error": "none", "attempts": 5, "lease": "x"},
            {
                "_id": "null",
                **bare,
                "scrub_count": None,
                "exit_code": None,
                "error": None,
                "attempts": None,
                "lease": None,
            },
        ]
    )

    def work(token: Task) -> None:
        raise ValueError

    script = Script(client, work)
    script.run(max_scrub=1)

    assert [state(client, each) for each in ("bare", "odd", "null")] == ["error"] * 3
    assert script.tasks_processed == 6
    assert [stored(client, each)["scrub_count"] for each in ("bare", "odd", "null")] == [1, 1, 1]


def test_a_token_without_done_can_be_claimed_and_closed(couch_db: str) -> None:
    client = client_of(couch_db)
    view = 'function(doc) { if (doc.type == "token" && doc.lock == 0 && !doc.done) emit(doc._id, null); }'
    client.add_view("open", view, design_doc="Mine")
    client.pool.backend.put_many([{"_id": "a", "type": "token", "lock": 0}])
    Script(client, view="open", design_doc="Mine").run()
    assert state(client, "a") == "done"


def test_an_exit_code_that_was_never_set_is_not_run_again(client: CouchDB) -> None:
    push(client, "a")
    script = Script(client, lambda token: BasicTokenModifier().close(token))
    script.run(max_scrub=2)
    assert script.tasks_processed == 1
    assert stored(client, "a")["scrub_count"] == 0


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("thread", [False, True], ids=["main thread", "another thread"])
def test_max_token_time_ends_the_child_at_once(client: CouchDB, tmp_path: Path, thread: bool) -> None:
    push(client, "a", "b")
    pids = tmp_path / "pids"

    def work(token: Task) -> None:
        if token.id == "a":
            # The grandchild hides in a session of its own.
            execute(["sh", "-c", f"echo $$ >> {pids}; setsid sh -c 'echo $$ >> {pids}; sleep 60' & sleep 60; wait"])
        finish(token)

    script = Script(client, work)
    began = time.monotonic()
    if thread:
        runner = threading.Thread(target=script.run, kwargs={"max_token_time": 1.0})
        runner.start()
        runner.join()
    else:
        script.run(max_token_time=1.0)

    assert time.monotonic() - began < 30
    assert [alive(int(pid)) for pid in pids.read_text().split()] == [False, False]
    assert [state(client, each) for each in "ab"] == ["error", "done"]
    assert "timeout limit of 1.0 seconds" in stored(client, "a")["error"][0]["message"]


def test_max_token_time_interrupts_python_code_as_well(client: CouchDB) -> None:
    push(client, "a")

    def work(token: Task) -> None:
        try:
            threading.Event().wait(60)
        except Exception:
            finish(token)  # swallowing it does not make the token a success

    began = time.monotonic()
    Script(client, work).run(max_token_time=0.2)
    assert time.monotonic() - began < 30
    assert state(client, "a") == "error"


def test_a_stop_callback_of_the_users_own_is_kept_beside_max_total_time(client: CouchDB) -> None:
    asked: list[str] = []
    script = Script(client)
    script.iterator = EndlessViewIterator(
        script.iterator, sleep_sec=0.01, stop_callback=lambda word: asked.append(word) or len(asked) > 3, word="mine"
    )
    script.run(max_total_time=3600)
    assert asked == ["mine"] * 4


# ── smaller faults ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fetched_attachment_does_not_make_the_document_unsavable(client: CouchDB) -> None:
    doc = Task({"_id": "a", "type": "token"})
    doc.put_attachment("x.txt", "text")
    client.save(doc)
    again = client.get("a")
    assert again.get_attachment("x.txt", client)["data"] == b"text"
    client.save(again)
    assert client.pool.attachment("a", "x.txt") == b"text"


def test_deleting_what_somebody_changed_answers_false(client: CouchDB) -> None:
    push(client, "a", "b")
    stale, fresh = client.get("a"), client.get("b")
    client.save(client.get("a"))
    assert client.delete_documents([stale, fresh]) == [False, True]


def test_a_copy_keeps_the_tls_settings(couch_db: str) -> None:
    couch = client_of(couch_db)
    assert couch.copy().pool.backend.transport.options.verify is True  # type: ignore[attr-defined]
    unverified = CouchDB(*couch._arguments[:4], ssl_verification=False)
    assert unverified.copy().pool.backend.transport.options.verify is False  # type: ignore[attr-defined]


def test_a_reconnect_reaches_the_iterator_inside(client: CouchDB) -> None:
    inner = TaskViewIterator("old", "todo")
    EndlessViewIterator(inner).reconnect(client)
    assert inner.database is client


def test_a_stale_save_is_a_conflict_of_both_kinds(client: CouchDB) -> None:
    import couchdb.http

    push(client, "a")
    stale = client.get("a")
    client.save(client.get("a"))
    with pytest.raises(couchdb.http.ResourceConflict) as refused:
        client.save(stale)
    assert isinstance(refused.value, Conflict)

"""An actor in pieces: which client it may have, what it notes, what a second signal does, what it leaves behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from picas_scripts import Script, child_environment, client_of, finish, push, state, stored

from tokenpool import actors
from tokenpool.clients import CouchDB
from tokenpool.documents import Document, Task
from tokenpool.errors import Conflict, NotPermitted, OutOfSpace


@pytest.fixture
def client(sqlite_url: str) -> Iterator[CouchDB]:
    client = client_of(sqlite_url)
    yield client
    client.pool.close_connections()


class Plain:
    """A client with picas' methods only, which keeps documents in memory and checks revisions."""

    def __init__(self, *ids: str) -> None:
        self.docs: dict[str, dict[str, Any]] = {each: {"_id": each, "_rev": "1", "lock": 0} for each in ids}
        self.edit: Any = lambda: None

    def get_single_from_view(self, view: str, **params: Any) -> Document:
        free = [doc for doc in self.docs.values() if not doc["lock"]]
        return Document(dict(free[0]))

    def get(self, each: str) -> Document:
        return Document(dict(self.docs[each]))

    def save(self, doc: Any) -> Any:
        if self.docs[doc.id]["_rev"] != doc["_rev"]:
            raise Conflict("changed")
        doc["_rev"] = str(int(doc["_rev"]) + 1)
        self.docs[doc.id] = dict(doc.value)
        return doc


def test_a_database_is_needed() -> None:
    with pytest.raises(ValueError, match="initialized"):
        actors.RunActor(None)
    with pytest.raises(NotImplementedError, match="process_task"):
        actors.RunActor(Plain()).process_task(Task())


def test_a_client_of_the_users_own_is_enough() -> None:
    db = Plain("a", "b")
    script = Script(db)
    script.run()
    assert {each: (doc["exit_code"], "attempts" in doc) for each, doc in db.docs.items()} == {
        "a": (0, False),
        "b": (0, False),
    }


def test_a_conflict_with_a_plain_client_is_saved_all_the_same() -> None:
    db = Plain("a")

    def work(token: Task) -> None:
        db.docs["a"]["_rev"] = "17"
        finish(token)

    Script(db, work).run()
    assert (db.docs["a"]["exit_code"], db.docs["a"]["_rev"]) == (0, "18")


def test_each_run_is_noted_in_the_history(client: CouchDB) -> None:
    push(client, "a")
    codes = [3, 0]
    Script(client, lambda token: finish(token, codes.pop(0))).run(max_scrub=1)
    history = [(a["exit_code"], a["failure_class"], a["counted"]) for a in stored(client, "a")["attempts"]]
    assert history == [(3, "executor", True), (0, None, True)]
    assert len({a["claim"] for a in stored(client, "a")["attempts"]}) == 2


def test_logs_are_sent_once(client: CouchDB, monkeypatch: pytest.MonkeyPatch) -> None:
    push(client, "a")
    sent: list[Any] = []
    put_many = client.pool.backend.put_many

    def spy(docs: Any) -> Any:
        sent.extend(doc.get("_attachments", {}).get("big", {}) for doc in docs if doc["_id"] == "a")
        return put_many(docs)

    def work(token: Task) -> None:
        token.put_attachment("big", b"x" * 1000)
        finish(token, 1)

    monkeypatch.setattr(client.pool.backend, "put_many", spy)
    Script(client, work).run(max_scrub=1, max_tasks=1)
    assert state(client, "a") == "todo"
    assert ["data" in attachment for attachment in sent] == [False, True, False]
    assert client.pool.attachment("a", "big") == b"x" * 1000


def test_a_full_disk_at_the_final_save_is_waited_for(client: CouchDB, monkeypatch: pytest.MonkeyPatch) -> None:
    push(client, "a")
    put_many, full = client.pool.backend.put_many, [OutOfSpace("full"), OutOfSpace("full")]

    def failing(docs: Any) -> Any:
        if docs[0].get("exit_code") == 0 and full:
            raise full.pop()
        return put_many(docs)

    monkeypatch.setattr(client.pool.backend, "put_many", failing)
    monkeypatch.setattr(actors.time, "sleep", lambda seconds: None)
    Script(client).run()
    assert (state(client, "a"), full) == ("done", [])


def test_a_refusal_that_no_time_heals_ends_the_pilot(client: CouchDB, monkeypatch: pytest.MonkeyPatch) -> None:
    push(client, "a")
    put_many = client.pool.backend.put_many

    def failing(docs: Any) -> Any:
        if docs[0].get("exit_code") == 0:
            raise NotPermitted("your password was changed")
        return put_many(docs)

    monkeypatch.setattr(client.pool.backend, "put_many", failing)
    script = Script(client)
    with pytest.raises(NotPermitted):
        script.run()
    assert script.calls[-1] == "cleanup_env"


def test_prepare_env_that_fails_is_cleaned_up(client: CouchDB) -> None:
    class Broken(Script):
        def prepare_env(self) -> None:
            raise RuntimeError("no scratch")

    script = Broken(client)
    with pytest.raises(RuntimeError, match="no scratch"):
        script.run()
    assert script.calls == ["cleanup_env"]


def test_an_actor_runs_in_any_thread(client: CouchDB) -> None:
    push(client, "a")
    script = Script(client)
    thread = threading.Thread(target=script.run)
    thread.start()
    thread.join(30)
    assert state(client, "a") == "done"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_signal_does_not_cut_short_the_first(client: CouchDB) -> None:
    class Twice(Script):
        def cleanup_env(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            super().cleanup_env()

    push(client, "a")
    script = Twice(client, lambda token: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as left:
        script.run()
    assert left.value.code == 0
    assert script.calls.count("cleanup_env") == 1
    assert state(client, "a") == "todo"


def test_a_signal_while_the_server_is_away_leaves_in_order(client: CouchDB, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenpool.errors import ServerAway

    push(client, "a")

    def gone(docs: Any) -> Any:
        raise ServerAway("no answer")

    def work(token: Task) -> None:
        monkeypatch.setattr(client.pool.backend, "put_many", gone)
        os.kill(os.getpid(), signal.SIGTERM)

    script = Script(client, work)
    with pytest.raises(SystemExit) as left:
        script.run()
    assert (left.value.code, script.calls[-1]) == (0, "cleanup_env")


def test_importing_configures_no_logging() -> None:
    code = "import logging, tokenpool.actors; print(logging.getLogger().handlers)"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
    assert isinstance(actors.log, logging.Logger)


@pytest.mark.parametrize("scrubs", [0, 1, 3])
def test_a_failed_token_is_tried_again_as_often_as_allowed(client: CouchDB, scrubs: int) -> None:
    push(client, "a")
    script = Script(client, lambda token: finish(token, 1))
    script.run(max_scrub=scrubs)
    assert (script.tasks_processed, stored(client, "a")["scrub_count"], state(client, "a")) == (
        scrubs + 1,
        scrubs,
        "error",
    )


def test_the_abstract_actor_runs_without_limits(client: CouchDB) -> None:
    class Small(actors.AbstractRunActor):
        def process_task(self, task: Task) -> None:
            finish(task)

    push(client, "a", "b")
    small = Small(client)
    small.run(max_token_time=60)
    assert (small.tasks_processed, small.current_task) == (2, None)

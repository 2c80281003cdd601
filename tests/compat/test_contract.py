"""What picas' users rely on, point by point: section 6.2 (how it behaves) and 6.3 (what stands in the database)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from picas_scripts import Script, child_environment, client_of, finish, push, state, stored

from tokenpool.actors import RunActor
from tokenpool.clients import CouchDB
from tokenpool.config import load
from tokenpool.documents import Task
from tokenpool.executers import execute
from tokenpool.iterators import EndlessViewIterator, PrioritizedViewIterator, TaskViewIterator, ViewIterator
from tokenpool.modifiers import BasicTokenModifier
from tokenpool.picas_config import PicasConfig


@pytest.fixture
def client(pool_url: str) -> Iterator[CouchDB]:
    client = client_of(pool_url)
    yield client
    client.pool.close_connections()


# ── 6.2 behaviours ───────────────────────────────────────────────────────────────────────────────────────────────────


class Bare(RunActor):
    """A script of 2016: its __init__ never calls ours."""

    def __init__(self, db: CouchDB) -> None:
        self.db = db
        self.client = db
        self.iterator = TaskViewIterator(db, "todo")
        self.modifier = BasicTokenModifier()
        self.tasks_processed = 0

    def process_task(self, token: Task) -> None:
        token["exit_code"] = 0
        self.modifier.close(token)


def test_1_constructors_take_unknown_arguments_or_are_never_called(client: CouchDB) -> None:
    push(client, "a", "b", "c")

    first = Script(client, view="todo", design_doc="Monitor", startkey="b", window_size=5)
    first.run()
    bare = Bare(client)
    bare.run(max_tasks=5)
    Script(client, None, view1="x", whatever=1)

    assert first.calls[2::3] == ["process_task b", "cleanup_run"] or "process_task a" not in first.calls
    assert [state(client, each) for each in "abc"] == ["done"] * 3
    assert bare.tasks_processed == 1
    assert (bare.current_task, bare.subprocess, tuple(bare.token_reset_values or ())) == (
        bare.current_task,
        None,
        (0, 0),
    )


class OwnIterator(ViewIterator):
    """A user's: tokens in the order of a list, claimed by hand."""

    def __init__(self, db: CouchDB, ids: list[str]) -> None:
        super().__init__()
        self.database, self.ids = db, ids

    def claim_task(self) -> Task:
        return self.database.save(Task(self.database.get(self.ids.pop(0))).lock())


def test_2_the_iterator_may_be_replaced_by_any_other(client: CouchDB) -> None:
    push(client, "a", "b", "c", "d")
    own = Script(client)
    own.iterator = OwnIterator(client, ["c", "a"])
    own.run()
    assert [call for call in own.calls if "process" in call] == ["process_task c", "process_task a"]

    prioritized = Script(client)
    prioritized.iterator = PrioritizedViewIterator(client, "error", "todo")
    prioritized.run(max_tasks=1)
    endless = Script(client)
    endless.iterator = EndlessViewIterator(
        endless.iterator, sleep_sec=600, stop_callback=lambda: "process_task" in endless.calls
    )
    endless.run(max_total_time=0.3)  # ends in spite of its 600 s: a limit sets a stop condition
    assert [state(client, each) for each in "abcd"] == ["done"] * 4


def test_3_the_order_of_calls_for_each_token(client: CouchDB) -> None:
    push(client, {"_id": "a", "scrub_count": 0})
    seen: list[tuple[str, int, str]] = []

    def stop() -> bool:
        # Asked after the save, the count and the scrub of the failed token.
        seen.append(("stop_function", script.tasks_processed, state(client, "a")))
        return len(seen) == 2

    script = Script(client, lambda token: finish(token, 3))
    script.run(max_scrub=1, stop_function=stop)

    once = ["prepare_run", "process_task a", "cleanup_run"]
    assert script.calls == ["prepare_env", *once, *once, "cleanup_env"]
    assert seen == [("stop_function", 1, "todo"), ("stop_function", 2, "error")]
    assert script.current_task is not None
    assert script.current_task.id == "a"


def test_4_process_task_gets_a_saved_task_with_everything_in_it(client: CouchDB) -> None:
    odd = {"deep": [1, {"ü": None}], "n": 9007199254740991, "s": "\u2028 x"}
    push(client, {"_id": "a", "input": "echo hi", "user_field": odd})

    def work(token: Task) -> None:
        now = stored(client, "a")
        assert isinstance(token, Task)
        assert (token["_id"], token["input"], token.input) == ("a", "echo hi", "echo hi")
        assert token["_rev"] == now["_rev"]
        assert now["lock"] == token["lock"]
        assert type(now["lock"]) is int
        assert now["lock"] > 1_000_000_000
        assert dict(token.doc.items()) == token.value
        token.update({"progress": 1})
        client.save(token)  # in the middle of the run, by the script itself
        token["_rev"] = client.get("a").rev
        token.output = {"x": 1}
        token.put_attachment("logs_a.out", b"\xff\x00")
        token.put_attachment("logs_a.err", "text")
        finish(token)

    Script(client, work).run()

    now = stored(client, "a")
    assert state(client, "a") == "done", now.get("error")
    assert now["user_field"] == odd
    assert (now["progress"], now["output"], type(now["done"])) == (1, {"x": 1}, int)
    assert client.pool.attachment("a", "logs_a.out") == b"\xff\x00"
    assert {a["content_type"] for a in now["_attachments"].values()} == {"text/plain"}


def test_5_an_exception_makes_an_error_and_the_loop_goes_on(client: CouchDB) -> None:
    push(client, "a", "b", "open")

    def work(token: Task) -> None:
        if token.id == "a":
            raise KeyError("it broke")
        if token.id == "b":
            finish(token)

    script = Script(client, work)
    script.run()

    broken = stored(client, "a")
    assert (broken["lock"], broken["done"]) == (99, 99)
    assert "it broke" in broken["error"][0]["message"]
    assert "Traceback" in broken["error"][0]["exception"]
    assert state(client, "b") == "done"
    assert stored(client, "open")["done"] == 0  # a script that never closes leaves it open, as ever
    assert script.tasks_processed == 3


@pytest.mark.parametrize(
    ("code", "expected", "runs"),
    [
        (0, "done", 1),
        ("0", "done", 1),
        ("0 ok", "done", 1),
        (1, "error", 2),
        ("2", "error", 2),
        (-9, "error", 2),
        ("x", "error", 2),
    ],
)
def test_6_exit_codes_are_judged_as_the_views_do(client: CouchDB, code: Any, expected: str, runs: int) -> None:
    push(client, "a")
    script = Script(client, lambda token: finish(token, code))
    script.run(max_scrub=1)
    assert (state(client, "a"), script.tasks_processed) == (expected, runs)
    assert [row.id for row in client.view(expected)] == ["a"]


def test_7_execute_returns_four_things_and_the_popen_may_be_kept(client: CouchDB) -> None:
    push(client, "a")

    def work(token: Task) -> None:
        out = execute(["sh", "-c", "echo out; echo err >&2; exit 3"])
        script.subprocess = out[0]
        token["output"] = {"answer": [out[1], out[2].decode(), out[3].decode()]}
        shell = execute("exit 4", shell=True)
        script.subprocess = shell[0]
        finish(token, shell[1])

    script = Script(client, work)
    script.run()

    assert isinstance(script.subprocess, subprocess.Popen)
    assert stored(client, "a")["output"] == {"answer": [3, "out\n", "err\n"]}
    assert stored(client, "a")["exit_code"] == 4


@pytest.mark.parametrize(("values", "lock", "scrubs"), [((0, 0), 0, 1), ([2, 2], 2, 1), (None, "kept", 0)])
def test_8_a_signal_gives_the_token_back_with_the_reset_values(
    client: CouchDB, values: Any, lock: Any, scrubs: int
) -> None:
    push(client, "a")
    script = Script(client, lambda token: os.kill(os.getpid(), 15), token_reset_values=values)

    with pytest.raises(SystemExit) as left:
        script.run()

    now = stored(client, "a")
    assert left.value.code == 0
    assert now["lock"] == lock or (lock == "kept" and now["lock"] > 1_000_000_000)
    assert now["scrub_count"] == scrubs
    assert script.calls == ["prepare_env", "prepare_run", "process_task a", "cleanup_env"]


def test_9_an_empty_view_ends_and_view_parameters_are_heeded(client: CouchDB) -> None:
    Script(client).run()
    push(client, *(f"t{n}" for n in range(10)))

    def claimed(**params: Any) -> list[str]:
        return sorted(token.id for token in TaskViewIterator(client, "todo", **params))

    assert claimed(key="t7") == ["t7"]
    assert claimed(startkey="t8") == ["t8", "t9"]
    assert claimed(startkey="t5", endkey="t3", descending=True, design_doc="Monitor") == ["t3", "t4", "t5"]
    polls: list[int] = []
    endless = EndlessViewIterator(
        TaskViewIterator(client, "todo", key="nothing"),
        sleep_sec=0.01,
        stop_callback=lambda: polls.append(1) or len(polls) > 9,
    )
    assert list(endless) == []
    assert len(polls) > 9


def test_10_picas_configuration_is_read_as_it_is() -> None:
    folder = Path(os.environ["HOME"], ".config", "picas")
    folder.mkdir(parents=True)
    key = Fernet.generate_key()
    (folder / "key.dat").write_bytes(key)
    secret = Fernet(key).encrypt(b"it's secret").decode()
    (folder / "conf.yml").write_text(
        f"host_url: https://picas.example.org:6984\ndatabase: mydb\nusername: me\nencrypted_password: {secret}\n"
    )

    assert PicasConfig(config_path=str(folder / "conf.yml")).config["encrypted_password"] == secret
    settings = load()
    assert settings.pool == "couchdb+https://me@picas.example.org:6984/mydb"
    script = (
        "from tokenpool.picas_config import PicasConfig\n"
        "from tokenpool.crypto import decrypt_password\n"
        "print(decrypt_password(PicasConfig().config['encrypted_password'].encode()).decode())\n"
    )
    # In a process of its own: where the key lies is decided at import.
    ran = subprocess.run([sys.executable, "-c", script], env=child_environment(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "it's secret"


def test_11_the_library_prints_nothing(client: CouchDB, capfd: pytest.CaptureFixture[str]) -> None:
    push(client, "a", "b")

    def work(token: Task) -> None:
        if token.id == "a":
            raise ValueError
        execute(["echo", "mine"])
        finish(token)

    Script(client, work).run(max_scrub=1)
    client.is_view_nonempty("todo")
    assert capfd.readouterr().out == ""


# ── 6.3 the database ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_6_3_tokens_need_no_field_that_picas_does_not_need(client: CouchDB) -> None:
    bare = {"_id": "bare", "type": "token", "lock": 0, "done": 0, "input": "echo hi", "mine": [1]}
    client.pool.backend.put_many([bare])

    def work(token: Task) -> None:
        finish(token, 1)
        del token["exit_code"]

    Script(client, work).run(max_scrub=1)

    now = stored(client, "bare")
    assert state(client, "bare") == "error"
    assert (now["mine"], now["input"]) == ([1], "echo hi")
    assert {type(now["lock"]), type(now["done"])} == {int}


def test_6_3_a_claim_keeps_the_age_of_the_lock(client: CouchDB) -> None:
    push(client, "a")
    revisions: list[int] = []

    def work(token: Task) -> None:
        lock = token["lock"]
        token["progress"] = 1
        client.save(token)
        assert stored(client, "a")["lock"] == lock
        revisions.append(lock)
        finish(token)

    Script(client, work).run()
    assert stored(client, "a")["lock"] == revisions[0]


def test_6_3_foreign_design_documents_are_worked_with_and_left_alone(couch_db: str) -> None:
    client = client_of(couch_db)
    lofar = 'function(doc) { if (doc.type == "lofar" && doc.lock == 0 && doc.done == 0) emit(doc._id, doc.status); }'
    client.add_view("todo", lofar, design_doc="lofar")
    before = client.pool.backend.get("_design/lofar"), client.pool.backend.get("_design/Monitor")
    client.save(Task({"_id": "l1", "type": "lofar", "status": "new"}))

    Script(client, view="todo", design_doc="lofar").run()
    client.pool.init()

    assert stored(client, "l1")["done"] > 0
    assert (client.pool.backend.get("_design/lofar"), client.pool.backend.get("_design/Monitor")) == before


def test_6_3_a_claim_checks_lock_and_done_on_the_document(client: CouchDB) -> None:
    push(client, "free", "taken", "finished")
    iterator = TaskViewIterator(client, "todo")
    first = next(iterator)  # reads the window; the others are changed behind its back
    others = [each for each in ("free", "taken", "finished") if each != first.id]
    for name, fields in zip(others, ({"lock": 5, "hostname": "picas"}, {"lock": 5, "done": 6, "exit_code": 0})):
        client.save(Task({**stored(client, name), **fields}))
    claimed = {first.id, *(token.id for token in iterator)}
    assert claimed.isdisjoint(others)
    assert [stored(client, each)["lock"] for each in others] == [5, 5]


def test_6_3_states_are_the_four_of_picas(client: CouchDB) -> None:
    push(client, "ok", "failed", "raised", "waiting", "running")

    def work(token: Task) -> None:
        if token.id == "raised":
            raise ValueError
        if token.id != "running":
            finish(token, int(token.id == "failed"))

    Script(client, work, endkey="s").run()
    Script(client, work, key="running").run()

    rows = {row.key: row.value for row in client.view("overview_total", group=True)}
    in_views = {name: sorted(row.id for row in client.view(name)) for name in ("todo", "locked", "done", "error")}
    assert in_views == {
        "todo": ["waiting"], "locked": ["running"], "done": ["ok"], "error": ["failed", "raised"],
    }  # fmt: skip
    assert rows == {name: len(ids) for name, ids in in_views.items()}


def test_6_3_logs_may_be_inside_or_beside(client: CouchDB, pool_url: str) -> None:
    push(client, "a")
    if pool_url.startswith("couchdb"):
        client.db.put_attachment(client.db["a"], "first", "logs_a.1.out", "text/plain")
    else:
        before = client.get("a")
        before.put_attachment("logs_a.1.out", "first")
        client.save(before)

    def work(token: Task) -> None:
        token.put_attachment("logs_a.out", "last")
        finish(token)

    Script(client, work).run()

    assert {name: client.pool.attachment("a", name) for name in stored(client, "a")["_attachments"]} == {
        "logs_a.1.out": b"first", "logs_a.out": b"last",
    }  # fmt: skip
    assert {a["content_type"] for a in stored(client, "a")["_attachments"].values()} == {"text/plain"}


def test_6_3_doc_count_counts_what_it_counted(client: CouchDB, pool_url: str) -> None:
    before = client.doc_count()
    push(client, "a", "b", "c")
    client.delete(client.get("c"))
    Script(client).run()
    assert client.doc_count() == before + 2
    if pool_url.startswith("couchdb"):
        assert before == 2  # the two design documents

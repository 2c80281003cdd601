"""Real picas 1.1.2 and tokenpool work side by side on one database, read each other's tokens, leave each other's views."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from couch_server import raw_couch
from picas_scripts import Script, child_environment, client_of, finish, state, stored
from picas_venv import picas_environment

import tokenpool
from tokenpool.clients import CouchDB
from tokenpool.documents import Task
from tokenpool.transitions import is_held_by
from tokenpool.worker import Worker, WorkerOptions

#: A user's script as picas' tutorial teaches it; the same text runs with either library.
ACTOR = """
import json, os, sys
from LIBRARY.actors import RunActor
from LIBRARY.clients import CouchDB
from LIBRARY.executers import execute
from LIBRARY.modifiers import BasicTokenModifier

class Actor(RunActor):
    def process_task(self, token):
        out = execute(["bash", "-c", token["input"]])
        self.subprocess = out[0]
        token["exit_code"] = out[1]
        token["output"] = {"by": "LIBRARY"}
        BasicTokenModifier().close(token)
        for kind, data in (("out", out[2]), ("err", out[3])):
            token.put_attachment(f"logs_{token['_id']}.{kind}", data)

client = CouchDB(**json.loads(sys.argv[1]))
Actor(client).run(**json.loads(sys.argv[2]))
"""

WORKER = """
import sys
from tokenpool import Worker, WorkerOptions, connect
with connect(sys.argv[1]) as pool:
    Worker(pool, WorkerOptions(slots=2, quit=True, poll=0.1)).run()
"""

CONDITIONS = {
    "todo": "doc.lock == 0 && doc.done == 0",
    "locked": "doc.lock > 0 && doc.done == 0",
    "done": "doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) == 0",
    "error": "doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) != 0",
}


@pytest.fixture
def client(couch_db: str) -> CouchDB:
    return client_of(couch_db)


def arguments(pool_url: str) -> dict[str, Any]:
    """Return what a script gives to ``CouchDB(...)``."""
    server, name = raw_couch(pool_url)
    account, at, rest = server.partition("://")[2].rpartition("@")
    user, _, password = account.partition(":")
    return {"url": f"http://{rest}", "db": name, **({"username": user, "password": password} if at else {})}


def start(python: str, code: str, *words: str, env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-c", code, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def picas_actor(python: str, pool_url: str, **options: Any) -> subprocess.Popen[str]:
    words = json.dumps(arguments(pool_url)), json.dumps(options)
    return start(python, ACTOR.replace("LIBRARY", "picas"), *words, env=picas_environment())


def our_actor(pool_url: str, **options: Any) -> subprocess.Popen[str]:
    words = json.dumps(arguments(pool_url)), json.dumps(options)
    return start(sys.executable, ACTOR.replace("LIBRARY", "tokenpool"), *words, env=child_environment())


def our_worker(pool_url: str) -> subprocess.Popen[str]:
    return start(sys.executable, WORKER, pool_url, env=child_environment())


def ended_well(process: subprocess.Popen[str], seconds: float = 50) -> None:
    try:
        _, told = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, told[-3000:]


def run_picas(python: str, code: str, pool_url: str, *words: str) -> str:
    """Run a script of picas' to its end and return what it printed."""
    script = f"import json, sys\nfrom picas.clients import CouchDB\nclient = CouchDB(**json.loads(sys.argv[1]))\n{code}"
    command = [python, "-c", script, json.dumps(arguments(pool_url)), *words]
    ran = subprocess.run(command, env=picas_environment(), capture_output=True, text=True, timeout=50)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


# ── together ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_both_drain_one_pool_and_every_token_ends_done_with_its_logs(
    python: str, client: CouchDB, couch_db: str
) -> None:
    ids = client.pool.push({"_id": f"t{n:03}", "input": f"echo out-{n}; echo err-{n} >&2"} for n in range(100))

    fleet = [picas_actor(python, couch_db), picas_actor(python, couch_db), our_actor(couch_db), our_worker(couch_db)]
    for process in fleet:
        ended_well(process)

    counts = {name: number for name, number in client.pool.counts().items() if number}
    assert counts == {"done": 100}
    for n, each in enumerate(ids):
        now = stored(client, each)
        assert (now["exit_code"], now["input"]) == (0, f"echo out-{n}; echo err-{n} >&2")
        assert client.pool.attachment(each, f"logs_{each}.out") == f"out-{n}\n".encode()
        assert client.pool.attachment(each, f"logs_{each}.err") == f"err-{n}\n".encode()
    assert {row.key: row.value for row in client.view("overview_total", group=True)} == {"done": 100}


class Gate:
    """A command that says when it runs and waits to be let go; two pipes, both open at this end, so nothing here hangs."""

    def __init__(self, folder: Path) -> None:
        paths = folder / "running", folder / "go"
        for path in paths:
            os.mkfifo(path)
        self._running, self._go = (os.open(path, os.O_RDWR) for path in paths)
        self.command = f"echo $$ > {paths[0]}; read word < {paths[1]}; echo $word"

    def wait(self) -> None:
        """Return when the command runs."""
        assert select.select([self._running], [], [], 30)[0], "the command was never run"
        os.read(self._running, 100)

    def release(self) -> None:
        """Let it end; it prints ``released``."""
        os.write(self._go, b"released\n")

    def close(self) -> None:
        os.close(self._running)
        os.close(self._go)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.close()


def test_ours_never_run_a_token_that_picas_holds(python: str, client: CouchDB, couch_db: str, gate: Gate) -> None:
    client.pool.push({"_id": "theirs", "input": gate.command})
    holder = picas_actor(python, couch_db)
    gate.wait()
    held = stored(client, "theirs")
    client.pool.push({"_id": f"t{n}", "input": "echo hi"} for n in range(5))
    script = Script(client)
    script.run(max_tasks=2)
    Worker(client.pool, WorkerOptions(quit=True, poll=0.1)).run()
    assert stored(client, "theirs") == held
    assert "process_task theirs" not in script.calls

    gate.release()
    ended_well(holder)

    assert state(client, "theirs") == "done"
    assert client.pool.attachment("theirs", "logs_theirs.out") == b"released\n"


def test_picas_leaves_a_token_that_ours_hold(python: str, client: CouchDB, couch_db: str, gate: Gate) -> None:
    client.pool.push({"_id": "ours", "input": gate.command})
    holder = our_worker(couch_db)
    gate.wait()
    held = stored(client, "ours")
    client.pool.push({"_id": f"t{n}", "input": "echo hi"} for n in range(5))
    # Also in its second slot: no matter who runs these.
    ended_well(picas_actor(python, couch_db))
    assert stored(client, "ours") == held
    assert is_held_by(held, held["lease"]["claim"])

    gate.release()
    ended_well(holder)

    assert client.pool.attachment("ours", "logs_ours.out") == b"released\n"
    assert {token.state for token in client.pool.tokens()} == {"done"}


def test_a_token_that_picas_takes_from_ours_is_finished_by_picas(
    python: str, client: CouchDB, couch_db: str, gate: Gate
) -> None:
    client.pool.push({"_id": "a", "input": gate.command})
    thief: list[subprocess.Popen[str]] = []

    def work(token: Task) -> None:
        # picas looked before we claimed and reads after it: it takes the token without a look at its lock.
        theirs = client.db["a"]
        # (As if we had claimed it ten seconds ago: within one second, on one host, two locks look the same.)
        theirs.update(lock=0, lease={**theirs["lease"], "lock": theirs["lock"] - 10})
        client.db.save(theirs)
        thief.append(picas_actor(python, couch_db))
        gate.wait()
        finish(token)
        token["output"] = {"by": "us"}

    Script(client, work).run()
    gate.release()
    ended_well(thief[0])

    now = stored(client, "a")
    assert (state(client, "a"), now["output"]) == ("done", {"by": "picas"})


def test_a_token_is_carried_between_them_by_scrubs(python: str, client: CouchDB, couch_db: str) -> None:
    client.pool.push({"_id": "a", "input": "exit 3"})

    def work(token: Task) -> None:
        finish(token, 3)

    Script(client, work).run(max_scrub=1, max_tasks=1)
    assert state(client, "a") == "todo"
    ended_well(picas_actor(python, couch_db, max_scrub=2, max_tasks=1))
    assert (state(client, "a"), stored(client, "a")["scrub_count"]) == ("todo", 2)
    Worker(client.pool, WorkerOptions(quit=True, poll=0.1)).run()
    now = stored(client, "a")
    assert (state(client, "a"), now["exit_code"], now["scrub_count"]) == ("error", 3, 2)


# ── views ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_views(python: str, pool_url: str) -> None:
    """Write picas' views as picas does: five, one after another."""

    head = '\nfunction(doc) {\n   if(doc.type == "token") {\n'
    views: list[list[Any]] = [
        [name, f"{head}    if({condition}) {{\n      emit(doc._id, doc._id);\n    }}\n  }}\n}}\n", None]
        for name, condition in CONDITIONS.items()
    ]
    # The blanks of the first condition differ from those of the others; a byte that differs costs an index.
    branches = [f"       if({each}) {{\n          emit('{name}', 1);\n       }}\n" for name, each in CONDITIONS.items()]
    branches[0] = branches[0].replace("if(", "if (").replace(") {", "){")
    total = f"{head}{''.join(branches)}   }}\n}}\n"
    views.append(["overview_total", total, "\nfunction (key, values, rereduce) {\n   return sum(values);\n}\n"])
    script = "for name, code, reduce in json.loads(sys.argv[2]):\n    client.add_view(name, code, reduce_fun=reduce)"
    run_picas(python, script, pool_url, json.dumps(views))


def test_our_views_are_picas_views_byte_for_byte(python: str, client: CouchDB, couch_db: str) -> None:
    ours = stored(client, "_design/Monitor")
    write_views(python, couch_db)
    assert stored(client, "_design/Monitor") == ours  # nothing to index again


def test_init_leaves_picas_views_alone(python: str, couch_db: str) -> None:
    client = client_of(couch_db, views=False)
    write_views(python, couch_db)
    theirs = stored(client, "_design/Monitor")
    client.pool.init()
    assert stored(client, "_design/Monitor") == theirs


# ── tokens of the other ──────────────────────────────────────────────────────────────────────────────────────────────


def test_picas_runs_what_ours_push(python: str, client: CouchDB, couch_db: str) -> None:
    client.pool.push(
        [
            {"_id": "line", "input": "echo $((1 + 2))"},
            {"_id": "argv", "command": ["printf", "<%s>", "a b", "it's", "$HOME", "*"]},
            {"_id": "env", "command": ["sh", "-c", 'echo "$X|$Y"'], "env": {"X": "it's; $HOME", "Y": 7}},
            {"_id": "text", "command": "echo $X && echo more", "env": {"X": "a  b"}},
        ]
    )
    assert stored(client, "argv")["command"] == ["printf", "<%s>", "a b", "it's", "$HOME", "*"]

    ended_well(picas_actor(python, couch_db))

    out = {each: client.pool.attachment(each, f"logs_{each}.out").decode() for each in ("line", "argv", "env", "text")}
    assert out == {
        "line": "3\n", "argv": "<a b><it's><$HOME><*>", "env": "it's; $HOME|7\n", "text": "a b\nmore\n",
    }  # fmt: skip


def test_the_same_tokens_give_the_same_with_ours(client: CouchDB) -> None:
    client.pool.push(
        [
            {"_id": "argv", "command": ["printf", "<%s>", "a b", "it's", "$HOME", "*"]},
            {"_id": "env", "command": ["sh", "-c", 'echo "$X|$Y"'], "env": {"X": "it's; $HOME", "Y": 7}},
            {"_id": "text", "command": "echo $X && echo more", "env": {"X": "a  b"}},
        ]
    )
    Worker(client.pool, WorkerOptions(quit=True, poll=0.1)).run()
    out = {each: client.pool.logs(each).out.decode() for each in ("argv", "env", "text")}
    assert out == {"argv": "<a b><it's><$HOME><*>", "env": "it's; $HOME|7\n", "text": "a b\nmore\n"}


def test_ours_read_and_run_what_picas_pushes(python: str, client: CouchDB, couch_db: str) -> None:
    code = (
        "from picas.documents import Task\n"
        "tasks = [Task({'_id': f'token_{n}', 'type': 'token', 'input': f'echo {n}', 'mine': [n]}) for n in range(3)]\n"
        "tasks.append(Task({'_id': 'bare', 'type': 'token', 'input': 'exit 4'}))\n"
        "tasks[0].put_attachment('given.txt', b'data')\n"
        "print(client.save_documents(tasks))"
    )
    assert run_picas(python, code, couch_db).strip() == str([True] * 4)
    assert {token.id: token.state for token in client.pool.tokens()} == dict.fromkeys(
        ["bare", "token_0", "token_1", "token_2"], "todo"
    )

    Worker(client.pool, WorkerOptions(quit=True, poll=0.1)).run()

    seen = run_picas(
        python,
        "print(json.dumps([client.get(r.id).value for v in ('done', 'error') for r in client.view(v)]))",
        couch_db,
    )
    docs = {doc["_id"]: doc for doc in json.loads(seen)}
    assert {each: doc["exit_code"] for each, doc in docs.items()} == {
        "token_0": 0,
        "token_1": 0,
        "token_2": 0,
        "bare": 4,
    }
    assert [docs[f"token_{n}"]["mine"] for n in range(3)] == [[0], [1], [2]]
    assert set(docs["token_0"]["_attachments"]) == {"given.txt", "logs_token_0.out", "logs_token_0.err"}
    assert client.pool.attachment("token_0", "given.txt") == b"data"


def test_picas_is_the_real_one(python: str) -> None:
    code = "import picas, couchdb, sys; print(picas.__file__, 'tokenpool' in sys.modules)"
    ran = subprocess.run([python, "-c", code], env=picas_environment(), capture_output=True, text=True, check=True)
    path, ours = ran.stdout.split()
    assert ours == "False"
    assert not Path(path).is_relative_to(Path(tokenpool.__file__).parents[1])

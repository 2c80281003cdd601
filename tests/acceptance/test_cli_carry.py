"""Stories of carrying: `export`, `import`, `move`, and `init`, between both kinds of pool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_tools import call, ids, ok, states, use

import tokenpool
from tokenpool.pool import Pool


@pytest.fixture(autouse=True)
def pool(pool_url: str) -> str:
    """A token with logs, one that failed, one that waits."""
    use(pool_url)
    ok("push", "-", "-b", "a", stdin="echo out; echo err >&2\nexit 3\n")
    ok("work", "--quit", "--slots", "1")
    ok("push", "--id", "waiting", "--tag", "k=v", "--", "true")
    return pool_url


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/other.db"


def docs(*words: str) -> dict[str, dict[str, object]]:
    found = ok("list", "--json", *words).json
    return {
        doc["_id"]: {name: value for name, value in doc.items() if name not in ("_rev", "_attachments")}
        for doc in found
    }


# --- export and import -----------------------------------------------------------------------------------------------------


def test_what_is_exported_comes_back_as_it_was(other):
    before = docs()
    assert ok("export", "all", "-o", "all.jsonl").err == "exported 3 tokens to all.jsonl\n"
    assert ok("import", "all.jsonl", "-p", other).err == "imported 3 tokens\n"
    assert docs("-p", other) == before
    (done,) = ids("state:done")
    answer = ok("logs", done, "-p", other)
    assert (answer.out, answer.err) == ("out\n", "err\n")


def test_an_export_can_be_piped(other):
    lines = ok("export", "batch:a").out
    assert len(lines.splitlines()) == 2
    assert ok("import", "-", "-p", other, "--json", stdin=lines).json == {"schema": 1, "imported": 2, "refused": []}


def test_ids_that_are_taken_are_refused_and_told():
    ok("export", "all", "-o", "all.jsonl")
    ok("rm", "waiting")
    answer = call("import", "all.jsonl", "--json")
    assert answer.code == 1
    assert answer.json["imported"] == 1
    assert len(answer.json["refused"]) == 2
    assert answer.err.count("not imported: ") == 2


def test_an_export_that_fails_leaves_no_file():
    answer = call("export", "nobody", "-o", "x.jsonl")
    assert answer.code == 4
    assert list(Path.cwd().glob("*x.jsonl*")) == []
    assert call("export", "all", "-o", "no/such/folder.jsonl").code == 4


PICAS = [
    {"_id": "token_1", "_rev": "3-abc", "type": "token", "lock": 0, "done": 0, "hostname": "", "scrub_count": 0, "input": "echo 1",
     "exit_code": "", "_attachments": {"logs_token_1.out": {"stub": True, "length": 3, "content_type": "text/plain"}}},
    {"_id": "token_2", "_rev": "5-def", "type": "token", "lock": 1700000000, "done": 1700000060, "hostname": "n1",
     "scrub_count": 0, "input": "echo 2", "exit_code": 0, "wms_job_id": "123"},
]  # fmt: skip


@pytest.mark.parametrize("form", ["lines", "array", "all_docs", "bulk_docs"])
def test_documents_of_a_picas_database_are_read(form):
    design = {"_id": "_design/Monitor", "_rev": "1-x", "views": {}}
    whole = {
        "lines": "\n".join(map(json.dumps, [*PICAS, design])),
        "array": json.dumps(PICAS, indent=1),
        "all_docs": json.dumps(
            {"total_rows": 3, "offset": 0, "rows": [{"id": d["_id"], "doc": d} for d in [*PICAS, design]]}
        ),
        "bulk_docs": json.dumps({"docs": PICAS}),
    }
    ok("import", "-", stdin=whole[form])
    assert ids("state:done", "host:n1") == ["token_2"]
    assert ok("show", "token_2", "--json").json["wms_job_id"] == "123"
    assert "token_1" in ids("state:todo")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "holds no token"),
        ('{"_id": "a", "type": "token"}\n{"_id": "b"\n', "standard input:2: not JSON"),
        ('{"_id": "a", "type": "token"}\n[1]\n', "standard input:2: not a token"),
        ('{"input": "no id"}', "item 1: not a token"),
        ("echo hi\n", "not JSON"),
    ],
)
def test_what_is_no_export_imports_nothing(text, error):
    before = states()
    answer = call("import", "-", stdin=text)
    assert error.replace("standard input", "-") in answer.error.replace("standard input", "-")
    assert answer.code == 2
    assert states() == before


# --- move ------------------------------------------------------------------------------------------------------------------


def test_moved_tokens_are_there_and_not_here(other):
    before = docs()
    told = ok("move", "all", other, "--yes", "--json").json
    assert told == {"schema": 1, "verb": "move", "matched": 3, "changed": 3, "skipped": 0, "failed": []}
    assert states() == {}
    assert docs("-p", other) == before


def test_tokens_move_into_a_couchdb_and_back(couch_db, tmp_path):
    here = f"sqlite:///{tmp_path}/here.db"
    ok("push", "-", "-b", "mine", "-p", here, stdin="echo 1\necho 2\n")
    ok("move", "all", couch_db, "-p", here, "--create", "--yes")
    assert ids("-p", here) == []
    ok("move", "batch:mine", here, "-p", couch_db, "--yes")
    assert len(ids("-p", here)) == 2


def test_running_tokens_stay(pool, other):
    with tokenpool.connect(pool) as opened:
        opened.claim(1)
    told = ok("move", "all", other, "--yes", "--json").json
    assert (told["changed"], told["skipped"], told["failed"]) == (2, 1, [])
    assert states() == {"locked": 1}


def test_a_dry_run_moves_nothing_and_makes_no_pool(other):
    assert ok("move", "all", other, "--dry-run", "--json").json["changed"] == 3
    assert sum(states().values()) == 3
    assert not Path("other.db").exists()


def test_a_script_must_say_yes(other):
    answer = call("move", "all", other)
    assert (answer.code, "move would change 3 tokens" in answer.error) == (2, True)
    ok("move", "waiting", other)
    assert ids("-p", other) == ["waiting"]


def test_a_token_that_is_there_already_stays_here(other):
    ok("push", "--id", "waiting", "-p", other, "--", "echo", "another")
    answer = call("move", "all", other, "--yes")
    assert answer.code == 1
    assert "not moved: waiting: a token of this id is there already" in answer.err
    assert ids() == ["waiting"]
    assert len(ids("-p", other)) == 3


def test_a_token_that_changes_while_it_is_moved_stays_here_only(other, monkeypatch, pool):
    restore = Pool.restore

    def edited_meanwhile(self: Pool, chosen: object) -> object:
        answers = list(restore(self, chosen))  # type: ignore[arg-type]
        with tokenpool.connect(pool) as opened:
            opened.backend.put_many([{**opened.get("waiting").doc, "priority": 9}])
        return iter(answers)

    monkeypatch.setattr(Pool, "restore", edited_meanwhile)
    answer = call("move", "waiting", other)
    assert (answer.code, "it changed while it was moved, and stays here" in answer.err) == (1, True)
    assert ok("show", "waiting", "--json").json["priority"] == 9
    assert ids("-p", other) == []


def test_a_pool_is_not_moved_into_itself(pool):
    answer = call("move", "all", pool, "--yes")
    assert (answer.code, "both pools are the same" in answer.error) == (2, True)
    assert sum(states().values()) == 3


# --- init ------------------------------------------------------------------------------------------------------------------


def test_init_can_be_called_again_and_harms_nothing(pool):
    before = docs()
    ok("init")
    told = ok("init", pool, "--json").json
    assert told["designs"] == ["Monitor", "tokenpool"]
    assert docs() == before


def test_init_of_another_url_says_how_to_use_it(other):
    assert f"export TOKENPOOL_POOL={other}" in ok("init", other).err
    assert ok("status", "--json", "-p", other).json["states"]["todo"] == 0

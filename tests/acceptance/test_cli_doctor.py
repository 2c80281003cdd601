"""Stories of `doctor` and `config`, and of pools that cannot be used."""

from __future__ import annotations

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cli_tools import call, ids, ok, spawn, states, use

import tokenpool


def checks(answer) -> dict[str, str]:
    return {check["name"]: check["status"] for check in answer.json["checks"]}


# --- doctor ----------------------------------------------------------------------------------------------------------------


def test_all_is_well(pool_url):
    use(pool_url)
    answer = ok("doctor")
    assert all(line.startswith("ok ") for line in answer.out.splitlines()), answer.out
    found = checks(ok("doctor", "--json"))
    assert {
        "python",
        "sqlite",
        "urllib3",
        "couchdb",
        "settings",
        "scratch",
        "supervisor",
        "pool",
        "views",
        "tokens",
    } <= set(found)
    assert ok("doctor", "-q").out == ""


def test_missing_views_are_found_and_written(couch_db):
    answer = call("doctor", "-p", couch_db)
    assert answer.code == 1
    assert "Monitor (missing), tokenpool (missing)" in answer.out
    assert "hint: tokenpool doctor --fix" in answer.out
    ok("doctor", "--fix", "-p", couch_db)
    ok("doctor", "-p", couch_db)
    ok("status", "-p", couch_db)


def test_old_views_are_found_and_brought_up_to_date(couch_db):
    use(couch_db)
    with tokenpool.connect(couch_db) as opened:
        design = opened.backend.get("_design/tokenpool")
        design["views"]["states"]["map"] = "function (doc) { emit(1, 1) }"
        opened.backend.put_many([design])
    assert "tokenpool (differs)" in call("doctor").out
    ok("doctor", "--fix")
    assert states() == {}


def test_invalid_tokens_are_named_and_mended(pool_url):
    use(pool_url)
    with tokenpool.connect(pool_url) as opened:
        opened.backend.put_many(
            [
                {"_id": "picas", "type": "token", "lock": 0, "input": "echo hi"},
                {"_id": "odd", "type": "token", "lock": -3, "done": 0},
            ]
        )
    answer = call("doctor")
    assert answer.code == 1
    assert "picas: it has no done" in answer.out
    assert "odd: lock -3 with done 0 is no state" in answer.out
    assert "2 tokens mended" in ok("doctor", "--fix").out
    assert (ids("state:todo"), ids("state:error")) == (["picas"], ["odd"])
    ok("doctor")


def test_a_pool_that_is_away_is_one_line_of_many():
    answer = call("doctor", "-p", "sqlite:///nowhere.db", "--json")
    assert answer.code == 1
    assert checks(answer)["pool"] == "fail"
    assert checks(answer)["supervisor"] == "ok"


def test_a_settings_file_with_a_fault_is_told():
    Path("tokenpool.toml").write_text("slots = \n")
    assert checks(call("doctor", "--json"))["settings"] == "fail"
    assert "tokenpool.toml" in call("status").error


# --- config ----------------------------------------------------------------------------------------------------------------


def test_settings_are_written_and_told_with_their_origin(monkeypatch):
    path = Path(ok("config", "path").out.strip())
    assert not path.exists()
    ok("config", "set", "slots", "4")
    path.write_text("# mine\n" + path.read_text())
    ok("config", "set", "slots", "5")
    ok("config", "set", "cleanup", "never")
    assert path.read_text() == '# mine\nslots = 5\ncleanup = "never"\n'
    assert ok("config", "get", "slots").out == "5\n"
    told = ok("config", "list", "--json").json
    assert told["slots"] == {"value": 5, "origin": str(path)}
    assert told["grace"]["origin"] == "default"
    monkeypatch.setenv("TOKENPOOL_SLOTS", "6")
    assert "TOKENPOOL_SLOTS goes before it" in ok("config", "set", "slots", "7").err
    assert "TOKENPOOL_SLOTS" in ok("config", "list", "--origin").out


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("slots", "many", "is not a number"),
        ("cleanup", "maybe", "is unknown"),
        ("slot", "1", "there is no setting 'slot'"),
        ("pool", "couchdb+https://me:hunter2@host/db", "a password does not belong"),
    ],
)
def test_what_makes_no_sense_is_not_written(name, value, error):
    answer = call("config", "set", name, value)
    assert (answer.code, error in answer.error) == (2, True)
    assert not Path(ok("config", "path").out.strip()).exists()
    assert "hunter2" not in answer.err


# --- pools that cannot be used -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error", "code"),
    [
        ("nonsense", "is not the URL of a pool", 2),
        ("redis://host/0", "unknown backend 'redis'", 2),
        ("couchdb+http://127.0.0.1:5984", "names no database", 2),
        ("couchdb+http://example.org/db", "in the clear", 2),
        ("couchdb+https://me:hunter2@:x/db", "is not the URL of a pool", 2),
        ("me:hunter2@host/db", "is not the URL of a pool", 2),
        ("sqlite:///nowhere.db", "there is no pool in", 4),
        ("sqlite:///nowhere/at/all.db", "nowhere/at", 4),
    ],
)
def test_urls_that_make_no_sense(url, error, code):
    answer = call("status", "-p", url)
    assert error in answer.error
    assert answer.code == code
    assert "hunter2" not in answer.err


class Refusing(BaseHTTPRequestHandler):
    """A server that lets nobody in, as CouchDB says it."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b'{"error":"unauthorized","reason":"Name or password is incorrect."}'
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = answer

    def log_message(self, *args: object) -> None:
        pass


def test_a_wrong_password(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}/db"
        monkeypatch.setenv("TOKENPOOL_PASSWORD", "wrong-pw2")
        for url in (f"couchdb+http://me:wrong-pw1@{place}", f"couchdb+http://me@{place}"):
            for words in (["status"], ["push", "--", "true"], ["work", "--quit"], ["init"]):
                answer = call("-p", url, *words)
                assert answer.code == 77
                assert "password of 'me'" in answer.error
                assert "wrong-pw" not in answer.err
        server.shutdown()


@pytest.mark.real_couchdb
def test_a_wrong_password_for_a_real_server(couch_db):
    head, _, rest = couch_db.rpartition("@")
    user = head.rpartition("/")[2].partition(":")[0]
    assert call("-p", f"couchdb+http://{user}:wrong-pw@{rest}", "status").code == 77


def test_a_pool_of_picas_with_nothing_but_its_monitor(couch_db):
    with tokenpool.connect(couch_db) as opened:
        opened.init(["Monitor"])
    ok("push", "-p", couch_db, "--id", "t1", "--", "true")
    ok("work", "--quit", "-p", couch_db)
    assert ok("status", "--json", "-p", couch_db).json["states"]["done"] == 1
    assert ids("state:done", "-p", couch_db) == ["t1"]


def test_a_database_that_is_not_there(couch_db):
    missing = couch_db + "_missing"
    for words in (["status"], ["push", "--", "true"], ["run", "--", "true"], ["list"], ["work", "--quit"]):
        answer = call("-p", missing, *words)
        assert answer.code == 4
        assert "tokenpool init" in answer.error + answer.err


def test_views_that_are_not_there(couch_db):
    for words in (
        ["status"],
        ["list"],
        ["wait", "all"],
        ["work", "--quit"],
        ["run", "--", "true"],
        ["rm", "all", "-y"],
    ):
        answer = call("-p", couch_db, *words)
        assert (answer.code, "there is no view" in answer.error) == (4, True), words
        assert "tokenpool init" in answer.err


def test_a_server_that_is_down():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    answer = call("status", "-p", f"couchdb+http://me@127.0.0.1:{port}/db?attempts=1", "--json")
    assert answer.code == 69
    assert json.loads(answer.err)["error"]["code"] == "server_away"


def read_only(folder: Path) -> Path:
    """Return a folder where not even root, if that is who tests, may write."""
    if os.getuid() == 0:
        return Path("/sys")
    folder.chmod(0o500)
    return folder


def test_a_folder_that_may_not_be_written(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder = read_only(folder)
    for words in (["init"], ["push", "--", "true"], ["run", "--", "true"]):
        answer = call("-p", f"sqlite:///{folder}/pool.db", *words)
        assert answer.code == 77, answer
        assert str(folder) in answer.error


def test_a_file_that_is_no_pool():
    Path("tokenpool.db").write_text("my notes, which are longer than a header of SQLite would be " * 20)
    for words in (["status"], ["push", "--", "true"], ["init"]):
        answer = call(*words)
        assert (answer.code, "is not a tokenpool database" in answer.error) == (2, True)


def test_errors_of_a_process_of_its_own():
    done = spawn(["status"])
    assert done.returncode == 4
    assert done.stderr.splitlines()[0].startswith("error: there is no pool in")
    assert done.stderr.splitlines()[1].startswith("hint: ")

"""picas' configuration: read as picas wrote it, overridden by the environment, its password changed on the server."""

from __future__ import annotations

import argparse
import base64
import json
import stat
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tokenpool import crypto, picas_config
from tokenpool.errors import BadInput, Conflict, NotFound, NotPermitted, ServerAway
from tokenpool.picas_config import PicasConfig, PicasConfigSchemaError

# Both files as picas 1.1.2 wrote them.
PICAS_KEY = "f4qlR_DTFN-wkZXABc-ydJNynp8f5brprTpzUZxesjU="
PICAS_CONF = """\
database: pool
encrypted_password: gAAAAABrASUOqBPSTKhOX0VXuUg-oBIdoCi-QvlDKDU7S9_91EH8vyCtcikVNB0JpGzgCVRFF_VOHrPyp670RmN9G_7qowfS8Q==
host_url: https://picas.example:6984
username: ann
"""
PASSWORD = "gr3en håt"


class Users:
    """A server that keeps one user document and lets in who knows its password."""

    def __init__(self) -> None:
        self.password = PASSWORD
        self.user: dict[str, Any] = {
            "_id": "org.couchdb.user:ann",
            "_rev": "1-a",
            "name": "ann",
            "type": "user",
            "roles": ["astronomers"],
            "email": "ann@example.org",
        }
        self.requests: list[str] = []
        self.put_status = 201
        self.get_body: bytes | None = None
        self.drops_put_answer = False
        self.forgets_put = False
        users = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                users.requests.append(f"GET {self.path}")
                if not self.known():
                    return
                self.answer(200, users.user)

            def do_PUT(self) -> None:
                users.requests.append(f"PUT {self.path}")
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.known():
                    return
                if users.put_status != 201:
                    self.answer(users.put_status, {"error": "no", "reason": "told to refuse"})
                    return
                if not users.forgets_put:
                    users.password = body.pop("password")
                    users.user = {**body, "_rev": "2-b"}
                if not users.drops_put_answer:
                    self.answer(201, {"ok": True})

            def known(self) -> bool:
                login = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
                if login.startswith("nobody:"):
                    self.answer(404, {"error": "not_found", "reason": "missing"})
                    return False
                if login != f"ann:{users.password}":
                    self.answer(401, {"error": "unauthorized", "reason": "Name or password is incorrect."})
                    return False
                return True

            def answer(self, status: int, document: Any) -> None:
                body = users.get_body if users.get_body is not None else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output clean."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def users() -> Iterator[Users]:
    users = Users()
    thread = Thread(target=users.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield users
    users.server.shutdown()
    users.server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, an environment that says nothing, no proxy."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(crypto, "CRYPTO_KEY_PATH", str(tmp_path / ".config/picas/key.dat"))
    for name in picas_config.ENVIRONMENT.values():
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def conf(home: Path) -> Path:
    """A home with the files that picas wrote, as open as picas left them."""
    directory = home / ".config" / "picas"
    directory.mkdir(parents=True)
    (directory / "key.dat").write_text(PICAS_KEY)
    (directory / "conf.yml").write_text(PICAS_CONF)
    (directory / "conf.yml").chmod(0o644)
    return directory / "conf.yml"


def settings(**changed: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **{"host_url": "http://localhost:5984", "database": "pool", "username": "ann", "password": "secret", **changed}
    )


def at(users: Users, conf: Path) -> None:
    """Let the configuration name this server."""
    conf.write_text(PICAS_CONF.replace("https://picas.example:6984", users.url))


# --- reading


def test_a_configuration_of_picas_is_read_as_it_is(conf: Path) -> None:
    config = PicasConfig().config

    assert {field: config[field] for field in ("host_url", "database", "username")} == {
        "host_url": "https://picas.example:6984",
        "database": "pool",
        "username": "ann",
    }
    assert crypto.decrypt_password(config["encrypted_password"]).decode() == PASSWORD


def test_reading_says_nothing_on_standard_output(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PicasConfig()

    out, err = capsys.readouterr()
    assert out == ""
    assert "conf.yml" in err


def test_the_password_is_masked_when_printed(conf: Path) -> None:
    conf.write_text(PICAS_CONF.replace("https://", "https://ann:inline@"))

    shown = str(PicasConfig())

    assert "gAAAA" not in shown
    assert "inline" not in shown
    assert "username: ann" in shown
    assert str(PicasConfig(load=False)) == "PicasConfig: not loaded"


def test_a_missing_file_is_a_file_not_found_error_with_a_hint(home: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"conf\.yml") as caught:
        PicasConfig()

    assert isinstance(caught.value, NotFound)
    assert "picas-cli init" in caught.value.hint


def test_a_path_may_be_given_as_text_or_path(conf: Path, home: Path) -> None:
    other = home / "other.yml"
    other.write_text(PICAS_CONF.replace("pool", "other"))

    assert PicasConfig(str(other)).config["database"] == "other"
    assert PicasConfig(other).config["database"] == "other"
    assert PicasConfig("~/other.yml").config["database"] == "other"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "host_url is missing"),
        ("- a list", "not a table"),
        ("host_url: [", "not YAML"),
        (PICAS_CONF.replace("username: ann", "username: 7"), "username is not a text"),
        (PICAS_CONF.replace("username: ann", "user: ann"), "username is missing; user is not a field"),
        (PICAS_CONF + "colour: red\n", "colour is not a field"),
    ],
)
def test_what_is_wrong_is_named(conf: Path, text: str, complaint: str) -> None:
    conf.write_text(text)

    with pytest.raises(PicasConfigSchemaError, match=complaint) as caught:
        PicasConfig()

    assert isinstance(caught.value, ValueError)
    assert caught.value.message == str(caught.value)


def test_a_file_that_is_no_text_is_named_too(conf: Path) -> None:
    conf.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(PicasConfigSchemaError, match="not YAML"):
        PicasConfig()


def test_the_schema_and_the_check_by_hand_agree() -> None:
    import jsonschema

    whole = {"host_url": "u", "database": "d", "username": "n", "encrypted_password": "p"}
    without = [{field: text for field, text in whole.items() if field != gone} for gone in whole]
    documents: list[Any] = [whole, {**whole, "more": 1}, {**whole, "username": None}, {}, [], None, "text", *without]

    for document in documents:
        by_schema = jsonschema.Draft7Validator(picas_config.PICAS_CONFIG_SCHEMA).is_valid(document)
        assert by_schema is not any(True for _ in picas_config._problems(document)), document


def test_any_configuration_can_be_checked_not_only_our_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = PicasConfig(load=False)

    config.validate_config({"host_url": "u", "database": "d", "username": "n", "encrypted_password": "p"})

    assert "valid" in capsys.readouterr().err
    with pytest.raises(PicasConfigSchemaError, match="host_url is missing"):
        config.validate_config()
    with pytest.raises(PicasConfigSchemaError, match="database is missing"):
        config.validate_config({"host_url": "u"})


# --- the environment


def test_the_environment_wins_over_the_file(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICAS_DATABASE", "tonight")
    monkeypatch.setenv("PICAS_USERNAME", "")

    config = PicasConfig().config

    assert config["database"] == "tonight"
    assert config["username"] == "ann", "an empty variable sets nothing"
    assert "pool" in conf.read_text(), "reading writes nothing"


def test_a_whole_environment_needs_no_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for field, name in picas_config.ENVIRONMENT.items():
        monkeypatch.setenv(name, f"{field} from env")

    assert PicasConfig().config == {field: f"{field} from env" for field in picas_config.ENVIRONMENT}


def test_a_partial_environment_still_needs_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICAS_DATABASE", "tonight")

    with pytest.raises(FileNotFoundError):
        PicasConfig()


# --- writing


def test_saving_makes_the_directory_and_private_files(home: Path) -> None:
    PicasConfig(load=False).save_config(settings())

    directory = home / ".config" / "picas"
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {
        "conf.yml": 0o600,
        "key.dat": 0o600,
    }
    assert crypto.decrypt_password(PicasConfig().config["encrypted_password"]) == b"secret"


def test_saving_keeps_the_key_and_closes_an_open_file(conf: Path) -> None:
    PicasConfig(load=False).save_config(settings())

    assert (conf.parent / "key.dat").read_text() == PICAS_KEY
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600


def test_a_password_that_was_not_given_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: prompts.append(prompt) or "typed")

    PicasConfig(load=False).save_config(settings(password=None))

    assert prompts == ["password of ann at http://localhost:5984: "]
    assert crypto.decrypt_password(PicasConfig().config["encrypted_password"]) == b"typed"


@pytest.mark.parametrize(
    ("changed", "complaint"), [({"username": None}, "no user name"), ({"password": ""}, "password is empty")]
)
def test_what_makes_no_account_is_refused_before_anything_is_written(
    home: Path, changed: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadInput, match=complaint):
        PicasConfig(load=False).save_config(settings(**changed))

    assert list(home.iterdir()) == []


def test_an_invalid_configuration_is_not_written(conf: Path) -> None:
    with pytest.raises(PicasConfigSchemaError):
        PicasConfig().write_config({"host_url": "alone"})

    assert conf.read_text() == PICAS_CONF


# --- the password


def test_a_new_password_reaches_server_and_file_and_the_roles_stay(conf: Path, users: Users) -> None:
    # Given a user with roles and a field of her own
    at(users, conf)

    # When she changes her password
    PicasConfig().change_password(argparse.Namespace(new_password="neu €"))

    # Then both sides know it, the rest is as it was, and her name was quoted in the address
    assert users.password == "neu €"
    assert (users.user["roles"], users.user["email"]) == (["astronomers"], "ann@example.org")
    assert users.requests == [f"{verb} /_users/org.couchdb.user%3Aann" for verb in ("GET", "PUT")]
    assert crypto.decrypt_password(PicasConfig().config["encrypted_password"]).decode() == "neu €"
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600


def test_the_new_password_is_asked_for(conf: Path, users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    at(users, conf)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "typed")

    PicasConfig().change_password(argparse.Namespace(new_password=None))

    assert users.password == "typed"


def test_bytes_are_passwords_too_and_a_trailing_slash_does_not_matter(home: Path, users: Users) -> None:
    PicasConfig(load=False).change_couchdb_password(f"{users.url}/", "ann", PASSWORD.encode(), b"new")

    assert users.password == "new"


def test_an_answer_that_was_lost_is_read_back(conf: Path, users: Users) -> None:
    # Given a server whose answer to the write never arrives
    at(users, conf)
    users.drops_put_answer = True

    # When the password is changed
    PicasConfig().change_password(argparse.Namespace(new_password="new"))

    # Then it is written once, found out by the new password, and stored
    assert [request[:3] for request in users.requests] == ["GET", "PUT", "GET"]
    assert crypto.decrypt_password(PicasConfig().config["encrypted_password"]) == b"new"


def test_a_write_that_never_arrived_changes_nothing_here(conf: Path, users: Users) -> None:
    at(users, conf)
    users.drops_put_answer = users.forgets_put = True
    before = conf.read_text()

    with pytest.raises(ServerAway, match="gave no answer") as caught:
        PicasConfig().change_password(argparse.Namespace(new_password="new"))

    assert "host_url" in caught.value.hint
    assert [request[:3] for request in users.requests].count("PUT") == 1, "a write is never sent twice"
    assert conf.read_text() == before


@pytest.mark.parametrize(
    ("status", "kind"), [(403, NotPermitted), (409, Conflict), (503, ServerAway), (302, ServerAway)]
)
def test_a_refusal_says_why_and_leaves_the_file(conf: Path, users: Users, status: int, kind: type[Exception]) -> None:
    at(users, conf)
    users.put_status = status
    before = conf.read_text()

    with pytest.raises(kind, match=f"{status}: told to refuse") as caught:
        PicasConfig().change_password(argparse.Namespace(new_password="new"))

    assert isinstance(caught.value, ValueError), "what picas' callers catch"
    assert conf.read_text() == before


def test_an_old_stored_password_is_refused(home: Path, users: Users) -> None:
    with pytest.raises(NotPermitted, match="401"):
        PicasConfig(load=False).change_couchdb_password(users.url, "ann", "wrong", "new")


def test_an_unknown_user_is_not_found(home: Path, users: Users) -> None:
    with pytest.raises(NotFound, match="404: missing"):
        PicasConfig(load=False).change_couchdb_password(users.url, "nobody", "x", "new")


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
def test_another_kind_of_server_is_noticed(home: Path, users: Users, body: bytes) -> None:
    users.get_body = body

    with pytest.raises(ServerAway, match="does not answer as CouchDB does"):
        PicasConfig(load=False).change_couchdb_password(users.url, "ann", PASSWORD, "new")

    assert users.password == PASSWORD


def test_nobody_listening_is_server_away(home: Path, users: Users) -> None:
    free = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    free.server_close()

    with pytest.raises(ServerAway, match="gave no answer"):
        PicasConfig(load=False).change_couchdb_password(f"http://127.0.0.1:{free.server_port}", "ann", "old", "new")


def test_no_address_is_bad_input(home: Path) -> None:
    with pytest.raises(BadInput, match="not the address of a server"):
        PicasConfig(load=False).change_couchdb_password("picas.example", "ann", "old", "new")


def test_a_proxy_is_used_where_the_environment_names_one(
    home: Path, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a proxy, written without its scheme as some sites do, and a server only it can reach
    monkeypatch.setenv("http_proxy", users.url.replace("http://", "user:word@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    PicasConfig(load=False).change_couchdb_password("http://couch.invalid", "ann", PASSWORD, "new")

    assert users.requests[0] == "GET http://couch.invalid/_users/org.couchdb.user%3Aann"
    assert users.password == "new"


def test_a_missing_key_is_found_out_before_the_server_is_asked(conf: Path, users: Users) -> None:
    at(users, conf)
    (conf.parent / "key.dat").unlink()

    with pytest.raises(FileNotFoundError, match=r"key\.dat"):
        PicasConfig().change_password(argparse.Namespace(new_password="new"))

    assert users.requests == []


def test_a_configuration_without_password_cannot_change_it(home: Path) -> None:
    with pytest.raises(ValueError, match="holds no password"):
        PicasConfig(load=False).change_password(argparse.Namespace(new_password="new"))


def test_the_password_of_an_account_from_the_environment_is_told_not_stored(
    conf: Path, users: Users, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a file of one server, while the environment names another
    before = conf.read_text()
    monkeypatch.setenv("PICAS_HOST_URL", users.url)

    # When the password is changed there
    PicasConfig().change_password(argparse.Namespace(new_password="new"))

    # Then the file, which is about the other account, stays, and the line for the environment is on standard output
    name, _, encrypted = capsys.readouterr().out.strip().partition("=")
    assert name == "PICAS_ENCRYPTED_PASSWORD"
    assert crypto.decrypt_password(encrypted) == b"new"
    assert conf.read_text() == before


def test_an_overridden_database_does_not_slip_into_the_file(
    conf: Path, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(users, conf)
    monkeypatch.setenv("PICAS_DATABASE", "tonight")
    config = PicasConfig()

    config.change_password(argparse.Namespace(new_password="new"))

    assert config.config["database"] == "tonight"
    assert "database: pool" in conf.read_text()

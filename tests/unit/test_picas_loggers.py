"""The two loggers of picas, and the names of the package."""

from __future__ import annotations

import importlib
import io
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata as installed
from threading import Thread
from typing import Any

import pytest

from tokenpool import couchdblogger, metadata, picaslogger
from tokenpool.couchdblogger import CouchDBLogger


class Kept:
    """A database that keeps what is saved."""

    def __init__(self) -> None:
        self.docs: list[dict[str, Any]] = []

    def save(self, doc: dict[str, Any]) -> None:
        self.docs.append(doc)


class Couch:
    """A server with the database `logs`, as python-couchdb sees one."""

    def __init__(self) -> None:
        self.docs: dict[str, dict[str, Any]] = {}
        couch = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(200 if self.path == "/logs" else 404)
                self.end_headers()

            def do_PUT(self) -> None:
                doc = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                couch.docs[doc["_id"]] = doc
                body = json.dumps({"ok": True, "id": doc["_id"], "rev": "1-a"}).encode()
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output clean."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def couch() -> Iterator[Couch]:
    couch = Couch()
    thread = Thread(target=couch.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield couch
    couch.server.shutdown()
    couch.server.server_close()
    thread.join()


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of this test's own."""
    log = logging.Logger("story", logging.DEBUG)
    yield log
    for handler in log.handlers:
        handler.close()


# --- couchdblogger


def test_every_record_becomes_a_document_of_its_own(log: logging.Logger) -> None:
    # Given many records within one second
    kept = Kept()
    handler = CouchDBLogger(None, kept)
    log.addHandler(handler)

    for number in range(100):
        log.info("token %d", number)

    # Then none is lost, and each has picas' fields
    assert len({doc["_id"] for doc in kept.docs}) == 100
    first = kept.docs[0]
    assert first["_id"].startswith(f"{handler.hostname}:")
    assert {field: first[field] for field in ("type", "lvl", "msg", "func", "host", "trance_nr")} == {
        "type": "log",
        "lvl": logging.INFO,
        "msg": "token 0",
        "func": "test_every_record_becomes_a_document_of_its_own",
        "host": handler.hostname,
        "trance_nr": handler.trace_nr,
    }
    assert isinstance(first["created"], float)
    json.dumps(kept.docs)


def test_an_exception_is_told_with_its_traceback(log: logging.Logger) -> None:
    kept = Kept()
    log.addHandler(CouchDBLogger(None, kept))

    try:
        raise RuntimeError("disk on fire")
    except RuntimeError:
        log.exception("failed")

    assert kept.docs[0]["exception"].endswith("RuntimeError: disk on fire")


def test_a_database_that_fails_is_tried_once_and_harms_nobody(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Kept):
        def save(self, doc: dict[str, Any]) -> None:
            super().save(doc)
            raise ConnectionError("no route")

    broken = Broken()
    log.addHandler(CouchDBLogger(None, broken))

    log.info("one")
    log.info("two")

    assert [doc["msg"] for doc in broken.docs] == ["one", "two"]
    assert "no route" in capsys.readouterr().err


def test_a_database_that_logs_while_it_saves_does_not_log_itself(log: logging.Logger) -> None:
    class Chatty(Kept):
        def save(self, doc: dict[str, Any]) -> None:
            log.debug("saving")
            super().save(doc)

    chatty = Chatty()
    log.addHandler(CouchDBLogger(None, chatty))

    log.info("work")

    assert [doc["msg"] for doc in chatty.docs] == ["work"]


def test_a_url_and_a_name_open_the_database_by_python_couchdb(couch: Couch, log: logging.Logger) -> None:
    handler = CouchDBLogger(couch.url, "logs")
    log.addHandler(handler)

    log.warning("hello")

    (doc,) = couch.docs.values()
    assert (doc["msg"], doc["lvl"]) == ("hello", logging.WARNING)
    assert handler.server.resource.session._timeout == couchdblogger.TIMEOUT


def test_a_database_that_is_not_there_is_noticed_at_once(couch: Couch) -> None:
    from couchdb.http import ResourceNotFound

    with pytest.raises(ResourceNotFound):
        CouchDBLogger(couch.url, "elsewhere")


def test_the_default_formatter_is_one() -> None:
    record = logging.LogRecord("n", logging.INFO, __file__, 1, "text", (), None)

    assert couchdblogger.default_log_formatter.format(record).endswith(" - n - INFO - text")


# --- picaslogger


@pytest.fixture
def picas_lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What picas' logger writes, as if it were made in this process for the first time."""
    lines = io.StringIO()
    monkeypatch.setattr(picaslogger.picaslogger, "handlers", [])
    importlib.reload(picaslogger)
    picaslogger.ch.setStream(lines)
    return lines


def test_picas_logger_tells_from_info_upwards_in_picas_form(picas_lines: io.StringIO) -> None:
    picaslogger.picaslogger.debug("too fine")
    picaslogger.picaslogger.info("started")

    (line,) = picas_lines.getvalue().splitlines()
    assert line.endswith(" - PiCaS - INFO - started")


def test_picas_logger_says_things_once(picas_lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a root logger that somebody has configured, and the module imported a second time
    twice = logging.StreamHandler(picas_lines)
    logging.getLogger().addHandler(twice)
    try:
        importlib.reload(picaslogger)
        picaslogger.picaslogger.info("once")
    finally:
        logging.getLogger().removeHandler(twice)

    assert picas_lines.getvalue().count("once") == 1


def test_only_picas_own_logger_is_touched() -> None:
    before = list(logging.getLogger().handlers)

    importlib.reload(picaslogger)

    assert logging.getLogger().handlers == before
    assert logging.getLogger("PiCaS") is picaslogger.picaslogger


# --- metadata


def test_the_metadata_has_picas_names() -> None:
    for name in (
        "project",
        "package",
        "description",
        "project_no_spaces",
        "version",
        "authors_string",
        "license",
        "copyright",
        "url",
    ):
        assert isinstance(getattr(metadata, name), str), name
        assert name in dir(metadata)
    assert isinstance(metadata.authors, list)
    assert isinstance(metadata.emails, list)


def test_the_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "metadata", lambda package: {"Version": "9.8.7", "Summary": "of " + package})

    assert metadata.version == "9.8.7"
    assert metadata.description == "of tokenpool"
    assert metadata.license == "MIT", "what the package does not say falls back"


def test_uninstalled_the_version_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> None:
        raise installed.PackageNotFoundError(package)

    monkeypatch.setattr(installed, "metadata", absent)

    assert metadata.version == "0.1.0"
    with pytest.raises(AttributeError, match="colour"):
        metadata.colour  # noqa: B018

"""Documents are dictionaries with attachments; tasks carry picas' fields; nothing shared by accident."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenpool.documents import TASK_DEFAULTS, Document, Job, Task, Token, User, new_token


def test_a_new_document_copies_what_it_is_made_of_and_a_saved_one_shares_it() -> None:
    base, data = {"list": []}, {"_id": "x"}
    fresh = Document(data, base)
    fresh["list"].append(1)
    fresh["more"] = 1
    assert (base, data) == ({"list": []}, {"_id": "x"})

    saved = {"_id": "x", "_rev": "1-a"}
    shared = Document(saved, {"filled": 1})
    shared["n"] = 1
    assert saved == {"_id": "x", "_rev": "1-a", "n": 1}
    assert Document(shared).doc is saved


def test_a_document_is_a_dictionary_in_every_way() -> None:
    doc = Document({"a": 1, "b": 2})
    doc.update({"c": 3})
    del doc["a"]
    assert (len(doc), list(doc), "b" in doc, doc.get("x", 9), doc.pop("c"), dict(doc)) == (
        2,
        ["b", "c"],
        True,
        9,
        3,
        {"b": 2},
    )
    assert doc.value is doc.doc
    assert doc == {"b": 2}
    assert {doc: 1}[doc] == 1


def test_id_and_rev_are_missing_until_they_are_there() -> None:
    doc = Document()
    for name in ("id", "rev"):
        with pytest.raises(AttributeError, match=f"_{name}"):
            getattr(doc, name)
    doc.id = "x"
    assert doc["_id"] == "x"


@given(st.one_of(st.binary(), st.text()))
def test_an_attachment_comes_back_as_bytes_and_the_document_stays_json(data: bytes | str) -> None:
    doc = Document({"_id": "x"})
    doc.put_attachment("logs_x.out", data)
    raw = data.encode() if isinstance(data, str) else data
    assert doc.get_attachment("logs_x.out") == {"content_type": "text/plain", "data": raw}
    assert base64.b64decode(json.loads(json.dumps(doc.doc))["_attachments"]["logs_x.out"]["data"]) == raw


def test_types_of_attachments_are_guessed_from_names() -> None:
    doc = Document()
    doc.put_attachment("a.png", b"")
    doc.put_attachment("b.bin", b"", "x/y")
    types = {name: stub["content_type"] for name, stub in doc["_attachments"].items()}
    assert types == {"a.png": "image/png", "b.bin": "x/y"}
    assert doc.remove_attachment("a.png") is doc
    assert set(doc["_attachments"]) == {"b.bin"}
    with pytest.raises(KeyError):
        doc.get_attachment("a.png")


def test_a_task_starts_with_picas_fields_and_none_is_shared() -> None:
    first, second = Task(), Task()
    first["error"].append(1)
    first["output"]["x"] = 1
    assert {name: second[name] for name in TASK_DEFAULTS} == {**TASK_DEFAULTS, "error": [], "output": {}}
    assert first.id != second.id
    assert first.id.startswith("task_")
    assert len(first.id) == len("task_") + 32
    assert TASK_DEFAULTS["error"] == []


def test_a_saved_task_gets_no_defaults() -> None:
    assert Task({"_id": "x", "_rev": "1-a"}).doc == {"_id": "x", "_rev": "1-a"}


def test_only_a_token_is_in_the_views_by_default() -> None:
    assert (Task()["type"], Token()["type"], Token({"type": "mine"})["type"], new_token({})["type"]) == (
        "task", "token", "mine", "token",
    )  # fmt: skip
    assert (Task().state, Token().state) == ("invalid", "todo")


def test_new_tokens_share_nothing() -> None:
    new_token({})["error"].append(1)
    new_token({})["output"]["x"] = 1
    assert (new_token({})["error"], new_token({})["output"], new_token({})["uploads"]) == ([], {}, {})


def test_the_life_of_a_task() -> None:
    task = Token()
    assert task.lock() is task
    assert (task.state, task.is_done(), task.has_error()) == ("locked", False, False)
    task["exit_code"] = 0
    assert task.done().state == "done"
    assert task.is_done()
    assert task.scrub().state == "todo"
    assert task["scrub_count"] == 1
    try:
        raise ValueError("no")
    except ValueError as error:
        task.error("it failed", error)
    assert (task.state, task.has_error(), len(task.get_errors())) == ("error", True, 1)
    assert "ValueError: no" in task.get_errors()[0]["exception"]


@pytest.mark.parametrize("errors", [None, [], "missing"])
def test_errors_may_be_missing(errors: object) -> None:
    task = Task({"_id": "x", "_rev": "1-a", "error": errors})
    if errors == "missing":
        del task["error"]
    assert task.get_errors() == []
    task.error("one").error("two")
    assert [entry["message"] for entry in task.get_errors()] == ["one", "two"]


def test_properties_write_the_fields() -> None:
    task = Task()
    task.input, task.output, task.uploads = "in", [1], {"a": 1}
    assert (
        (task["input"], task["output"], task["uploads"])
        == (task.input, task.output, task.uploads)
        == ("in", [1], {"a": 1})
    )


def test_users_are_couchdbs() -> None:
    user = User("me", "secret", ["r"])
    assert dict(user) == {
        "_id": "org.couchdb.user:me",
        "name": "me",
        "type": "user",
        "password": "secret",
        "roles": ["r"],
    }


def test_the_life_of_a_job() -> None:
    with pytest.raises(ValueError, match="_id"):
        Job({})
    job = Job({"_id": "j"})
    assert job.queue("ssh", "host").start().finish() is job
    assert job.is_done()
    job["_rev"] = "1-a"
    assert job.archive().id == f"archived-j-{job['archive']}"
    assert "_rev" not in job

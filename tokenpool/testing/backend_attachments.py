"""Conformance of a `Backend`: attachments, inside a document and streamed."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest

from ..backends.base import Backend, Json, Refused, Saved
from ..errors import Conflict, NotFound
from .backend_documents import STRANGE_IDS
from .backend_parts import RACERS, Parts, race, saved

EVERY_BYTE = bytes(range(256))
#: Larger than any buffer on the way, and without a period that would hide pieces in a wrong order.
LARGE = b"".join(i.to_bytes(4, "big") for i in range(750_000))


def inline(data: bytes, content_type: str = "text/plain") -> Json:
    """Return an attachment as it is written inside a document."""
    return {"content_type": content_type, "data": base64.b64encode(data).decode()}


def stream(pool: Backend, doc_id: str, rev: str, name: str, data: bytes, content_type: str = "text/plain") -> str:
    """Attach bytes as a file would be."""
    return pool.put_attachment(doc_id, rev, name, io.BytesIO(data), len(data), content_type)


def body(pool: Backend, doc_id: str, name: str) -> bytes:
    """Return all of an attachment."""
    return b"".join(pool.get_attachment(doc_id, name))


class AttachmentTests(Parts):
    """put_attachment, get_attachment, and what put_many does with `_attachments`."""

    def test_an_attachment_inside_a_document(self, pool: Backend) -> None:
        # When a document is written with a log inside
        (rev,) = saved(pool, {"_id": "doc", "_attachments": {"log": inline(b"hello\n")}})
        # Then the document describes it, and the log is read by itself
        stub: Any = pool.get("doc")["_attachments"]["log"]
        assert stub["stub"] is True
        assert (stub["content_type"], stub["length"], stub["revpos"]) == ("text/plain", 6, 1)
        assert stub["digest"].startswith("md5-")
        assert "data" not in stub
        assert body(pool, "doc", "log") == b"hello\n"
        assert pool.get("doc")["_rev"] == rev

    @pytest.mark.parametrize(
        "data", [b"", b"\0", EVERY_BYTE * 3, "héllo 😀\r\n".encode()], ids=["empty", "nul", "binary", "utf-8"]
    )
    def test_bytes_of_every_kind(self, pool: Backend, data: bytes) -> None:
        (rev,) = saved(pool, {"_id": "doc", "_attachments": {"in": inline(data, "application/octet-stream")}})
        stream(pool, "doc", rev, "by itself", data, "application/octet-stream")
        assert body(pool, "doc", "in") == body(pool, "doc", "by itself") == data
        assert {stub["length"] for stub in pool.get("doc")["_attachments"].values()} == {len(data)}

    def test_a_document_written_back_keeps_what_it_names(self, pool: Backend) -> None:
        # Given a document with two logs, as read
        saved(pool, {"_id": "doc", "_attachments": {"out": inline(b"out"), "err": inline(b"err")}})
        doc = pool.get("doc")
        # When it is changed and written back without one of them
        del doc["_attachments"]["err"]
        saved(pool, {**doc, "n": 1})
        # Then the one that it names by a stub is kept, the other is gone
        assert list(pool.get("doc")["_attachments"]) == ["out"]
        assert body(pool, "doc", "out") == b"out"
        with pytest.raises(NotFound):
            body(pool, "doc", "err")

    def test_a_document_written_without_attachments_drops_them(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc", "_attachments": {"out": inline(b"out")}})
        saved(pool, {"_id": "doc", "_rev": rev})
        assert "_attachments" not in pool.get("doc")
        with pytest.raises(NotFound):
            body(pool, "doc", "out")

    def test_a_new_body_replaces_the_old_one(self, pool: Backend) -> None:
        saved(pool, {"_id": "doc", "_attachments": {"log": inline(b"old"), "kept": inline(b"kept")}})
        doc = pool.get("doc")
        doc["_attachments"]["log"] = inline(b"newer", "text/html")
        saved(pool, doc)
        assert body(pool, "doc", "log") == b"newer"
        assert body(pool, "doc", "kept") == b"kept"
        assert pool.get("doc")["_attachments"]["log"]["content_type"] == "text/html"

    def test_a_refused_write_leaves_the_attachments(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc", "_attachments": {"log": inline(b"old")}})
        results = pool.put_many([{"_id": "doc", "_attachments": {"log": inline(b"new")}}])
        assert isinstance(results[0], Refused)
        assert body(pool, "doc", "log") == b"old"
        assert pool.get("doc")["_rev"] == rev

    def test_a_stub_of_nothing_is_refused_alone(self, pool: Backend) -> None:
        # When a document keeps an attachment that is not there
        bad = {"_id": "bad", "_attachments": {"log": {"stub": True}}}
        results = pool.put_many([{"_id": "before"}, bad, {"_id": "after"}])
        # Then that one is refused, the others are written
        assert [isinstance(result, Saved) for result in results] == [True, False, True]
        assert isinstance(results[1], Refused)
        assert results[1].error == "missing_stub"
        assert pool.get_many(["bad"]) == [None]

    def test_data_that_is_not_base64_is_refused_alone(self, pool: Backend) -> None:
        bad = {"_id": "bad", "_attachments": {"log": {"content_type": "text/plain", "data": "***"}}}
        results = pool.put_many([{"_id": "before"}, bad, {"_id": "after"}])
        assert [isinstance(result, Saved) for result in results] == [True, False, True]

    def test_deleting_a_document_deletes_its_attachments(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc", "_attachments": {"log": inline(b"old")}})
        saved(pool, {"_id": "doc", "_rev": rev, "_deleted": True})
        saved(pool, {"_id": "doc"})
        with pytest.raises(NotFound):
            body(pool, "doc", "log")

    def test_many_documents_with_attachments_in_one_write(self, pool: Backend) -> None:
        docs: list[Json] = [{"_id": f"doc_{i}", "_attachments": {"log": inline(b"%d" % i)}} for i in range(50)]
        saved(pool, *docs)
        assert [body(pool, doc["_id"], "log") for doc in docs] == [b"%d" % i for i in range(50)]

    # --- streamed ------------------------------------------------------------------------------------------------------

    def test_a_large_file_is_streamed_both_ways(self, pool: Backend) -> None:
        # Given a document with a small log
        (rev,) = saved(pool, {"_id": "doc", "n": 1, "_attachments": {"small": inline(b"small")}})
        # When three megabytes are attached to it
        now = stream(pool, "doc", rev, "large", LARGE)
        # Then the document has the revision that was answered, and all it had before
        doc = pool.get("doc")
        assert (doc["_rev"], doc["n"]) == (now, 1)
        assert doc["_attachments"]["large"]["length"] == len(LARGE)
        assert body(pool, "doc", "small") == b"small"
        # And they come back in pieces
        pieces = list(pool.get_attachment("doc", "large"))
        assert len(pieces) > 1
        assert b"".join(pieces) == LARGE
        # And where the pool reads from any byte on, all from there comes
        for start in (0, 1, 65535, 65536, 65537, len(LARGE) - 1, len(LARGE)):
            rest = pool.attachment_from("doc", "large", start)
            assert rest is None or b"".join(rest) == LARGE[start:]

    def test_a_stub_keeps_a_streamed_file(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc"})
        stream(pool, "doc", rev, "large", LARGE)
        saved(pool, {**pool.get("doc"), "n": 2})
        assert body(pool, "doc", "large") == LARGE

    def test_a_stream_changes_the_revision(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc"})
        now = stream(pool, "doc", rev, "log", b"log")
        assert now.startswith("2-")
        (result,) = pool.put_many([{"_id": "doc", "_rev": rev}])
        assert isinstance(result, Refused)
        assert result.conflict

    def test_streaming_to_an_old_revision_is_a_conflict(self, pool: Backend) -> None:
        (old,) = saved(pool, {"_id": "doc"})
        (rev,) = saved(pool, {"_id": "doc", "_rev": old})
        with pytest.raises(Conflict):
            stream(pool, "doc", old, "log", b"log")
        assert pool.get("doc") == {"_id": "doc", "_rev": rev}

    def test_a_streamed_file_replaces_the_one_of_its_name(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc", "_attachments": {"log": inline(b"old")}})
        stream(pool, "doc", rev, "log", b"new", "text/csv")
        assert body(pool, "doc", "log") == b"new"
        assert pool.get("doc")["_attachments"]["log"]["content_type"] == "text/csv"

    def test_of_many_that_attach_to_a_revision_one_wins(self, pool: Backend) -> None:
        (rev,) = saved(pool, {"_id": "doc"})

        def attach(i: int) -> bool:
            try:
                stream(pool, "doc", rev, "log", b"%d" % i)
            except Conflict:
                return False
            return True

        won = race(RACERS, attach)
        assert won.count(True) == 1
        assert body(pool, "doc", "log") == b"%d" % won.index(True)

    def test_names_of_every_kind(self, pool: Backend) -> None:
        # Given names with blanks, slashes, and what means something in a URL
        for name in ["a b.txt", "dir/sub/a b.txt", "a?b#c&d+e%2F", "ünï.txt", "logs_token/1.out"]:
            (rev,) = saved(pool, {"_id": f"doc {name}"})
            # When a file is attached under it, then it is read under it
            stream(pool, f"doc {name}", rev, name, name.encode())
            assert list(pool.get(f"doc {name}")["_attachments"]) == [name]
            assert body(pool, f"doc {name}", name) == name.encode()

    def test_documents_of_every_name(self, pool: Backend) -> None:
        for name in STRANGE_IDS:
            (rev,) = saved(pool, {"_id": name})
            stream(pool, name, rev, "log", name.encode())
            assert body(pool, name, "log") == name.encode()

    def test_what_is_not_there_is_not_found(self, pool: Backend) -> None:
        saved(pool, {"_id": "doc", "_attachments": {"log": inline(b"")}})
        for doc_id, name in (("doc", "none"), ("none", "log")):
            with pytest.raises(NotFound):
                body(pool, doc_id, name)

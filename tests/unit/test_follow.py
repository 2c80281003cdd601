"""The logs of a running token are given as they are written: every byte once, in order, and a gap is told of."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_documents import attempt, locked, running, save, token, worker

from tokenpool import connect, follow
from tokenpool.backends.base import Backend, Heard, Json
from tokenpool.errors import NotFound, ServerAway
from tokenpool.follow import ASK, Follower, parts_of
from tokenpool.pool import Pool

Step = Callable[[Backend], object]


class Scripted:
    """A real backend on which something happens each time that somebody listens; the clock goes on meanwhile."""

    def __init__(self, real: Backend, steps: list[Step], seconds: float = 1.0) -> None:
        self.real, self.steps, self.seconds = real, steps, seconds
        self.now = 100.0
        self.heard: list[tuple[set[str], str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def listen(self, ids: Collection[str], since: str = "", timeout: float = 60.0) -> Heard:
        self.heard.append((set(ids), since))
        if not since:
            return Heard(frozenset(), "begin")
        assert self.steps, "it goes on to listen when all is over"
        self.steps.pop(0)(self.real)
        self.now += self.seconds
        return Heard(frozenset(), str(self.now))

    def follow(self, token_id: str = "t") -> list[tuple[str, str]]:
        """Return all that is given, as texts, with what belongs together put together."""
        told: list[tuple[str, str]] = []
        for piece in Follower(self, token_id, lambda: self.now, lambda seconds: None).pieces():  # type: ignore[arg-type]
            text = piece.data.decode("utf-8", "replace")
            if told and told[-1][0] == piece.stream != "note":
                text = told.pop()[1] + text
            told.append((piece.stream, text))
        return told


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with connect(pool_url, create=True) as opened:
        yield opened


ME = "a"


def writes(out: str | bytes = "", err: str = "", size: int | None = None, **fields: Any) -> Step:
    """The worker shows the ends of the logs; `size`: of how long a log `out` is the end."""
    data = out if isinstance(out, bytes) else out.encode()
    shown: Json = {"size": len(data) if size is None else size}
    try:
        shown["tail"] = data.decode()
    except UnicodeDecodeError:
        shown.update(tail=base64.b64encode(data).decode(), base64=True)
    entry = running("t", out=shown, err={"size": len(err), "tail": err})

    def step(backend: Backend) -> None:
        now = backend.get("worker_" + ME.ljust(32, "0"))
        save(backend, {**now, "running": [entry], "renewals": now["renewals"] + 1, **fields})

    return step


def ends(out: bytes = b"", err: bytes = b"", state: str = "done", claim: str = "claim-t") -> Step:
    """The token is finished, or put back, and its logs are attached."""

    def step(backend: Backend) -> None:
        doc = backend.get("t")
        final = state != "todo"
        number = len(doc.get("attempts", [])) + 1
        names = {kind: f"logs_t.{kind}" if final else f"logs_t.{number}.{kind}" for kind in ("out", "err")}
        data = {
            names[kind]: {"content_type": "text/plain", "data": base64.b64encode(text).decode()}
            for kind, text in (("out", out), ("err", err))
        }
        entry = attempt(number, claim=claim, stdout=names["out"], stderr=names["err"])
        closed = {"lock": 5, "done": 9, "exit_code": 0 if state == "done" else 1} if final else {"lock": 0}
        save(
            backend,
            {
                **{name: value for name, value in doc.items() if name != "lease"}, **closed,
                "attempts": [*doc.get("attempts", []), entry],
                "_attachments": {**doc.get("_attachments", {}), **data},
            },
        )  # fmt: skip

    return step


def started(backend: Backend) -> None:
    """The worker claims the token."""
    locked(backend, "t", worker(backend, ME, running=[running("t")]))


def streams(told: list[tuple[str, str]]) -> dict[str, str]:
    """Return each stream as a whole."""
    return {kind: "".join(text for stream, text in told if stream == kind) for kind in ("out", "err")}


def test_new_bytes_are_given_as_they_come_and_the_rest_from_the_attachment(pool: Pool) -> None:
    # Given a token that runs
    started(pool.backend)
    # When its worker shows more and more of the logs, and it ends with more than was shown
    follower = Scripted(
        pool.backend,
        [
            writes("one\n"),
            writes("one\ntwo\n", "oops\n"),
            writes("one\ntwo\n", "oops\n"),
            ends(b"one\ntwo\nend\n", b"oops\n"),
        ],
    )
    # Then every byte is given once
    assert [piece for piece in follower.follow() if piece[0] != "note"] == [
        ("out", "one\ntwo\n"), ("err", "oops\n"), ("out", "end\n"),
    ]  # fmt: skip
    assert follower.heard[-1][0] == {"t", "worker_" + ME.ljust(32, "0")}


def test_a_gap_is_told_of(pool: Pool) -> None:
    # Given a token that writes more than its worker shows
    started(pool.backend)
    steps = [writes("abc"), writes("xyz", size=100), ends(b"abc" + 94 * b"-" + b"xyz!")]
    told = Scripted(pool.backend, steps).follow()
    assert [piece for piece in told if "attempt" not in piece[1]] == [
        ("out", "abc"), ("note", "94 bytes of stdout not shown"), ("out", "xyz!"),
    ]  # fmt: skip


def test_bytes_that_are_no_text_come_as_they_are(pool: Pool) -> None:
    started(pool.backend)
    data = b"\xff\x00\xc3"
    follower = Scripted(pool.backend, [writes(data), writes(data + b"\xa9"), ends(data + b"\xa9.")])
    pieces = [piece.data for piece in Follower(follower, "t", lambda: follower.now, lambda s: None).pieces()
              if piece.stream == "out"]  # type: ignore[arg-type] # fmt: skip
    assert b"".join(pieces) == b"\xff\x00\xc3\xa9."


def test_a_log_that_lost_its_middle_in_the_pool_is_told_of_once(pool: Pool) -> None:
    # Given a log too long for the pool, whose beginning was followed
    started(pool.backend)
    mark = b"\n\n[tokenpool: 90 of 100 bytes left out here]\n\n"
    told = Scripted(pool.backend, [writes("012345"), ends(b"01234" + mark + b"56789")]).follow()
    assert [piece for piece in told if "attempt" not in piece[1]] == [
        ("out", "012345"), ("note", "89 bytes of stdout not shown"), ("out", "56789"),
    ]  # fmt: skip


@given(st.binary(max_size=60), st.integers(1, 30))
def test_the_parts_of_a_log_have_their_places(data: bytes, limit: int) -> None:
    # Given any log, and what the worker attaches of it
    left = max(0, len(data) - limit)
    head = limit // 2
    mark = f"\n\n[tokenpool: {left} of {len(data)} bytes left out here]\n\n".encode()
    kept = data[:head] + mark + data[head + left :] if left else data
    if kept.count(b"[tokenpool:") > (1 if left else 0):
        return
    # Then each part stands where it stood in the log
    parts = parts_of(kept)
    assert all(data[start : start + len(part)] == part for start, part in parts)
    assert sum(len(part) for _, part in parts) == len(data) - left


def test_a_token_that_waits_is_waited_for(pool: Pool) -> None:
    token(pool.backend, "t")
    told = Scripted(pool.backend, [started, writes("hi"), ends(b"hi")]).follow()
    assert told[0] == ("note", "it waits (todo)")
    assert streams(told) == {"out": "hi", "err": ""}


def test_a_token_that_waits_for_its_slot_is_told_of(pool: Pool) -> None:
    locked(pool.backend, "t", worker(pool.backend, ME, running=[running("t", phase="wait")]))
    assert Scripted(pool.backend, [writes("x"), ends(b"x")]).follow()[0] == ("note", "it waits for its slot")


def test_a_retry_is_followed_too(pool: Pool) -> None:
    # Given a token whose first attempt fails
    started(pool.backend)

    def again(backend: Backend) -> None:
        doc = backend.get("t")
        me = "worker_" + ME.ljust(32, "0")
        lease = {"worker": me, "claim": "second", "lock": 77, "hostname": "n1"}
        save(backend, {**doc, "lock": 77, "lease": lease})
        save(
            backend,
            {**backend.get(me), "running": [{**running("t"), "claim": "second", "out": {"size": 1, "tail": "2"}}]},
        )

    steps = [writes("1"), ends(b"1.", state="todo"), again, ends(b"2.", claim="second")]
    told = Scripted(pool.backend, steps).follow()
    # Then the rest of the first, and all of the second, are given
    assert streams(told) == {"out": "1.2.", "err": ""}
    notes = [text for stream, text in told if stream == "note"]
    assert notes == ["attempt 1 on n1", "that attempt is over", "it waits (todo)", "attempt 2 on n1"]


def test_an_attempt_that_was_lost_has_no_rest(pool: Pool) -> None:
    started(pool.backend)

    def lost(backend: Backend) -> None:
        doc = {name: value for name, value in backend.get("t").items() if name != "lease"}
        save(backend, {**doc, "lock": 0, "attempts": [attempt(1, claim="claim-t", failure_class="lost")]})

    def reset(backend: Backend) -> None:
        save(backend, {**backend.get("t"), "lock": -7})

    told = Scripted(pool.backend, [writes("1"), lost, reset]).follow()
    assert streams(told) == {"out": "1", "err": ""}


def test_what_is_finished_is_printed_whole(pool: Pool) -> None:
    started(pool.backend)
    ends(b"all", b"of it", state="error")(pool.backend)
    assert Scripted(pool.backend, []).follow() == [("out", "all"), ("err", "of it")]


@pytest.mark.parametrize("whole", [True, False])
def test_a_large_log_comes_in_pieces_or_is_named(pool: Pool, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    # Given a token that is finished, with a log that is large, and one that is small
    monkeypatch.setattr(follow, "LARGE", 200_000)
    large = b"".join(b"line %d\n" % number for number in range(50_000))
    pool.push({"_id": "t"})
    token = pool.claim()[0]
    token.put_attachment("logs_t.out", large)
    token.put_attachment("logs_t.err", "small")
    pool.close(token)

    # When it is followed by somebody who wants all of it, or does not
    pieces = list(Follower(pool.backend, "t", whole=whole).pieces())

    # Then it comes as it is, or is named
    given = b"".join(piece.data for piece in pieces if piece.stream == "out")
    assert given == (large if whole else b"")
    assert ("logs_t.out" in str([piece.data for piece in pieces if piece.stream == "note"])) is not whole
    assert b"".join(piece.data for piece in pieces if piece.stream == "err") == b"small"


def test_a_token_of_picas_is_waited_for(pool: Pool) -> None:
    token(pool.backend, "t", lock=77, hostname="grid")
    told = Scripted(pool.backend, [ends(b"done")]).follow()
    assert told == [("note", "no worker of ours runs it: its logs come when it is finished"), ("out", "done")]


def test_a_token_that_is_deleted_ends_it_and_one_that_never_was_is_refused(pool: Pool) -> None:
    token(pool.backend, "t")

    def delete(backend: Backend) -> None:
        backend.put_many([{**backend.get("t"), "_deleted": True}])

    assert Scripted(pool.backend, [delete]).follow()[-1] == ("note", "the token was deleted")
    with pytest.raises(NotFound):
        Scripted(pool.backend, []).follow("nobody")


def test_a_server_that_is_away_for_a_while_costs_no_byte(pool: Pool) -> None:
    # Given a token that runs, and a server that goes away while it is followed
    started(pool.backend)

    def away(backend: Backend) -> None:
        writes("one\ntwo\n")(backend)
        raise ServerAway("no answer")

    told = Scripted(pool.backend, [writes("one\n"), away, ends(b"one\ntwo\nend\n")]).follow()
    # Then it is told of, and every byte is given once
    assert streams(told) == {"out": "one\ntwo\nend\n", "err": ""}
    assert [text for stream, text in told if stream == "note"] == [
        "attempt 1 on n1", "the pool is away, trying again", "attempt 1 on n1",
    ]  # fmt: skip


def test_the_worker_is_asked_again_in_time_and_only_while_it_renews(pool: Pool) -> None:
    # Given a token that is followed for long, with looks every four seconds
    started(pool.backend)
    asked: list[int] = []

    def count(backend: Backend) -> None:
        asked.append(backend.get("worker_" + ME.ljust(32, "0"))["follow"].get("t", 0))

    def lives(backend: Backend) -> None:
        count(backend)
        now = backend.get("worker_" + ME.ljust(32, "0"))
        save(backend, {**now, "renewals": now["renewals"] + 1})

    steps = [lives] * 7 + [count] * 7 + [ends()]
    Scripted(pool.backend, list(steps), seconds=4.0).follow()
    # Then it is asked every ten seconds or so, until it does not renew any more: it may be dead, and is not to look alive
    assert asked == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4]
    assert ASK < 30

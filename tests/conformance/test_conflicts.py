"""Two workers that won one race, a cluster that was torn: one outcome stands, nothing that was done is forgotten.

Conflicting revisions are made as replication makes them: written with ``new_edits`` false.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from altered_backend import Altered, accept, away, lose_answer, lose_request
from couch_server import Couch, raw_couch
from faulty_proxy import FaultyProxy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenpool import conflicts, precedence, transitions
from tokenpool.backends import open_backend
from tokenpool.backends.base import Backend, Json, Saved, WriteResult
from tokenpool.commits import Outcome, commit
from tokenpool.conflicts import resolve, resolve_all
from tokenpool.documents import new_token
from tokenpool.errors import AnswerLost, ServerAway
from tokenpool.pool import Pool
from tokenpool.transitions import state_of

Fork = Callable[..., list[str]]

# ── revisions ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def backend(couch_db: str) -> Iterator[Any]:
    pool = Pool(open_backend(couch_db))
    pool.init()
    yield Altered(pool.backend)
    pool.close_connections()


@pytest.fixture
def fork(couch_server: Couch, couch_db: str) -> Fork:
    """Make a function that gives one document several revisions that all follow the same first one."""

    def make(doc_id: str, *leaves: Json) -> list[str]:
        docs = [as_replicated(doc_id, leaf, str(n)) for n, leaf in enumerate(leaves)]
        replicate(couch_server, couch_db, [as_replicated(doc_id, new_token({}), "", first=True), *docs])
        return [doc["_rev"] for doc in docs]

    return make


def as_replicated(doc_id: str, doc: Json, seed: str, first: bool = False) -> Json:
    root = hashlib.md5(b"").hexdigest()
    own = hashlib.md5(seed.encode()).hexdigest()
    ids = [root] if first else [own, root]
    return {**doc, "_id": doc_id, "_rev": f"{len(ids)}-{ids[0]}", "_revisions": {"start": len(ids), "ids": ids}}


def replicate(server: Couch, url: str, docs: Sequence[Json]) -> None:
    status, answer = server.call("POST", f"/{raw_couch(url).name}/_bulk_docs", {"new_edits": False, "docs": list(docs)})
    assert (status, answer) == (201, [])


def child_of(parent: Json, doc: Json, seed: str) -> Json:
    """Return a revision that follows `parent`, written on another node."""
    number, _, text = parent["_rev"].partition("-")
    own = hashlib.md5(seed.encode()).hexdigest()
    start = int(number) + 1
    return {**doc, "_rev": f"{start}-{own}", "_revisions": {"start": start, "ids": [own, text]}}


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def todo(**fields: Any) -> Json:
    return new_token(fields)


def locked(claim: str, at: int = 1000, **fields: Any) -> Json:
    host = f"host-{claim}"
    lease = {"worker": f"worker_{claim}", "claim": claim, "lock": at, "hostname": host}
    return new_token({"lock": at, "hostname": host, "lease": lease, **fields})


def picas_locked(host: str, **fields: Any) -> Json:
    return new_token({"lock": 1000, "hostname": host, **fields})


def closed(claim: str, at: int, code: int = 0, log: str = "", **fields: Any) -> Json:
    name = "logs_a.out"
    attempt = {
        "claim": claim, "worker": f"worker_{claim}", "hostname": f"host-{claim}", "start_time": "2026-01-01T00:00:00Z",
        "end_time": f"t{at}", "exit_code": code, "counted": True, "stdout": name,
    }  # fmt: skip
    data = base64.b64encode((log or f"log of {claim}").encode()).decode()
    return new_token(
        {
            "lock": 1000, "done": at, "exit_code": code, "hostname": f"host-{claim}", "output": {"by": claim},
            "attempts": [attempt], "_attachments": {name: {"content_type": "text/plain", "data": data}}, **fields,
        }
    )  # fmt: skip


def ended(doc: Json, code: int, log: bytes = b"log", at: int = 0) -> Outcome:
    """Return the outcome of a claimed token as a worker writes it."""
    claim = doc["lease"]["claim"]
    done: Any = transitions.close({**doc, "exit_code": code, "output": {"by": claim}})
    done["done"] = at or done["done"]
    name = f"logs_{doc['_id']}.out"
    entry = {
        "claim": claim, "start_time": "s", "end_time": f"e-{claim}", "exit_code": code, "counted": True, "stdout": name,
    }  # fmt: skip
    done["attempts"] = [*transitions.attempts_of(doc), entry]
    data = base64.b64encode(log).decode()
    done["_attachments"] = {**doc.get("_attachments", {}), name: {"content_type": "text/plain", "data": data}}
    return Outcome(dict(done), claim)


def text_of(log: str) -> Json:
    return {"content_type": "text/plain", "data": base64.b64encode(log.encode()).decode()}


def claims_of(doc: Json) -> list[str]:
    return [attempt.get("claim", "") for attempt in doc.get("attempts", [])]


def text(backend: Any, name: str, doc_id: str = "a") -> bytes:
    return b"".join(backend.get_attachment(doc_id, name))


def whole(backend: Any, doc_id: str = "a") -> Json:
    """Return a document that must have no conflicts, without its revision."""
    doc = backend.real.get(doc_id, conflicts=True)
    assert "_conflicts" not in doc
    return {name: value for name, value in doc.items() if name != "_rev"}


# ── two winners of one race ──────────────────────────────────────────────────────────────────────────────────────────


def test_two_winners_run_and_close_and_one_outcome_stands_with_the_other_as_an_attempt(
    backend: Any, fork: Fork
) -> None:
    # Given two workers that both won the race for a token
    revs = fork("a", locked("c1"), locked("c2"))
    one, two = (backend.revision("a", rev) for rev in revs)
    # When both go on, run it, and close it, each on its own revision
    for outcome in (ended(two, 3, b"of two", at=2001), ended(one, 0, b"of one", at=2000)):
        assert len(commit(backend, (), [outcome]).closed) == 1
    assert resolve(backend, "a")
    # Then the first outcome stands, and the other is an attempt with its logs
    now = whole(backend)
    assert (state_of(now), now["exit_code"], now["output"]) == ("done", 0, {"by": "c1"})
    assert [(e["claim"], e["exit_code"], e["counted"], e.get("superseded", False)) for e in now["attempts"]] == [
        ("c2", 3, False, True),
        ("c1", 0, True, False),
    ]
    assert [text(backend, e["stdout"]) for e in now["attempts"]] == [b"of two", b"of one"]
    assert text(backend, "logs_a.out") == b"of one"
    # And the other worker, should its answer have been lost, learns that its outcome is history
    assert len(commit(backend, (), [ended(two, 3, b"of two", at=2001)]).superseded) == 1
    # And it is settled once and for all
    assert resolve(backend, "a") is False
    assert whole(backend) == now


def test_a_conflict_that_is_settled_while_both_run_lets_one_close_and_keeps_what_the_other_did(
    backend: Any, fork: Fork
) -> None:
    revs = fork("a", locked("c2"), locked("c1"))
    two, one = (backend.revision("a", rev) for rev in revs)

    displaced: list[str] = []
    backend.script = [passes, lose_answer]
    assert resolve(backend, "a", displaced=displaced.append)

    assert displaced == ["worker_c2"]
    now = backend.get("a")
    assert transitions.is_held_by(now, "c1")
    assert [(e["claim"], e["superseded"], e["counted"], e["worker"]) for e in now["attempts"]] == [
        ("c2", True, False, "worker_c2")
    ]
    # When the one that lost ends first, and then the one that holds the token
    written = commit(backend, (), [ended(two, 0, b"of two")])
    assert (len(written.closed), len(written.superseded)) == (0, 1)
    assert transitions.is_held_by(backend.get("a"), "c1")
    assert len(commit(backend, (), [ended(one, 5, b"of one")]).closed) == 1
    # Then the outcome is the holder's, and the history tells how the other one ended
    now = whole(backend)
    assert (state_of(now), now["exit_code"], now["output"]) == ("error", 5, {"by": "c1"})
    assert [(e["claim"], e["exit_code"], e.get("superseded", False)) for e in now["attempts"]] == [
        ("c2", 0, True),
        ("c1", 5, False),
    ]
    assert text(backend, "logs_a.out") == b"of one"
    assert text(backend, now["attempts"][0]["stdout"]) == b"of two"


def test_a_result_of_the_loser_counts_when_the_holder_has_given_the_token_back(backend: Any, fork: Fork) -> None:
    revs = fork("a", locked("c1"), locked("c2"))
    two = backend.revision("a", revs[1])
    resolve(backend, "a")
    backend.real.put_many([transitions.scrub({**backend.get("a")})])

    assert len(commit(backend, (), [ended(two, 0)]).closed) == 1

    now = whole(backend)
    assert (state_of(now), claims_of(now)) == ("done", ["c2"])
    assert "superseded" not in now["attempts"][0]


# ── the order ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_closed_beats_locked_beats_waiting(backend: Any, fork: Fork) -> None:
    fork("a", todo(), locked("c1"), closed("c2", 2000, 7))
    assert resolve(backend, "a")
    now = whole(backend)
    assert (state_of(now), now["exit_code"], now["output"]) == ("error", 7, {"by": "c2"})
    assert [(e["claim"], e.get("superseded", False)) for e in now["attempts"]] == [("c1", True), ("c2", False)]

    fork("b", todo(), locked("c1"), todo(priority=5))
    assert resolve(backend, "b")
    assert transitions.is_held_by(whole(backend, "b"), "c1")


def test_a_token_that_was_closed_stays_closed_beside_one_that_waits(backend: Any, fork: Fork) -> None:
    # The revision that waits has the longer history: CouchDB alone would show this one.
    revs = fork("a", closed("c1", 2000), todo())
    backend.real.put_many([{**backend.revision("a", revs[1]), "priority": 1}])
    assert state_of(backend.get("a")) == "todo"
    assert resolve(backend, "a")
    assert state_of(whole(backend)) == "done"
    assert text(backend, "logs_a.out") == b"log of c1"


def test_among_closed_ones_the_earliest_stands(backend: Any, fork: Fork) -> None:
    fork("a", closed("c1", 2002, 1), closed("c3", 2000, 0), closed("c2", 2001, 2))
    assert resolve(backend, "a")
    now = whole(backend)
    assert (now["done"], now["exit_code"], now["output"]) == (2000, 0, {"by": "c3"})
    assert claims_of(now) == ["c2", "c1", "c3"]
    logs = [text(backend, entry["stdout"]) for entry in now["attempts"]]
    assert logs == [b"log of c2", b"log of c1", b"log of c3"]


def test_picas_mark_of_an_error_is_no_early_time(backend: Any, fork: Fork) -> None:
    failed = dict(transitions.fail(closed("c1", 3000, 4), "no"))
    fork("a", {**failed, "error": [{"time": 3000, "message": "no"}]}, closed("c2", 2000))
    assert resolve(backend, "a")
    assert whole(backend)["output"] == {"by": "c2"}


def test_a_cancel_that_only_one_side_heard_reaches_the_worker(backend: Any, fork: Fork) -> None:
    asked = {"time": 1, "by": "me"}
    fork("a", locked("c1"), locked("c2", cancel=asked))
    assert resolve(backend, "a")
    now = whole(backend)
    assert (now["lease"]["claim"], now["cancel"]) == ("c1", asked)


def test_one_claim_on_both_sides_is_no_loss(backend: Any, fork: Fork) -> None:
    fork("a", locked("c1", note=1), locked("c1", priority=2))
    assert resolve(backend, "a")
    assert "attempts" not in whole(backend)


def test_an_end_without_an_attempt_is_noted_once(backend: Any, fork: Fork) -> None:
    # Given a token that one side ran, and that a person cancelled on the other
    cancelled = dict(transitions.cancel(todo(), "me"))
    cancelled["error"][0]["time"] = 3000
    fork("a", closed("c1", 2000), cancelled)
    backend.script = [passes, away]
    with pytest.raises(ServerAway):
        resolve(backend, "a")
    assert resolve(backend, "a")
    now = whole(backend)
    assert [(e.get("claim"), e["exit_code"], e.get("superseded", False)) for e in now["attempts"]] == [
        (None, 99, True),
        ("c1", 0, False),
    ]
    assert now["output"] == {"by": "c1"}


def passes(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
    """Let one write through."""
    return real.put_many(docs)


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_logs_that_are_too_large_are_left_out_and_nothing_points_to_them(
    backend: Any, fork: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflicts, "LARGEST", 100)
    fork("a", closed("c1", 2000), closed("c2", 2001, log="x" * 101))
    assert resolve(backend, "a")
    now = whole(backend)
    assert list(now["_attachments"]) == ["logs_a.out"]
    assert claims_of(now) == ["c2", "c1"]
    assert "stdout" not in now["attempts"][0]
    assert now["attempts"][1]["stdout"] == "logs_a.out"


def test_logs_that_both_sides_have_are_kept_once(backend: Any, fork: Fork) -> None:
    fork("a", closed("c1", 2000, log="same"), closed("c2", 2001, log="same"))
    assert resolve(backend, "a")
    assert list(whole(backend)["_attachments"]) == ["logs_a.out"]


def test_a_log_that_was_sent_ahead_of_its_outcome_is_kept(backend: Any, fork: Fork) -> None:
    # Given a loser that has streamed its large log, and has not closed yet
    data = base64.b64encode(b"ahead").decode()
    fork("a", locked("c1"), locked("c2", _attachments={"logs_a.out": {"content_type": "text/plain", "data": data}}))
    assert resolve(backend, "a")
    assert text(backend, "superseded_logs_a.out") == b"ahead"


# ── picas ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_picas_runs_is_never_written(backend: Any, fork: Fork) -> None:
    revs = fork("a", todo(), picas_locked("p1"))
    assert resolve(backend, "a")
    assert backend.get("a")["_rev"] == revs[1]
    assert whole(backend)["hostname"] == "p1"


def test_two_that_picas_runs_are_left_until_one_has_closed(backend: Any, fork: Fork) -> None:
    revs = fork("a", picas_locked("p1"), picas_locked("p2"))
    assert resolve(backend, "a") is False
    assert backend.written == []
    # When picas closes one of them on its own revision
    one = backend.revision("a", revs[0])
    assert isinstance(backend.real.put_many([{**one, "done": 2000, "exit_code": 0}])[0], Saved)
    assert resolve(backend, "a")
    now = whole(backend)
    assert (state_of(now), now["hostname"]) == ("done", "p1")
    assert [(e["hostname"], e["superseded"]) for e in now["attempts"]] == [("p2", True)]


def test_a_worker_with_a_lease_goes_before_picas(backend: Any, fork: Fork) -> None:
    fork("a", picas_locked("p1"), locked("c9"))
    assert resolve(backend, "a")
    assert transitions.is_held_by(whole(backend), "c9")


# ── claims in doubt ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("other", "is_ours"), [("c2", True), ("c0", False)])
def test_a_claim_that_was_told_202_is_ours_if_it_is_the_one_that_stands(
    couch_server: Couch, couch_db: str, backend: Any, other: str, is_ours: bool
) -> None:
    # Given a cluster in which two workers win one race, and ours is told 202
    backend.real.put_many([new_token({"_id": "a"})])
    base = backend.get("a")
    claim = dict(transitions.lock({**base}, {"worker": "w", "claim": "c1"}))
    theirs = child_of(base, {**locked(other), "_id": "a"}, "theirs")
    with FaultyProxy(couch_server.url) as proxy:
        fault = proxy.accepted(
            "POST", "_bulk_docs", body=b'"c1"', then=lambda: replicate(couch_server, couch_db, [theirs])
        )
        with open_backend(proxy.pool_url(raw_couch(couch_db).name)) as doubtful:
            written = commit(doubtful, [claim])
    # Then exactly one of them holds the token, on a revision without conflicts, and who gave way left no trace
    assert fault.hits == 1
    now = whole(backend)
    assert [doc["lease"]["claim"] for doc in written.claimed] == (["c1"] if is_ours else [])
    assert transitions.is_held_by(now, "c1" if is_ours else other)
    assert claims_of(now) == ([other] if is_ours else [])
    # And it can be closed on the revision that was handed out
    for doc in written.claimed:
        backend.written.clear()
        assert len(commit(backend, (), [ended(doc, 0)]).closed) == 1
        assert backend.written == [["a"]]


def test_202_alone_is_a_claim_once_it_was_read_back(couch_server: Couch, couch_db: str, backend: Any) -> None:
    backend.real.put_many([new_token({"_id": each}) for each in "ab"])
    claims = [dict(transitions.lock(backend.get(each), {"worker": "w", "claim": f"c-{each}"})) for each in "ab"]
    with FaultyProxy(couch_server.url) as proxy:
        proxy.accepted("POST", "_bulk_docs")
        with open_backend(proxy.pool_url(raw_couch(couch_db).name)) as doubtful:
            written = commit(doubtful, claims)
            read = [path for method, path in proxy.requests if "_all_docs" in path]
    assert [doc["_id"] for doc in written.claimed] == ["a", "b"]
    assert [doc["_rev"] for doc in written.claimed] == [backend.get(each)["_rev"] for each in "ab"]
    assert len(read) == 1
    assert "conflicts=true" in read[0]


def test_a_claim_whose_revision_did_not_stay_is_not_ours(couch_server: Couch, couch_db: str, backend: Any) -> None:
    backend.real.put_many([new_token({"_id": "a"})])
    claim = dict(transitions.lock(backend.get("a"), {"worker": "w", "claim": "c1"}))

    def scrub() -> None:
        backend.real.put_many([transitions.scrub({**backend.get("a")})])

    with FaultyProxy(couch_server.url) as proxy:
        proxy.accepted("POST", "_bulk_docs", then=scrub)
        with open_backend(proxy.pool_url(raw_couch(couch_db).name)) as doubtful:
            assert commit(doubtful, [claim]).claimed == []


# ── many at once, and lines that are cut ─────────────────────────────────────────────────────────────────────────────


LEAVES = {
    "two winners": [locked("c1"), locked("c2")],
    "three that closed": [closed("c1", 2002, 1), closed("c2", 2001, 0), closed("c3", 2000, 2)],
    "closed, locked, todo": [todo(), locked("c1"), closed("c2", 2000)],
    "equals": [todo(priority=1), todo(priority=2)],
}


@pytest.mark.parametrize("leaves", LEAVES.values(), ids=LEAVES)
def test_two_resolvers_at_once_end_with_the_same_document(
    backend: Any, fork: Fork, leaves: list[Json], couch_db: str
) -> None:
    fork("alone", *leaves)
    resolve(backend, "alone")
    expected = {**whole(backend, "alone"), "_id": ""}
    for n in range(5):
        fork(f"t{n}", *leaves)
        barrier, errors = threading.Barrier(3), []

        def work(doc_id: str = f"t{n}", barrier: threading.Barrier = barrier, errors: list[Any] = errors) -> None:
            try:
                with open_backend(couch_db) as own:
                    barrier.wait(30)
                    resolve(own, doc_id)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        now = whole(backend, f"t{n}")
        assert same_but_for_revpos({**now, "_id": ""}) == same_but_for_revpos(expected)


def same_but_for_revpos(doc: Json) -> Json:
    stubs = {name: stub["digest"] for name, stub in doc.get("_attachments", {}).items()}
    return {**doc, "_attachments": stubs}


@pytest.mark.parametrize("lost", [lose_answer, lose_request, away], ids=lambda act: act.__name__)
@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("leaves", LEAVES.values(), ids=LEAVES)
def test_a_line_that_is_cut_at_any_write_is_harmless(
    backend: Any, fork: Fork, leaves: list[Json], at: int, lost: Any
) -> None:
    fork("alone", *leaves)
    resolve(backend, "alone")
    fork("a", *leaves)
    backend.script = [*[passes] * at, lost]
    settled = []
    try:
        settled.append(resolve(backend, "a"))
    except ServerAway:
        assert lost is away
    backend.script = []
    settled.append(resolve(backend, "a"))
    assert settled in ([True, False], [True])
    now, expected = whole(backend), whole(backend, "alone")
    assert same_but_for_revpos({**now, "_id": ""}) == same_but_for_revpos({**expected, "_id": ""})


def test_answers_that_are_lost_again_and_again_are_told_to_the_caller(backend: Any, fork: Fork) -> None:
    fork("a", locked("c1"), locked("c2"))
    backend.script = [lose_request] * 30
    with pytest.raises(AnswerLost):
        resolve(backend, "a")
    backend.script = []
    assert resolve(backend, "a")


def test_a_loser_that_moves_on_meanwhile_is_looked_at_again(backend: Any, fork: Fork) -> None:
    # Given three winners, a loser of which closes between the reading and the deleting
    revs = fork("a", locked("c1"), locked("c2"), locked("c3"))
    two = backend.revision("a", revs[1])

    def closes_first(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
        assert isinstance(real.put_many([ended(two, 0, b"of two").doc])[0], Saved)
        return real.put_many(docs)

    backend.script = [passes, closes_first]
    assert resolve(backend, "a")
    # Then its outcome is the one that stands: closed beats locked
    now = whole(backend)
    assert (state_of(now), now["output"]) == ("done", {"by": "c2"})
    assert claims_of(now) == ["c3", "c1", "c2"]
    assert text(backend, "logs_a.out") == b"of two"


def test_a_loser_that_closes_after_it_was_noted_as_running_leaves_its_result(backend: Any, fork: Fork) -> None:
    # Given a resolver that died after it had noted the loser, and both closed then, the holder first
    revs = fork("a", locked("c1"), locked("c2"))
    two = backend.revision("a", revs[1])
    backend.script = [passes, away]
    with pytest.raises(ServerAway):
        resolve(backend, "a")
    holder = next(
        doc for doc in conflicts._read(backend, "a") if transitions.is_held_by(doc, "c1") and doc["_rev"] != revs[0]
    )
    for outcome in (ended(holder, 4, b"of one", at=2000), ended(two, 0, b"of two", at=2001)):
        assert isinstance(backend.real.put_many([outcome.doc])[0], Saved)
    # When the next resolver comes
    assert resolve(backend, "a")
    now = whole(backend)
    assert (now["exit_code"], now["output"]) == (4, {"by": "c1"})
    assert [(e["claim"], e["exit_code"], e.get("superseded", False)) for e in now["attempts"]] == [
        ("c2", 0, True),
        ("c1", 4, False),
    ]
    assert text(backend, now["attempts"][0]["stdout"]) == b"of two"


def test_without_a_quorum_nothing_is_deleted(backend: Any, fork: Fork) -> None:
    fork("a", locked("c1"), locked("c2"))
    backend.script = [accept] * 100
    assert resolve(backend, "a") is False
    assert len(backend.real.get("a", conflicts=True)["_conflicts"]) == 1
    backend.script = []
    assert resolve(backend, "a")
    assert claims_of(whole(backend)) == ["c2"]


# ── other documents, other pools ─────────────────────────────────────────────────────────────────────────────────────


def test_of_the_pools_other_documents_the_one_written_most_often_stays(backend: Any, fork: Fork) -> None:
    fork("worker_1", {"type": "worker", "renewals": 9}, {"type": "worker", "renewals": 10, "slots": 3})
    fork("bell", {"type": "bell", "rings": 7}, {"type": "bell", "rings": 70}, {"type": "bell", "rings": 8})
    revs = fork("batch_x", {"type": "batch", "paused": True}, {"type": "batch", "priority": 2})
    assert [resolve(backend, each) for each in ("worker_1", "bell", "batch_x")] == [True, True, True]
    assert (whole(backend, "worker_1")["slots"], whole(backend, "bell")["rings"]) == (3, 70)
    assert ("paused" in whole(backend, "batch_x")) == (revs[0] > revs[1])


def test_a_fence_that_only_one_side_saw_holds(backend: Any, fork: Fork) -> None:
    fork("worker_1", {"type": "worker", "renewals": 9, "fenced": True}, {"type": "worker", "renewals": 10})
    assert resolve(backend, "worker_1")
    now = whole(backend, "worker_1")
    assert (now["renewals"], now["fenced"]) == (10, True)


def test_documents_of_others_are_left_alone(backend: Any, fork: Fork) -> None:
    fork("theirs", {"type": "note", "text": "a"}, {"type": "note", "text": "b"})
    fork("odd", {"type": "worker"}, {"type": "batch"})
    assert [resolve(backend, each) for each in ("theirs", "odd", "nothing")] == [False, False, False]
    assert backend.written == []


def test_all_are_settled_up_to_the_limit(backend: Any, fork: Fork) -> None:
    for n in range(4):
        fork(f"t{n}", todo(), closed(f"c{n}", 2000))
    fork("batch_x", {"type": "batch", "paused": True}, {"type": "batch"})
    backend.real.put_many([new_token({"_id": "sound"})])
    assert resolve_all(backend, limit=3) == 3
    assert resolve_all(backend, also=["batch_x", "bell"]) == 2
    assert resolve_all(backend, also=["batch_x", "bell"]) == 0
    assert all(state_of(whole(backend, f"t{n}")) == "done" for n in range(4))


def test_a_sqlite_pool_has_no_conflicts(sqlite_url: str) -> None:
    with open_backend(sqlite_url, create=True) as backend:
        Pool(backend).init()
        backend.put_many([new_token({"_id": "a"})])
        assert resolve(backend, "a") is False
        assert resolve_all(backend) == 0
        assert resolve(backend, "nothing") is False


# ── any leaves, in any order ─────────────────────────────────────────────────────────────────────────────────────────

claim_ids = st.sampled_from(["c1", "c2", "c3", "c4"])
times = st.sampled_from([2000, 2001, 99])
attempts = st.builds(
    lambda claim, code: {"claim": claim, "exit_code": code, "counted": True}, claim_ids, st.integers(0, 2)
)
by_hand = st.builds(lambda code: {"exit_code": code, "counted": True, "stdout": "logs_a.out"}, st.integers(0, 2))
history = st.lists(st.one_of(attempts, by_hand), max_size=2, unique_by=lambda entry: entry.get("claim"))
leaf = st.one_of(
    st.builds(lambda h: todo(attempts=h), history),
    st.builds(lambda h: todo(lock=-1, attempts=h), history),
    st.builds(
        lambda h, log: todo(attempts=h, _attachments={"logs_a.out": text_of(log)}), history, st.sampled_from("xy")
    ),
    st.builds(lambda claim, h: locked(claim, attempts=h), claim_ids, history),
    st.builds(lambda host: picas_locked(host), st.sampled_from(["p1", "p2"])),
    st.builds(lambda claim, at, code: closed(claim, at, code), claim_ids, times, st.integers(0, 2)),
    st.builds(lambda by: dict(transitions.cancel(todo(), by)), st.sampled_from(["me", "you"])),
    st.just({"type": "token", "lock": "odd"}),
)


def with_revs(leaves: Sequence[Json]) -> list[Json]:
    """Return the leaves as a server tells them: with revisions, and stubs of what is attached."""
    told = []
    for n, leaf in enumerate(leaves):
        doc = {**leaf, "_id": "a", "_rev": f"{2 + n % 2}-{n:032x}"}
        if "_attachments" in leaf:
            stubs = {name: {"digest": each["data"], "length": 1} for name, each in leaf["_attachments"].items()}
            doc["_attachments"] = stubs
        told.append(doc)
    return told


@given(leaves=st.lists(leaf, min_size=2, max_size=5), data=st.data())
@settings(deadline=None)
def test_whoever_reads_the_leaves_in_whatever_order_decides_alike(leaves: list[Json], data: Any) -> None:
    found = with_revs(leaves)
    settled = precedence.settle(found)
    assert precedence.settle(data.draw(st.permutations(found))) == settled
    ordered = precedence.order(found)
    places = [
        {"done": 0, "error": 0, "locked": 1, "todo": 2, "held": 2, "invalid": 3}[state_of(each)] for each in ordered
    ]
    assert places == sorted(places)
    if settled is None:
        assert state_of(ordered[0]) == "locked"
        assert not ordered[0].get("lease")
        return
    # The outcome is the survivor's own, and every claim stands in its history, or holds it
    survivor = ordered[0]
    fields = ("lock", "done", "exit_code", "output", "hostname", "lease", "error")
    assert {name: settled.doc.get(name) for name in fields} == {name: survivor.get(name) for name in fields}
    assert settled.doc["_rev"] == survivor["_rev"]
    assert set(settled.losers) == {each["_rev"] for each in found} - {survivor["_rev"]}
    told = {*claims_of(settled.doc), (survivor.get("lease") or {}).get("claim", "")}
    assert {claim for each in found for claim in claims_of(each)} <= told
    assert {each["lease"]["claim"] for each in found if each.get("lease")} <= told
    counted = [e for e in settled.doc.get("attempts", []) if e["counted"]]
    assert counted == survivor.get("attempts", [])


@given(leaves=st.lists(leaf, min_size=2, max_size=5))
@settings(deadline=None)
def test_who_comes_after_one_that_died_halfway_decides_alike(leaves: list[Json]) -> None:
    found = with_revs(leaves)
    settled = precedence.settle(found)
    if settled is None or not settled.touch:
        return
    number, _, text = settled.doc["_rev"].partition("-")
    moved = {move.to: move.stub for move in settled.moves}
    attachments = {**settled.doc.get("_attachments", {}), **moved}
    written = {**settled.doc, "_rev": f"{int(number) + 1}-{text}", "_attachments": attachments}
    others = [each for each in found if each["_rev"] in settled.losers]
    again = precedence.settle([*others, written])
    assert again is not None
    assert (again.doc, again.moves, again.losers) == (written, (), settled.losers)


@given(leaves=st.lists(leaf, min_size=2, max_size=4))
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_server_comes_to_what_was_decided(backend: Any, fork: Fork, leaves: list[Json]) -> None:
    name = f"t{hashlib.md5(repr(leaves).encode()).hexdigest()}"
    fork(name, *leaves)
    read = conflicts._read(backend, name)
    settled = precedence.settle(read)
    assert resolve(backend, name) is (settled is not None)
    if settled is not None:
        now = whole(backend, name)
        assert now.get("attempts", []) == settled.doc.get("attempts", [])
        assert set(now.get("_attachments", {})) == {
            *settled.doc.get("_attachments", {}),
            *(move.to for move in settled.moves),
        }

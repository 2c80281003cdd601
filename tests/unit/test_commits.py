"""Whatever becomes of a write, each claim and each outcome is found out: ours, recorded once, or not ours to write."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from altered_backend import Altered, accept, away, edit, edit_first, lose_answer, lose_request

from tokenpool import transitions
from tokenpool.backends import open_backend
from tokenpool.backends.base import Json, Refused
from tokenpool.commits import Outcome, commit, merge
from tokenpool.documents import new_token
from tokenpool.errors import AnswerLost, ServerAway
from tokenpool.pool import Pool
from tokenpool.transitions import state_of


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    pool = Pool(open_backend(pool_url, create=True))
    pool.init()
    altered: Any = Altered(pool.backend)
    pool.backend = altered
    yield pool
    pool.close_connections()


@pytest.fixture
def backend(pool: Pool) -> Any:
    return pool.backend


def claimed(backend: Any, token_id: str = "a", claim: str = "c1") -> Json:
    """Put a token into the pool and claim it."""
    backend.real.put_many([new_token({"_id": token_id})])
    doc = transitions.lock(backend.get(token_id), {"worker": "w", "claim": claim})
    (result,) = backend.real.put_many([doc])
    return {**doc, "_rev": result.rev}


def ended(doc: Json, code: int = 0, log: bytes = b"log") -> Outcome:
    """Return the outcome of a claimed token as a worker writes it."""
    claim = doc["lease"]["claim"]
    closed: Any = transitions.close({**doc, "exit_code": code, "output": {"x": 1}})
    closed["attempts"] = [*(doc.get("attempts") or ()), {"claim": claim, "exit_code": code, "counted": True}]
    data = base64.b64encode(log).decode()
    closed["_attachments"] = {
        **doc.get("_attachments", {}),
        f"logs_{doc['_id']}.out": {"content_type": "text/plain", "data": data},
    }
    return Outcome(closed, claim)


def ids(docs: list[Json]) -> list[str]:
    return [doc["_id"] for doc in docs]


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def stamped(backend: Any, token_id: str, claim: str) -> Json:
    backend.real.put_many([new_token({"_id": token_id})])
    doc: Any = transitions.lock(backend.get(token_id), {"worker": "w", "claim": claim})
    return dict(doc)


def test_a_refused_claim_is_nobodys_business(backend: Any) -> None:
    claims = [stamped(backend, "a", "c1"), stamped(backend, "b", "c2")]
    backend.script = [edit_first("a", lock=5)]
    assert ids(commit(backend, claims).claimed) == ["b"]
    assert backend.get("a")["lock"] == 5


def test_a_claim_whose_answer_was_lost_is_ours_where_the_server_says_so(backend: Any) -> None:
    backend.script = [lose_answer]
    written = commit(backend, [stamped(backend, "a", "c1"), stamped(backend, "b", "c2")])
    assert ids(written.claimed) == ["a", "b"]
    assert [doc["_rev"] for doc in written.claimed] == [backend.get(each)["_rev"] for each in "ab"]


def test_a_claim_that_never_arrived_is_not_ours(backend: Any) -> None:
    backend.script = [lose_request]
    assert commit(backend, [stamped(backend, "a", "c1")]).claimed == []
    assert state_of(backend.get("a")) == "todo"


def test_202_is_no_claim_until_it_was_read_back(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.script = [accept]
    assert ids(commit(backend, [stamped(backend, "a", "c1")]).claimed) == ["a"]

    # Another node took the same revision, and nobody can tell yet which one stands: it is not ours, and not touched.
    get_many = backend.real.get_many

    def torn(wanted: Any, conflicts: bool = False) -> Any:
        docs = get_many(wanted, conflicts=conflicts)
        return [{**doc, "_conflicts": ["2-x"]} if conflicts and doc["_id"] == "b" else doc for doc in docs]

    monkeypatch.setattr(backend.real, "get_many", torn)
    backend.script = [accept]
    assert commit(backend, [stamped(backend, "b", "c2")]).claimed == []
    assert transitions.is_held_by(backend.get("b"), "c2")


# ── outcomes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_outcomes_and_claims_are_one_write(backend: Any) -> None:
    outcomes = [ended(claimed(backend, each, f"c-{each}")) for each in "ab"]
    written = commit(backend, [stamped(backend, "c", "c3")], outcomes)
    assert backend.written == [["a", "b", "c"]]
    assert (ids(written.closed), ids(written.claimed)) == (["a", "b"], ["c"])


@pytest.mark.parametrize("lost", [lose_answer, lose_request])
def test_an_outcome_whose_answer_was_lost_is_recorded_once(backend: Any, lost: Any) -> None:
    outcome = ended(claimed(backend))
    backend.script = [lost]
    written = commit(backend, (), [outcome])
    now = backend.get("a")
    assert (ids(written.closed), state_of(now), len(now["attempts"])) == (["a"], "done", 1)
    assert written.closed[0]["_rev"] == now["_rev"]


def test_answers_lost_again_and_again_record_it_once(backend: Any) -> None:
    outcome = ended(claimed(backend))
    backend.script = [lose_request, lose_request, lose_answer]
    assert ids(commit(backend, (), [outcome]).closed) == ["a"]
    assert len(backend.get("a")["attempts"]) == 1


def test_what_others_wrote_stays_and_logs_are_united(backend: Any) -> None:
    outcome = ended(claimed(backend))
    theirs = {"_attachments": {"note.txt": {"content_type": "text/plain", "data": "aGk="}}, "note": "x", "priority": 5}
    backend.script = [edit_first("a", **theirs)]
    written = commit(backend, (), [outcome])
    now = backend.get("a")
    assert (ids(written.closed), state_of(now), now["note"], now["priority"], now["output"]) == (
        ["a"],
        "done",
        "x",
        5,
        {"x": 1},
    )
    assert b"".join(backend.get_attachment("a", "note.txt")) == b"hi"
    assert b"".join(backend.get_attachment("a", "logs_a.out")) == b"log"
    assert "lease" not in now


def test_an_edit_between_reading_back_and_merging_is_merged_as_well(backend: Any) -> None:
    outcome = ended(claimed(backend))
    backend.script = [edit_first("a", first=1), edit_first("a", second=2), edit_first("a", third=3)]
    commit(backend, (), [outcome])
    now = backend.get("a")
    assert (state_of(now), now["first"], now["second"], now["third"]) == ("done", 1, 2, 3)


def test_a_token_that_another_claim_holds_keeps_its_holder_and_gets_history_only(backend: Any) -> None:
    outcome = ended(claimed(backend))
    edit(
        backend.real,
        "a",
        **{key: value for key, value in transitions.unlock({**backend.get("a")}).items() if key != "lease"},
        lease=None,
    )
    now = transitions.lock(backend.get("a"), {"worker": "other", "claim": "c9"})
    edit(backend.real, "a", **now)

    written = commit(backend, (), [outcome])

    after = backend.get("a")
    assert (written.closed, ids(written.superseded)) == ([], ["a"])
    assert transitions.is_held_by(after, "c9")
    assert [(a["claim"], a["superseded"], a["counted"]) for a in after["attempts"]] == [("c1", True, False)]
    assert b"".join(backend.get_attachment("a", "superseded_logs_a.out")) == b"log"


def test_an_outcome_that_was_recorded_by_somebody_else_stands(backend: Any) -> None:
    outcome = ended(claimed(backend), code=1)
    edit(backend.real, "a", lock=7, done=8, exit_code=0, output="theirs")
    written = commit(backend, (), [outcome])
    now = backend.get("a")
    assert (written.closed, now["exit_code"], now["output"], now["done"]) == ([], 0, "theirs", 8)


def test_a_token_that_is_todo_again_gets_the_result(backend: Any) -> None:
    outcome = ended(claimed(backend))
    edit(backend.real, "a", **transitions.scrub({**backend.get("a")}), lease=None)
    assert ids(commit(backend, (), [outcome]).closed) == ["a"]
    assert state_of(backend.get("a")) == "done"


def test_a_deleted_token_is_superseded(backend: Any) -> None:
    outcome = ended(claimed(backend))
    backend.real.put_many([{"_id": "a", "_rev": backend.get("a")["_rev"], "_deleted": True}])
    assert ids(commit(backend, (), [outcome]).superseded) == ["a"]


def test_one_refused_outcome_hinders_no_other(backend: Any) -> None:
    outcomes = [ended(claimed(backend, each, f"c-{each}")) for each in "abc"]
    edit(backend.real, "b", note=1)
    assert sorted(ids(commit(backend, (), outcomes).closed)) == ["a", "b", "c"]


def test_logs_that_a_server_refuses_do_not_keep_a_token_open(backend: Any) -> None:
    outcome = ended(claimed(backend))

    def too_large(real: Any, docs: Any) -> Any:
        return [Refused("a", "too_large", "413")]

    backend.script = [too_large]
    commit(backend, (), [outcome])
    now = backend.get("a")
    assert (state_of(now), "_attachments" in now) == ("done", False)
    assert "too_large 413" in now["error"][0]["message"]


def test_a_server_that_is_away_leaves_everything_to_the_caller(backend: Any) -> None:
    outcome = ended(claimed(backend))
    backend.script = [away]
    with pytest.raises(ServerAway):
        commit(backend, (), [outcome])
    assert ids(commit(backend, (), [outcome]).closed) == ["a"]


def test_a_server_that_goes_away_while_it_is_asked_leaves_it_too(backend: Any) -> None:
    outcome = ended(claimed(backend))
    backend.script, backend.reads_away = [lose_answer], 1
    with pytest.raises(ServerAway):
        commit(backend, (), [outcome])
    assert ids(commit(backend, (), [outcome]).closed) == ["a"]
    assert len(backend.get("a")["attempts"]) == 1


def test_an_outcome_that_cannot_be_written_now_is_left_to_the_caller(backend: Any) -> None:
    outcome = ended(claimed(backend))
    backend.script = [lose_request] * 30
    with pytest.raises(AnswerLost):
        commit(backend, (), [outcome])
    backend.script = []
    assert ids(commit(backend, (), [outcome]).closed) == ["a"]


def test_a_close_by_hand_whose_answer_was_lost_is_recognised(pool: Pool, backend: Any) -> None:
    pool.push({"_id": "a"})
    (token,) = pool.claim()
    backend.script = [lose_answer]
    pool.close(token)
    assert token.state == "done"


def test_a_release_whose_answer_was_lost_is_a_release(pool: Pool, backend: Any) -> None:
    pool.push({"_id": "a"})
    (token,) = pool.claim()
    backend.script = [lose_answer]
    pool.release(token)
    assert state_of(backend.get("a")) == "todo"


@pytest.mark.parametrize("attempts", [5, ["x"]])
def test_an_odd_history_does_not_hinder_a_merge(backend: Any, attempts: Any) -> None:
    outcome = ended(claimed(backend))
    backend.script = [edit_first("a", attempts=attempts)]
    commit(backend, (), [outcome])
    assert state_of(backend.get("a")) == "done"


def test_a_script_without_claims_does_not_steal_from_its_neighbour(backend: Any) -> None:
    backend.real.put_many([new_token({"_id": "a", "lock": 100, "hostname": "here"})])
    mine = transitions.scrub(transitions.fail({**backend.get("a")}, "no"))
    edit(backend.real, "a", lock=200, hostname="here")  # meanwhile scrubbed by a person, and taken by another worker
    mine["hostname"] = "here"
    commit(backend, (), [Outcome(dict(mine), "")])
    assert backend.get("a")["lock"] == 200


def test_a_merge_changes_neither_side() -> None:
    now: Json = {"_id": "a", "_rev": "2", "attempts": [{"claim": "x"}], "note": 1, "lease": {"claim": "c"}}
    outcome = Outcome(
        {"_id": "a", "_rev": "1", "done": 5, "attempts": [{"claim": "c"}], "_attachments": {"gone": {"stub": True}}},
        "c",
    )
    before = repr((now, outcome))
    merged = merge(now, outcome)
    assert repr((now, outcome)) == before
    assert merged == {"_id": "a", "_rev": "2", "attempts": [{"claim": "x"}, {"claim": "c"}], "note": 1, "done": 5}

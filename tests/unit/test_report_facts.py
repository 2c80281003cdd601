"""The facts of a campaign, from tokens of every kind: ours, picas', running ones, and what somebody wrote by hand."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_documents import attempt, moment

from tokenpool.reports.facts import Facts
from tokenpool.reports.findings import findings
from tokenpool.reports.lanes import stacked
from tokenpool.reports.page import About, page

T0 = 1_790_000_000.0
ABOUT = About("A campaign", "sqlite:///p.db", "all")


def token(token_id: str, *attempts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a token that is done, unless `fields` say otherwise."""
    doc = {
        "_id": token_id, "type": "token", "lock": int(T0), "done": int(T0) + 10, "exit_code": 0, "hostname": "n1", "error": [],
        "creation_time": moment(T0 - 60), "batch": "night", "submitter": "ann", "command": "work", **fields,
    }  # fmt: skip
    return {**doc, "attempts": list(attempts)} if attempts else doc


def ran(start: float, length: float, code: int = 0, failure: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return an attempt that began so long after the campaign's start."""
    return attempt(
        1, start_time=moment(T0 + start), end_time=moment(T0 + start + length), exit_code=code, failure_class=failure,
        **{"cpu_seconds": length / 2, "max_rss_mb": 100.0, "worker": "worker_a", **fields},
    )  # fmt: skip


def gathered(*docs: dict[str, Any]) -> Facts:
    facts = Facts(T0 + 100_000)
    for doc in docs:
        facts.add(doc)
    return facts


def test_a_run_is_counted_with_all_that_it_used() -> None:
    facts = gathered(token("t", ran(0, 10), resources={"cpu_cores": 2, "ram_gb": 1}))
    assert (facts.tokens, facts.all.states["done"], facts.all.runs["done"], facts.wall) == (1, 1, 1, 10.0)
    assert (facts.all.cpu, facts.all.efficiency) == (5.0, 0.25)
    assert (facts.memory.most, facts.memory_asked.most) == (100.0, 1024.0)
    assert (facts.waits.count, facts.waits.most) == (1, 60.0)
    assert facts.batches["night"].seconds.mean == 10.0


def test_a_retry_costs_time_and_a_list_of_resources_moves_on() -> None:
    # Given a token that ran out of memory once, and then had twice as much
    doc = token("t", ran(0, 10, 137, "oom"), ran(20, 30), resources={"ram_gb": [1, 2]})
    facts = gathered(doc)
    assert (facts.all.runs, facts.tries) == ({"failed": 1, "done": 1}, {2: 1})
    assert facts.wasted == pytest.approx(0.25)
    assert (facts.memory_asked.least, facts.memory_asked.most) == (1024.0, 2048.0)
    # Then it is no failed token, though a failed run
    (group,) = facts.failures.largest
    assert (group.failure, group.message, group.runs, group.tokens) == ("oom", "exit code 137: ended by SIGKILL", 1, 0)


def test_what_was_lost_or_given_back_is_no_failure() -> None:
    lost = ran(0, 10, 0, "lost", counted=False)
    again = ran(20, 5, 85, None, counted=False)
    overtaken = ran(20, 6, superseded=True, counted=False)
    facts = gathered(token("t", lost, again, overtaken, ran(40, 10)))
    assert facts.all.runs == {"returned": 3, "done": 1}
    assert not facts.failures.classes
    assert facts.failures.given_back == {"lost": 1, "given back": 2}


def test_a_token_that_never_ran_has_a_failure_but_no_run() -> None:
    entry = {"claim": "", "end_time": moment(T0), "failure_class": "dependency", "counted": False}
    error = [{"time": int(T0), "message": "it was not run: token a, which it depends on, failed"}]
    facts = gathered(token("t", entry, lock=99, done=99, exit_code=99, error=error))
    assert facts.failures.classes == {"dependency": 1}
    assert facts.failures.largest[0].message == error[0]["message"]
    assert facts.wall == 0.0


def test_tokens_of_picas_are_told_by_their_locks() -> None:
    # Given tokens that picas' workers ran: one well, one badly, one whose process_task raised
    trace = {
        "time": int(T0) + 7,
        "message": "",
        "exception": "Traceback (most recent call last):\n  x\nValueError: bad 17",
    }
    docs = [
        {
            "_id": "a",
            "type": "token",
            "lock": int(T0),
            "done": int(T0) + 40,
            "exit_code": 0,
            "hostname": "n1",
            "input": "x",
        },
        {
            "_id": "b",
            "type": "token",
            "lock": int(T0),
            "done": int(T0) + 20,
            "exit_code": 2,
            "hostname": "n2",
            "input": "y",
        },
        {
            "_id": "c",
            "type": "token",
            "lock": 99,
            "done": 99,
            "exit_code": "",
            "hostname": "n1",
            "error": [trace],
            "input": {},
        },
    ]
    facts = gathered(*docs)
    # Then a report is useful all the same
    assert (facts.all.runs, facts.wall) == ({"done": 1, "failed": 2}, 40.0)
    assert {each.message for each in facts.failures.largest} == {"exit code 2", "ValueError: bad 17"}
    assert sum(facts.ended["failed"].values()) == 2
    assert [slow.run.token for slow in facts.slowest] == ["a", "b"]
    assert {name for name, _ in facts.hosts} == {"n1", "n2"}
    shown = page(facts, ABOUT)
    assert "ValueError: bad 17" in shown
    assert "CPU time" not in shown


def test_what_runs_now_goes_on_until_now() -> None:
    lease = {"worker": "worker_a", "claim": "c", "lock": int(T0), "hostname": "n1"}
    facts = gathered(token("t", done=0, exit_code="", lease=lease))
    assert facts.all.runs == {"running": 1}
    assert facts.lanes.rows[0].name == "worker_a"
    assert facts.wall == 100_000
    assert not facts.durations["done"].count


def test_failures_that_say_the_same_are_one() -> None:
    def failed(number: int) -> dict[str, Any]:
        message = f"t{number}: /data/{number}.fq has no reads (md5 {number:032x})"
        error = [{"time": int(T0 + number + 5), "message": message}]
        return token(f"t{number}", ran(number, 5, 1, "executor"), exit_code=1, error=error)

    facts = gathered(*(failed(number) for number in range(40)))
    (group,) = facts.failures.largest
    assert (group.runs, group.tokens, group.examples) == (40, 40, [f"t{number}" for number in range(5)])
    assert group.message.startswith("t0: /data/0.fq has no reads")


def test_times_that_are_none_do_not_stretch_the_campaign() -> None:
    odd = [
        token("a", ran(-1.7e9, 10)), token("b", ran(1e9, 10)), token("c", lock=5, done=9),
        token("d", {"start_time": "soon", "end_time": 7, "exit_code": 0}), token("e", ran(10, -20)),
    ]  # fmt: skip
    facts = gathered(token("t", ran(0, 10)), *odd)
    assert (facts.tokens, facts.all.first, facts.clock.width) == (6, T0, 0.25)
    assert "A campaign" in page(facts, ABOUT)


ODD = st.sampled_from(
    [None, "", "x", 7, -1, 1e300, float("inf"), True, [], {}, [1], {"a": 1}, "2026-01-01T00:00:00Z", "<b>"]
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "lock",
                "done",
                "exit_code",
                "hostname",
                "batch",
                "submitter",
                "attempts",
                "error",
                "output",
                "resources",
                "creation_time",
            ]
        ),
        ODD,
    ),
    st.dictionaries(
        st.sampled_from(
            ["start_time", "end_time", "exit_code", "failure_class", "cpu_seconds", "max_rss_mb", "hostname", "worker"]
        ),
        ODD,
    ),
)
def test_no_token_that_somebody_wrote_by_hand_stops_a_report(fields: dict[str, Any], entry: dict[str, Any]) -> None:
    facts = gathered(token("t", {**ran(0, 10), **entry}, **fields), {**token("u"), **fields})
    assert facts.tokens == 2
    assert page(facts, ABOUT)
    assert facts.as_json()["schema"] == 1


# --- many ------------------------------------------------------------------------------------------------------------


def campaign(tokens: int, workers: int = 40) -> Iterator[dict[str, Any]]:
    """Yield a campaign whose length grows with its tokens."""
    for number in range(tokens):
        bad = number % 20 == 0
        worker = number % workers
        told = {"hostname": f"node{worker:04d}", "worker": f"worker_{worker:032x}", "claim": f"c{number}"}
        run = ran(number * 3.0, 60 + number % 50, int(bad), "executor" if bad else None, **told)
        yield token(f"t{number}", run, exit_code=int(bad), batch=f"b{number % 7}", resources={"ram_gb": 4})


def test_ten_times_the_tokens_make_no_longer_page_and_need_no_more_memory() -> None:
    def made(tokens: int) -> tuple[int, int]:
        tracemalloc.start()
        facts = Facts(T0 + 1e8)
        for doc in campaign(tokens):
            facts.add(doc)
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return used, len(page(facts, ABOUT))

    small, large = made(3000), made(30_000)
    assert large[0] < 1.5 * small[0]
    assert large[1] < 1.5 * small[1]


def test_too_many_workers_become_hosts_and_then_hosts_that_begin_alike() -> None:
    facts = gathered(*campaign(6000, workers=3000))
    rows = facts.lanes.rows
    assert len(rows) <= 256
    assert facts.lanes.letters is not None
    assert all(row.name.startswith("node") and row.name.endswith("*") for row in rows)
    # Nothing is lost on the way
    assert sum(row.runs for row in rows) == 6000
    assert sum(row.seconds for row in rows) == pytest.approx(facts.all.used)
    assert sum(sum(row.busy.values()) for row in rows) == pytest.approx(facts.all.used)
    assert "hosts whose names begin alike" in page(facts, ABOUT)


def test_a_few_runs_are_drawn_one_by_one_in_lanes_that_do_not_overlap() -> None:
    facts = gathered(*(token(f"t{number}", ran(number, 5)) for number in range(20)))
    assert facts.lanes.exact
    (row,) = facts.lanes.rows
    bars = stacked(row.bars)
    assert max(bar.lane for bar in bars) == 4
    for lane in range(5):
        mine = [bar for bar in bars if bar.lane == lane]
        assert all(one.end <= other.start + 0.001 for one, other in zip(mine, mine[1:]))


# --- findings --------------------------------------------------------------------------------------------------------


def test_what_stands_out_is_said() -> None:
    # Given a host on which everything fails, memory that nobody needs, and a token that waits
    good = [token(f"g{n}", ran(n, 10, hostname="n1"), resources={"ram_gb": 4}) for n in range(40)]
    bad = [token(f"b{n}", ran(n, 10, 1, "executor", hostname="n2"), exit_code=1) for n in range(20)]
    told = [each.text for each in findings(gathered(*good, *bad, token("w", lock=0, done=0)))]
    assert any(text.startswith("20 tokens failed") and "exit code 1" in text for text in told)
    assert any("runs on n2 failed; on the other hosts 0" in text for text in told)
    assert any("smaller ram_gb" in text for text in told)
    assert any(text.startswith("1 token is not finished: 1 todo") for text in told)


def test_of_a_good_campaign_only_good_is_said() -> None:
    told = findings(gathered(*(token(f"g{n}", ran(n, 10)) for n in range(40))))
    assert [(each.level, each.text) for each in told] == [("good", "All 40 tokens are done.")]

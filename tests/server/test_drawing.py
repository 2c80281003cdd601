"""What pages are made of: charts, spelled figures, forms of workflows, drafts; the parts that need no server."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from tokenpool.errors import BadInput, NotFound
from tokenpool.web import charts, cwl_form, drafts, filters
from tokenpool.web.bars import Bar
from tokenpool.web.drafts import Draft, Drafts
from tokenpool.web.series import Point

HOSTILE = "<script>alert(1)</script>\"'&"


def bar(worker: str, start: float, end: float | None, state: str = "done", kind: str = "command", **more: str) -> Bar:
    """Return a bar."""
    told = {"host": "n1", "token": "t1", "claim": "c1", "batch": "b", "name": "one", **more}
    return Bar(worker=worker, start=start, end=end, state=state, kind=kind, **told)  # type: ignore[arg-type]


def drawn(markup: str) -> list[ElementTree.Element]:
    """Return all elements of a drawing, which has to be sound XML."""
    return list(ElementTree.fromstring(f"<div>{markup}</div>").iter())


# --- charts ----------------------------------------------------------------------------------------------------------


def test_a_share_bar_shows_the_few_among_the_many() -> None:
    # Given a million done tokens and one that failed
    elements = drawn(charts.share_bar({"done": 1_000_000, "error": 1}, "all"))

    # Then both are seen, and said
    widths = {each.get("class"): float(each.get("width", 0)) for each in elements if each.tag == "rect"}
    assert widths["s-error"] >= 3
    assert widths["s-done"] > 900
    assert "1 error" in str(next(each for each in elements if each.tag == "svg").get("aria-label"))


def test_columns_are_as_high_as_what_ended() -> None:
    # Given two points, one with twice as much
    elements = drawn(charts.throughput([Point(0, 10, 0), Point(5, 20, 10)], 10))

    # Then the columns are so too, failures on top
    tall = [(each.get("class"), float(each.get("height", 0))) for each in elements if each.tag == "rect"]
    assert tall[1][1] == pytest.approx(2 * tall[0][1])
    assert tall[2] == ("s-error", pytest.approx(tall[0][1]))


def test_charts_of_nothing_are_charts() -> None:
    for markup in (charts.throughput([], 60), charts.gantt([], 100, 60, ""), charts.share_bar({}, "x"), charts.attempts_line([], "")):  # fmt: skip
        assert drawn(markup)


def test_the_worker_chart_has_a_lane_for_each_run_at_the_same_time() -> None:
    # Given a worker with two runs at once and one after them, and another worker
    bars = [
        bar("worker_a", 0, 50),
        bar("worker_a", 10, 60),
        bar("worker_a", 60, None, "running"),
        bar("worker_b", 0, 90),
    ]
    markup = charts.gantt(bars, 100, 100, "/root")

    # Then there are three lanes, bars with a link and a title, coloured by kind and outcome
    elements = drawn(markup)
    assert len({each.get("y") for each in elements if each.tag == "rect"}) == 3
    assert {each.get("class") for each in elements if each.tag == "rect"} == {"k-command r-done", "k-command r-running"}
    assert all(str(each.get("href")).startswith("/root/tokens/") for each in elements if each.tag == "a")
    assert "2 workers" in markup


def test_the_worker_chart_of_a_large_pool_is_small() -> None:
    # Given six thousand runs of three hundred workers
    bars = [bar(f"worker_{i % 300:03d}", i * 0.6, i * 0.6 + 30, token=f"t{i}") for i in range(6000)]
    markup = charts.gantt(bars, 3600, 3600, "")

    # Then it is cut, and says so
    assert len(markup) < 150_000
    assert "more workers not drawn" in markup
    assert drawn(markup)


def test_thirty_workers_are_all_drawn_each_with_its_name_beside_its_lanes() -> None:
    # Given thirty workers with four slots each, on hosts with long names
    bars = [
        bar(
            f"worker_{i:06d}",
            slot,
            None,
            "running",
            host=f"compute-large-{i:04d}.cluster.example.org",
            token=f"t{i}-{slot}",
        )
        for i in range(30)
        for slot in range(4)
    ]
    markup = charts.gantt(bars, 100, 100, "")

    # Then none is left out, and the chart is no higher than a screen
    assert "not drawn" not in markup
    elements = drawn(markup)
    lanes = sorted({float(str(each.get("y"))) for each in elements if each.tag == "rect"})
    names = [each for each in elements if each.tag == "text" and each.get("x") == "0"]
    assert (len(lanes), len(names)) == (120, 30)
    assert lanes[-1] < charts.TALL

    # And the name of each stands between its first lane and its last, short enough for its place
    for i, name in enumerate(names):
        assert lanes[4 * i] <= float(str(name.get("y"))) <= lanes[4 * i + 3] + 6
    assert {len(str(name.text)) for name in names} == {len("comput…e-0017 · 000017")}


def test_the_lines_of_a_time_axis_are_whole_minutes_and_named() -> None:
    # Given both charts of the same ten minutes, which begin at no whole minute
    points = [Point(1_000_000_003 + 5 * i, 1, 0) for i in range(120)]
    charts_drawn = [
        charts.throughput(points, 600),
        charts.gantt([], 1_000_000_600, 600, "", points[0].when),
    ]

    # Then their lines stand at the same places, and each name below its own line
    found = []
    for markup in charts_drawn:
        elements = drawn(markup)
        lines = {float(str(e.get("x1"))) for e in elements if e.get("class") == "grid" and e.get("x1") == e.get("x2")}
        names = {str(e.get("x")): str(e.get("datetime")) for e in elements if e.get("class") == "hour"}
        assert all(any(abs(float(x.rstrip("%")) * 10 - line) < 0.2 for line in lines) for x in names)
        assert len(names) >= 3
        assert all(moment.endswith(":00Z") for moment in names.values())
        found.append((lines, names))
    assert found[0] == found[1]


def test_the_line_of_attempts_is_as_wide_as_they_took() -> None:
    # Given two attempts, the second twice as long; and one that was over at once
    wide = [float(str(e.get("width"))) for e in drawn(charts.attempts_line([(0, 0.1, "error"), (0.1, 0.3, "done")], "two")) if e.tag == "rect"]  # fmt: skip
    (moment,) = [e for e in drawn(charts.attempts_line([(5, 5, "error")], "one")) if e.tag == "rect"]

    # Then all of the line is used, whatever the scale
    assert wide[1] == pytest.approx(2 * wide[0], abs=1)
    assert sum(wide) == pytest.approx(charts.WIDTH, abs=1)
    assert (moment.get("x"), moment.get("width")) == ("0.0", f"{charts.WIDTH:.1f}")


def test_a_chart_escapes_what_it_says() -> None:
    # Given hostile names everywhere
    names = {"host": HOSTILE, "token": HOSTILE, "batch": HOSTILE, "name": HOSTILE}
    markup = charts.gantt([bar(HOSTILE, 0, 90, **names)], 100, 100, "") + charts.share_bar({"done": 1}, HOSTILE)

    # Then they are text
    assert "<script>" not in markup
    assert drawn(markup)


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("doc", "told"),
    [
        ({"input": "echo 1"}, "echo 1"),
        ({"command": ["wc", "-l"]}, "wc -l"),
        ({"image": "alpine", "command": "wc"}, "wc"),
        ({"image": "alpine"}, "(what the image runs)"),
        ({"executors": [{"image": "a", "command": ["x", "y"]}, {"image": "b", "command": ["z"]}]}, "x y; z"),
        ({"executors": "nonsense"}, "(what the image runs)"),
        ({"workflow": {"repo": "https://h/r", "path": "x.cwl"}}, "x.cwl"),
        ({"function": {"name": "m:f"}}, "m:f()"),
        ({"input": {"any": "thing"}}, '{\n  "any": "thing"\n}'),
        ({}, ""),
    ],
)
def test_what_a_token_runs_in_a_line(doc: dict[str, Any], told: str) -> None:
    assert filters.command(doc) == told


def test_times_that_are_none_are_a_dash() -> None:
    for value in (None, "", "soon", -5, 1e300, float("nan")):
        assert filters.clock(value) == "–"
    assert 'datetime="2026-05-01T00:00:00Z"' in filters.clock("2026-05-01T02:00:00+02:00")


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", 'https://h/"><script>', "s3://bucket/x", None, 7]
)
def test_only_addresses_that_a_browser_may_follow_are_links(url: Any) -> None:
    found = filters.link(url)
    assert "<script>" not in found
    assert ("href" in found) == str(url).startswith("https://")


# --- workflows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kind", "optional", "many"),
    [
        ("string", "text", False, False),
        ("int?", "int", True, False),
        (["null", "double"], "float", True, False),
        ("File[]", "file", False, True),
        ("File[]?", "file", True, True),
        ({"type": "array", "items": "string"}, "text", False, True),
        ({"type": "enum", "symbols": ["a", "#x/b"]}, "enum", False, False),
        ({"type": "record", "fields": []}, "yaml", False, False),
        (["int", "string"], "yaml", False, False),
        ("Directory", "folder", False, False),
        ("Any", "yaml", False, False),
        ({"type": "array", "items": {"type": "array", "items": "int"}}, "yaml", False, False),
        (7, "yaml", False, False),
        (None, "yaml", False, False),
    ],
)
def test_each_type_of_an_input_has_a_field(given: Any, kind: str, optional: bool, many: bool) -> None:
    found = cwl_form.field_of("x", {"type": given})
    assert (found.kind, found.optional, found.many) == (kind, optional, many)


def test_inputs_written_as_a_list_and_as_a_graph_are_read() -> None:
    # Given the same inputs in three ways
    texts = (
        "class: Workflow\ninputs: {a: string}\nsteps: {one: {run: other.cwl}}",
        "class: Workflow\ninputs: [{id: a, type: string}]\nsteps: [{id: one, run: other.cwl}]",
        "$graph: [{id: main, class: Workflow, inputs: [{id: '#main/a', type: string}], steps: [{id: one, run: other.cwl}]}]",
    )

    # Then each has the input, and says which file it misses
    for text in texts:
        found = cwl_form.read(text, "x.cwl")
        assert [(each.name, each.kind) for each in found.fields] == [("a", "text")]
        assert "other.cwl" in found.notes[0]


@pytest.mark.parametrize(
    ("kind", "text", "word"),
    [
        ("int", "many", "no number"),
        ("enum", "c", "one of"),
        ("file", "../x", "URL"),
        ("text", "", "empty"),
        ("yaml", "[", ""),
    ],
)
def test_a_field_that_is_filled_in_wrongly_is_refused(kind: str, text: str, word: str) -> None:
    wanted = cwl_form.Field("x", kind, choices=("a", "b"))
    with pytest.raises(BadInput) as caught:
        cwl_form.params_of([wanted], {"x": text}, {})
    assert word in f"{caught.value} {caught.value.hint}"


# --- drafts ----------------------------------------------------------------------------------------------------------


def test_a_draft_belongs_to_who_made_it_and_is_sent_once() -> None:
    # Given a draft
    kept = Drafts()
    draft_id = kept.keep(Draft({"input": "x"}, "line", by="one"))

    # Then nobody else sends it, and its owner does so once
    with pytest.raises(NotFound):
        kept.take(draft_id, "another")
    assert kept.take(draft_id, "one").fields == {"input": "x"}
    with pytest.raises(NotFound):
        kept.take(draft_id, "one")


def test_drafts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given room for a megabyte
    monkeypatch.setattr(drafts, "BYTES", 1_000_000)
    kept = Drafts()

    # When large drafts are made again and again
    ids = [kept.keep(Draft({}, "", tuple(["x" * 1000] * 300))) for _ in range(10)]

    # Then the last are there, the first are not
    assert kept.take(ids[-1], "").count == 300
    with pytest.raises(NotFound):
        kept.take(ids[0], "")


def test_numbers_are_spelled_for_people() -> None:
    assert re.fullmatch(r"12\D345\D678", filters.number(12_345_678))
    assert filters.duration(float("inf")) == "–"
    assert filters.short("task_" + "0" * 32).endswith("…")

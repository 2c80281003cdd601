"""Stories of the verb `report`: a campaign that was really run, as a page in a browser, as figures, and as an RO-Crate."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cli_tools import Answer, call, ok, use
from couch_server import Unavailable
from crate_venv import issues_of

#: Where Debian and others have Chromium.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
AXE = Path(__file__).parents[1] / "browser" / "vendor" / "axe-core" / "axe.min.js"
LICENSE = "https://creativecommons.org/licenses/by/4.0/"

TOKENS: list[dict[str, Any]] = [
    {
        "_id": "attached",
        "command": 'echo made > $OUTPUT/a.txt; : > "$OUTPUT/b c+ä.txt"',
        "outputs": [{"path": "*.txt"}],
        "resources": {"ram_gb": 1},
    },
    {"_id": "given", "command": "cat $INPUT/in.txt", "inputs": [{"content": "taken", "path": "in.txt"}]},
    {"_id": "again", "command": "test $TOKENPOOL_ATTEMPT -gt 1 || exit 9", "max_retries": 1},
    {"_id": "bad", "command": "echo 'no <b>reads</b>' >&2; exit 3"},
    {"_id": "slow", "command": "sleep 60", "timeout": 0.5},
    {"_id": "later", "command": "true", "not_before": 4e9, "batch": "other"},
    *({"_id": f"short-{number}", "command": ["sh", "-c", "exit 0"]} for number in range(6)),
]


def missing(what: str) -> Any:
    """Skip, or fail where everything is asked for."""
    if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool in a file in which all has been run; read only."""
    folder = tmp_path_factory.mktemp("campaign")
    here = Path.cwd()
    os.chdir(folder)
    try:
        run_all(f"sqlite:///{folder}/tokenpool.db")
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def ran(campaign: Path) -> None:
    """Be where the campaign was run."""
    use(f"sqlite:///{campaign}/tokenpool.db")


def run_all(url: str) -> None:
    use(url)
    lines = "\n".join(json.dumps({"batch": "night", **token}) for token in TOKENS)
    ok("push", "--format", "jsonl", "-", stdin=lines)
    ok("work", "--quit", "--slots", "4")


def page(*words: object) -> str:
    """Write a report and return it."""
    ok("report", *words, "-o", "run.html")
    return Path("run.html").read_text("utf-8")


# --- the page --------------------------------------------------------------------------------------------------------


def test_a_campaign_is_told_on_one_page_on_both_backends(pool_url: str) -> None:
    # Given a campaign with failures, a time-out, a retry, and a token that waits
    run_all(pool_url)
    # When its report is written
    answer = ok("report", "-o", "run.html", "--title", "The night & after")
    text = Path("run.html").read_text("utf-8")
    # Then it tells all of that
    assert "wrote run.html: 12 tokens" in answer.err
    assert "<h1>The night &amp; after</h1>" in text
    for told in (
        "exit code 3",
        "its timeout of 0.5 s",
        "exit code 9",
        "9 of 11 finished tokens",
        "1 token is not finished: 1 held",
    ):
        assert told in text, told
    # And what the failed one said, as it said it
    assert "no &lt;b&gt;reads&lt;/b&gt;" in text
    # And the figures are those of the pool
    figures = ok("report", "--json").json
    assert figures["states"] == ok("status", "--json").json["states"]
    assert figures["runs"] == {"done": 9, "failed": 3, "returned": 0, "running": 0}
    assert figures["failure_classes"] == {"executor": 2, "timeout": 1}
    assert figures["output_files"] == 2


@pytest.mark.usefixtures("ran")
def test_a_report_may_be_of_some_tokens() -> None:
    assert ok("report", "batch:other", "--json").json["states"]["held"] == 1
    assert ok("report", "bad", "slow", "--json").json["states"] == {
        **dict.fromkeys(("todo", "held", "locked", "done", "invalid"), 0),
        "error": 2,
    }
    assert "<h1>Batch night</h1>" in page("batch:night")
    assert ok("report", "-o", "-", "attached").out.startswith("<!doctype html>")


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "nowhere to write"),
        (["-o", "x.html", "batch:tpyo"], 4, "no such tokens"),
        (["-o", "x.html", "nobody"], 4, "nobody"),
        (["-o", "nowhere/x.html"], 4, "no folder nowhere"),
        (["-o", "."], 2, "is a folder"),
        (["-o", "x.html", "--server", "host"], 2, "no address of a server"),
        (["--crate", "nowhere/crate"], 4, "no folder nowhere"),
    ],
)
def test_what_cannot_be_reported_is_told(words: list[str], code: int, told: str) -> None:
    answer = call("report", *words)
    assert (answer.code, told in answer.error) == (code, True), answer
    assert not Path("x.html").exists()


@pytest.mark.usefixtures("ran")
def test_a_browser_shows_it_without_asking_anybody() -> None:
    # Given a real browser
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    if browser is None:
        missing(f"none of {', '.join(BROWSERS)} is installed")
    page("--title", "A campaign")
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in ((1280, "light"), (360, "dark")):
            context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
            shown = context.new_page()
            asked: list[str] = []
            trouble: list[str] = []
            shown.on("request", lambda request, asked=asked: asked.append(request.url))
            shown.on("console", lambda message, trouble=trouble: trouble.append(message.text))
            # When it opens the file
            shown.goto(Path("run.html").resolve().as_uri())
            # Then nothing else was asked for, nothing complained of, and nothing hangs over the edge
            assert len(asked) == 1
            assert trouble == []
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert shown.locator("svg").count() >= 5
            # And axe finds nothing wrong with it
            shown.evaluate(AXE.read_text())
            faults = shown.evaluate("() => axe.run(document, {resultTypes: ['violations']})")["violations"]
            assert [(each["id"], each["nodes"][0]["target"]) for each in faults] == []
            # And a table opens beside its chart
            shown.locator("summary").first.click()
            assert shown.locator("figure table").first.is_visible()
            context.close()
        chromium.close()


# --- the crate -------------------------------------------------------------------------------------------------------


def crate(*words: object) -> tuple[Answer, Any]:
    """Write a crate and return what was said, and the crate as ro-crate-py reads it."""
    try:
        from rocrate.rocrate import ROCrate
    except ImportError:
        missing("rocrate is not installed")
    answer = ok("report", *words)
    return answer, ROCrate(str(words[words.index("--crate") + 1]))


def dangling(read: Any) -> set[str]:
    """Return the names that stand for nothing in a crate, and the files that it names and that are not in it."""
    graph = json.loads((Path(read.source) / "ro-crate-metadata.json").read_text("utf-8"))["@graph"]
    known = {entity["@id"] for entity in graph}
    named: set[str] = set()
    for entity in graph:
        for name, value in entity.items():
            values = value if isinstance(value, list) else [value]
            named |= {
                each["@id"]
                for each in values
                if isinstance(each, dict) and name not in ("conformsTo", "additionalType")
            }
    files = {name for name in known if not name.startswith("#") and "://" not in name and name != "./"}
    return (named - known) | {name for name in files if not (Path(read.source) / name).is_file()}


def issues(path: str, severity: str = "REQUIRED") -> list[list[str]]:
    try:
        return issues_of(Path(path), severity)
    except Unavailable as error:
        missing(str(error))
        raise


@pytest.mark.usefixtures("ran")
def test_a_crate_tells_each_run_with_its_software_and_files() -> None:
    answer, read = crate("--crate", "crate", "--license", LICENSE, "--title", "The night")
    assert "12 actions, 5 files inside" in answer.err
    actions = {each.id: each for each in read.get_by_type("CreateAction")}
    assert len(actions) == 12
    assert (read.name, read.license.id) == ("The night", LICENSE)
    assert dangling(read) == set()
    # Who did what with what, from when to when
    done = actions["#run-attached-1"]
    assert (done["instrument"]["name"], done["actionStatus"]) == ("echo", "http://schema.org/CompletedActionStatus")
    assert done["agent"]["name"]
    assert done["startTime"] <= done["endTime"]
    assert done["resourceUsage"]
    # What is attached, and what was written in the token, is inside
    assert {each["name"]: Path("crate", each.id).read_text() for each in done["result"]} == {
        "a.txt": "made\n",
        "b c+ä.txt": "",
    }
    assert Path("crate", actions["#run-given-1"]["object"].id).read_text() == "taken"
    # A failure says why; a retry is a run of its own
    assert (actions["#run-bad-1"]["actionStatus"], actions["#run-bad-1"]["error"]) == (
        "http://schema.org/FailedActionStatus", "executor: exit code 3",
    )  # fmt: skip
    assert {"#run-again-1", "#run-again-2"} <= set(actions)
    # And the report and the list of all runs are there too
    assert "The night" in Path("crate/report.html").read_text("utf-8")
    with gzip.open("crate/runs.jsonl.gz", "rt", encoding="utf-8") as file:
        assert [json.loads(line)["token"] for line in file].count("again") == 2


@pytest.mark.usefixtures("ran")
def test_a_validator_of_others_finds_nothing_wrong() -> None:
    crate("--crate", "crate", "--license", LICENSE)
    assert issues("crate") == []
    # What is recommended besides is what nobody told us: where the software is from, and who employs the author
    unknown = ("url", "version", "absolute URI", "publisher", "affiliation", "SHOULD have a result")
    assert [each for each in issues("crate", "RECOMMENDED") if not any(word in each[2] for word in unknown)] == []


@pytest.mark.usefixtures("ran")
def test_many_runs_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more runs than are told one by one
    monkeypatch.setattr("tokenpool.reports.crate.MOST_ACTIONS", 5)
    # When they become a crate
    _, read = crate("--crate", "night.zip")
    # Then those of a batch with the same software are one action, and each is a line of the list
    actions = read.get_by_type("CreateAction")
    (short,) = [each for each in actions if each["instrument"]["name"] == "sh"]
    assert (short["name"], short["result"].id) == ("6 runs of sh in batch night", "runs.jsonl.gz")
    assert len(actions) == 5
    with zipfile.ZipFile("night.zip") as packed:
        lines = gzip.decompress(packed.read("runs.jsonl.gz")).decode().splitlines()
        assert set(packed.namelist()) == {"ro-crate-metadata.json", "report.html", "runs.jsonl.gz"}
    assert len(lines) == 12
    assert dangling(read) == set()
    assert issues("night.zip") == []


@pytest.mark.usefixtures("ran")
def test_what_is_there_is_not_overwritten_and_nothing_half_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("full").mkdir()
    Path("full/precious").touch()
    assert "there already" in call("report", "--crate", "full").error
    monkeypatch.setattr("tokenpool.reports.crate.line_of", lambda *_: 1 / 0)
    assert call("report", "--crate", "new").code == 1
    assert {path.name for path in Path.cwd().iterdir()} == {"full", "tokenpool.toml"}


@pytest.mark.usefixtures("ran")
def test_without_its_library_a_crate_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocrate", None)
    answer = call("report", "--crate", "crate")
    assert (answer.code, "tokenpool[crate]" in answer.err) == (2, True)

"""What a person does with the pages, in a real browser, while a real worker works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import until
from server_parts import CUT, Server, port_of, serving

from tokenpool.pool import Pool

try:
    from playwright.sync_api import expect
except ImportError:  # the browser's fixture skips or fails, as the run wants it
    expect = None  # type: ignore[assignment]

Visit = Callable[..., Any]
Start = Callable[..., None]

#: Writes a line, waits for a file, writes another.
WAITS = 'echo "first <b>line</b>"; while [ ! -e "{0}" ]; do sleep 0.1; done; echo last line'
TOOL = """
cwlVersion: v1.2
class: CommandLineTool
label: Say it
baseCommand: echo
inputs:
  message: {type: string, label: What to say, inputBinding: {position: 1}}
  times: {type: "int?", label: How often}
outputs: []
"""


def see(page: Any, text: str) -> None:
    """Wait until a page shows a text."""
    page.get_by_text(text).first.wait_for()


def test_submit_watch_it_run_and_read_its_log_live(
    server: Server, pool: Pool, worker: Start, visit: Visit, tmp_path: Path
) -> None:
    # Given a worker, and a person who fills in the form
    worker()
    page = visit(server, "submit")
    flag = tmp_path / "go on"
    page.get_by_label("Command").fill(WAITS.format(flag))
    page.get_by_label("Name", exact=True).fill("my first one")
    page.get_by_label("Batch").fill("night")
    page.get_by_role("button", name="Preview").click()

    # Then they see it as JSON and as a command line, and send it
    assert '"batch": "night"' in page.locator("#as-json").inner_text()
    assert page.locator("#as-command").inner_text().startswith("tokenpool push")
    page.get_by_role("button", name="Send 1 token").click()

    # And its page shows the log while it runs, HTML as the letters that it is
    see(page, "It is in the pool")
    expect(page.locator("#log-out")).to_contain_text("first <b>line</b>")
    assert page.locator("#log-out b").count() == 0
    expect(page.locator("#state-badge")).to_have_text("locked")

    # And when it ends the page becomes that of a token which is done, by itself
    flag.touch()
    expect(page.locator("#state-badge")).to_have_text("done")
    expect(page.locator("pre.log").first).to_contain_text("last line")
    assert page.locator("tbody tr").count() == 1

    # And its log can be had as a file
    with page.expect_download() as download:
        page.get_by_role("link", name="download").first.click()
    assert Path(download.value.path()).read_text() == "first <b>line</b>\nlast line\n"


def test_the_overview_is_live(server: Server, pool: Pool, worker: Start, visit: Visit) -> None:
    # Given an open page, and no tokens
    page = visit(server, "")
    see(page, "No tokens yet")

    # When tokens are pushed and run, then the page follows without being loaded again
    page.evaluate("window.kept = true")
    pool.push([f"sleep 0.{i}; exit {int(i == 3)}" for i in range(6)], batch="night", max_retries=0)
    expect(page.locator("[data-count=todo]")).to_have_text("6")
    worker("--slots", "2")
    expect(page.locator("[data-count=done]")).to_have_text("5")
    expect(page.locator("[data-count=error]")).to_have_text("1")
    page.locator(".gantt svg path, .gantt svg rect").first.wait_for(state="attached")
    assert page.evaluate("window.kept") is True


def test_slots_are_changed_and_a_worker_is_drained(server: Server, pool: Pool, worker: Start, visit: Visit) -> None:
    # Given a worker with one slot
    worker("--slots", "1", "--lease", "6")
    until(lambda: pool.workers(), 60)
    page = visit(server, "workers")

    # When a person gives it three, and types slowly while the page is live
    page.get_by_label("slots").fill("")
    page.get_by_label("slots").press_sequentially("3", delay=1500)
    page.get_by_label("prefetch").fill("1")
    page.get_by_role("button", name="Set").click()

    # Then the worker has them, and what it shall claim ahead
    see(page, "gets 3 slots, and claims 1 more ahead")
    until(lambda: (pool.workers()[0].slots, pool.workers()[0].prefetch) == (3, 1), 60)

    # And when it is drained, it leaves
    page.get_by_role("button", name="Drain").click()
    until(lambda: not pool.workers(), 60)
    see(page, "No worker is there")


def test_a_batch_is_paused_and_goes_on(server: Server, pool: Pool, worker: Start, visit: Visit) -> None:
    # Given a batch that a person pauses
    pool.push(["echo 1", "echo 2"], batch="night")
    page = visit(server, "batches")
    page.get_by_role("button", name="Pause").click()
    see(page, "Batch night is paused")

    # When a worker comes, then it leaves that batch alone, and takes others
    worker()
    pool.push("echo 3", batch="day")
    until(lambda: pool.counts("day")["done"] == 1, 60)
    assert pool.counts("night")["todo"] == 2

    # And when it is resumed, it runs, and the page shows its progress
    page.get_by_role("button", name="Resume").click()
    until(lambda: pool.counts("night")["done"] == 2, 60)
    row = page.locator("tr", has_text="night")
    row.get_by_text("100 % of 2").wait_for()


def test_a_running_token_is_cancelled(server: Server, pool: Pool, worker: Start, visit: Visit, tmp_path: Path) -> None:
    # Given a token that runs for ever
    worker()
    pool.push({"_id": "t1", "input": WAITS.format(tmp_path / "never")})
    until(lambda: pool.counts()["locked"], 60)
    page = visit(server, "tokens/t1")

    # When a person cancels it
    page.get_by_role("button", name="Cancel").click()

    # Then it ends, and its page says so by itself
    expect(page.locator("#state-badge")).to_have_text("error")
    see(page, "it was cancelled")
    assert pool.get("t1").state == "error"


def test_a_failed_token_is_edited_and_retried(server: Server, pool: Pool, worker: Start, visit: Visit) -> None:
    # Given a token that has failed
    worker()
    pool.push({"_id": "t1", "input": "exit 3", "max_retries": 0})
    until(lambda: pool.counts()["error"], 60)
    page = visit(server, "tokens/t1")
    see(page, "exit code 3")

    # When a person mends its command and retries it
    page.get_by_role("link", name="Edit").click()
    fields = page.get_by_label("Fields, as JSON")
    fields.fill(fields.input_value().replace("exit 3", "echo mended"))
    page.get_by_role("button", name="Save").click()
    see(page, "The changes are saved")
    page.get_by_role("button", name="Retry").click()

    # Then it is done
    expect(page.locator("#state-badge")).to_have_text("done")
    assert pool.get("t1").state == "done"


def test_many_are_retried_after_a_preview(server: Server, pool: Pool, visit: Visit) -> None:
    # Given ten failed tokens, in the list
    pool.push([{"_id": f"t{i}", "batch": "night"} for i in range(10)])
    for token in pool.claim(10):
        pool.close(token, exit_code=1)
    page = visit(server, "tokens?state=error")

    # When all on the page are ticked and retried
    page.get_by_label("Choose all on this page").check()
    page.get_by_label("What to do").select_option("Retry")
    page.get_by_role("button", name="Preview").click()
    see(page, "Retry 10 tokens?")
    assert pool.counts()["error"] == 10
    page.get_by_role("button", name="Retry 10").click()

    # Then they are
    see(page, "10 tokens were put back to run again")
    assert pool.counts()["todo"] == 10


def test_a_workflow_is_submitted_by_the_form_of_its_inputs(
    server: Server, pool: Pool, visit: Visit, tmp_path: Path
) -> None:
    # Given a CWL file that a person chooses, a broken one first
    (tmp_path / "broken.cwl").write_text("class: [oops")
    (tmp_path / "say.cwl").write_text(TOOL)
    page = visit(server, "submit?kind=workflow", expect=("400",))
    page.get_by_label("A CWL file from here").set_input_files(tmp_path / "broken.cwl")
    page.get_by_role("button", name="Read its inputs").click()
    assert "broken.cwl" in page.locator("#problem").inner_text()
    page.get_by_label("A CWL file from here").set_input_files(tmp_path / "say.cwl")
    page.get_by_role("button", name="Read its inputs").click()

    # When they fill in what the workflow asks for
    page.get_by_label("What to say").fill("hello")
    page.get_by_label("How often").fill("2")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Send 1 token").click()
    see(page, "It is in the pool")

    # Then the token has it
    (token,) = pool.tokens("state:todo")
    assert token.doc["params"] == {"message": "hello", "times": 2}
    assert token.doc["name"] == "Say it"


def test_a_browser_that_slept_catches_up(server: Server, pool: Pool, visit: Visit) -> None:
    # Given an open page whose line is cut
    page = visit(server, "", expect=("net::ERR", "Failed to fetch", "network error"))
    expect(page.locator("[data-count=todo]")).to_have_text("0")
    page.context.set_offline(True)
    pool.push(["echo 1", "echo 2"])

    # When it is back, then the page shows how it is now, by itself
    page.context.set_offline(False)
    expect(page.locator("[data-count=todo]")).to_have_text("2")
    assert page.locator("#connection").inner_text() == ""


def test_a_page_whose_server_was_away_says_so_and_catches_up(pool: Pool, sqlite_url: str, visit: Visit) -> None:
    # Given an open page whose server ends
    with serving(sqlite_url) as before:
        page = visit(before, "", expect=CUT)
        expect(page.locator("[data-count=todo]")).to_have_text("0")

    # Then the page says so
    see(page, "The connection is lost")

    # And when the server is there again, then the page shows how it is now, by itself
    pool.push(["echo 1", "echo 2"])
    with serving(sqlite_url, port=port_of(before)):
        expect(page.locator("[data-count=todo]")).to_have_text("2")
        expect(page.locator("#connection")).to_have_text("")


def test_a_token_that_is_deleted_while_it_is_shown(server: Server, pool: Pool, visit: Visit) -> None:
    # Given the page of a token that waits
    pool.push({"_id": "t1"})
    page = visit(server, "tokens/t1", expect=("404",))
    see(page, "it waits (todo)")

    # When somebody deletes it
    pool.rm(["t1"])

    # Then the page says so
    see(page, "there is no token")


def test_everything_can_be_done_without_a_script(server: Server, pool: Pool, visit: Visit) -> None:
    # Given a browser that runs no scripts
    page = visit(server, "submit", java_script_enabled=False)

    # When a person submits, pauses a batch and cancels
    page.get_by_label("Command").fill("echo hi")
    page.get_by_label("Batch").fill("night")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Send 1 token").click()
    assert "It is in the pool" in page.content()
    page.goto("batches")
    page.get_by_role("button", name="Pause").click()
    page.goto("tokens")
    page.get_by_role("link", name="echo hi").click()
    page.get_by_role("button", name="Cancel").click()

    # Then all of it is done
    assert pool.batch("night").paused
    assert pool.counts()["error"] == 1

"""How the pages look and feel: contrast and structure by axe, the keyboard, small screens, and every role's own view."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_parts import Server

from tokenpool.pool import Pool

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
#: Pictures for the README are taken where this is set.
PICTURES = os.environ.get("TOKENPOOL_SCREENSHOTS")
DOCS = Path(__file__).parents[2] / "docs" / "screenshots"
PATHS = (
    "", "tokens", "tokens?state=error&sort=duration", "tokens/done1", "tokens/wait1", "tokens/bad1/edit", "batches", "workers",
    "submit", "submit?kind=container", "submit?kind=workflow", "submit?kind=lines",
)  # fmt: skip

Visit = Callable[..., Any]


@pytest.fixture
def campaign(pool: Pool) -> Pool:
    """A pool in the middle of a campaign: tokens in every state, in three batches, and workers of two hosts."""
    pool.push([{"_id": f"done{i}", "name": f"align sample {i}", "input": f"bwa mem sample{i}.fq"} for i in range(60)], batch="alignment 2026")  # fmt: skip
    pool.push([{"_id": f"bad{i}", "name": f"call variants {i}", "image": "gatk:4"} for i in range(9)], batch="variants")
    pool.push([{"_id": f"wait{i}", "name": f"report {i}", "depends_on": ["bad0"] if i % 2 else []} for i in range(14)], batch="reports", tags={"site": "amsterdam"})  # fmt: skip
    for number, token in enumerate(sorted(pool.claim(69), key=lambda each: each.id)):
        failed = token.id.startswith("bad") and number % 3
        start = pool.backend.now() - 3000 + 40 * (number % 60)
        token["lock"] = token["lease"]["lock"] = int(start)
        token["attempts"] = [_attempt(number, start, 60 + 7 * (number % 11), 1 if failed else 0)]
        token.put_attachment(f"logs_{token.id}.out", f"reading sample {number}\n[M::mem] 12 000 sequences\nwritten\n")
        pool.backend.put_many([token.doc])
        token.doc.update(pool.get(token.id).doc)
        if not token.id.startswith("done5"):
            pool.close(token, exit_code=1 if failed else 0)
    pool.set_batch("reports", priority=5, max_running=4)
    pool.backend.put_many([_worker(pool, number) for number in range(4)])
    return pool


def _attempt(number: int, start: float, took: float, exit_code: int) -> dict[str, Any]:
    return {
        "claim": f"c{number}",
        "worker": f"worker_{number % 4}ab12cd34",
        "hostname": f"node{number % 2 + 1}",
        "start_time": _rfc(start),
        "end_time": _rfc(start + took),
        "exit_code": exit_code,
        "counted": True,
        "cpu_seconds": took * 0.9,
        "max_rss_mb": 812.5,
    }


def _rfc(moment: float) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _worker(pool: Pool, number: int) -> dict[str, Any]:
    return {
        "_id": f"worker_{number}ab12cd34",
        "type": "worker",
        "hostname": f"node{number % 2 + 1}",
        "slots": 4,
        "lease": 3600.0,
        "renewed": pool.backend.now(),
        "load": 3.2 + number,
        "resources": {"cpu_cores": 8, "ram_gb": 32, "gpus": number % 2},
        "free": {"ram_gb": 9.5, "ram_total_gb": 32.0, "disk_gb": 120.0, "disk_total_gb": 400.0},
        "running": [],
        **({"drain": True} if number == 3 else {}),
    }


def faults(page: Any) -> list[str]:
    """Return what axe finds wrong with a page: the rule, and where."""
    # By the browser's own console, as the page itself lets no strange script in.
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found["violations"] for node in each["nodes"]]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(server: Server, campaign: Pool, visit: Visit, scheme: str) -> None:
    # Given all pages, in light and dark
    page = visit(server, "", color_scheme=scheme)
    found = {}
    for path in PATHS:
        page.goto(path or ".")
        page.locator("h1").first.wait_for()
        found[path] = faults(page)

    # Then contrast, names, roles and structure are as they should be
    assert {path: faults for path, faults in found.items() if faults} == {}


def test_no_page_is_wider_than_a_small_screen(server: Server, campaign: Pool, visit: Visit) -> None:
    # Given the screen of a telephone
    page = visit(server, "", viewport={"width": 360, "height": 640})

    # Then only tables and charts scroll sideways, in places of their own
    for path in PATHS:
        page.goto(path or ".")
        wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, path


def test_a_token_is_submitted_by_keyboard_alone(server: Server, pool: Pool, visit: Visit) -> None:
    # Given a person without a mouse
    page = visit(server, ".")
    page.locator("#live .card").first.wait_for()
    keys = page.keyboard

    def tab_to(matches: str) -> None:
        for _ in range(60):
            keys.press("Tab")
            if page.evaluate("(words) => document.activeElement.matches(words)", matches):
                return
        raise AssertionError(f"the keyboard does not reach {matches}")

    # When they jump to the content, and go to the form by Tab and Enter
    keys.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the content"
    keys.press("Enter")
    assert page.evaluate("() => document.activeElement.closest('#main') !== null || location.hash === '#main'")
    page.goto(".")
    tab_to("nav a[href$='/submit']")
    keys.press("Enter")
    page.get_by_label("Command").wait_for()
    tab_to("textarea[name=command]")
    keys.type("echo by keyboard")
    tab_to("button.main")
    keys.press("Enter")
    page.locator("#draft").wait_for()
    tab_to("#draft button")
    keys.press("Enter")

    # Then it is in the pool, and where the focus was could always be seen
    page.get_by_text("It is in the pool").wait_for()
    assert [token.doc["input"] for token in pool.tokens()] == ["echo by keyboard"]


@pytest.mark.parametrize(
    ("role", "sees", "not_sees"),
    [
        ("viewer", ["Overview"], ["Retry", "Delete"]),
        ("submitter", ["Overview"], ["Retry", "Delete"]),
        ("operator", ["Retry", "Delete"], []),
    ],
)
def test_each_role_sees_what_it_may_do(
    guarded: Server, campaign: Pool, visit: Visit, role: str, sees: list[str], not_sees: list[str]
) -> None:
    # Given somebody of a role, who has logged in and looks at the failed token of somebody else
    page = visit(guarded, "tokens/bad1", role=role, expect=("403",))
    buttons = page.locator("main").inner_text() + page.locator("nav").first.inner_text()

    # Then only what they may do is offered
    assert [word for word in sees if word not in buttons] == []
    assert [word for word in not_sees if word in buttons] == []

    # And what they may not is refused on a page, and nothing happens
    if role != "operator":
        before = campaign.counts()
        answer = page.goto("tokens/bad1/edit")
        assert answer.status == 403
        assert "You may not do this" in page.locator("h1").inner_text()
        assert campaign.counts() == before

    # And they can leave again
    page.goto(".")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login**")


def test_who_is_not_known_is_asked_to_log_in_and_comes_back(guarded: Server, campaign: Pool, visit: Visit) -> None:
    # Given somebody who opens a link without having logged in
    page = visit(guarded, "tokens?state=error", expect=("401",))

    # When they log in, wrongly at first
    page.get_by_label("Name").fill("operator")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("wrong").first.wait_for()
    page.get_by_label("Name").fill("operator")
    page.get_by_label("Password").fill("the operator's password")
    page.get_by_role("button", name="Log in").click()

    # Then they are where they wanted to be
    page.wait_for_url("**/tokens?state=error")


@pytest.mark.skipif(not PICTURES, reason="pictures are taken where TOKENPOOL_SCREENSHOTS is set")
def test_pictures_for_the_readme(server: Server, campaign: Pool, visit: Visit) -> None:
    # Given a campaign that somebody has watched for a moment
    DOCS.mkdir(parents=True, exist_ok=True)
    for scheme, path, name in (
        ("light", "?span=1h", "overview"),
        ("dark", "?span=1h", "overview-dark"),
        ("light", "tokens?limit=25", "tokens"),
        ("light", "tokens/bad1", "token"),
        ("light", "workers", "workers"),
        ("light", "batches", "batches"),
    ):
        page = visit(server, path, color_scheme=scheme, viewport={"width": 1100, "height": 720})
        page.wait_for_load_state("load")
        page.locator("main h1").first.wait_for()
        page.locator(".foot").evaluate("(foot) => foot.remove()")  # it names a folder of this test
        page.screenshot(path=DOCS / f"{name}.png")

    # Then the files are small
    assert all(each.stat().st_size < 200_000 for each in DOCS.glob("*.png"))

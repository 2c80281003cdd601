"""The page that describes both APIs, in a real browser: routes are tried out as oneself, or as an API token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server_parts import People, Server

from tokenpool.pool import Pool

try:
    from playwright.sync_api import expect
except ImportError:  # the browser's fixture skips or fails, as the run wants it
    expect = None  # type: ignore[assignment]

TASK = '{"executors": [{"image": "alpine", "command": ["true"]}]}'


def test_a_route_is_tried_out_as_oneself_and_with_an_api_token(
    guarded: Server, pool: Pool, people: People, visit: Callable[..., Any]
) -> None:
    # Given a viewer, who reads the description
    page = visit(guarded, "docs", role="viewer", expect=("403 (Forbidden)",))
    route = page.locator("#operations-TaskService-CreateTask")
    route.click()
    expect(route).to_contain_text("Needs the role submitter.")

    # When they try a route that is not theirs; then it is refused
    route.get_by_role("button", name="Try it out").click()
    route.locator("textarea").fill(TASK)
    route.get_by_role("button", name="Execute").click()
    expect(route.locator(".live-responses-table")).to_contain_text("'viewer' is a viewer")
    assert pool.counts()["todo"] == 0

    # When they give the API token of a submitter by `Authorize`, and try again
    page.locator(".btn.authorize").click()
    dialog = page.locator(".dialog-ux")
    expect(dialog).to_contain_text("http, Basic")
    bearer = dialog.locator(".auth-container", has_text="http, Bearer")
    bearer.locator("input").fill(people.tokens["submitter"])
    bearer.get_by_role("button", name="Apply credentials").click()
    bearer.get_by_role("button", name="Close").click()
    route.get_by_role("button", name="Execute").click()

    # Then the task is made, in the name of that token
    expect(route.locator(".live-responses-table")).to_contain_text("200")
    expect(route.locator(".live-responses-table")).to_contain_text('"id"')
    assert [token["submitter"] for token in pool.tokens()] == ["submitter's machine"]

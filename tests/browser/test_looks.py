"""How the pages look and feel: contrast and structure by axe, the keyboard, small screens, and every role's own view."""

from __future__ import annotations

import heapq
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_parts import CUT, People, Server, password_of, port_of, serving

from tokenpool.pool import Pool

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
#: Pictures for the README go there where this is set; tests themselves do not see it.
PICTURES = os.environ.get("TOKENPOOL_SCREENSHOTS")
DOCS = Path(__file__).parents[2] / "docs" / "screenshots"
PATHS = (
    "", "tokens", "tokens?state=error&sort=duration", "tokens/done1", "tokens/wait1", "tokens/bad1/edit", "batches", "workers",
    "submit", "submit?kind=container", "submit?kind=workflow", "submit?kind=lines",
)  # fmt: skip

Visit = Callable[..., Any]


#: Workers of the sample campaign, with three slots each; the last one leaves.
HOSTS = ("node1", "node1", "node2", "node2", "cloud-7f3a", "laptop")
SLOTS = 3
#: Tokens that may have run: how their ids begin, how many there are, and about how many seconds one takes.
ALIGN, VARIANTS, QUALITY = ("done", 185, 170), ("bad", 54, 260), ("mean", 36, 45)


@pytest.fixture
def campaign(pool: Pool) -> Pool:
    """A pool in the middle of a campaign: tokens of all kinds in every state, in five batches, and six workers."""
    now = pool.backend.now()
    pool.push([{"_id": f"done{i}", "name": f"align sample {i}", "input": f"bwa mem -t 4 ref.fa sample{i}.fq"} for i in range(ALIGN[1] + 60)], batch="alignment 2026", tags={"site": "amsterdam"})  # fmt: skip
    pool.push([{"_id": f"bad{i}", "name": f"call variants {i}", "image": "gatk:4", "command": f"gatk HaplotypeCaller -I s{i}.bam"} for i in range(VARIANTS[1] + 20)], batch="variants")  # fmt: skip
    pool.push([{"_id": f"mean{i}", "name": f"quality of run {i}", "function": {"name": "statistics:mean", "args": [[i, 2]]}} for i in range(QUALITY[1] + 12)], batch="quality")  # fmt: skip
    pool.push([{"_id": f"flow{i}", "name": f"imaging {i}", "workflow": {"repo": "https://github.com/lab/imaging", "path": "image.cwl"}} for i in range(40)], batch="imaging")  # fmt: skip
    pool.push([{"_id": f"wait{i}", "name": f"report {i}", "input": f"make report-{i}.pdf", "depends_on": ["flow39"] if i % 2 else []} for i in range(14)], batch="reports")  # fmt: skip
    docs = {token.id: token for token in pool.claim(1000)}
    ran = _runs(now)
    for token_id, run in ran.items():
        docs[token_id].put_attachment(
            f"logs_{token_id}.out", "reading the sample\n[M::mem] 12 000 sequences\nwritten\n"
        )
        docs[token_id].put_attachment(f"logs_{token_id}.err", "" if run["exit_code"] == 0 else "ValueError: chr7 has no reads\n")  # fmt: skip
    pool.backend.put_many([{**docs[token_id].doc, **_ended(run)} for token_id, run in ran.items() if run["end"] < now])
    held = [{**docs[token_id].doc, **_running(docs[token_id].doc, run)} for token_id, run in ran.items() if run["end"] >= now]  # fmt: skip
    pool.backend.put_many(held)
    for token_id in docs.keys() - ran.keys():
        pool.release(docs[token_id])
    pool.leave()
    pool.set_batch("reports", priority=5, max_running=4)
    pool.set_batch("quality", paused=True)
    pool.backend.put_many([_worker(now, number, held) for number in range(len(HOSTS))])
    return pool


def _runs(now: float) -> dict[str, dict[str, Any]]:
    """Return which token ran where and when: each lane takes the next token when it is free."""
    order = [f"{name}{i}" for name, many, _ in (ALIGN, VARIANTS, QUALITY) for i in range(many)] + [f"flow{i}" for i in range(32)]  # fmt: skip
    # They come mixed, yet always in the same way; those that other tests name are among the first.
    order.sort(key=lambda token_id: (token_id not in ("bad0", "bad1", "done1"), hash_of(token_id)))
    free = [
        (now - 3300 + 160 * number + 7 * slot, number, slot) for number in range(len(HOSTS)) for slot in range(SLOTS)
    ]
    found: dict[str, dict[str, Any]] = {}
    for token_id in order:
        start, number, slot = heapq.heappop(free)
        if start > now:
            break
        name = token_id.rstrip("0123456789")
        least = {"flow": 420, **{each[0]: each[2] for each in (ALIGN, VARIANTS, QUALITY)}}[name]
        took = least * (0.7 + hash_of(token_id, 7) / 140)
        failed = (
            token_id in ("bad0", "bad1") or (name == "bad" and hash_of(token_id) % 3 == 0) or hash_of(token_id) == 11
        )
        found[token_id] = {"start": start, "end": start + took, "number": number, "exit_code": int(failed)}
        heapq.heappush(free, (start + took + 3, number, slot))
    return found


def hash_of(token_id: str, salt: int = 0) -> int:
    """Return a number below 100 that a token always has."""
    return zlib.crc32(f"{salt}{token_id}".encode()) % 100


def _worker_of(number: int) -> str:
    return f"worker_{number}ab12cd34"


def _ended(run: dict[str, Any]) -> dict[str, Any]:
    took, failed = run["end"] - run["start"], run["exit_code"]
    entry = {
        "claim": f"c{run['start']}",
        "worker": _worker_of(run["number"]),
        "hostname": HOSTS[run["number"]],
        "start_time": _rfc(run["start"]),
        "end_time": _rfc(run["end"]),
        "exit_code": failed,
        "counted": True,
        "cpu_seconds": took * 0.9,
        "max_rss_mb": 812.5,
        **({"failure_class": "executor"} if failed else {}),
    }
    told = {"hostname": HOSTS[run["number"]], "exit_code": failed, "attempts": [entry], "lease": None}
    return {"lock": int(run["start"]), "done": int(run["end"]), **told}


def _running(doc: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    holder = {"worker": _worker_of(run["number"]), "hostname": HOSTS[run["number"]], "lock": int(run["start"])}
    return {"lock": holder["lock"], "hostname": holder["hostname"], "lease": {**doc["lease"], **holder}}


def _rfc(moment: float) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _worker(now: float, number: int, held: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [doc for doc in held if doc["lease"]["worker"] == _worker_of(number)]
    return {
        "_id": _worker_of(number),
        "type": "worker",
        "hostname": HOSTS[number],
        "slots": SLOTS,
        "lease": 3600.0,
        "renewed": now,
        "load": 2.4 + 0.7 * number,
        "resources": {"cpu_cores": 8, "ram_gb": 32, "gpus": number % 2},
        "free": {
            "ram_gb": 4.5 + 3 * number,
            "ram_total_gb": 32.0,
            "disk_gb": 300.0 - 50 * number,
            "disk_total_gb": 400.0,
        },
        "running": [
            {
                "token": doc["_id"],
                "claim": doc["lease"]["claim"],
                "batch": doc["batch"],
                "since": _rfc(doc["lock"]),
                "phase": "run",
                "command": doc["name"],
            }
            for doc in mine
        ],
        **({"drain": True} if number == len(HOSTS) - 1 else {}),
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


def test_the_description_of_the_api_can_be_read_in_the_dark(server: Server, visit: Visit) -> None:
    # Given somebody whose computer is set to dark
    page = visit(server, "docs", color_scheme="dark")
    page.locator(".opblock-summary-path").first.wait_for()

    # Then what stands there has enough contrast to what is behind it
    page.evaluate(AXE.read_text())
    found = page.evaluate(
        "() => axe.run('#docs .opblock-summary-path, #docs .opblock-tag', {runOnly: ['color-contrast']})"
    )
    assert [node["target"] for each in found["violations"] for node in each["nodes"]] == []
    assert found["passes"]


def test_a_campaign_that_has_just_begun_fills_its_charts(server: Server, pool: Pool, visit: Visit) -> None:
    # Given a pool in which something has just ended
    pool.push("true")
    pool.close(pool.claim()[0])

    # When somebody opens the overview without choosing a time
    page = visit(server, "")

    # Then it shows ten minutes, and on a small screen the end of the worker chart, which is now
    assert page.locator(".spans [aria-current]").inner_text() == "10 min"
    page.set_viewport_size({"width": 360, "height": 640})
    page.reload()
    chart = page.locator(".gantt .scroll")
    assert chart.evaluate("(chart) => chart.scrollWidth - chart.clientWidth - chart.scrollLeft") <= 1


def test_the_page_of_who_may_come_in_is_as_good_as_the_others(guarded: Server, pool: Pool, visit: Visit) -> None:
    # Given an operator with a telephone, who makes an API token
    page = visit(guarded, "access", "operator", viewport={"width": 360, "height": 640})
    page.get_by_label("Name").fill("node 7")
    page.get_by_label("Role").select_option("worker")
    page.get_by_role("button", name="Make an API token").click()
    assert page.locator("#secret").inner_text().startswith("tp_")

    # Then axe finds nothing there, and nothing is wider than the screen
    assert faults(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0

    # And it is revoked by one click
    page.get_by_role("button", name="Revoke node 7").click()
    page.get_by_text("opens nothing any more").wait_for()
    assert page.get_by_role("button", name="Revoke node 7").count() == 0


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


def test_who_is_not_let_in_any_more_when_they_wake_is_asked_to_log_in(
    campaign: Pool, sqlite_url: str, people: People, visit: Visit
) -> None:
    from tokenpool.web.access.roster import Roster

    # Given somebody whose page is live, and whose line is cut as that of a computer which sleeps
    roster, options = Roster(people.file), ("--users", str(people.file))
    roster.add("sleeper", "viewer", password_of("sleeper"))
    with serving(sqlite_url, *options) as before:
        page = visit(before, "", "sleeper", expect=CUT)
        page.locator("#live .card").first.wait_for()
    page.get_by_text("The connection is lost").wait_for()

    # When their login is over before it is there again
    roster.remove("sleeper")
    with serving(sqlite_url, *options, port=port_of(before)):
        # Then the page asks them to log in, by itself
        page.get_by_label("Password").wait_for()
        assert "login" in page.url


def test_pictures_for_the_readme(server: Server, campaign: Pool, visit: Visit, tmp_path: Path) -> None:
    # Given a campaign that somebody has watched for a moment
    folder = DOCS if PICTURES else tmp_path
    for scheme, path, name in (
        ("light", "?span=1h", "overview"),
        ("dark", "?span=1h", "overview-dark"),
        ("light", "tokens?limit=25", "tokens"),
        ("light", "tokens/bad1", "token"),
        ("light", "workers", "workers"),
        ("light", "batches", "batches"),
    ):
        tall = 1000 if name.startswith("overview") else 720
        page = visit(server, path, color_scheme=scheme, viewport={"width": 1100, "height": tall})
        page.wait_for_load_state("load")
        page.locator("main h1").first.wait_for()
        page.locator(".foot").evaluate("(foot) => foot.remove()")  # it names a folder of this test
        page.screenshot(path=folder / f"{name}.png")

    # Then the files are small
    assert all(each.stat().st_size < 200_000 for each in folder.glob("*.png"))

"""A real server, a real worker, and Chromium in front of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tokenpool.pool import Pool, connect

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

from server_parts import People, Server, make_people, password_of, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = os.environ.get("TOKENPOOL_TEST_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
#: Milliseconds that something which happens may take on a busy machine.
PATIENCE = int(os.environ.get("TOKENPOOL_TEST_PATIENCE", "60000"))

Open = Callable[..., "Page"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, as Debian has it."""
    try:
        from playwright.sync_api import Error, expect, sync_playwright
    except ImportError:
        _missing("playwright is not installed")
    for name in ("fastapi", "uvicorn", "jinja2"):
        if not _installed(name):
            _missing(f"{name} is not installed")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as driver:
        try:
            chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGS))
        except Error as error:
            _missing(f"Chromium does not start from {CHROMIUM}: {error.message.splitlines()[0]}")
        yield chromium
        chromium.close()


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def _missing(why: str) -> Any:
    if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """A person of every role."""
    return make_people(tmp_path_factory.mktemp("people") / "users.json")


@pytest.fixture
def pool(sqlite_url: str) -> Iterator[Pool]:
    """An empty pool."""
    with connect(sqlite_url, create=True) as made:
        yield made


@pytest.fixture
def server(browser: Browser, pool: Pool, sqlite_url: str) -> Iterator[Server]:
    """A server over it that asks nobody to log in."""
    with serving(sqlite_url) as running:
        yield running


@pytest.fixture
def guarded(browser: Browser, pool: Pool, sqlite_url: str, people: People) -> Iterator[Server]:
    """A server over it that asks everybody."""
    with serving(sqlite_url, "--users", str(people.file)) as running:
        yield running


@pytest.fixture
def worker(pool: Pool, sqlite_url: str) -> Iterator[Callable[..., None]]:
    """Return what starts a worker of the pool, which ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> None:
            command = [sys.executable, "-m", "tokenpool", "-p", sqlite_url, "work", *options]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)

        yield start


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Return what opens a page of a server in a new browser; a page that complains fails the test."""
    with contextlib.ExitStack() as stack:
        complaints: list[str] = []

        def opened(
            server: Server, path: str = "", role: str = "", expect: tuple[str, ...] = (), **options: Any
        ) -> Page:
            context: BrowserContext = browser.new_context(base_url=server.url, **options)
            stack.callback(context.close)
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda told: _note(complaints, told.type, told.text, expect))
            if role:
                page.goto("login")
                page.get_by_label("Name").fill(role)
                page.get_by_label("Password").fill(password_of(role))
                page.get_by_role("button", name="Log in").click()
                page.wait_for_url(lambda url: "login" not in url)
            page.goto(path)
            return page

        yield opened
    assert complaints == []


def _note(complaints: list[str], kind: str, text: str, expect: tuple[str, ...]) -> None:
    if kind == "error" and not any(each in text for each in expect):
        complaints.append(text)

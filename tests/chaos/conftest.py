"""What the chaos tests share: their size, a pool that remembers, a history, a fleet, and the table at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from figures import Figures, table
from fleet import Fleet
from history import Check, History
from past import past, remember
from processes import LINUX
from scale import Scale

from tokenpool.pool import Pool, connect

DONE = pytest.StashKey[list[Figures]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    default = Scale()
    group = parser.getgroup("chaos")
    group.addoption("--chaos-tokens", type=int, default=default.tokens, help="tokens of each round")
    group.addoption("--chaos-kills", type=int, default=default.kills, help="kills, stops or restarts of each round")
    group.addoption("--chaos-seconds", type=float, default=default.seconds, help="least length of the faulty network")
    group.addoption("--chaos-seed", type=int, default=None, help="repeat the choices of an earlier run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(LINUX)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash.get(DONE, []):
        terminalreporter.section("chaos")
        for line in table(config.stash[DONE]):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    """The size of each round; the options are unknown where this folder was not named on the command line."""
    default = Scale()
    option = pytestconfig.getoption
    return Scale(
        option("--chaos-tokens", default.tokens), option("--chaos-kills", default.kills),
        option("--chaos-seconds", default.seconds),
    )  # fmt: skip


@pytest.fixture
def dice(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> random.Random:
    """The test's own random numbers; the seed is printed where the test fails."""
    seed = request.config.getoption("--chaos-seed", None)
    seed = random.randrange(1 << 32) if seed is None else seed
    print(f"--chaos-seed {seed}")
    return random.Random(seed)


@pytest.fixture
def history(tmp_path: Path) -> History:
    """The record of this test's tokens."""
    return History(tmp_path / "history")


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    """An empty pool on each backend in turn, which remembers every state of its tokens."""
    with connect(pool_url, create=True) as opened:
        remember(pool_url)
        yield opened


@pytest.fixture
def couch_pool(couch_db: str) -> Iterator[Pool]:
    """An empty pool on a CouchDB."""
    with connect(couch_db, create=True) as opened:
        yield opened


@pytest.fixture
def fleet(pool_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """The workers of `pool`."""
    with Fleet(pool_url, tmp_path / "fleet") as fleet:
        yield fleet


@pytest.fixture
def report(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Callable[[Figures], None]:
    """Take note of figures for the table at the end."""

    def note(figures: Figures) -> None:
        named = replace(figures, name=request.node.name.replace("test_", "", 1))
        print(named)
        pytestconfig.stash.setdefault(DONE, []).append(named)

    return note


@pytest.fixture
def judge(history: History, report: Callable[[Figures], None]) -> Callable[..., Figures]:
    """Check all invariants on a pool at rest and take note of the figures."""

    def check(fleet: Fleet, pool: Pool, ids: Collection[str], notes: str = "", **options: Any) -> Figures:
        figures = Check(history, pool, past(fleet.url, ids), fleet.harms, **options).run(ids)
        report(replace(figures, notes=notes))
        return figures

    return check

"""Real servers of data for all tests of this folder, each started once, when the first test asks for it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import data_servers
import pytest
from data_servers import Missing, Server

sys.path.append(str(Path(__file__).resolve().parents[1] / "acceptance"))

Serve = Callable[[str], Server]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Return the server that a function of `data_servers` starts, by the function's name; one of each a run."""
    running: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:

        def serve(name: str) -> Server:
            if name not in running:
                try:
                    running[name] = stack.enter_context(getattr(data_servers, name)(tmp_path_factory.mktemp(name)))
                except Missing as error:
                    missing(str(error))
            return running[name]

        yield serve


def missing(why: str) -> None:
    """Skip for want of a program; in CI, where all have to be there, fail."""
    if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)

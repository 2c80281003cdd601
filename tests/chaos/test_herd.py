"""R6: 64 idle workers and some tokens: what they cost the server, counted in requests."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from couch_server import Couch
from figures import Figures
from picas_scripts import child_environment
from scale import PATIENCE
from tcp_proxy import TcpProxy
from waits import all_ended, wait_for

from tokenpool.pool import Pool, connect

WORKERS, PROCESSES = 64, 4
#: Nobody renews anything while we count: renewing costs by the hour, not by the token.
LEASE = 600.0
#: What is asked by the hour, not by the token: the held request of each worker that waits, and the passes of janitors.
HOURLY = re.compile(r"/_changes|GET \S*/_all_docs|_view/(states|waits)")
#: Seconds without a request after which nothing more will come of what happened.
QUIET = 1.5

HERD = Path(__file__).with_name("herd.py")


class Herd:
    """64 workers, and a count of the requests that they make."""

    def __init__(self, pool_url: str, server: Couch, folder: Path, stack: ExitStack) -> None:
        # Real servers do not count: a proxy does, and it is between the workers and any server alike.
        self.proxy = stack.enter_context(TcpProxy(server.url)) if pool_url.startswith("couchdb") else None
        url = self.proxy.pool_url(pool_url) if self.proxy else pool_url
        folder.mkdir()
        self.told = folder / "herd.err"
        self.processes = [self._start(url, folder / f"herd{number}", stack) for number in range(PROCESSES)]
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", self.told.read_text()[-2000:]

    def _start(self, url: str, folder: Path, stack: ExitStack) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERD), url, str(WORKERS // PROCESSES), str(LEASE), str(folder)]
        with self.told.open("ab") as errors:
            process = subprocess.Popen(
                command,
                env=child_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        stack.enter_context(process)
        stack.callback(process.kill)
        return process

    @property
    def requests(self) -> int:
        """What they asked so far; 0 where there is no server."""
        return self.proxy.requests if self.proxy else 0

    def kinds(self, since: int) -> str:
        """What was asked most since then: for a person who looks for too many requests."""
        lines = self.proxy.asked[since:] if self.proxy else []
        kinds = Counter(re.sub(r"^(\w+) /[^/? ]*|[?].*| HTTP.*", r"\1 ", line) for line in lines)
        return ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(8))

    def about_tokens(self, since: int) -> int:
        """Return how many requests since then were about tokens."""
        return sum(not HOURLY.search(line) for line in self.proxy.asked[since:]) if self.proxy else 0

    def quiet(self) -> None:
        """Wait until nobody asks anything any more: all are idle."""
        seen, since = -1, time.monotonic()

        def still() -> bool:
            nonlocal seen, since
            if self.requests != seen:
                seen, since = self.requests, time.monotonic()
            return time.monotonic() - since > QUIET

        wait_for(still, "the workers are quiet")

    def leave(self) -> None:
        """End them in order."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            assert process.wait(PATIENCE) == 0, self.told.read_text()[-2000:]


@contextmanager
def idle_herd(pool_url: str, server: Couch | None, folder: Path) -> Iterator[Herd]:
    with ExitStack() as stack:
        herd = Herd(pool_url, server, folder, stack)  # type: ignore[arg-type]
        herd.quiet()
        yield herd


@pytest.fixture
def herd(request: pytest.FixtureRequest, pool: Pool, pool_url: str, tmp_path: Path) -> Iterator[Herd]:
    """64 workers that have come to rest on an empty pool."""
    server = request.getfixturevalue("couch_server") if pool_url.startswith("couchdb") else None
    with idle_herd(pool_url, server, tmp_path / "herd") as herd:
        yield herd


@pytest.mark.parametrize(("tokens", "most", "each"), [(1000, 3.0, "token"), (20, 3.0, "worker")])
def test_requests_of_many_workers(
    herd: Herd, pool: Pool, pool_url: str, report: Callable[[Figures], None], tokens: int, most: float, each: str
) -> None:
    # Given 64 idle workers
    before = herd.requests
    # When some tokens come
    with connect(pool_url) as pusher:  # rings the bell when it is closed
        ids = pusher.push({"_id": f"t{n:04}", "input": "true"} for n in range(tokens))
    all_ended(pool, tokens, 4 * PATIENCE)
    herd.quiet()
    # Then each ran once, and they cost no more requests than promised
    asked = herd.about_tokens(before)
    attempts = Counter(len(token["attempts"]) for token in pool.tokens(ids))
    per = asked / (tokens if each == "token" else WORKERS)
    print(herd.kinds(before))
    report(
        Figures(
            "", tokens=tokens, notes=f"{WORKERS} workers: {per:.2f} requests a {each}, {herd.requests - before} in all"
        )
    )
    herd.leave()
    assert pool.counts()["done"] == tokens
    assert attempts == {1: tokens}
    assert per <= most

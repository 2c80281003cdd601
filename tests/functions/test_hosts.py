"""Processes that never come to run a call lose it, so that it runs again elsewhere; nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenpool.children import Child, Supervisor
from tokenpool.functions.hosts import Hosts
from tokenpool.links import SupervisorLost

Start = Callable[[list[str], str, Callable[[Child], None]], Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Start]]:
    """Make a starter of hosts that execute this shell line instead."""
    with Supervisor() as supervisor:

        def starter(line: str) -> Start:
            def start(words: list[str], log: str, on_end: Callable[[Child], None]) -> Child:
                return supervisor.start(
                    ["/bin/sh", "-c", line], cwd=tmp_path, env={}, stdout=log, stderr=log, on_end=on_end
                )

            return start

        yield starter


def test_hosts_that_are_killed_before_they_are_ready_lose_their_calls(
    start: Callable[[str], Start], tmp_path: Path
) -> None:
    hosts = Hosts(start("kill -9 $$"), {}, 1.0)
    call = hosts.add({"work": str(tmp_path)}, None)
    hosts.push()
    with pytest.raises(SupervisorLost):
        call.wait()
    hosts.close()


def test_hosts_that_cannot_start_say_why(start: Callable[[str], Start], tmp_path: Path) -> None:
    hosts = Hosts(start("echo no such library >&2; exit 3"), {}, 1.0)
    call = hosts.add({"work": str(tmp_path)}, None)
    hosts.push()
    finished = call.wait()
    hosts.close()
    assert (finished.returncode, finished.error) == (3, "no process can be started: no such library")


def test_a_fault_of_ours_loses_the_calls_and_is_told(
    start: Callable[[str], Start], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given hosts that wait for their calls
    hosts = Hosts(start("sleep 1000"), {}, 1.0)
    call = hosts.add({"work": str(tmp_path)}, None)

    def broken(*anything: Any) -> None:
        raise RuntimeError("a fault")

    # When what listens to them fails
    monkeypatch.setattr(hosts, "_look_at_clocks", broken)
    hosts.push()
    # Then nobody waits for ever, and others are to be made
    with pytest.raises(SupervisorLost):
        call.wait()
    assert hosts.broken
    assert "given up" in caplog.text
    hosts.close()

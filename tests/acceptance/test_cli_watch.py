"""Stories of `watch`: what it remembers of the last minutes, and how it draws that on terminals of every size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from cli_tools import ok, use
from worker_documents import attempt, busy, locked, running, save, token, worker

import tokenpool
from tokenpool.backends.base import Backend
from tokenpool.cli import watched
from tokenpool.cli.frames import frame
from tokenpool.cli.watch import Look


@pytest.fixture(autouse=True)
def pool(pool_url: str) -> str:
    return use(pool_url)


@pytest.fixture
def opened(pool: str) -> Iterator[tokenpool.Pool]:
    with tokenpool.connect(pool) as made:
        yield made


def failed(backend: Backend, token_id: str, ago: float = 0.0, **fields: Any) -> None:
    """Write a token that failed."""
    end = backend.now() - ago
    run = attempt(1, ended=end, exit_code=3, claim=f"claim-{token_id}")
    token(backend, token_id, **{"lock": int(end) - 5, "done": int(end), "exit_code": 3, "attempts": [run], **fields})


def drawn(look: Look, width: int, height: int) -> list[str]:
    """Return a frame as lines, without colours."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(frame(look, width, height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_what_failed_before_is_told_newest_first(opened: tokenpool.Pool) -> None:
    for number in range(3):
        failed(opened.backend, f"t{number}", ago=100 - number)
    token(opened.backend, "fine", lock=5, done=9, exit_code=0)
    look = Look(opened, None)
    look.take()
    assert [each.token for each in look.history.failures] == ["t2", "t1", "t0"]
    assert look.history.failures[0].why == "executor: exit code 3"
    assert ok("watch", "--once", "--json").json["failures"][0]["id"] == "t2"


def test_only_failures_of_the_batch_are_told(opened: tokenpool.Pool) -> None:
    failed(opened.backend, "t1", batch="a")
    failed(opened.backend, "t2", batch="b")
    look = Look(opened, "a")
    look.take()
    assert [each.token for each in look.history.failures] == ["t1"]


@pytest.mark.parametrize("listed", [0, 500])
def test_a_run_that_fails_is_told_at_the_next_look(
    opened: tokenpool.Pool, monkeypatch: pytest.MonkeyPatch, listed: int
) -> None:
    # Given a token that runs, and a pool with few failures, or so many that nobody lists them
    monkeypatch.setattr(watched, "LISTED", listed)
    backend = opened.backend
    me = busy(backend, "a", "t1", "t2")
    look = Look(opened, None)
    look.take()
    assert look.history.failures == []
    # When it fails, and the other one is done
    failed(backend, "t1")
    token(backend, "t2", lock=5, done=9, exit_code=0, attempts=[attempt(1, exit_code=0, failure_class=None)])
    save(backend, {**backend.get(me), "running": []})
    look.take()
    # Then it is told, once
    look.take()
    assert [each.token for each in look.history.failures] == ["t1"]


def test_a_failure_that_is_retried_is_told_too(opened: tokenpool.Pool) -> None:
    backend = opened.backend
    me = busy(backend, "a", "t1")
    look = Look(opened, None)
    look.take()
    token(backend, "t1", attempts=[attempt(1, ended=backend.now(), failure_class="oom", exit_code=137)])
    save(backend, {**backend.get(me), "running": []})
    look.take()
    assert [each.why for each in look.history.failures] == ["oom: exit code 137: ended by SIGKILL"]


def test_the_last_minutes_are_drawn(opened: tokenpool.Pool) -> None:
    # Given a worker that was half full for two minutes, then full, while tokens ended and some failed
    now = 0.0
    backend = opened.backend
    me = worker(backend, "a", slots=2, running=[running("t0", command="run t0")])
    locked(backend, "t0", me)
    look = Look(opened, None, lambda: now)
    counts = {"todo": 900, "held": 0, "locked": 1, "done": 0, "error": 0, "invalid": 0}
    opened.counts = lambda batch=None: dict(counts)  # type: ignore[method-assign]
    for minute in range(5):
        now = minute * 60.0
        counts["done"] += 60
        counts["error"] += 20 if minute == 4 else 0
        if minute == 2:
            save(backend, {**backend.get(me), "running": [running("t0"), running("t1")]})
            locked(backend, "t1", me)
        look.take()
    # Then history tells when
    assert [done for done, _ in look.history.ended(5)] == [0, 60, 60, 60, 60]
    assert sum(bad for _, bad in look.history.ended(30)) == 20
    assert look.history.busy(me, 5) == [0.5, 0.5, 1.0, 1.0, 1.0]
    assert look.history.busy("nobody", 3) == [None, None, None]
    # And a wide terminal shows it, a narrow one leaves it out
    wide = "\n".join(drawn(look, 140, 40))
    assert "done and failed, last 5m" in wide
    assert "█" in wide
    assert "█" not in "\n".join(drawn(look, 80, 40))


def test_what_is_older_than_five_minutes_is_forgotten(opened: tokenpool.Pool) -> None:
    history = watched.History(opened.backend, None)
    counts = {"done": 0, "error": 0}
    for second in range(0, 2000, 2):
        history.take(float(second), counts, [])
    assert len(history.samples) == watched.SPAN / 2 + 1
    # And when tokens are put back, nothing ended a negative number of times
    history.take(2000.0, {"done": 5, "error": 0}, [])
    history.take(2002.0, {"done": 1, "error": 0}, [])
    assert sum(done for done, _ in history.ended(10)) == 0


@pytest.mark.parametrize("width", [20, 60, 80, 99, 100, 200])
@pytest.mark.parametrize("height", [5, 24, 50])
def test_a_frame_fits_its_terminal(opened: tokenpool.Pool, width: int, height: int) -> None:
    for number in range(12):
        busy(opened.backend, f"{number:02d}", f"t{number}")
    for number in range(4):
        failed(opened.backend, f"f{number}", ago=number)
    look = Look(opened, None)
    look.take()
    lines = drawn(look, width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) <= max(height, 13)
    assert any("error" in line for line in lines)


def test_no_control_character_of_a_failure_reaches_the_terminal(opened: tokenpool.Pool) -> None:
    error = [{"time": int(opened.backend.now()), "message": "\x1b[31mred\x07"}]
    failed(opened.backend, "t\x1bx", hostname="\x1bh", error=error)
    look = Look(opened, None)
    look.take()
    assert not {"\x1b", "\x07"} & set("\n".join(drawn(look, 120, 40)))
    assert "[31mred" in look.history.failures[0].why

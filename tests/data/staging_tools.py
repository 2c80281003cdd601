"""Pushes tokens that have data, has a worker run them, and looks at what became of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting_tokens import last_attempt

from tokenpool.pool import Pool
from tokenpool.worker import Summary, Worker, WorkerOptions

Token = dict[str, Any]


def work(pool: Pool, tmp_path: Path, **options: Any) -> Summary:
    """Run a worker until nothing waits."""
    given: dict[str, Any] = {"quit": True, "poll": 0.05, "workdir": tmp_path / "scratch", **options}
    return Worker(pool, WorkerOptions(**given)).run()


def ran(pool: Pool, tmp_path: Path, options: Mapping[str, Any] | None = None, **fields: Any) -> Token:
    """Push a token, run it, and return it."""
    (name,) = pool.push({"command": "true", **fields})
    work(pool, tmp_path, **(options or {}))
    return dict(pool.get(name).doc)


@contextmanager
def working(pool: Pool, tmp_path: Path, **options: Any) -> Iterator[Worker]:
    """Run a worker in a thread for as long as the block takes."""
    given: dict[str, Any] = {"poll": 0.05, "workdir": tmp_path / "scratch", "grace": 1.0, **options}
    worker = Worker(pool, WorkerOptions(**given))
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()


def until(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until something holds, and return it."""
    pause, waited = threading.Event(), 0.0
    while not (found := holds()):
        assert waited < seconds, "it never was so"
        pause.wait(0.02)
        waited += 0.02
    return found


def failure(pool: Pool, name: str) -> tuple[str, str]:
    """Return the class of the last attempt's failure, and what the token says of it."""
    token = pool.get(name).doc
    return last_attempt(pool, name)["failure_class"], str((token.get("error") or [{}])[-1].get("message", ""))


def files_of(token: Token) -> dict[str, str]:
    """Return where the files of a token went, by their names."""
    return {each["path"]: each["url"] for each in token["output"].get("files", ())}

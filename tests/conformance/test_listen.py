"""Another process changes a document; who listens to it is told."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from picas_scripts import child_environment

from tokenpool.backends import open_backend
from tokenpool.backends.base import Backend, Saved

LONG = 60.0
#: Writes what it reads a line of, document by document: first others, then the one that somebody listens to.
WRITER = """
import sys
from tokenpool.backends import open_backend

with open_backend(sys.argv[1]) as backend:
    print("ready", flush=True)
    for line in sys.stdin:
        doc = backend.get(line.strip())
        doc["n"] = doc.get("n", 0) + 1
        print(backend.put_many([doc])[0].rev, flush=True)
"""


@pytest.fixture
def backend(pool_url: str) -> Iterator[Backend]:
    with open_backend(pool_url, create=True) as backend:
        yield backend


@pytest.fixture
def writer(backend: Backend, pool_url: str) -> Iterator[subprocess.Popen[str]]:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, pool_url],
        env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    yield writer
    writer.communicate(timeout=LONG)


def write(writer: subprocess.Popen[str], name: str) -> str:
    """Have the other process change a document; return its revision."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(f"{name}\n")
    writer.stdin.flush()
    return writer.stdout.readline().strip()


def test_a_change_by_another_process_is_heard(backend: Backend, writer: subprocess.Popen[str]) -> None:
    # Given a thread that listens to two documents, again and again
    assert all(
        isinstance(result, Saved) for result in backend.put_many([{"_id": name} for name in ("bell", "me", "x")])
    )
    heard: list[frozenset[str]] = []
    news, marker = threading.Semaphore(0), backend.listen(["bell", "me"]).marker

    def listen() -> None:
        nonlocal marker
        while "me" not in (heard[-1] if heard else ()):
            found = backend.listen(["bell", "me"], marker, LONG)
            marker = found.marker
            heard.append(found.changed)
            news.release()

    thread = threading.Thread(target=listen)
    thread.start()
    # When another process changes these and others, then each change is heard, and no other
    for name in ("x", "bell", "x", "bell", "me"):
        assert write(writer, name)
        if name != "x":
            assert news.acquire(timeout=LONG)
    thread.join(LONG)
    assert heard == [frozenset({"bell"}), frozenset({"bell"}), frozenset({"me"})]


def test_what_another_process_did_meanwhile_is_heard_once(backend: Backend, writer: subprocess.Popen[str]) -> None:
    backend.put_many([{"_id": "bell"}, {"_id": "x"}])
    marker = backend.listen(["bell"]).marker
    # When it was changed twice while nobody listened
    for name in ("bell", "x", "bell"):
        assert write(writer, name)
    # Then that is heard once, at once
    found = backend.listen(["bell"], marker, LONG)
    assert found.changed == {"bell"}
    assert backend.listen(["bell"], found.marker, 0.1).changed == frozenset()

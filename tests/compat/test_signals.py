"""A picas script that is told to stop leaves in order wherever it is: a real process, real signals, no guessed moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from couch_server import Couch, raw_couch
from faulty_proxy import FaultyProxy
from picas_scripts import Script, child_environment, client_of, push, state, stored
from processes import alive, gone, until

from tokenpool.clients import CouchDB

#: The script says READY on its standard output where it is to be hit, and what it was called for.
SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from picas_scripts import client_of, finish
from tokenpool import EndlessViewIterator, RunActor
from tokenpool.executers import execute

place, pids, told = {place!r}, {pids!r}, []

def say(word):
    print(word, flush=True)

def wait(here):
    if here == place:
        say("READY")
        time.sleep(60)

class Actor(RunActor):
    def prepare_run(self):
        wait("prepare_run")

    def process_task(self, token):
        say(f"RUN {{token.id}}")
        if place == "process_task":
            # Reports by itself that it runs; the grandchild hides in a session of its own.
            execute(["sh", "-c", f"setsid sh -c 'echo $$ >> {{pids}}; sleep 60' & echo $$ >> {{pids}}; sleep 60"])
        if place == "swallowed":
            try:
                wait("swallowed")
            except BaseException:
                pass
        finish(token)

    def cleanup_run(self):
        wait("cleanup_run")

    def cleanup_env(self):
        say("CLEAN")

def stop():
    wait("stop_function")
    return False

def empty():
    if place == "idle" and actor.tasks_processed and not told:
        told.append(say("READY"))
    return False

actor = Actor(client_of({url!r}, views=False))
if place == "idle":
    actor.iterator = EndlessViewIterator(actor.iterator, sleep_sec=60, stop_callback=empty)
actor.run(stop_function=stop)
"""


@pytest.fixture
def client(pool_url: str) -> Iterator[CouchDB]:
    client = client_of(pool_url)
    yield client
    client.pool.close_connections()


@contextmanager
def running(pool_url: str, place: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the script and yield it where it is to be hit."""
    pids = tmp_path / "pids"
    if place == "process_task":
        os.mkfifo(pids)
    tests = str(Path(__file__).resolve().parents[1])
    code = SCRIPT.format(tests=tests, place=place, pids=str(pids), url=pool_url)
    script = subprocess.Popen(
        [sys.executable, "-c", code], env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield script
    finally:
        script.kill()
        script.communicate()


def until_ready(script: subprocess.Popen[str]) -> list[str]:
    """Read what the script says until it is where it is to be hit."""
    assert script.stdout is not None
    said = []
    for line in script.stdout:
        if line.strip() == "READY":
            return said
        said.append(line.strip())
    raise AssertionError(f"the script ended before: {script.communicate()}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_process_task_the_child_dies_and_the_token_goes_back(
    client: CouchDB, pool_url: str, tmp_path: Path, number: int
) -> None:
    push(client, "a")
    with running(pool_url, "process_task", tmp_path) as script:
        pids: list[int] = []
        while len(pids) < 2:
            pids += map(int, (tmp_path / "pids").read_text().split())
        assert all(map(alive, pids))

        script.send_signal(number)
        said, told = script.communicate(timeout=30)

    assert script.returncode == 0, told
    assert not any(map(alive, pids))
    now = stored(client, "a")
    assert (now["lock"], now["done"], now["scrub_count"], state(client, "a")) == (0, 0, 1, "todo")
    assert said.split("\n") == ["RUN a", "CLEAN", ""]


def test_in_prepare_run_the_token_goes_back(client: CouchDB, pool_url: str, tmp_path: Path) -> None:
    push(client, "a")
    with running(pool_url, "prepare_run", tmp_path) as script:
        until_ready(script)
        script.terminate()
        said, told = script.communicate(timeout=30)
    assert (script.returncode, said) == (0, "CLEAN\n"), told
    assert (state(client, "a"), stored(client, "a")["scrub_count"]) == ("todo", 1)


@pytest.mark.parametrize("place", ["cleanup_run", "stop_function", "idle"])
def test_a_finished_token_is_left_alone(client: CouchDB, pool_url: str, tmp_path: Path, place: str) -> None:
    push(client, "a")
    with running(pool_url, place, tmp_path) as script:
        until_ready(script)
        before = stored(client, "a")
        script.terminate()
        said, told = script.communicate(timeout=30)
    # An idle script may say once more that it is ready before the signal reaches it.
    assert (script.returncode, said.replace("READY\n", "")) == (0, "CLEAN\n"), told
    assert stored(client, "a") == before
    assert (state(client, "a"), before["scrub_count"]) == ("done", 0)


def test_a_script_that_swallows_everything_leaves_all_the_same(client: CouchDB, pool_url: str, tmp_path: Path) -> None:
    push(client, "a", "b")
    with running(pool_url, "swallowed", tmp_path) as script:
        until_ready(script)
        script.terminate()
        said, told = script.communicate(timeout=30)
    assert (script.returncode, said) == (0, "CLEAN\n"), told
    assert [state(client, each) for each in "ab"] == ["todo", "todo"]


def test_after_run_a_signal_is_the_scripts_own_again(client: CouchDB) -> None:
    push(client, "a")
    mine = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    Script(client).run(max_token_time=60)
    assert {number: signal.getsignal(number) for number in mine} == mine
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


# ── while it talks to the server ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("applied", [True, False])
def test_in_a_claim_the_token_is_not_left_locked(
    couch_server: Couch, couch_db: str, tmp_path: Path, applied: bool
) -> None:
    near = client_of(couch_db)
    push(near, "a")
    with FaultyProxy(couch_server.url) as proxy:
        # The server has done it and its answer is on the way; or it never hears of it.
        wanted = ("POST", "/_bulk_docs", 1, b'"claim"')
        claim = proxy.hold_answer(*wanted) if applied else proxy.hold(*wanted, lose=True)
        with running(proxy.pool_url(raw_couch(couch_db).name), "nowhere", tmp_path) as script:
            assert claim.met.wait(30)
            script.terminate()
            said, told = script.communicate(timeout=30)
    assert (script.returncode, said) == (0, "CLEAN\n"), told
    assert state(near, "a") == "todo"


def test_in_the_final_save_the_result_stands(couch_server: Couch, couch_db: str, tmp_path: Path) -> None:
    near = client_of(couch_db)
    push(near, "a", "b")
    with FaultyProxy(couch_server.url) as proxy:
        save = proxy.hold("POST", "/_bulk_docs", body=b'"exit_code":0,', lose=True)
        with running(proxy.pool_url(raw_couch(couch_db).name), "nowhere", tmp_path) as script:
            assert save.met.wait(30)
            script.terminate()
            save.release.set()
            said, told = script.communicate(timeout=30)
    assert script.returncode == 0, told
    assert said.count("CLEAN") == 1
    assert sorted(state(near, each) for each in "ab") == ["done", "todo"]


def test_a_killed_pilot_leaves_no_child(client: CouchDB, pool_url: str, tmp_path: Path) -> None:
    # Given a pilot amid a token whose command has a child of its own
    push(client, "a")
    with running(pool_url, "process_task", tmp_path) as script:
        pids: list[int] = []
        while len(pids) < 2:
            pids += map(int, (tmp_path / "pids").read_text().split())
        # When it is killed with SIGKILL
        script.kill()
        script.communicate()
    # Then its children die with it
    until(lambda: gone(pids))

"""64 workers race for 1 000 tokens: every token is claimed by exactly one of them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from picas_scripts import child_environment

from tokenpool.backends import open_backend
from tokenpool.claims import Claimer
from tokenpool.pool import Pool

WORKERS, TOKENS, PROCESSES = 64, 1000, 4

RACER = """
import json, sys, threading
from tokenpool.backends import open_backend
from tokenpool.claims import Claimer

url, threads, per_claim = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
backend, claimed = open_backend(url), []

def race():
    claimer = Claimer(backend, slots=per_claim)
    while True:
        docs = claimer.commit(per_claim).claimed
        claimed.extend(doc["_id"] for doc in docs)
        if not docs and claimer.exhausted:
            return

racers = [threading.Thread(target=race) for _ in range(threads)]
sys.stdin.readline()  # all begin together
for racer in racers: racer.start()
for racer in racers: racer.join()
print(json.dumps(claimed))
"""


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    pool = Pool(open_backend(pool_url, create=True))
    pool.init()
    pool.push({"_id": f"t{n:04}"} for n in range(TOKENS))
    yield pool
    pool.close_connections()


def assert_each_once(pool: Pool, claimed: list[str]) -> None:
    twice = {each: times for each, times in Counter(claimed).items() if times > 1}
    assert twice == {}
    assert len(claimed) == TOKENS
    assert {state: number for state, number in pool.counts().items() if number} == {"locked": TOKENS}
    assert len({doc["lease"]["claim"] for doc in pool.backend.scan("locked")}) == TOKENS


@pytest.mark.parametrize("per_claim", [1, 7])
def test_threads_claim_every_token_exactly_once(pool: Pool, per_claim: int) -> None:
    claimed: list[str] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(WORKERS)

    def race() -> None:
        try:
            claimer = Claimer(pool.backend, slots=per_claim)
            barrier.wait(60)
            while True:
                docs = claimer.commit(per_claim).claimed
                claimed.extend(doc["_id"] for doc in docs)
                if not docs and claimer.exhausted:
                    return
        except BaseException as error:
            errors.append(error)

    racers = [threading.Thread(target=race) for _ in range(WORKERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)

    assert errors == []
    assert_each_once(pool, claimed)


def test_processes_claim_every_token_exactly_once(pool: Pool, pool_url: str) -> None:
    command = [sys.executable, "-c", RACER, pool_url, str(WORKERS // PROCESSES), "3"]
    racers = [
        subprocess.Popen(
            command,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    claimed: list[str] = []
    try:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            out, told = racer.communicate(timeout=120)
            assert racer.returncode == 0, told[-2000:]
            claimed += json.loads(out)
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert_each_once(pool, claimed)

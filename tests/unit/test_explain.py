"""Why a token does not run: each situation has its reason, by a stable code and in words that name what is in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from worker_documents import attempt, busy, locked, running, token, worker

from tokenpool import connect
from tokenpool.backends.base import Backend
from tokenpool.errors import NotFound
from tokenpool.explain import explain
from tokenpool.pool import Pool
from tokenpool.selectors import Selector


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with connect(pool_url, create=True) as opened:
        yield opened


def reasons(pool: Pool, token_id: str = "t") -> dict[str, str]:
    """Return what is told of a token: text by code."""
    found = explain(pool.backend, token_id)
    assert found.id == token_id
    assert found.as_json() == {"schema": 1, "id": token_id, "state": found.state, "reasons": found.as_json()["reasons"]}
    return {reason.code: reason.text for reason in found.reasons}


#: What makes the situation, and the words that the text of each reason must hold.
Situation = tuple[str, Callable[[Backend], object], dict[str, str]]


def busy_batch(backend: Backend) -> None:
    token(backend, "t", batch="night")
    me = worker(backend, running=[running("other")])
    locked(backend, "other", me, batch="night")


def both_parents(backend: Backend) -> None:
    token(backend, "first")
    token(backend, "failed", lock=5, done=9, exit_code=3)
    token(backend, "good", lock=5, done=9, exit_code=0)
    token(backend, "t", lock=-1, depends_on=["first", "failed", "good", "gone"])


def two_hosts(backend: Backend) -> None:
    token(backend, "t", resources={"ram_gb": 8}, attempts=[attempt(1, "n1", backend.now() - 10)])
    worker(backend, hostname="n1")
    worker(backend, hostname="n2", resources={"cpu_cores": 4, "ram_gb": 2.0, "gpus": 0})


WAITING: list[Situation] = [
    ("nobody works", lambda b: token(b, "t"), {"no_worker": "no live worker is known"}),
    (
        "only the dead work",
        lambda b: [token(b, "t"), worker(b, silent_for=600), worker(b, fenced=True)],
        {"no_worker": "2 workers did not renew"},
    ),
    (
        "all leave",
        lambda b: [token(b, "t"), worker(b, drain=True), worker(b, stop=True)],
        {"workers_leave": "all 2 workers"},
    ),
    (
        "nobody takes the batch",
        lambda b: [token(b, "t", batch="night"), worker(b, batches=["day", "noon"])],
        {"not_wanted": "its batch night; they take day, noon"},
    ),
    (
        "nobody takes its tags",
        lambda b: [token(b, "t", tags={"size": "big"}), worker(b, tags={"size": "small"})],
        {"not_wanted": "size=small"},
    ),
    (
        "it is too big",
        lambda b: [token(b, "t", resources={"cpu_cores": 8}), worker(b)],
        {"too_big": "8 CPUs where there are 4"},
    ),
    (
        "no single one has all",
        lambda b: [
            token(b, "t", resources={"cpu_cores": 8, "gpus": 1}),
            worker(b, resources={"cpu_cores": 8, "ram_gb": 1, "gpus": 0}),
            worker(b, resources={"cpu_cores": 1, "ram_gb": 1, "gpus": 1}),
        ],
        {"too_big": "no single worker"},
    ),
    (
        "it outgrew them",
        lambda b: [
            token(b, "t", resources={"ram_gb": [4, 16]}, attempts=[attempt(1, failure_class="oom")]),
            worker(b, hostname="n2"),
        ],
        {"too_big": "16 GB of memory where there are 8"},
    ),
    (
        "it would not finish",
        lambda b: [token(b, "t", timeout=7200), worker(b, ends=b.now() + 1800)],
        {"too_long": "may run for 2 h, and every worker has to leave within 30 min"},
    ),
    ("its host failed it", two_hosts, {"other_hosts": "it failed on n1, which leaves it to others for"}),
    (
        "only its host is there",
        lambda b: [token(b, "t", attempts=[attempt(1, "n1", b.now() - 10)]), worker(b)],
        {"in_line": "it is next in line"},
    ),
    (
        "its host failed it long ago",
        lambda b: [two_hosts(b), token(b, "t", resources={"ram_gb": 8}, attempts=[attempt(1, "n1", b.now() - 99)])],
        {"in_line": "it is next in line"},
    ),
    (
        "the worker is sick",
        lambda b: [token(b, "t"), worker(b, note="9 tokens in a row failed")],
        {"worker_note": "9 tokens in a row failed"},
    ),
    (
        "the batch is paused",
        lambda b: [token(b, "t", batch="night"), worker(b), pause(b)],
        {"batch_paused": "night is paused"},
    ),
    (
        "the batch is full",
        lambda b: [busy_batch(b), limit(b)],
        {"batch_full": "may run 1 at a time, and 1 run"},
    ),
    (
        "others come first",
        lambda b: [token(b, "t"), token(b, "vip", priority=5, batch="vips"), worker(b)],
        {"priority": "1 waiting tokens (of vips) have a higher priority"},
    ),
    (
        "a better batch comes first",
        lambda b: [token(b, "t", priority=5), token(b, "vip", batch="vips"), prefer(b), worker(b)],
        {"priority": "1 waiting tokens (of vips) have a higher priority"},
    ),
    (
        "it is in line",
        lambda b: [token(b, "t"), token(b, "same"), busy(b, "a", "x", slots=2)],
        {"in_line": "together with 1 of the same priority; 1 of 2 slots that may take it are free"},
    ),
    ("it is next", lambda b: [token(b, "t"), worker(b)], {"in_line": "it is next in line; 4 of 4 slots"}),
    ("it was cancelled", lambda b: [token(b, "t", cancel={"by": "ann"}), worker(b)], {"cancelled": "by ann"}),
]

HELD: list[Situation] = [
    ("it is paused", lambda b: token(b, "t", lock=-1, paused=True), {"paused": "paused itself"}),
    ("it is not due", lambda b: token(b, "t", lock=-1, not_before=b.now() + 181), {"not_due": "in 3 min"}),
    (
        "its parents are not done",
        both_parents,
        {
            "parent": "first, which is todo",
            "parent_failed": "failed, which failed with exit code 3",
            "parent_missing": "gone, which is not there",
        },
    ),
    (
        "a failed parent is good enough",
        lambda b: [both_parents(b), token(b, "t", lock=-1, depends_on=["failed"], accept_failure=True)],
        {"released_soon": "waits for nothing any more"},
    ),
    ("it is due", lambda b: token(b, "t", lock=-1, not_before=b.now() - 5), {"released_soon": "nothing any more"}),
    ("somebody held it", lambda b: token(b, "t", lock=-1), {"held": "by hand"}),
]

HALF = {"files": 2, "files_done": 1, "bytes_total": 3_000_000, "bytes_done": 1_500_000}
LOCKED: list[Situation] = [
    (
        "it runs",
        lambda b: locked(b, "t", worker(b, "3f9a", running=[running("t")]), since=181),
        {"running": "worker_3f9a0000 on n1 runs it for 3 min"},
    ),
    ("it was just claimed", lambda b: locked(b, "t", worker(b), since=181), {"running": "on n1 runs it for 3 min"}),
    (
        "it waits for its slot",
        lambda b: locked(b, "t", worker(b, running=[running("t", phase="wait")])),
        {"claimed": "starts it when a slot is free"},
    ),
    (
        "it stages data",
        lambda b: locked(b, "t", worker(b, running=[running("t", phase="stage_in")])),
        {"running": "and fetches its inputs"},
    ),
    (
        "its results are on their way",
        lambda b: locked(b, "t", worker(b, running=[running("t", phase="stage_out", progress=HALF)])),
        {"running": "brings its outputs away, 1 of 2 files, 1.5 of 3.0 MB"},
    ),
    (
        "its worker leaves",
        lambda b: locked(b, "t", worker(b, stop=True, running=[running("t")])),
        {"running": "runs it", "worker_stops": "gives it back"},
    ),
    (
        "its worker is silent",
        lambda b: locked(b, "t", worker(b, lease=600.0, silent_for=700, running=[running("t")])),
        {"silent": "not been heard of for 12 min; it comes back in about 8 min"},
    ),
    (
        "its worker is long dead",
        lambda b: locked(b, "t", worker(b, silent_for=900, running=[running("t")])),
        {"silent": "it comes back as soon as another worker"},
    ),
    ("its worker is fenced", lambda b: locked(b, "t", worker(b, fenced=True)), {"fenced": "lost its lease"}),
    ("its worker is gone", lambda b: locked(b, "t", "worker_gone"), {"no_lease": "worker_gone on n1 is gone"}),
    (
        "picas holds it",
        lambda b: token(b, "t", lock=int(b.now()) - 7200, hostname="grid7"),
        {"foreign": "on grid7 for 2 h"},
    ),
    (
        "it is to be cancelled",
        lambda b: locked(b, "t", worker(b, running=[running("t")]), cancel={"by": "ann"}),
        {"cancel_asked": "by ann", "running": "runs it"},
    ),
]

ENDED: list[Situation] = [
    (
        "it ended well",
        lambda b: token(
            b, "t", lock=5, done=9, exit_code=0,
            attempts=[attempt(1), attempt(2, "n2", b.now() - 600, failure_class=None)],
        ),
        {"done": "attempt 2 ended well on n2, 10 min ago"},
    ),
    (
        "it failed",
        lambda b: token(
            b, "t", lock=5, done=9, exit_code=143, max_retries=1, error=[{"message": "oh\nstopped: too long"}],
            attempts=[attempt(1), attempt(2, ended=b.now() - 600, failure_class="timeout")],
        ),
        {
            "failed": "attempt 2 failed with exit code 143 (timeout) on n1, 10 min ago: stopped: too long",
            "no_retries": "it has used 2 of 2 attempts",
        },
    ),
    (
        "picas' mark of an error",
        lambda b: token(b, "t", lock=99, done=99, exit_code=99),
        {"failed": "it failed with exit code 99"},
    ),
    (
        "it was cancelled",
        lambda b: token(b, "t", lock=99, done=99, exit_code=99, cancel={"time": 5, "by": "ann"}),
        {"cancelled": "by ann"},
    ),
    (
        "its parent failed",
        lambda b: [
            token(b, "parent", lock=5, done=9, exit_code=3),
            token(
                b, "t", lock=99, done=99, exit_code=99, depends_on=["parent"], error=[{"message": "parent failed"}],
                attempts=[attempt(1, failure_class="dependency", counted=False)],
            ),
        ],
        {"parent_failed": "which failed with exit code 3"},
    ),
]  # fmt: skip

INVALID: list[Situation] = [
    ("it has no lock", lambda b: [token(b, "t"), bare(b)], {"invalid": "has no 'lock'"}),
    ("its lock is no number", lambda b: token(b, "t", lock="soon"), {"invalid": "lock is 'soon'"}),
    ("its numbers mean nothing", lambda b: token(b, "t", lock=-7), {"invalid": "lock -7 and done 0 mean no state"}),
    ("it is no token", lambda b: token(b, "t", type="task"), {"no_token": "its type is 'task'"}),
]


def pause(backend: Backend) -> None:
    backend.put_many([{"_id": "batch_night", "type": "batch", "name": "night", "paused": True}])


def limit(backend: Backend) -> None:
    backend.put_many([{"_id": "batch_night", "type": "batch", "name": "night", "max_running": 1}])


def prefer(backend: Backend) -> None:
    backend.put_many([{"_id": "batch_vips", "type": "batch", "name": "vips", "priority": 1}])


def bare(backend: Backend) -> None:
    doc = backend.get("t")
    del doc["lock"]
    backend.put_many([doc])


SITUATIONS = [
    pytest.param(state, make, told, id=f"{state}: {name}")
    for state, table in (("todo", WAITING), ("held", HELD), ("locked", LOCKED), ("", ENDED), ("invalid", INVALID))
    for name, make, told in table
]


@pytest.mark.parametrize(("state", "make", "told"), SITUATIONS)
def test_each_situation_has_its_reasons(
    pool: Pool, state: str, make: Callable[[Backend], object], told: dict[str, str]
) -> None:
    # Given a token in some situation; when somebody asks; then exactly these reasons are told, in these words
    make(pool.backend)
    found = reasons(pool)
    assert set(found) == set(told)
    assert {code: words for code, words in told.items() if words not in found[code]} == {}, found
    if state:
        assert explain(pool.backend, "t").state == state


def test_what_counts_most_comes_first(pool: Pool) -> None:
    # Given a token that was paused, with its batch, and no worker; then the reason that alone would do comes first
    token(pool.backend, "t", batch="night")
    pause(pool.backend)
    assert list(reasons(pool)) == ["batch_paused", "no_worker"]


def test_what_is_too_big_is_told_what_would_fit(pool: Pool) -> None:
    # Given a token that asks for more memory and GPUs than the largest worker has
    pool.push({"_id": "t", "input": "true", "resources": {"cpu_cores": 2, "ram_gb": 900, "gpus": 1}})
    worker(pool.backend, resources={"cpu_cores": 4, "ram_gb": 23.541, "gpus": 0})

    # Then the hint names these amounts alone, as they can be typed
    (reason,) = [each for each in pool.explain("t").reasons if each.code == "too_big"]
    assert "900 GB of memory where there are 23.5, 1 GPUs where there are 0" in reason.text
    assert reason.hint.endswith("tokenpool edit t ram_gb=23.5 gpus=0")
    assert pool.edit(Selector(ids=("t",)), {"resources": {"ram_gb": 23.5, "gpus": 0}}).changed == 1
    assert [each.code for each in pool.explain("t").reasons if each.code == "too_big"] == []


def test_every_reason_that_can_be_helped_has_a_hint(pool: Pool) -> None:
    token(pool.backend, "t", lock=-1, depends_on=[f"parent{n}" for n in range(30)])
    found = explain(pool.backend, "t").reasons
    assert len(found) == 11
    assert all("tokenpool" in reason.hint for reason in found[:10])
    assert "20 more" in found[10].text


def test_there_must_be_such_a_token(pool: Pool) -> None:
    with pytest.raises(NotFound):
        explain(pool.backend, "nobody")


def test_nonsense_in_documents_is_no_reason_to_fail(pool: Pool) -> None:
    # Given documents that somebody edited by hand
    odd = {"slots": "many", "running": [None, 7], "lease": "long", "renewed": 5, "batches": "x", "load": "much"}
    me = worker(pool.backend, **odd, resources=[1], tags=3)
    token(pool.backend, "t", priority="high", tags="k=v", resources="all", timeout="long", attempts="none", batch=7)
    locked(pool.backend, "u", me, cancel=True)
    # Then each is explained all the same
    for name in ("t", "u"):
        assert reasons(pool, name)

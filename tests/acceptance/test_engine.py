"""What a worker does beside running tokens: it takes orders, knows its limits, waits without asking, and loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import FaultyProxy
from processes import until

from tokenpool import transitions
from tokenpool.fit import Resources
from tokenpool.pool import Pool, connect
from tokenpool.worker import Event, Summary, Worker, WorkerOptions


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with connect(pool_url, create=True) as opened:
        yield opened


def work(pool: Pool, tmp_path: Path, **options: Any) -> Summary:
    """Drain the pool here."""
    return Worker(pool, WorkerOptions(**{"slots": 2, "quit": True, "workdir": tmp_path / "work", **options})).run()


@contextmanager
def at_work(
    pool: Pool, tmp_path: Path, observer: Callable[[Event], None] = lambda event: None, **options: Any
) -> Iterator[Worker]:
    """A worker in a thread of its own; told to stop at the end."""
    worker = Worker(pool, WorkerOptions(**{"workdir": tmp_path / "work", "grace": 1.0, **options}), observer)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()


def state(pool: Pool, token: str) -> str:
    return pool.get(token).state


# --- orders -----------------------------------------------------------------------------------------------------------


def test_slots_can_be_changed_while_it_runs(pool: Pool, tmp_path: Path) -> None:
    # Given a worker with one slot, and two long tokens
    pool.push(["sleep 600", "sleep 600"])
    with at_work(pool, tmp_path, slots=1) as worker:
        until(lambda: pool.counts()["locked"] == 1)
        # When somebody gives it two slots
        pool.steer_worker(worker.name, slots=2)
        # Then it runs both
        until(lambda: pool.counts()["locked"] == 2)


def test_prefetch_can_be_changed_while_it_runs(pool: Pool, tmp_path: Path) -> None:
    # Given a worker that runs one of three long tokens, and claims none ahead
    pool.push(["sleep 600"] * 3)
    with at_work(pool, tmp_path, slots=1) as worker:
        until(lambda: pool.counts()["locked"] == 1)
        (runs,) = pool.tokens("state:locked")
        assert pool.workers()[0].prefetch == 0
        # When somebody lets it claim one ahead
        pool.steer_worker(worker.name, prefetch=1)
        # Then it takes one more, and one only
        until(lambda: pool.counts()["locked"] == 2)
        assert (pool.counts()["todo"], pool.workers()[0].prefetch) == (1, 1)
        # And when it is to claim none ahead again, then it takes no other for the one that ends
        pool.steer_worker(worker.name, prefetch=0)
        until(lambda: worker.slots.prefetch == 0)
        pool.cancel(runs.id)
        until(lambda: state(pool, runs.id) == "error")
        assert (pool.counts()["locked"], pool.counts()["todo"]) == (1, 1)


def test_a_drained_worker_ends_what_it_runs_and_leaves(pool: Pool, tmp_path: Path) -> None:
    # Given a worker in the middle of a token that ends when we say so
    go = tmp_path / "go"
    running, waiting = pool.push([f"while ! [ -e {go} ]; do sleep 0.05; done", "true"])
    pool.edit(waiting, {"priority": -1})
    worker = Worker(pool, WorkerOptions(slots=1, workdir=tmp_path / "work"))
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: state(pool, running) == "locked")
    # When it is drained from somewhere else
    pool.steer_worker(worker.name, drain=True)
    until(lambda: worker._drain)
    go.touch()
    # Then it ends that token, claims no other, and deletes its document
    thread.join(30)
    assert not thread.is_alive()
    assert (state(pool, running), state(pool, waiting)) == ("done", "todo")
    assert pool.workers() == []


def test_a_stopped_worker_gives_its_token_back_uncounted(pool: Pool, tmp_path: Path) -> None:
    (token,) = pool.push(["sleep 600"])
    with at_work(pool, tmp_path) as worker:
        until(lambda: state(pool, token) == "locked")
        pool.steer_worker(worker.name, stop=True)
        until(lambda: state(pool, token) == "todo")
    assert [attempt["counted"] for attempt in pool.get(token)["attempts"]] == [False]
    assert pool.get(token)["scrub_count"] == 0


def test_cancelling_a_running_token_ends_its_child(pool: Pool, tmp_path: Path) -> None:
    # Given two tokens that run
    one, other = pool.push(["sleep 600", "sleep 600"])
    with at_work(pool, tmp_path, slots=2):
        until(lambda: pool.counts()["locked"] == 2)
        # When one of them is cancelled
        pool.cancel(one)
        # Then it ends as cancelled, and the other runs on
        until(lambda: state(pool, one) == "error")
        assert pool.get(one)["attempts"][-1]["failure_class"] == "cancelled"
        assert state(pool, other) == "locked"


def test_an_idle_worker_hears_the_bell(pool: Pool, tmp_path: Path) -> None:
    # Given a worker that looks at an empty pool once an hour only
    with at_work(pool, tmp_path, poll=3600.0) as worker:
        until(lambda: worker.member.ear.listens)
        worker._look._at = time.monotonic() + 3600
        # When a token is pushed
        (token,) = pool.push(["true"])
        # Then it is run
        until(lambda: state(pool, token) == "done")


# --- a lost lease --------------------------------------------------------------------------------------------------------


def fence(pool: Pool, worker: str) -> bool:
    """End a lease, as another worker would; False where somebody wrote into it meanwhile."""
    doc = pool.backend.get(worker)
    return not hasattr(pool.backend.put_many([{**doc, "fenced": True}])[0], "error")


def test_a_worker_whose_lease_was_ended_goes_on_under_a_new_name(pool: Pool, tmp_path: Path) -> None:
    # Given a worker in the middle of a token
    pids = tmp_path / "pids"
    (token,) = pool.push([f"echo $$ >> {pids}; [ $(wc -l < {pids}) -gt 1 ] || sleep 600"])
    with at_work(pool, tmp_path, lease=2.0) as worker:
        until(lambda: pids.exists() and state(pool, token) == "locked")
        first = worker.name
        # When others end its lease and put its token back
        until(lambda: pool.backend.get_many([first])[0] is not None)
        until(lambda: fence(pool, first))
        pool.scrub(token)
        # Then its child is killed, and the token runs again under the worker's new name
        until(lambda: state(pool, token) == "done", 40)
        assert worker.name != first
    last = pool.get(token)["attempts"][-1]
    assert last["worker"] != first
    assert not last.get("superseded")


def test_orders_outlive_the_lease_that_they_were_given_to(pool: Pool, tmp_path: Path) -> None:
    # Given a worker whose numbers were changed
    (token,) = pool.push(["sleep 600"])
    with at_work(pool, tmp_path, slots=1, lease=2.0) as worker:
        until(lambda: pool.counts()["locked"] == 1)
        first = worker.name
        pool.steer_worker(first, slots=3, prefetch=2)
        until(lambda: (worker.slots.size, worker.slots.prefetch) == (3, 2))
        # When others end its lease and put its token back
        until(lambda: fence(pool, first))
        pool.scrub(token)
        # Then it goes on under another name as it was told
        until(lambda: worker.name != first and worker.name in [each.id for each in pool.workers()], 40)
        (now,) = [each for each in pool.workers() if each.id == worker.name]
        assert (now.slots, now.prefetch) == (3, 2)


def test_finished_tokens_wait_in_the_spool_while_the_server_is_away(
    couch_server: Any, couch_db: str, tmp_path: Path
) -> None:
    # Given a worker that reaches the server through a line that breaks while its token runs
    from tokenpool.spool import listing

    go, spool = tmp_path / "go", tmp_path / "spool"
    with connect(couch_db, create=True) as direct, FaultyProxy(couch_server.url) as proxy:
        (token,) = direct.push([f"while ! [ -e {go} ]; do sleep 0.05; done; echo result"])
        name = couch_db.rpartition("/")[2]
        with connect(proxy.pool_url(name) + "?attempts=1") as through:
            worker = Worker(through, WorkerOptions(workdir=tmp_path / "work", spool=spool, grace=1.0))
            worker.last_delivery = 0.5
            thread = threading.Thread(target=worker.run)
            thread.start()
            until(lambda: state(direct, token) == "locked")
            with proxy.away():
                go.touch()
                # When the token ends and the worker has to leave before the server is back
                until(lambda: worker.deliveries and listing(spool))
                worker.stop()
                thread.join(60)
                assert not thread.is_alive()
            assert worker.summary.undelivered == 1
            assert Path(worker.summary.spool).is_dir()
            assert state(direct, token) == "locked"
            # Then the next worker there delivers it, and the token ran once
            with connect(proxy.pool_url(name)) as again:
                work(again, tmp_path, spool=spool)
        doc = direct.get(token)
        assert (doc.state, len(doc["attempts"]), direct.logs(token).out) == ("done", 1, b"result\n")
        assert listing(spool) == []


# --- failures ------------------------------------------------------------------------------------------------------------


def test_a_checkpointed_token_goes_on_where_it_stopped(pool: Pool, tmp_path: Path) -> None:
    # Given a token that needs three attempts, each of which leaves its progress in a file
    step = (
        "n=$(cat state/n 2>/dev/null || echo 0); n=$((n+1)); mkdir -p state; echo $n > state/n; [ $n -ge 3 ] || exit 85"
    )
    (token,) = pool.push({"input": step, "checkpoint": ["state/*"]})
    # When it is worked, without any retries
    work(pool, tmp_path)
    # Then it is done after three uncounted attempts, and the file is not kept
    doc = pool.get(token)
    assert doc.state == "done"
    assert [attempt["counted"] for attempt in doc["attempts"]] == [False, False, True]
    assert not [name for name in doc["_attachments"] if name.startswith("checkpoint/")]
    # And each attempt's logs are there
    assert {f"logs_{token}.1.out", f"logs_{token}.2.out", f"logs_{token}.out"} <= set(doc["_attachments"])


def test_a_passing_failure_is_tried_again_after_a_pause(pool: Pool, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    (token,) = pool.push({"input": f"echo x >> {marks}; [ $(wc -l < {marks}) -ge 3 ] || exit 75", "retry_delay": 0.1})
    work(pool, tmp_path)
    doc = pool.get(token)
    assert (doc.state, len(doc["attempts"]), doc["scrub_count"]) == ("done", 3, 2)


def test_only_the_newest_five_logs_of_attempts_are_kept(pool: Pool, tmp_path: Path) -> None:
    (token,) = pool.push({"input": "exit 1", "max_retries": 7})
    work(pool, tmp_path)
    doc = pool.get(token)
    assert len(doc["attempts"]) == 8
    logs = {name for name in doc["_attachments"] if name.endswith(".out")}
    assert logs == {f"logs_{token}.out", *(f"logs_{token}.{n}.out" for n in (4, 5, 6, 7))}


def test_a_token_that_needs_more_memory_gets_it_at_its_next_attempt(pool: Pool, tmp_path: Path) -> None:
    # Given a token that holds 200 MB and asks for 60 MB first, then for 500
    grab = "python3 -c 'import time; held = bytearray(200_000_000); time.sleep(3)'"
    (token,) = pool.push({"input": grab, "resources": {"ram_gb": [0.06, 0.5]}, "max_retries": 1})
    # When it is worked
    work(pool, tmp_path, capacity=Resources(cpu_cores=2, ram_gb=2))
    # Then it is stopped once for that reason, and succeeds
    doc = pool.get(token)
    assert [attempt["failure_class"] for attempt in doc["attempts"]] == ["oom", None]
    assert doc.state == "done"


def test_a_machine_on_which_everything_fails_stops_itself(pool: Pool, tmp_path: Path) -> None:
    # Given fifty tokens that fail at once
    pool.push(["exit 1"] * 50)
    # When a worker may see three fast failures in a row
    with at_work(pool, tmp_path, slots=1, max_fast_failures=3, idle_timeout=None, prefetch=0) as worker:
        until(lambda: worker.health.note)
        until(lambda: not worker.slots.running and not worker.deliveries)
        # Then it leaves most of them to others, and says why where everybody can read it
        assert pool.counts()["todo"] > 0
        until(lambda: any("failed within" in each.note for each in pool.workers()))


def test_what_was_written_into_the_database_by_hand_ends_with_the_reason_and_stops_nobody(
    pool: Pool, tmp_path: Path
) -> None:
    # Given tokens that no push would have let in
    from tokenpool.documents import new_token

    odd: list[dict[str, Any]] = [
        {"resources": {"cpu_cores": -1}},
        {"resources": {"ram_gb": "all"}},
        {"timeout": -5},
        {"max_retries": 10**9},
        {"depends_on": "x", "timeout": 0},
    ]
    docs = [new_token({"_id": f"odd{n}", "input": "true", **fields}) for n, fields in enumerate(odd)]
    pool.backend.put_many(docs)
    (good,) = pool.push(["true"])
    # When they are worked
    work(pool, tmp_path)
    # Then each ends in error as invalid, with a reason, and the good one is done
    for doc in docs:
        now = pool.get(doc["_id"])
        assert (now.state, now["attempts"][-1]["failure_class"]) == ("error", "invalid"), now.doc
        assert now["error"][-1]["message"]
    assert state(pool, good) == "done"


def test_a_token_that_loses_its_supervisor_runs_again_and_loses_no_retry(pool: Pool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (token,) = pool.push([f"[ -e {mark} ] && exit 0; touch {mark}; kill -9 $PPID; sleep 600"])
    work(pool, tmp_path)
    doc = pool.get(token)
    assert doc.state == "done"
    assert [(each["failure_class"], each["counted"]) for each in doc["attempts"]] == [("lost", False), (None, True)]


# --- order ---------------------------------------------------------------------------------------------------------------


def test_children_run_after_their_parents_and_end_with_them(pool: Pool, tmp_path: Path) -> None:
    # Given a chain, and a child of a token that fails
    order = tmp_path / "order"
    (a,) = pool.push([{"input": f"echo a >> {order}"}])
    (b,) = pool.push([{"input": f"echo b >> {order}", "depends_on": [a]}])
    pool.push([{"input": f"echo c >> {order}", "depends_on": [b], "priority": 9}])
    (bad,) = pool.push([{"input": "exit 3"}])
    (child,) = pool.push([{"input": "true", "depends_on": [bad]}])
    # When one worker works until nothing waits
    work(pool, tmp_path)
    # Then the chain ran in its order, and the child ended with its parent
    assert order.read_text().split() == ["a", "b", "c"]
    assert pool.get(child)["attempts"][-1]["failure_class"] == "dependency"
    assert state(pool, child) == "error"
    # And a parent that is retried takes its children along
    pool.edit(bad, {"input": "true"})
    pool.retry(bad)
    work(pool, tmp_path)
    assert (state(pool, bad), state(pool, child)) == ("done", "done")


def test_a_token_waits_for_its_time(pool: Pool, tmp_path: Path) -> None:
    when = pool.backend.now() + 1.0
    (token,) = pool.push([{"input": "true", "not_before": when}])
    assert state(pool, token) == "held"
    work(pool, tmp_path)
    assert state(pool, token) == "done"
    began = transitions.attempts_of(pool.get(token).doc)[-1]["start_time"]
    assert began >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when - 0.01))


def test_a_worker_that_quits_does_not_wait_for_what_is_far_away(pool: Pool, tmp_path: Path) -> None:
    # Given a token that is due tomorrow, and one whose parent is for others
    later, parent = pool.push([{"input": "true", "not_before": pool.backend.now() + 86400}, "true"], batch="theirs")
    (child,) = pool.push([{"input": "true", "depends_on": [parent]}], batch="ours")
    # When a worker for our batch quits when nothing waits
    work(pool, tmp_path, batches=("ours",))
    # Then it has left, and they wait on
    assert (state(pool, later), state(pool, child)) == ("held", "held")


def test_a_batch_runs_no_more_tokens_than_it_may(pool: Pool, tmp_path: Path) -> None:
    # Given a batch of which two tokens may run at once
    now, most = tmp_path / "now", tmp_path / "most"
    now.mkdir()
    count = f"touch {now}/$$; ls {now} | wc -l >> {most}; sleep 0.05; rm {now}/$$"
    pool.push([count] * 12, batch="few")
    pool.set_batch("few", max_running=2)
    # When three workers with four slots each work on it
    workers = [Worker(pool, WorkerOptions(slots=4, workdir=tmp_path / f"w{n}", poll=0.2)) for n in range(3)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        until(lambda: pool.counts()["done"] == 12, 60)
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(30)
    # Then never more than two ran
    assert max(map(int, most.read_text().split())) <= 2


def test_a_paused_batch_waits_and_goes_on(pool: Pool, tmp_path: Path) -> None:
    pool.push(["true"] * 3, batch="night")
    pool.push(["true"], batch="day")
    pool.set_batch("night", paused=True)
    work(pool, tmp_path)
    assert (pool.counts("night")["todo"], pool.counts("day")["done"]) == (3, 1)
    pool.set_batch("night", paused=False)
    work(pool, tmp_path)
    assert pool.counts("night")["done"] == 3


# --- limits --------------------------------------------------------------------------------------------------------------


def test_a_worker_claims_nothing_that_cannot_finish_before_its_end(pool: Pool, tmp_path: Path) -> None:
    # Given a worker that has to leave in two minutes
    short, long = pool.push([{"input": "true", "timeout": 60}, {"input": "true", "timeout": 600}])
    work(pool, tmp_path, ends=time.time() + 120)
    assert (state(pool, short), state(pool, long)) == ("done", "todo")


def test_a_worker_near_its_end_gives_its_token_back_and_leaves(pool: Pool, tmp_path: Path) -> None:
    (token,) = pool.push(["sleep 600"])
    summary = work(pool, tmp_path, ends=time.time() + 8, grace=1.0, quit=False)
    assert summary.returned == 1
    assert state(pool, token) == "todo"
    assert pool.get(token)["attempts"][-1]["failure_class"] == "preempted"


def test_a_token_that_fits_no_worker_is_left_for_one_that_does(pool: Pool, tmp_path: Path) -> None:
    (big,) = pool.push([{"input": 'echo "$CPU $OMP_NUM_THREADS"', "resources": {"cpu_cores": 8}}])
    work(pool, tmp_path, capacity=Resources(cpu_cores=4))
    assert state(pool, big) == "todo"
    work(pool, tmp_path, capacity=Resources(cpu_cores=8))
    assert pool.logs(big).out == b"8 8\n"


def test_small_workers_are_not_starved_by_big_tokens(pool: Pool, tmp_path: Path) -> None:
    # Given many big tokens of high priority before a small one
    pool.push([{"input": "true", "resources": {"cpu_cores": 64}, "priority": 5}] * 300)
    (small,) = pool.push(["true"])
    work(pool, tmp_path, capacity=Resources(cpu_cores=2))
    assert state(pool, small) == "done"


def test_an_idle_worker_runs_its_command_before_it_leaves(pool: Pool, tmp_path: Path) -> None:
    mark = tmp_path / "idle"
    work(pool, tmp_path, quit=False, idle_timeout=0.2, on_idle=f"touch {mark}")
    assert mark.exists()

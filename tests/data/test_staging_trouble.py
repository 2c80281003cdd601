"""Tokens whose data does not come, or does not go: each trouble has its name, nobody waits for ever, no work is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import ok, use
from faulty_storage import FaultyStorage, Hanging, Only, raising
from small_disks import mounted
from staging_tools import failure, files_of, ran, until, work, working

import tokenpool
from tokenpool import retries
from tokenpool.errors import ServerAway
from tokenpool.pool import Pool
from tokenpool.staging.leftovers import Leftovers
from tokenpool.staging.stager import Stager
from tokenpool.staging.transfers import Transfers
from tokenpool.storage.base import CredentialsRefused, Stalled
from tokenpool.workplace import MovesData


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with tokenpool.connect(pool_url, create=True) as pool:
        yield pool


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with one file."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.txt").write_text("A\n")
    return folder


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> FaultyStorage:
    """Have all workers use one storage whose faults a test chooses."""
    storage = FaultyStorage()

    def make(self: MovesData) -> Stager:
        made = original(self)
        transfers = Transfers(Only(storage), attempts=2, pause=0.001)
        made.transfers = made.inputs.transfers = transfers
        return made

    original = MovesData._make
    monkeypatch.setattr(MovesData, "_make", make)
    return storage


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (Stalled("no byte from host for 60 s", "look at it"), "staging"),
        (ServerAway("host is away", "look at it"), "staging"),
        (CredentialsRefused("the credentials are expired", "renew them on this machine"), "system"),
    ],
)
@pytest.mark.parametrize("method", ["stat", "write"])
def test_each_trouble_has_its_own_message_and_class(
    sqlite_url: str, tmp_path: Path, source: Path, faulty: FaultyStorage, method: str, error: Any, failed: str
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        faulty.fail(method, *[raising(error)] * 2)
        data = {"inputs": [{"url": f"{source}/a.txt"}], "outputs": [{"url": f"{tmp_path}/there/"}]}
        ran(pool, tmp_path, _id="t", command="touch $OUTPUT/x", **data)
        kind, message = failure(pool, "t")
        assert kind == failed
        assert str(error) in message
        assert error.hint in message


def test_an_upload_that_fails_is_tried_again_within_the_attempt(
    sqlite_url: str, tmp_path: Path, faulty: FaultyStorage
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        faulty.fail("write", raising(ServerAway("away", "wait")))
        command = f"echo run >> {tmp_path}/runs; touch $OUTPUT/x"
        token = ran(pool, tmp_path, _id="t", command=command, outputs=[{"url": f"{tmp_path}/there/"}])
        assert token["exit_code"] == 0
        assert (tmp_path / "runs").read_text() == "run\n"
        assert faulty.calls["write"] == 2


def test_a_failed_upload_is_repeated_by_the_next_attempt_without_the_command(
    pool: Pool, tmp_path: Path, faulty: FaultyStorage
) -> None:
    # Given a token whose outputs cannot be sent, however often that is tried
    faulty.fail("write", *[raising(ServerAway("away", "wait"))] * 4)
    command = f"echo run >> {tmp_path}/runs; echo made > $OUTPUT/x; echo kept > $OUTPUT/y"
    outputs = [{"path": "x", "url": f"{tmp_path}/there/"}, {"path": "y"}]
    token = ran(pool, tmp_path, _id="t", command=command, outputs=outputs, max_retries=3)
    # Then its later attempts only send them
    assert token["exit_code"] == 0, token["error"]
    assert [each["failure_class"] for each in token["attempts"]] == ["staging", "staging", None]
    assert (tmp_path / "runs").read_text() == "run\n"
    assert (tmp_path / "there" / "x").read_text() == "made\n"
    assert b"".join(pool.backend.get_attachment("t", "output/y")) == b"kept\n"
    assert sorted(files_of(token)) == ["x", "y"]
    # And nothing is left of them
    assert not (tmp_path / "scratch" / "leftovers").exists()


def test_a_token_whose_command_was_edited_meanwhile_is_run_again(
    sqlite_url: str, tmp_path: Path, faulty: FaultyStorage
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        faulty.fail("write", *[raising(ServerAway("away", "wait"))] * 2)
        outputs = [{"path": "x", "url": f"{tmp_path}/there/"}]
        ran(pool, tmp_path, _id="t", command="echo old > $OUTPUT/x", outputs=outputs)
        doc = pool.get("t").doc
        assert pool.get("t").state == "error"
        pool.retry("t")
        doc = pool.get("t").doc
        pool.backend.put_many([{**doc, "command": "echo new > $OUTPUT/x"}])
        work(pool, tmp_path)
        assert (tmp_path / "there" / "x").read_text() == "new\n"


def test_a_cancel_while_inputs_come_ends_the_token(
    sqlite_url: str, tmp_path: Path, source: Path, faulty: FaultyStorage
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        # Given a token whose input hangs
        hanging = Hanging()
        faulty.fail("read", hanging)
        pool.push({"_id": "t", "command": f"touch {tmp_path}/ran", "inputs": [{"url": f"{source}/a.txt"}]})
        with working(pool, tmp_path):
            assert hanging.reached.wait(60)
            # When it is cancelled, then it ends, though its storage does not
            pool.cancel("t")
            until(lambda: pool.get("t").state == "error")
            assert failure(pool, "t")[0] == "cancelled"
            assert not hanging.over.is_set()
        hanging.over.set()
        assert not (tmp_path / "ran").exists()


def test_a_worker_told_to_leave_while_data_comes_gives_the_token_back(
    sqlite_url: str, tmp_path: Path, source: Path, faulty: FaultyStorage
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        hanging = Hanging()
        faulty.fail("read", hanging)
        pool.push({"_id": "t", "command": "true", "inputs": [{"url": f"{source}/a.txt"}]})
        with working(pool, tmp_path):
            assert hanging.reached.wait(60)
        hanging.over.set()
        token = pool.get("t")
        assert token.state == "todo"
        assert [each["failure_class"] for each in token.doc["attempts"]] == ["preempted"]
        work(pool, tmp_path)
        assert pool.get("t").state == "done"


def test_others_see_how_far_the_data_of_a_token_is(
    sqlite_url: str, tmp_path: Path, source: Path, faulty: FaultyStorage
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        hanging = Hanging()
        faulty.fail("read", hanging)
        pool.push({"_id": "t", "command": "true", "inputs": [{"url": f"{source}/a.txt"}]})
        with working(pool, tmp_path) as worker:
            assert hanging.reached.wait(60)
            (told,) = worker.slots.told([])
            assert told["phase"] == "stage_in"
            assert told["progress"] == {"files": 1, "files_done": 0, "bytes_done": 1, "bytes_total": 2}
            hanging.over.set()


def test_a_token_that_asks_for_more_than_the_disk_has_runs_elsewhere(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(3 << 20))
    with tokenpool.connect(sqlite_url, create=True) as pool, mounted(tmp_path / "disk", "2m") as disk:
        pool.push({"_id": "t", "command": "true", "inputs": [{"url": f"{tmp_path}/large"}]})
        work(pool, disk, max_tasks=1)
        token = pool.get("t")
        assert token.state == "todo"  # it did nothing wrong
        (attempt,) = token.doc["attempts"]
        assert (attempt["failure_class"], attempt["counted"]) == ("lost", False)
        # When a machine with room takes it, then it is done
        work(pool, tmp_path)
        assert pool.get("t").state == "done"


def test_a_scratch_disk_that_is_nearly_full_is_cleaned_before_more_is_claimed(sqlite_url: str, tmp_path: Path) -> None:
    # Given a small disk where finished attempts were kept
    with tokenpool.connect(sqlite_url, create=True) as pool, mounted(tmp_path / "disk", "8m") as disk:
        pool.push([{"_id": f"old{n}", "command": "head -c 2500000 /dev/zero > big"} for n in range(2)])
        work(pool, disk, cleanup="never")
        kept = sorted(path.name.partition(".")[0] for path in (disk / "scratch").glob("*/*") if path.is_dir())
        assert kept == ["old0", "old1"]
        (disk / "scratch" / "my" / "own.01234567").mkdir(parents=True)
        # When another worker finds it too full, then the oldest goes, and the token runs
        pool.push({"_id": "new", "command": "true"})
        work(pool, disk, scratch_limit=50.0)
        assert pool.get("new").state == "done"
        kept = [path.name.partition(".")[0] for path in (disk / "scratch").glob("*/*") if path.is_dir()]
        assert sorted(kept) == ["old1", "own"]


# ── ahead ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inputs_are_fetched_while_the_slot_is_busy(
    sqlite_url: str, tmp_path: Path, source: Path, faulty: FaultyStorage
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        # Given a token that runs until somebody reads the next one's input
        os.mkfifo(tmp_path / "go")
        pool.push([
            {"_id": "first", "command": f"cat {tmp_path}/go", "priority": 5},
            {"_id": "second", "command": "cat $INPUT/a.txt", "inputs": [{"url": f"{source}/a.txt"}]},
        ])  # fmt: skip
        with working(pool, tmp_path, prefetch=1):
            # When its slot is still busy, then its input is here already
            until(lambda: list((tmp_path / "scratch").glob("*/*/input/a.txt")))
            assert pool.get("first").state == "locked"
            (tmp_path / "go").write_text("go\n")
            until(lambda: pool.get("second").state == "done")
        assert pool.logs("second").out == b"A\n"
        assert faulty.calls["read"] == 1


def test_what_failed_ahead_is_told_when_its_turn_comes(sqlite_url: str, tmp_path: Path) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        pool.push([{"command": "sleep 0.3", "priority": 5}])
        pool.push({"_id": "t", "command": "true", "inputs": [{"url": f"{tmp_path}/none"}]})
        work(pool, tmp_path, prefetch=2)
        assert failure(pool, "t")[0] == "staging"


def test_secrets_of_storages_are_in_no_message(
    sqlite_url: str, tmp_path: Path, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENPOOL_SECRET_STORE", json.dumps({"key": "ann", "secret": "hunter2-hunter2"}))
    with tokenpool.connect(sqlite_url, create=True) as pool:
        faulty.fail("stat", raising(CredentialsRefused("hunter2-hunter2 is wrong", "renew it")))
        ran(pool, tmp_path, _id="t", inputs=[{"url": "http://host/a?sig=hunter2", "credentials": "STORE"}])
        kind, message = failure(pool, "t")
        assert kind == "system"
        assert "is wrong" in message
        assert "hunter2" not in message


def test_a_cancel_while_outputs_leave_ends_the_token_and_keeps_its_work(
    sqlite_url: str, tmp_path: Path, faulty: FaultyStorage
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        # Given a token that has run, and whose output hangs
        hanging = Hanging()
        faulty.fail("write", hanging)
        command = f"echo run >> {tmp_path}/runs; echo 1 > $OUTPUT/x"
        pool.push({"_id": "t", "command": command, "outputs": [{"url": f"{tmp_path}/there/"}]})
        with working(pool, tmp_path) as worker:
            assert hanging.reached.wait(60)
            assert [each["phase"] for each in worker.slots.told([])] == ["stage_out"]
            # When it is cancelled, then it ends
            pool.cancel("t")
            until(lambda: pool.get("t").state == "error")
            assert failure(pool, "t")[0] == "cancelled"
        hanging.over.set()
        # And when somebody wants it after all, then only what is missing is done
        pool.retry("t")
        work(pool, tmp_path)
        assert pool.get("t").state == "done", pool.get("t").doc["error"]
        assert (tmp_path / "runs").read_text() == "run\n"
        assert (tmp_path / "there" / "x").read_text() == "1\n"


def test_an_attempt_that_died_while_it_sent_is_followed_by_one_that_sends(
    sqlite_url: str, tmp_path: Path, faulty: FaultyStorage
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        # Given a token whose outputs were kept, and a second attempt of which nobody knows how it ended
        faulty.fail("write", *[raising(ServerAway("away", "wait"))] * 2)
        command = f"echo run >> {tmp_path}/runs; echo 1 > $OUTPUT/x"
        ran(pool, tmp_path, _id="t", command=command, outputs=[{"url": f"{tmp_path}/there/"}])
        pool.retry("t")
        (doc,) = pool.claim(1)
        left = Leftovers(tmp_path / "scratch" / "leftovers", pool.url).take(doc.doc)
        assert left is not None
        left.held.close()
        pool.backend.put_many([retries.lose(dict(doc.doc))])
        # When the third comes, then it only sends them
        work(pool, tmp_path)
        assert pool.get("t").state == "done"
        assert (tmp_path / "runs").read_text() == "run\n"


def test_what_nobody_comes_for_is_swept(sqlite_url: str, tmp_path: Path, faulty: FaultyStorage) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        faulty.fail("write", *[raising(ServerAway("away", "wait"))] * 2)
        outputs = [{"url": f"{tmp_path}/there/"}]
        ran(pool, tmp_path, _id="t", command="echo 1 > $OUTPUT/x", outputs=outputs)
        folder = tmp_path / "scratch" / "leftovers"
        leftovers = Leftovers(folder, pool.url)
        # Given what may still be asked for, then it stays
        leftovers.sweep(pool.backend)
        assert len(list(folder.iterdir())) == 1
        # When another pool's worker sweeps, then it stays too; when its token is gone, it goes
        Leftovers(folder, "sqlite:////another.db").sweep(pool.backend)
        assert len(list(folder.iterdir())) == 1
        pool.rm("t")
        leftovers.sweep(pool.backend)
        assert list(folder.iterdir()) == []


def test_exec_brings_the_inputs_and_sends_nothing(sqlite_url: str, tmp_path: Path, source: Path) -> None:
    use(sqlite_url)
    with tokenpool.connect(sqlite_url) as pool:
        outputs = [{"url": f"{tmp_path}/there/"}]
        pool.push({"_id": "t", "command": f"cat $INPUT/a.txt > {tmp_path}/seen", "outputs": outputs,
                   "inputs": [{"url": f"{source}/a.txt"}]})  # fmt: skip
        ok("exec", "t")
        assert (tmp_path / "seen").read_text() == "A\n"
        assert not (tmp_path / "there").exists()
        assert pool.get("t").state == "todo"

"""What was finished is not lost: not with the server away, the disk full, or the worker killed at any moment."""

from __future__ import annotations

import base64
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from altered_backend import Altered, away, edit, lose_request
from picas_scripts import child_environment

from tokenpool import spool_files, transitions
from tokenpool.backends import open_backend
from tokenpool.backends.base import Backend, Json, WriteResult
from tokenpool.commits import Outcome
from tokenpool.documents import new_token
from tokenpool.errors import AnswerLost, NotPermitted
from tokenpool.pool import Pool
from tokenpool.retries import lose
from tokenpool.spool import BATCH, Delivered, Spool, damaged, default_root, deliver, listing

URL = "couchdb+https://me:sesame@host:6984/db"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


def outcome(claim: str, token_id: str = "", log: bytes = b"log", **fields: Any) -> Outcome:
    data = base64.b64encode(log).decode()
    doc = {"_id": token_id or f"token-{claim}", "_rev": "2-x", "lock": 5, "done": 9, "exit_code": 0, **fields}
    doc["_attachments"] = {"logs.out": {"content_type": "text/plain", "data": data}}
    return Outcome(doc, claim)


def claims(outcomes: Sequence[Outcome]) -> list[str]:
    return [each.claim for each in outcomes]


def dead(root: Path, worker: str, *names: str, url: str = URL) -> Path:
    """Leave a spool behind as a worker does that died; return its folder."""
    spool = Spool(root, url, worker)
    for name in names:
        assert spool.keep(outcome(name))
    spool.close()
    return spool.folder


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# ── keep ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_kept_comes_back_as_it_was_oldest_first(root: Path) -> None:
    spool = Spool(root, URL, "worker_1")
    odd = Outcome({"_id": "é/\ud800 x", "n": 1.5, "none": None, "deep": [{"a": [1]}]}, "9", {"_id": "base", "lock": 0})
    given = [outcome("b", log=b"\x00\xff"), odd, outcome("a")]
    assert [spool.keep(each) for each in given] == [True, True, True]
    assert (spool.outcomes(), spool.undelivered) == (given, 3)
    # Kept again, it is still there once
    assert spool.keep(given[0])
    assert spool.undelivered == 3


def test_nobody_else_may_read_it_and_no_password_is_in_it(root: Path) -> None:
    spool = Spool(root, URL, "worker_1")
    spool.keep(outcome("c1"))
    folders = [root, spool.folder.parent, spool.folder]
    assert [oct(folder.stat().st_mode & 0o777) for folder in folders] == ["0o700"] * 3
    assert {oct(path.stat().st_mode & 0o777) for path in spool.folder.iterdir()} == {"0o600"}
    assert not any(b"sesame" in path.read_bytes() or "sesame" in str(path) for path in spool.folder.iterdir())
    assert listing(root)[0].pool_url == "couchdb+https://me@host:6984/db"


def test_with_and_without_a_password_it_is_the_same_pool(root: Path) -> None:
    folder = dead(root, "worker_1", "c1")
    assert Spool(root, URL.replace(":sesame", ""), "worker_1").folder == folder


def test_what_was_delivered_is_forgotten_and_an_empty_spool_leaves_nothing(root: Path) -> None:
    spool = Spool(root, URL, "worker_1")
    for claim in ("c1", "c2"):
        spool.keep(outcome(claim))
    spool.forget("c1")
    spool.forget("c1")
    spool.forget("never")
    assert claims(spool.outcomes()) == ["c2"]
    spool.forget("c2")
    spool.close()
    spool.close()
    assert list(root.iterdir()) == []


def test_a_worker_that_never_needed_it_leaves_no_trace(root: Path) -> None:
    spool = Spool(root, URL, "worker_1")
    assert (spool.adopt(), spool.outcomes(), spool.undelivered) == ([], [], 0)
    spool.forget("c1")
    spool.close()
    assert not root.exists()


def test_names_that_are_no_file_names_are_kept_as_well(root: Path) -> None:
    spool = Spool(root, URL, "../../worker")
    assert spool.keep(outcome("../x/\ud800"))
    assert spool.folder.parent.parent == root
    assert claims(spool.outcomes()) == ["../x/\ud800"]
    spool.forget("../x/\ud800")
    assert spool.undelivered == 0


def test_what_cannot_be_kept_is_told_and_hinders_nothing(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(root, URL, "worker_1")
    assert spool.keep(outcome("", token_id="t1")) is False
    assert spool.keep(Outcome({"_id": "t2", "x": object()}, "c2")) is False
    assert ["t1" in record.getMessage() or "t2" in record.getMessage() for record in caplog.records] == [True, True]
    assert spool.keep(outcome("c3"))
    assert claims(spool.outcomes()) == ["c3"]


def test_a_place_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    spool = Spool(tmp_path / "file", URL, "worker_1")
    assert [spool.keep(outcome(claim)) for claim in ("c1", "c2", "c3")] == [False] * 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert (spool.outcomes(), spool.adopt(), spool.undelivered) == ([], [], 0)
    spool.close()


# ── a full disk ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A place where files of 64 kB have no room: a disk of its own where we may mount one, else a limit."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
    if shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0:
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (48 * 1024, limits[1]))
    try:
        yield place
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_it_to_the_caller_and_spoils_nothing(
    tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a small outcome on a disk that is small
    spool = Spool(tiny_disk, URL, "worker_1")
    assert spool.keep(outcome("small"))
    # When one comes that does not fit
    assert spool.keep(outcome("large", log=os.urandom(60_000))) is False
    # Then it is told, what was there is still there, and no part of the other one
    assert "large" in caplog.text
    assert (claims(spool.outcomes()), spool.undelivered) == (["small"], 1)
    assert sorted(path.name for path in spool.folder.iterdir()) == ["lock", "small.json"]
    # And later ones that fit are kept
    assert spool.keep(outcome("another"))
    spool.close()
    other = Spool(tiny_disk, URL, "worker_2")
    assert sorted(claims(other.adopt())) == ["another", "small"]
    other.close()


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────────────────────────

OWNER = """
import os, signal, sys
from pathlib import Path
from tokenpool import spool_files
from tokenpool.commits import Outcome
from tokenpool.spool import Spool

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

root, url, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
spool = Spool(root, url, "worker_killed")
assert spool.keep(Outcome({"_id": "a"}, "c1"))
if how == "between":
    os.rename = die
elif how == "within":
    os.rename, whole = die, spool_files.dump
    spool_files.dump = lambda *told: whole(*told)[:-9]
elif how == "adopting":
    rename, moved = Path.rename, []
    def twice(path, to):
        if len(moved) == 2:
            die()
        moved.append(path)
        return rename(path, to)
    Path.rename = twice
    spool.adopt()
elif how == "lives":
    print("kept", flush=True)
    sys.stdin.read()
spool.keep(Outcome({"_id": "b"}, "c2"))
die()
"""


def start(root: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(root), URL, how],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def killed(root: Path, how: str) -> None:
    """Run an owner that kills itself at some moment."""
    with start(root, how) as process:
        assert process.wait(60) == -9


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("after", ["c1", "c2"]),
        ("between", ["c1", "c2"]),  # it was whole on the disk already
        ("within", ["c1"]),  # it was never promised
    ],
)
def test_what_a_killed_worker_kept_is_taken_over(root: Path, how: str, left: list[str]) -> None:
    killed(root, how)
    spool = Spool(root, URL, "worker_2")
    adopted = spool.adopt()
    assert sorted(claims(adopted)) == left
    assert spool.adopt() == []
    assert sorted(claims(spool.outcomes())) == left
    # And nothing else stays of the killed one
    assert {path.name for path in spool.folder.parent.iterdir()} == {"worker_2"}
    assert sorted(path.name for path in spool.folder.iterdir()) == [*(f"{claim}.json" for claim in left), "lock"]


def test_who_is_killed_while_taking_over_leaves_all_of_it(root: Path) -> None:
    dead(root, "worker_1", "d1", "d2", "d3", "d4")
    killed(root, "adopting")
    assert len(listing(root)) == 2
    spool = Spool(root, URL, "worker_3")
    assert sorted(claims(spool.adopt())) == ["c1", "d1", "d2", "d3", "d4"]
    assert [info.folder for info in listing(root)] == [spool.folder]


def test_a_worker_that_lives_is_left_alone_until_it_is_gone(root: Path) -> None:
    spool = Spool(root, URL, "worker_2")
    with start(root, "lives") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "kept\n"
        assert spool.adopt() == []
        (info,) = listing(root)
        assert (info.alive, info.tokens, info.folder.name) == (True, 1, "worker_killed")
        process.kill()
    assert listing(root)[0].alive is False
    assert claims(spool.adopt()) == ["c1"]


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def together(*works: Any) -> None:
    """Run functions in threads that begin together; the first error is raised."""
    barrier, errors = threading.Barrier(len(works)), []

    def run(work: Any) -> None:
        try:
            barrier.wait(30)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for error in errors:
        raise error


def test_two_that_take_over_at_once_get_each_outcome_once(root: Path) -> None:
    for n in range(12):
        dead(root, f"worker_{n}", *(f"c{n}-{m}" for m in range(3)))
    spools = [Spool(root, URL, f"adopter_{n}") for n in range(3)]
    adopted: dict[str, list[str]] = {}
    together(*(lambda spool=spool: adopted.update({spool.folder.name: claims(spool.adopt())}) for spool in spools))
    found = sorted(claim for each in adopted.values() for claim in each)
    assert found == sorted(f"c{n}-{m}" for n in range(12) for m in range(3))
    assert sorted(claim for spool in spools for claim in claims(spool.outcomes())) == found


@pytest.mark.parametrize("gone", ["folder", "lock"])
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_folder_that_is_removed_as_empty_just_now_is_made_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, gone: str, at: str
) -> None:
    # Given somebody who removes our empty folder before we open its lock, or after that and before we hold it
    spool, times = Spool(root, URL, "worker_1"), []

    def remove_first(real: Any, *arguments: Any) -> Any:
        if not times:
            times.append(1)
            (spool.folder / "lock").unlink(missing_ok=True)
            if gone == "folder":
                spool.folder.rmdir()
        return real(*arguments)

    where: Any = (spool_files, "lock") if at == "before" else (spool_files.fcntl, "flock")
    monkeypatch.setattr(*where, partial(remove_first, getattr(*where)))
    # Then what we keep is in a folder that is really ours
    assert spool.keep(outcome("c1"))
    assert times
    assert claims(spool.outcomes()) == ["c1"]
    assert Spool(root, URL, "worker_2").adopt() == []
    assert [info.alive for info in listing(root)] == [True]


def test_a_folder_that_somebody_else_holds_for_long_is_not_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spool_files, "PATIENCE", 0.1)
    Spool(root, URL, "worker_1").keep(outcome("c1"))
    assert Spool(root, URL, "worker_1").keep(outcome("c2")) is False
    assert "another process holds it" in caplog.text


def test_nothing_is_lost_while_workers_come_and_go(root: Path) -> None:
    # Given workers that come and go while others take over and look
    def come_and_go(name: str) -> None:
        for n in range(30):
            spool = Spool(root, URL, f"{name}-{n}")
            assert spool.keep(outcome(f"{name}-{n}"))
            spool.close()

    def take_over(spool: Spool) -> None:
        for _ in range(30):
            spool.adopt()
            listing(root)

    spools = [Spool(root, URL, f"adopter_{n}") for n in range(2)]
    together(
        *(lambda name=name: come_and_go(name) for name in ("x", "y")),
        *(lambda spool=spool: take_over(spool) for spool in spools),
    )
    # Then nothing that was kept is missing
    spools[0].adopt()
    found = sorted(claim for spool in spools for claim in claims(spool.outcomes()))
    assert found == sorted(f"{name}-{n}" for name in "xy" for n in range(30))


def test_other_pools_are_not_taken_over(root: Path) -> None:
    dead(root, "worker_1", "c1", url="couchdb+https://me@host:6984/other")
    assert Spool(root, URL, "worker_2").adopt() == []
    assert [info.tokens for info in listing(root)] == [1]


# ── damaged files ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"schema": 1, "claim": "c1", "doc": {"_id"',
        b"\xff\x00",
        b"[]",
        b'{"claim": "c1", "doc": 5}',
        b'{"claim": "c1", "doc": {"_id": "a", "_attachments": {"x": 1}}}',
        b'{"claim": "c1", "doc": {"_id": "a"}, "base": []}',
    ],
)
def test_a_damaged_file_is_set_aside_and_never_deleted(
    root: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = dead(root, "worker_1", "c1", "c2")
    (folder / "c1.json").write_bytes(content)
    spool = Spool(root, URL, "worker_2")
    assert claims(spool.adopt()) == ["c2"]
    assert "c1.json" in caplog.text
    (aside,) = damaged(root)
    assert (aside.name, aside.read_bytes()) == ("c1.json.damaged", content)
    # And it is not counted, and hinders nobody
    assert spool.undelivered == 1
    spool.forget("c2")
    spool.close()
    assert files(root) == [str(aside.relative_to(root))]


def test_what_a_newer_version_kept_is_left_for_it(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = dead(root, "worker_1", "c1")
    told = json.loads((folder / "c1.json").read_text())
    (folder / "c1.json").write_text(json.dumps({**told, "schema": 99}))
    spool = Spool(root, URL, "worker_2")
    assert spool.adopt() == []
    spool.close()
    assert "newer" in caplog.text
    assert (damaged(root), [info.tokens for info in listing(root)]) == ([], [1])


# ── look ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_listing_tells_of_every_pool_and_worker(root: Path) -> None:
    assert listing(root) == []
    folder = dead(root, "worker_1", "c1", "c2")
    os.utime(folder / "c1.json", (1000, 1000))
    other = Spool(root, "sqlite:////tmp/x.db", "worker_9")
    other.keep(outcome("c3"))
    by_pool = {info.pool_url: info for info in listing(root)}
    one, two = by_pool["couchdb+https://me@host:6984/db"], by_pool["sqlite:////tmp/x.db"]
    assert (one.folder, one.tokens, one.oldest, one.alive) == (folder, 2, 1000, False)
    assert one.bytes == sum((folder / f"{claim}.json").stat().st_size for claim in ("c1", "c2"))
    assert (two.tokens, two.alive) == (1, True)


def test_the_place_is_the_users_state_unless_it_is_set() -> None:
    assert default_root(environ={"HOME": "/h"}) == Path("/h/.local/state/tokenpool/spool")
    assert default_root(environ={"HOME": "/h", "XDG_STATE_HOME": "/s"}) == Path("/s/tokenpool/spool")
    assert default_root("/x/y", {"HOME": "/h"}) == Path("/x/y")


# ── deliver ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def backend(pool_url: str) -> Iterator[Any]:
    pool = Pool(open_backend(pool_url, create=True))
    pool.init()
    yield Altered(pool.backend)
    pool.close_connections()


def ended(backend: Any, token_id: str, code: int = 0) -> Outcome:
    """Put a token into the pool, claim it, and return its outcome."""
    claim = f"c-{token_id}"
    backend.real.put_many([new_token({"_id": token_id})])
    doc: Any = transitions.lock(backend.get(token_id), {"worker": "w", "claim": claim})
    doc["_rev"] = backend.real.put_many([doc])[0].rev
    entry = {"claim": claim, "start_time": "s", "end_time": "e", "exit_code": code, "counted": True}
    return Outcome({**transitions.close({**doc, "exit_code": code}), "attempts": [entry]}, claim)


def spooled(root: Path, outcomes: Sequence[Outcome]) -> Spool:
    spool = Spool(root, URL, "worker_1")
    for each in outcomes:
        assert spool.keep(each)
    return spool


def test_what_was_kept_is_recorded_when_the_pool_is_there_again(backend: Any, root: Path) -> None:
    spool = spooled(root, [ended(backend, each, code) for each, code in (("a", 0), ("b", 3))])
    # Given a pool that is away
    backend.script = [away]
    assert deliver(backend, spool.stream(), spool.forget) == Delivered(left=2)
    assert spool.undelivered == 2
    # When it is there again
    assert deliver(backend, spool.stream(), spool.forget) == Delivered(written=2)
    assert spool.undelivered == 0
    assert [transitions.state_of(backend.get(each)) for each in "ab"] == ["done", "error"]
    assert backend.written[-1] == ["a", "b"]


def test_delivered_twice_it_is_recorded_once(backend: Any, root: Path) -> None:
    spool = spooled(root, [ended(backend, "a")])
    # Given a process that died after the delivery, before it forgot
    assert deliver(backend, spool.stream(), lambda claim: None) == Delivered(written=1)
    now = backend.get("a")
    assert deliver(backend, spool.stream(), spool.forget) == Delivered(written=1)
    assert backend.get("a") == now


def test_one_that_is_not_ours_any_more_is_kept_as_history_and_forgotten(backend: Any, root: Path) -> None:
    spool = spooled(root, [ended(backend, each) for each in "ab"])
    edit(backend.real, "a", lock=5, done=6, exit_code=0, lease=None)
    assert deliver(backend, spool.stream(), spool.forget) == Delivered(written=1, superseded=1)
    assert spool.undelivered == 0
    assert [(entry["claim"], entry["superseded"]) for entry in backend.get("a")["attempts"]] == [("c-a", True)]


def test_a_result_that_comes_after_its_worker_was_given_up_counts_while_the_token_waits(
    backend: Any, root: Path
) -> None:
    # Given a worker that others took for lost: its token is todo again, with a note of the loss
    spool = spooled(root, [ended(backend, "a")])
    backend.real.put_many([lose(backend.get("a"))])
    assert [entry["failure_class"] for entry in backend.get("a")["attempts"]] == ["lost"]
    # When its result comes all the same
    assert deliver(backend, spool.stream(), spool.forget) == Delivered(written=1)
    # Then it is the outcome, told once
    now = backend.get("a")
    assert transitions.state_of(now) == "done"
    assert [(e["claim"], e["exit_code"], e.get("failure_class")) for e in now["attempts"]] == [("c-a", 0, None)]


def test_one_that_cannot_be_settled_now_does_not_hold_up_the_others(backend: Any, root: Path) -> None:
    spool = spooled(root, [ended(backend, each) for each in "abc"])

    def never_b(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
        if any(doc["_id"] == "b" for doc in docs):
            raise AnswerLost("the line was cut")
        return real.put_many(docs)

    backend.script = [never_b] * 100
    assert deliver(backend, spool.stream(), spool.forget) == Delivered(written=2, left=1)
    assert claims(spool.outcomes()) == ["c-b"]
    backend.script = [lose_request]
    assert deliver(backend, spool.stream(), spool.forget) == Delivered(written=1)


def test_a_pool_that_goes_away_halfway_is_not_asked_again_for_each(backend: Any, root: Path) -> None:
    outcomes = [ended(backend, f"t{n:03}") for n in range(BATCH + 5)]
    backend.written.clear()
    backend.script = [away]
    assert deliver(backend, outcomes, lambda claim: None) == Delivered(left=BATCH + 5)
    assert len(backend.written) == 1


def test_two_outcomes_of_one_token_are_told_apart(backend: Any, root: Path) -> None:
    # Given a token whose first worker was given up, and that a second one ran; both could not deliver
    first = ended(backend, "a", 0)
    backend.real.put_many([transitions.scrub({**backend.get("a")})])
    doc: Any = transitions.lock(backend.get("a"), {"worker": "w2", "claim": "c2"})
    doc["_rev"] = backend.real.put_many([doc])[0].rev
    entry = {"claim": "c2", "start_time": "s", "end_time": "e2", "exit_code": 4, "counted": True}
    second = Outcome({**transitions.close({**doc, "exit_code": 4}), "attempts": [entry]}, "c2")
    spool = spooled(root, [first, second])
    assert deliver(backend, spool.stream(), spool.forget) == Delivered(written=1, superseded=1)
    now = backend.get("a")
    assert (now["exit_code"], spool.undelivered) == (4, 0)
    assert [(e["claim"], e.get("superseded", False)) for e in now["attempts"]] == [("c-a", True), ("c2", False)]


def test_what_the_pool_refuses_for_good_is_told_and_stays(backend: Any, root: Path) -> None:
    spool = spooled(root, [ended(backend, "a")])

    def refuse(real: Backend, docs: Sequence[Json]) -> list[WriteResult]:
        raise NotPermitted("no", "ask")

    backend.script = [refuse]
    with pytest.raises(NotPermitted):
        deliver(backend, spool.stream(), spool.forget)
    assert spool.undelivered == 1

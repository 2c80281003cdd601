"""The verbs that show and deliver finished tokens which wait on this computer."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import call, ok, states, use
from couch_server import Couch, raw_couch
from faulty_proxy import FaultyProxy

from tokenpool import transitions
from tokenpool.backends import open_backend
from tokenpool.cli import spool as verbs
from tokenpool.commits import Outcome
from tokenpool.errors import NotPermitted
from tokenpool.pool import Pool
from tokenpool.spool import Spool

Keep = Callable[..., Spool]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKENPOOL_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


@pytest.fixture
def keep(root: Path) -> Iterator[Keep]:
    """Make a function that runs tokens, and keeps their outcomes in the spool of a worker instead of closing them."""
    open_spools = []

    def make(url: str, *ids: str, worker: str = "worker_1", spelled: str = "") -> Spool:
        with Pool(open_backend(url)) as pool:
            pool.push([{"_id": each, "input": "true"} for each in ids])
            spool = Spool(root, spelled or pool.url, worker)
            open_spools.append(spool)
            for token in pool.claim(len(ids)):
                claim = token.doc["lease"]["claim"]
                done: Any = transitions.close({**token.doc, "exit_code": 0})
                entry = {"claim": claim, "start_time": "s", "end_time": "e", "exit_code": 0, "counted": True}
                data = base64.b64encode(b"log").decode()
                logs = {f"logs_{token.id}.out": {"content_type": "text/plain", "data": data}}
                assert spool.keep(Outcome({**done, "attempts": [entry], "_attachments": logs}, claim))
        return spool

    yield make
    for spool in open_spools:
        spool.close()


def test_nothing_waits(root: Path, sqlite_url: str) -> None:
    use(sqlite_url)
    assert "nothing waits" in ok("spool", "list").err
    assert "nothing waits" in ok("spool", "deliver").err
    assert "nothing waits" in ok("spool", "deliver", "--all").err
    assert ok("spool", "list", "--json").json == {"schema": 1, "spool": str(root), "spools": []}
    assert ok("spool", "deliver", "--json").json == {"schema": 1, "written": 0, "superseded": 0, "left": 0}
    assert not root.exists()


def test_what_a_dead_worker_left_is_listed_and_delivered(pool_url: str, root: Path, keep: Keep) -> None:
    use(pool_url)
    # Given a worker that died with two outcomes in its spool
    spool = keep(pool_url, "a", "b")
    spool.close()
    (told,) = ok("spool", "list", "--json").json["spools"]
    assert (told["worker"], told["tokens"], told["alive"], told["folder"]) == ("worker_1", 2, False, str(spool.folder))
    assert told["pool"] == spool.pool_url
    table = ok("spool", "list").out
    assert table.splitlines()[1].split()[1:4] == ["worker_1", "gone", "2"]
    assert states() == {"locked": 2}
    # When it is delivered
    answer = ok("spool", "deliver")
    # Then it is in the pool, with its logs, and nothing is left here
    assert "2 tokens delivered" in answer.err
    assert states() == {"done": 2}
    assert ok("logs", "a").out == "log"
    assert list(root.iterdir()) == []


def test_a_worker_that_lives_is_left_alone(sqlite_url: str, keep: Keep) -> None:
    use(sqlite_url)
    spool = keep(sqlite_url, "a")
    keep(sqlite_url, "b", worker="worker_2").close()
    assert [each["alive"] for each in ok("spool", "list", "--json").json["spools"]] == [True, False]
    answer = ok("spool", "deliver")
    assert f"1 token in {spool.folder} left alone" in answer.err
    assert states() == {"locked": 1, "done": 1}
    assert spool.undelivered == 1


def test_a_pool_that_is_away_leaves_it_and_says_so(couch_server: Couch, couch_db: str, keep: Keep) -> None:
    with FaultyProxy(couch_server.url) as proxy:
        url = proxy.pool_url(raw_couch(couch_db).name)
        use(couch_db)
        keep(url, "a", "b").close()
        with proxy.away():
            answer = call("spool", "deliver", "-p", f"{url}?attempts=1")
            assert (answer.code, "not delivered to" in answer.err) == (75, True)
            assert call("spool", "deliver", "-p", f"{url}?attempts=1", "--json").json["left"] == 2
        # And a line that is cut at the write
        fault = proxy.drop_request("POST", "_bulk_docs", times=100)
        answer = call("spool", "deliver", "-p", f"{url}?attempts=1")
        assert (answer.code, "2 tokens could not be delivered" in answer.err) == (75, True)
        fault.times = 0
        assert ok("spool", "deliver", "-p", url, "--json").json["written"] == 2
    assert states() == {"done": 2}


def test_a_pool_that_is_away_is_an_error_where_nothing_waits_for_it(root: Path, couch_server: Couch) -> None:
    with FaultyProxy(couch_server.url) as proxy, proxy.away():
        assert call("spool", "deliver", "-p", f"{proxy.pool_url('x')}?attempts=1").code == 69


def test_an_outcome_that_is_not_ours_any_more_is_said_to_be_history(sqlite_url: str, keep: Keep) -> None:
    use(sqlite_url)
    keep(sqlite_url, "a").close()
    ok("reset", "a")
    ok("cancel", "a")
    answer = ok("spool", "deliver")
    assert "1 token kept as history" in answer.err
    assert states() == {"error": 1}


def test_all_pools_are_delivered_to_and_one_that_refuses_does_not_hinder_the_others(
    tmp_path: Path, couch_db: str, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "two"))
    use(one)
    keep(one, "a").close()
    with Pool(open_backend(two, create=True)) as pool:
        pool.init()
    keep(two, "b", "c").close()
    with Pool(open_backend(couch_db)) as pool:
        pool.init()
        keep(couch_db, "d", spelled="couchdb+https://nobody@example.invalid:6984/db").close()

    real, asked = verbs.open_backend, []

    def opened(url: str, password: str | None = None) -> Any:
        asked.append((url, password))
        if "example" in url:
            raise NotPermitted("it wants a password", "set one")
        return real(url, password)

    monkeypatch.setattr(verbs, "open_backend", opened)
    monkeypatch.setenv("TOKENPOOL_PASSWORD", "sesame")
    answer = call("spool", "deliver", "--all")
    assert answer.code == 75
    assert "3 tokens delivered" in answer.err
    assert "not delivered to couchdb+https://nobody@example.invalid:6984/db: it wants a password; set one" in answer.err
    assert [states()] == [{"done": 1}]
    assert ok("status", "-p", two, "--json").json["states"]["done"] == 2
    # And the password of our pool went to nobody else
    assert [password for url, password in asked if "example" in url] == [None]
    # It goes to that server where our pool is there as well
    own = "couchdb+https://nobody@example.invalid:6984/ours?timeout=5"
    asked.clear()
    call("spool", "deliver", "--all", "-p", own)
    assert asked == [("couchdb+https://nobody@example.invalid:6984/db", "sesame")]


def test_our_own_pool_is_reached_with_the_options_of_its_url(
    root: Path, keep: Keep, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(sqlite_url)
    keep(sqlite_url, "a", spelled="couchdb+https://me@example.invalid:6984/db").close()
    asked = []

    def opened(url: str, password: str | None = None) -> Any:
        asked.append((url, password))
        raise NotPermitted("no", "ask")

    monkeypatch.setattr(verbs, "open_backend", opened)
    monkeypatch.setenv("TOKENPOOL_PASSWORD", "sesame")
    own = "couchdb+https://me@example.invalid:6984/db?cafile=/x"
    assert call("spool", "deliver", "--all", "-p", own).code == 75
    assert asked == [(own, "sesame")]


def test_what_was_set_aside_is_told(sqlite_url: str, root: Path, keep: Keep) -> None:
    use(sqlite_url)
    spool = keep(sqlite_url, "a", "b")
    spool.close()
    path = sorted(spool.folder.glob("*.json"))[0]
    path.write_bytes(b"{")
    assert "1 token delivered" in ok("spool", "deliver").err
    assert f"{path.name}.damaged could not be read" in ok("spool", "list").err
    assert sum(states().values()) == 2


def test_another_folder_can_be_named(sqlite_url: str, root: Path, keep: Keep, tmp_path: Path) -> None:
    use(sqlite_url)
    keep(sqlite_url, "a").close()
    root.rename(tmp_path / "elsewhere")
    assert ok("spool", "list", "--json").json["spools"] == []
    assert len(ok("spool", "list", "--json", "--spool", "elsewhere").json["spools"]) == 1
    assert "1 token delivered" in ok("spool", "deliver", "--spool", "elsewhere").err

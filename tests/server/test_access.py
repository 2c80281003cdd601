"""Who gets in, and how: passwords, sessions, API tokens, and a file of people that changes under a running server."""

from __future__ import annotations

import base64
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from server_parts import ROLES, People, log_in, password_of

from tokenpool.errors import BadInput
from tokenpool.pool import Pool
from tokenpool.web.access.attempts import Attempts
from tokenpool.web.access.passwords import hash_password, verify
from tokenpool.web.access.roster import Roster
from tokenpool.web.access.sessions import Sessions
from tokenpool.web.errors import TooOften

PAGE = {"Accept": "text/html"}
#: Needs the role of a viewer, and nothing of a pool.
LOOK = "openapi.json"


class Clock:
    """A time that passes when it is told to."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def wrong(client: Any, name: str, **more: Any) -> Any:
    """Try a wrong password."""
    return client.post("login", data={"name": name, "password": "wrong, of course"}, **more)


# --- open --------------------------------------------------------------------------------------------------------------


def test_a_server_on_loopback_lets_its_own_computer_do_everything(client: Any) -> None:
    # When nobody is asked to log in
    answer = client.get(LOOK)

    # Then the server answers, and needs no login
    assert answer.status_code == 200
    assert client.get("login").headers["location"] == "/"


# --- passwords and sessions ----------------------------------------------------------------------------------------------


def test_somebody_logs_in_and_leaves(serve: Any, sqlite_pool: Pool, people: People) -> None:
    # Given a server that knows people
    client = serve(sqlite_pool, users=people.file)
    assert client.get(LOOK).status_code == 401
    assert 'name="password"' in client.get("login", headers=PAGE).text

    # When one of them logs in
    log_in(client, "viewer")

    # Then they may look, until they leave
    assert client.get(LOOK).status_code == 200
    cookie = dict(client.cookies)
    assert client.post("logout").status_code == 303
    assert client.get(LOOK).status_code == 401
    # And the old cookie opens nothing
    assert client.get(LOOK, headers={"Cookie": "; ".join(f"{k}={v}" for k, v in cookie.items())}).status_code == 401


def test_a_wrong_password_and_an_unknown_name_look_the_same(serve: Any, sqlite_pool: Pool, people: People) -> None:
    client = serve(sqlite_pool, users=people.file)
    known, unknown = wrong(client, "viewer"), wrong(client, "nobody")
    assert known.status_code == unknown.status_code == 401
    assert known.text.replace("viewer", "") == unknown.text.replace("nobody", "")
    assert "set-cookie" not in known.headers


def test_who_guesses_has_to_wait(serve: Any, sqlite_pool: Pool, people: People) -> None:
    # Given a server behind a proxy that it believes
    client = serve(sqlite_pool, users=people.file, trusted_proxies=("testclient",))
    guesser, owner = {"X-Forwarded-For": "192.0.2.7"}, {"X-Forwarded-For": "192.0.2.8"}

    # When somebody guesses the operator's password
    statuses = [wrong(client, "operator", headers=guesser).status_code for _ in range(6)]

    # Then they are stopped, even with the right password; and told for how long
    assert statuses == [401] * 5 + [429]
    right = {"name": "operator", "password": password_of("operator")}
    stopped = client.post("login", data=right, headers=guesser)
    assert stopped.status_code == 429
    assert 0 < int(stopped.headers["retry-after"]) <= 60
    # And the operator, who is elsewhere, is not
    assert client.post("login", data=right, headers=owner).status_code == 303


def test_a_visitor_cannot_say_where_they_are(serve: Any, sqlite_pool: Pool, people: People) -> None:
    # Given a server without a proxy
    client = serve(sqlite_pool, users=people.file)

    # When a guesser claims another address each time
    headers = [{"X-Forwarded-For": f"192.0.2.{n}"} for n in range(6)]
    statuses = [wrong(client, "operator", headers=each).status_code for each in headers]

    # Then it does not help
    assert statuses[-1] == 429


def test_guesses_are_counted_by_address_and_by_name() -> None:
    clock = Clock()
    attempts = Attempts(clock)

    # When one address tries many names once
    for n in range(20):
        attempts.begin(f"name{n}", "192.0.2.7")
    # Then it is stopped
    with pytest.raises(TooOften):
        attempts.begin("another", "192.0.2.7")
    # When many addresses of one network try one name
    for n in range(20):
        attempts.begin(f"name{n}", f"2001:db8::{n:x}")
    # Then they count as one
    with pytest.raises(TooOften):
        attempts.begin("bob", "2001:db8::ffff")
    # When many networks try one name, from which others have tried it already
    for n in range(48):
        attempts.begin("name0", f"198.51.100.{n}")
    # Then that name rests
    with pytest.raises(TooOften):
        attempts.begin("name0", "203.0.113.1")
    # And after a while all is forgiven
    clock.now += 301
    for name, address in (("another", "192.0.2.7"), ("bob", "2001:db8::ffff"), ("name0", "203.0.113.1")):
        attempts.begin(name, address)


def test_who_gets_in_is_not_counted() -> None:
    attempts = Attempts(Clock())
    for _ in range(100):
        attempts.begin("ann", "192.0.2.7")
        attempts.succeeded("ann", "192.0.2.7")
    # A slip or two before are forgiven
    for _ in range(4):
        attempts.begin("ann", "192.0.2.7")
    attempts.begin("ann", "192.0.2.7")
    attempts.succeeded("ann", "192.0.2.7")
    attempts.begin("ann", "192.0.2.7")


def test_many_guesses_at_the_same_moment_get_no_further(serve: Any, sqlite_pool: Pool, people: People) -> None:
    # Given a server, and one who tries many passwords at once, and many who bring the same right one at once
    client = serve(sqlite_pool, users=people.file)
    right = ("viewer", password_of("viewer"))
    with ThreadPoolExecutor(12) as threads:
        guesses = list(threads.map(lambda n: client.get(LOOK, auth=("operator", f"guess {n}")).status_code, range(12)))
        requests = list(threads.map(lambda n: client.get(LOOK, auth=right).status_code, range(12)))

    # Then no more than five guesses were looked at, and nobody who is right waits
    assert sorted(guesses) == [401] * 5 + [429] * 7
    assert requests == [200] * 12


def test_a_session_survives_a_restart(serve: Any, sqlite_pool: Pool, people: People, tmp_path: Path) -> None:
    # Given somebody who is logged in at a server that has a folder
    folder = tmp_path / "kept"
    before = log_in(serve(sqlite_pool, users=people.file, folder=folder), "operator")

    # When another server takes over
    after = serve(sqlite_pool, users=people.file, folder=folder)
    after.cookies = before.cookies

    # Then they need not log in again, and their forms are still good
    assert after.get(LOOK).status_code == 200
    assert after.post("logout", headers={"X-CSRF-Token": before.headers["X-CSRF-Token"]}).status_code == 303
    # And the file is for its owner only, and does not hold what opens a session
    kept = folder / "sessions-8080.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not any(value in kept.read_text() for value in dict(before.cookies).values())


def test_a_session_ends_by_itself(tmp_path: Path) -> None:
    clock = Clock()
    kept = tmp_path / "sessions.json"
    sessions = Sessions(kept, 3600, clock)
    idle, _ = sessions.begin("ann", "viewer", "")
    busy, _ = sessions.begin("ann", "viewer", "")

    # When one is used and one is not
    for _ in range(3):
        clock.now += 1800
        assert sessions.find(busy)
    # Then only that one goes on
    assert sessions.find(idle) is None
    # And however busy, one day it is over
    for _ in range(28):
        clock.now += 1800
        sessions.find(busy)
    assert sessions.find(busy) is None
    # And a broken file is no reason not to start
    kept.write_text("{")
    assert Sessions(kept, 3600, clock).find(busy) is None


@pytest.mark.parametrize("change", ["removed", "password"])
def test_a_session_ends_with_what_it_began_with(serve: Any, sqlite_pool: Pool, people: People, change: str) -> None:
    # Given somebody who is logged in
    client = log_in(serve(sqlite_pool, users=people.file), "submitter")
    assert client.get(LOOK).status_code == 200

    # When they are removed, or given another password
    roster = Roster(people.file)
    if change == "removed":
        roster.remove("submitter")
    else:
        roster.set_password("submitter", "another password")

    # Then their session is over
    assert client.get(LOOK).status_code == 401


def test_a_role_changes_at_once(logged_in: Any, people: People) -> None:
    client = logged_in("viewer")
    assert client.post("ga4gh/tes/v1/tasks", json={}).status_code == 403
    Roster(people.file).set_role("viewer", "submitter")
    assert client.post("ga4gh/tes/v1/tasks", json={}).status_code != 403


def test_a_form_proves_itself_by_a_field(logged_in: Any) -> None:
    # Given a browser whose forms have a field, not a header
    client = logged_in("viewer")
    token = client.headers.pop("X-CSRF-Token")

    # Then the field is enough, and needed
    assert client.post("logout", data={"csrf_token": "other"}).status_code == 403
    assert client.post("logout", data={"csrf_token": token}).status_code == 303


# --- API tokens and passwords of scripts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_an_api_token_opens_what_its_role_may(as_role: Any, role: str) -> None:
    client = as_role(role)
    assert client.get(LOOK).status_code == 200
    # It needs no other proof: no page can make a browser send it.
    created = client.post("ga4gh/tes/v1/tasks", json={})
    assert (created.status_code == 403) == (role == "viewer")


def test_an_api_token_ends_and_is_revoked(people: People) -> None:
    clock = Clock()
    roster = Roster(people.file, clock)
    short, long = roster.new_token("short", "viewer", 60), roster.new_token("long", "viewer")
    assert roster.bearer(short)
    assert roster.bearer(long)

    # When its time is over, or it is revoked
    clock.now += 61
    roster.revoke(long.split("_")[1])

    # Then it opens nothing
    assert roster.bearer(short) is None
    assert roster.bearer(long) is None


@pytest.mark.parametrize("text", ["", "tp_", "tp__", "tp_0_1", "x", "tp_é_é"])
def test_a_text_that_is_no_api_token_opens_nothing(people: People, text: str) -> None:
    assert Roster(people.file).bearer(text) is None


def test_scripts_may_send_a_password(serve: Any, sqlite_pool: Pool, people: People) -> None:
    client = serve(sqlite_pool, users=people.file)
    # A password, and an API token in its place
    assert client.get(LOOK, auth=("viewer", password_of("viewer"))).status_code == 200
    assert client.get(LOOK, auth=("anything", people.tokens["viewer"])).status_code == 200
    # What is wrong, or cannot be read
    assert client.get(LOOK, auth=("viewer", "wrong")).status_code == 401
    broken = ["Basic", "Basic !", "Basic " + base64.b64encode(b"\xff\xfe").decode(), "Digest x", "Bearer"]
    assert [client.get(LOOK, headers={"Authorization": each}).status_code for each in broken] == [401] * 5
    # Its way in is told to programs, and no browser opens its own window over a page
    refused = client.get("ga4gh/tes/v1/tasks")
    assert "Basic" in refused.headers["www-authenticate"]
    from_page = client.get("ga4gh/tes/v1/tasks", headers={"Sec-Fetch-Mode": "cors"})
    assert "Basic" not in from_page.headers["www-authenticate"]


def test_a_password_that_was_right_is_not_right_for_ever(serve: Any, sqlite_pool: Pool, people: People) -> None:
    # Given a script whose password was right a moment ago
    client = serve(sqlite_pool, users=people.file)
    old = ("viewer", password_of("viewer"))
    assert client.get(LOOK, auth=old).status_code == 200

    # When it is changed
    Roster(people.file).set_password("viewer", "another password")

    # Then only the new one is right
    assert client.get(LOOK, auth=old).status_code == 401
    assert client.get(LOOK, auth=("viewer", "another password")).status_code == 200


# --- the file of people ----------------------------------------------------------------------------------------------------


def test_the_file_holds_no_secret(people: People) -> None:
    text = people.file.read_text()
    assert stat.S_IMODE(people.file.stat().st_mode) == 0o600
    assert not any(password_of(role) in text for role in ROLES)
    assert not any(token.rpartition("_")[2] in text for token in people.tokens.values())
    assert json.loads(text)["users"]["viewer"]["password"].startswith("scrypt$16384$8$5$")


def test_a_hash_is_of_one_password() -> None:
    kept = hash_password("correct horse")
    assert verify("correct horse", kept)
    assert not verify("correct horses", kept)
    assert not verify("x" * 2000, kept)
    assert hash_password("correct horse") != kept
    assert not verify("correct horse", "md5$1234")


def test_changes_at_the_same_time_lose_nothing(people: People) -> None:
    # When many change the file at once
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda n: Roster(people.file).new_token(f"t{n}", "viewer"), range(40)))

    # Then all of it is there
    roster = Roster(people.file)
    assert all(roster.bearer(each) for each in made)
    assert set(roster.people().users) == set(ROLES)


def test_what_makes_no_sense_is_refused(people: People) -> None:
    roster, before = Roster(people.file), people.file.read_text()
    with pytest.raises(BadInput, match="there already"):
        roster.add("viewer", "viewer", "long enough")
    with pytest.raises(BadInput, match="no name"):
        roster.add("a:b", "viewer", "long enough")
    with pytest.raises(BadInput, match="too short"):
        roster.add("ann", "viewer", "short")
    with pytest.raises(BadInput, match="no role"):
        roster.set_role("viewer", "king")
    assert people.file.read_text() == before


def test_a_broken_file_lets_nobody_in(
    serve: Any, sqlite_pool: Pool, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a server whose file of people is broken while it runs
    client = log_in(serve(sqlite_pool, users=people.file), "operator")
    people.file.write_text("{}")

    # Then nobody gets in; the log says why, and strangers are not told where the file is
    answer = client.get(LOOK)
    assert answer.status_code == 500
    assert str(people.file) not in answer.text
    assert f"{people.file} is no file of people" in caplog.text


# --- who did what ------------------------------------------------------------------------------------------------------------


def test_lines_say_who_did_what(serve: Any, sqlite_pool: Pool, people: People, tmp_path: Path) -> None:
    # Given a server that has a folder
    client = serve(sqlite_pool, users=people.file, folder=tmp_path / "kept")

    # When somebody fails to log in, logs in, and leaves
    wrong(client, "viewer\nforged line")
    log_in(client, "viewer").post("logout")

    # Then each is a line of its own
    file = tmp_path / "kept" / "audit.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["verb"], line["name"], line["what"]) for line in lines] == [
        ("login", "viewer\nforged line", "refused"), ("login", "viewer", "accepted"), ("logout", "viewer", ""),
    ]  # fmt: skip
    assert {line["address"] for line in lines} == {"testclient"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

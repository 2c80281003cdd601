"""People of the CouchDB that has the pool log in with its passwords, and may do what they may do there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from couch_server import Couch, CouchServer, Unavailable
from server_parts import log_in

from tokenpool.pool import Pool, connect

LOOK = "openapi.json"
ADMIN = ("admin", "secret of admins")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Couch]:
    """A server with an admin, and people: a member, an admin of the database, one with a role, and a stranger."""
    import os

    given = os.environ.get("TOKENPOOL_TEST_COUCHDB")
    try:
        server = Couch(given) if given else CouchServer(ADMIN)
    except Unavailable as error:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail(f"no CouchDB server: {error}", pytrace=False)
        pytest.skip(f"no CouchDB server: {error}")
    with server:
        server.call("PUT", "/_users")
        for name, roles in {"member": [], "chief": [], "guest": ["tokenpool-viewer"], "stranger": []}.items():
            add(server, name, roles)
        yield server
        for name in ("member", "chief", "guest", "stranger"):
            remove(server, name)


def add(server: Couch, name: str, roles: list[str], password: str = "") -> None:
    """Write somebody into the server's users, or their new password."""
    path = f"/_users/org.couchdb.user:{name}"
    status, there = server.call("GET", path)
    body = {"name": name, "password": password or f"{name}'s password", "roles": roles, "type": "user"}
    status, answer = server.call("PUT", path, {**body, **({"_rev": there["_rev"]} if status == 200 else {})})
    assert status in (201, 202), answer


def remove(server: Couch, name: str) -> None:
    """Take somebody out of the server's users."""
    status, there = server.call("GET", f"/_users/org.couchdb.user:{name}")
    if status == 200:
        server.call("DELETE", f"/_users/org.couchdb.user:{name}?rev={there['_rev']}")


@pytest.fixture
def guarded_pool(guarded: Couch) -> Iterator[Pool]:
    """A pool whose database has members."""
    url = guarded.create_database("people")
    name = url.rpartition("/")[2]
    status, answer = guarded.call(
        "PUT",
        f"/{name}/_security",
        {"admins": {"names": ["chief"], "roles": []}, "members": {"names": ["member"], "roles": ["tokenpool-viewer"]}},
    )
    assert status == 200, answer
    with connect(url, create=True) as pool:
        yield pool
    guarded.delete_database(url)


@pytest.mark.parametrize(
    ("name", "role"), [("member", "submitter"), ("chief", "operator"), ("guest", "viewer"), ("admin", "operator")]
)
def test_what_somebody_may_there_they_may_here(
    serve: Any, guarded: Couch, guarded_pool: Pool, name: str, role: str
) -> None:
    # Given a server that asks CouchDB
    client = serve(guarded_pool, couchdb_users=True)
    password = guarded.password if name == "admin" else f"{name}'s password"
    name = guarded.username if name == "admin" else name
    assert client.get(LOOK).status_code == 401

    # When one of its people logs in
    log_in(client, name, password)

    # Then they have the role that fits what they are there
    page = client.get("no/such/page", headers={"Accept": "text/html"})
    assert f"<small>{role}</small>" in page.text
    # And a script may send the same password
    assert client.get(LOOK, auth=(name, password), headers={"Cookie": ""}).status_code == 200


@pytest.mark.parametrize(("name", "password"), [("member", "wrong"), ("nobody", "x"), ("", ""), ("stranger", "")])
def test_who_is_no_member_stays_outside(serve: Any, guarded_pool: Pool, name: str, password: str) -> None:
    client = serve(guarded_pool, couchdb_users=True)
    given = {"name": name, "password": password or f"{name}'s password"}
    assert client.post("login", data=given).status_code == 401
    assert client.get(LOOK).status_code == 401


def test_a_session_ends_with_the_user_and_with_the_password(
    serve: Any, guarded: Couch, guarded_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two who are logged in, at a server that asks again each time
    from tokenpool.web.access import couchdb_people

    monkeypatch.setattr(couchdb_people, "ASKED_AGAIN", 0.0)
    add(guarded, "leaver", ["tokenpool-viewer"])
    add(guarded, "changer", ["tokenpool-viewer"])
    leaver = log_in(serve(guarded_pool, couchdb_users=True), "leaver", "leaver's password")
    changer = log_in(serve(guarded_pool, couchdb_users=True), "changer", "changer's password")
    assert leaver.get(LOOK).status_code == changer.get(LOOK).status_code == 200

    # When one is taken out of CouchDB's users, and the other has another password
    remove(guarded, "leaver")
    add(guarded, "changer", ["tokenpool-viewer"], "another password")

    # Then both have to log in again
    assert leaver.get(LOOK).status_code == 401
    assert changer.get(LOOK).status_code == 401
    remove(guarded, "changer")

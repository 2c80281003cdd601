"""What the server says of itself: how a program logs in, and which role each route wants."""

from __future__ import annotations

import re
from typing import Any

from server_parts import ROLES, People, routes_of

from tokenpool.pool import Pool

LOOK = "openapi.json"


def test_the_description_says_how_to_log_in_and_which_role_each_route_wants(
    serve: Any, sqlite_pool: Pool, people: People
) -> None:
    # Given a server that knows people
    client = serve(sqlite_pool, users=people.file)

    # When a program reads its description
    told = client.get(LOOK, headers=people.bearer("viewer")).json()

    # Then there are two ways to log in, which `Authorize` of the page offers
    schemes = told["components"]["securitySchemes"]
    assert sorted((each["type"], each["scheme"]) for each in schemes.values()) == [
        ("http", "basic"),
        ("http", "bearer"),
    ]
    # And each route says which role it wants, the one that it asks for
    wanted = {
        (path, method): [next(iter(way.values())) for way in each["security"]]
        for path, item in told["paths"].items()
        for method, each in item.items()
    }
    asked = {(route.spelled("*"), route.method.lower()): route.role for route in routes_of(client.app)}
    for (path, method), roles in wanted.items():
        role = asked[re.sub(r"{[^}]*}", "*", path), method]
        assert role is not None
        assert roles == [[ROLES[role - 1]]] * len(schemes), (path, method)
        assert f"Needs the role {ROLES[role - 1]}." in told["paths"][path][method]["description"]
    assert {roles[0][0] for roles in wanted.values()} == {"viewer", "submitter", "operator"}
    # And what it does, in a few words
    assert told["paths"]["/api/v1/tokens"]["post"]["summary"] == "Push tokens"
    assert told["paths"]["/ga4gh/tes/v1/tasks"]["post"]["summary"] == "Make a task"


def test_an_open_server_describes_no_login(client: Any) -> None:
    told = client.get(LOOK).json()
    assert "securitySchemes" not in told["components"]
    assert [each for item in told["paths"].values() for each in item.values() if "security" in each] == []

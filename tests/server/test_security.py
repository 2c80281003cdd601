"""What must never work: without login, with too small a role, from another site, with hostile words, too large."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from server_parts import ROLES, People, Route, everything, password_of, routes_of

from tokenpool.pool import Pool

Clients = Callable[[str], Any]

PUBLIC = {"/login", "/healthz", "/readyz"}
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
PAGE = {"Accept": "text/html"}
#: What a hostile person writes wherever something can be written.
HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}</script><script>alert(2)</script>"


def walked(client: Any) -> Iterator[Route]:
    """Yield the routes that somebody has to be let into."""
    for route in routes_of(client.app):
        if route.path not in PUBLIC:
            yield route


# --- every route -------------------------------------------------------------------------------------------------------


def test_every_route_asks_for_a_role(as_role: Clients) -> None:
    # Given all routes of the server
    routes = list(walked(as_role("")))

    # Then there are many, and each asks for a role; what changes something asks for more than looking
    assert len(routes) > 5
    assert [route for route in routes if route.role is None] == []
    small = [route for route in routes if route.method in UNSAFE and route.role == 1 and route.path != "/logout"]
    assert [r for r in small if as_role("operator").request(r.method, r.spelled()).status_code != 405] == []


def test_no_route_answers_who_is_not_known(as_role: Clients, pool_with_tokens: Pool) -> None:
    # Given somebody without a login, and with an API token that nobody made
    nobody, guesser = as_role(""), as_role("")
    guesser.headers["Authorization"] = "Bearer tp_00000000_abcdefghijklmnopqrstuvwxyz"
    before = everything(pool_with_tokens)

    # When they call every route
    answers = [
        (route.method, route.path, client.request(route.method, route.spelled()).status_code)
        for route in walked(nobody)
        for client in (nobody, guesser)
    ]

    # Then each says 401, and nothing was changed
    assert [answer for answer in answers if answer[2] != 401] == []
    assert everything(pool_with_tokens) == before


def test_a_path_that_is_not_there_tells_a_stranger_nothing(as_role: Clients) -> None:
    assert as_role("").get("api/v1/no-such-thing").status_code == 401
    assert as_role("viewer").get("api/v1/no-such-thing").status_code == 404


def test_a_person_who_is_not_known_is_sent_to_the_login(as_role: Clients) -> None:
    # When a browser asks for a page
    answer = as_role("").get("tokens?state=error", headers=PAGE)

    # Then it is sent to the form, and will come back from there
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Ftokens%3Fstate%3Derror"


@pytest.mark.parametrize("role", ROLES[:-1])
def test_a_role_that_is_too_small_is_refused_everywhere(as_role: Clients, pool_with_tokens: Pool, role: str) -> None:
    # Given somebody of that role, by API token
    client = as_role(role)
    before = everything(pool_with_tokens)
    mine = ROLES.index(role) + 1

    # When they call every route that needs more
    too_much = [route for route in walked(client) if (route.role or 0) > mine]
    answers = [(r.method, r.path, client.request(r.method, r.spelled()).status_code) for r in too_much]

    # Then each says 403, and nothing was changed
    assert answers
    assert [answer for answer in answers if answer[2] != 403] == []
    assert everything(pool_with_tokens) == before


@pytest.mark.parametrize("given", [None, "", "forged", "x" * 43])
def test_a_forged_request_is_refused_everywhere(logged_in: Clients, pool_with_tokens: Pool, given: str | None) -> None:
    # Given an operator's browser, and a page elsewhere that makes it send requests, cookie and all
    browser = logged_in("operator")
    del browser.headers["X-CSRF-Token"]
    before = everything(pool_with_tokens)
    header = {} if given is None else {"X-CSRF-Token": given}
    form = {} if given is None else {"csrf_token": given}

    # When that page sends what it can to every route that changes something: JSON, and forms of both kinds
    answers = []
    for route in walked(browser):
        if route.method in UNSAFE:
            as_json = browser.request(route.method, route.spelled(), content="{}", headers=header)
            as_form = browser.request(route.method, route.spelled(), data={"name": "x", **form})
            as_parts = browser.request(route.method, route.spelled(), data=form, files={"file": ("a", b"b")})
            answers += [(route.method, route.path, a.status_code) for a in (as_json, as_form, as_parts)]

    # Then all is refused, and nothing was changed
    assert answers
    assert [answer for answer in answers if answer[2] != 403] == []
    assert everything(pool_with_tokens) == before


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"},
                {"Origin": "null"}]
)  # fmt: skip
def test_a_request_from_another_site_is_refused_where_nobody_logs_in(
    serve: Any, pool_with_tokens: Pool, headers: dict[str, str]
) -> None:
    # Given a server that is open to this computer, so to all pages in its browser
    client, before = serve(pool_with_tokens), everything(pool_with_tokens)

    # When a page elsewhere calls every route that changes something
    unsafe = [route for route in walked(client) if route.method in UNSAFE]
    answers = [(r.path, client.request(r.method, r.spelled(), headers=headers).status_code) for r in unsafe]

    # Then all is refused
    assert answers
    assert [answer for answer in answers if answer[1] != 403] == []
    assert everything(pool_with_tokens) == before


def test_a_name_that_was_turned_to_this_computer_is_refused(serve: Any, sqlite_pool: Pool) -> None:
    # Given a server that is open to this computer, and a strange name whose address became 127.0.0.1
    answer = serve(sqlite_pool).get("openapi.json", headers={"Host": "evil.example:8080"})

    # Then its pages can read nothing
    assert answer.status_code == 403


# --- hostile words -----------------------------------------------------------------------------------------------------


def test_what_somebody_wrote_is_never_markup(logged_in: Clients, sqlite_pool: Pool) -> None:
    # Given tokens whose every word is hostile
    [token] = sqlite_pool.push(
        {"_id": "hostile", "name": HOSTILE, "input": f"echo {HOSTILE!r}", "batch": HOSTILE, "description": HOSTILE,
         "tags": {"k": HOSTILE}, "submitter": HOSTILE, "hostname": HOSTILE}
    )  # fmt: skip
    browser = logged_in("operator")

    # When every page is looked at, by that token and by hostile names
    texts = []
    for route in walked(browser):
        if route.method == "GET" and not route.streams and not route.path.startswith("/api/v1/backend"):
            for name in (token, "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"):
                answer = browser.get(route.spelled(name), headers=PAGE)
                texts.append((route.path, answer.headers.get("content-type", ""), answer.text))

    # Then none of it is markup
    pages = [(path, text) for path, kind, text in texts if "html" in kind]
    assert pages
    assert [path for path, text in pages if "<img src=x" in text or "<script>alert" in text] == []


def test_a_file_that_somebody_attached_runs_nowhere(logged_in: Clients, sqlite_pool: Pool) -> None:
    # Given a token with a page and a script that a hostile person attached
    files = {"evil.html": ("text/html", b"<script src='evil.js'></script>"), "evil.js": ("text/javascript", b"alert(1)"),
             "evil.svg": ("image/svg+xml", b"<svg onload='alert(1)'/>"), "evil.txt": ("text/plain", b"<b>hi")}  # fmt: skip
    attached = {
        name: {"content_type": kind, "data": base64.b64encode(data).decode()} for name, (kind, data) in files.items()
    }
    sqlite_pool.push({"_id": "hostile", "input": "true", "_attachments": attached})
    browser = logged_in("operator")

    # When a browser follows a link to each
    for name in files:
        for place in (f"api/v1/tokens/hostile/attachments/{name}", f"tokens/hostile/files/{name}?view=1"):
            answer = browser.get(place, headers=PAGE)

            # Then it is saved, or shown as text; it cannot become a page or a script of this server
            assert answer.status_code == 200
            assert answer.content == files[name][1]
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in ("text/plain", "application/octet-stream")
            assert kind == "text/plain" or answer.headers["content-disposition"].startswith("attachment")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in answer.headers["content-security-policy"]


def test_nobody_is_logged_in_or_uses_a_kept_password_from_another_site(
    serve: Any, sqlite_pool: Pool, people: People
) -> None:
    # Given a browser that was once asked for a password by its own window, and sends it by itself since then
    client = serve(sqlite_pool, users=people.file)
    kept = ("operator", password_of("operator"))
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}

    # When a page elsewhere makes it post
    posted = client.post("ga4gh/tes/v1/tasks", json={}, auth=kept, headers=elsewhere)
    logged_in = client.post("login", data={"name": kept[0], "password": kept[1]}, headers=elsewhere)

    # Then nothing comes of it
    assert posted.status_code == logged_in.status_code == 403
    assert "set-cookie" not in logged_in.headers


@pytest.mark.parametrize("place", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)",
                                   "/x\r\nSet-Cookie: a=b"])  # fmt: skip
def test_the_login_leads_to_pages_of_this_server_only(
    serve: Any, sqlite_pool: Pool, people: People, place: str
) -> None:
    client = serve(sqlite_pool, users=people.file)
    answer = client.post("login", data={"name": "viewer", "password": "the viewer's password", "next": place})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize(
    "path",
    ["static/../app.py", "static/%2e%2e/app.py", "static/..%2f..%2f..%2fetc/passwd", "static//etc/passwd",
     "static/%2fetc/passwd", "static/..%5c..%5capp.py", "static/vendor/%00"],
)  # fmt: skip
def test_no_path_leads_out_of_the_assets(serve: Any, sqlite_pool: Pool, path: str) -> None:
    answer = serve(sqlite_pool).get(path)
    assert answer.status_code in (400, 404)
    assert "root:" not in answer.text
    assert "make_app" not in answer.text


def test_a_page_may_run_our_own_scripts_only(client: Any) -> None:
    # When pages, answers and refusals are looked at
    answers = [client.get(path, headers=PAGE) for path in ("docs", "openapi.json", "no/such/page", "healthz")]

    # Then each forbids what is not ours: inline scripts, frames, guessing of types
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "strict-transport-security" not in answer.headers
    # And none has what is forbidden
    for answer in answers[:1]:
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", answer.text)
        assert not re.search(r'(src|href)="https?://', answer.text)


def test_cookies_are_for_this_server_over_https_only(serve: Any, sqlite_pool: Pool, people: People) -> None:
    # Given a server behind a proxy that speaks HTTPS, under a path
    client = serve(sqlite_pool, users=people.file, secure=True, root_path="/pool")

    # When somebody logs in
    answer = client.post("login", data={"name": "viewer", "password": "the viewer's password"})

    # Then their cookie is for that path, for HTTPS, for no script, and not sent from other sites
    cookie = answer.headers["set-cookie"].lower()
    for word in ("; httponly", "; secure", "; samesite=lax", "; path=/pool"):
        assert word in cookie
    assert answer.headers["location"] == "/pool/"
    assert "max-age=31536000" in answer.headers["strict-transport-security"]

"""The page of who may come in: operators make API tokens there and revoke them, others do not see it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from server_parts import ROLES, People

from tokenpool.pool import Pool
from tokenpool.web.access.roster import Roster

PAGE = {"Accept": "text/html"}


def test_an_operator_makes_and_revokes_api_tokens_on_a_page(
    logged_in: Any, people: People, serve: Any, sqlite_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tokenpool.audit")
    # Given an operator in front of the page
    operator = logged_in("operator")
    shown = operator.get("access", headers=PAGE)
    assert shown.status_code == 200
    assert all(f">{name}<" in shown.text for name in ROLES)
    assert "password" not in shown.text

    # When they make a token for a week
    made = operator.post("access/tokens", data={"name": "node <7>", "role": "worker", "days": "7"}, headers=PAGE)

    # Then it is shown, this once, and opens what its role may
    found = re.search(r'id="secret"[^>]*>(tp_[^<]+)<', made.text)
    assert made.status_code == 200
    assert found
    assert made.headers["cache-control"] == "no-store"
    machine = {"Authorization": f"Bearer {found.group(1)}"}
    stranger = serve(sqlite_pool, users=people.file)
    assert stranger.get("api/v1/backend", headers=machine).status_code == 200
    again = operator.get("access", headers=PAGE).text
    assert found.group(1) not in again
    assert "node &lt;7&gt;" in again

    # And when it is revoked, it opens nothing
    (token,) = [token for token in Roster(people.file).people().tokens.values() if token.name == "node <7>"]
    assert token.expires is not None
    assert operator.post("access/revoke", data={"id": token.id}, headers=PAGE).status_code == 303
    assert stranger.get("api/v1/backend", headers=machine).status_code == 401

    # And lines say who did it, without the secret
    lines = [json.loads(record.message) for record in caplog.records if record.name == "tokenpool.audit"]
    assert [line["verb"] for line in lines if line["what"] == "node <7>"] == ["access token", "access revoke"]
    assert {line["name"] for line in lines} == {"operator"}
    assert found.group(1) not in caplog.text


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("tokens", {"name": "", "role": "viewer"}, 400),
        ("tokens", {"name": "x" * 101, "role": "viewer"}, 400),
        ("tokens", {"name": "a\nb", "role": "viewer"}, 400),
        ("tokens", {"name": "x", "role": "emperor"}, 400),
        ("tokens", {"name": "x", "role": "viewer", "days": "0"}, 400),
        ("tokens", {"name": "x", "role": "viewer", "days": "9" * 30}, 400),
        ("revoke", {"id": "nothing"}, 404),
    ],
)
def test_a_form_of_the_page_that_makes_no_sense_changes_nothing(
    logged_in: Any, people: People, path: str, form: dict[str, str], status: int
) -> None:
    before = people.file.read_text()
    assert logged_in("operator").post(f"access/{path}", data=form, headers=PAGE).status_code == status
    assert people.file.read_text() == before


def test_the_page_is_for_operators_of_a_server_with_a_file_of_people(
    logged_in: Any, serve: Any, sqlite_pool: Pool
) -> None:
    # Given somebody who is none, then they neither see it nor the way to it
    submitter = logged_in("submitter")
    assert submitter.get("access", headers=PAGE).status_code == 403
    assert ">Access<" not in submitter.get("workers", headers=PAGE).text
    assert ">Access<" in logged_in("operator").get("workers", headers=PAGE).text

    # And where nobody logs in, there is none
    local = serve(sqlite_pool)
    assert local.get("access", headers=PAGE).status_code == 404
    assert ">Access<" not in local.get("workers", headers=PAGE).text

"""picas' modifiers change tokens in place, plain or nested, and leave none where no view lists it."""

from __future__ import annotations

from typing import Any

import pytest

from tokenpool.documents import Token
from tokenpool.modifiers import BasicTokenModifier, NestedTokenModifier, TokenModifier
from tokenpool.transitions import state_of

VERBS = {
    "lock": "locked",
    "unlock": "todo",
    "close": "error",
    "unclose": "locked",
    "scrub": "todo",
    "set_error": "error",
}
BEFORE: dict[str, dict[str, Any]] = {
    "lock": {"lock": 0, "done": 0}, "unlock": {"lock": 5, "done": 0}, "close": {"lock": 5, "done": 0},
    "unclose": {"lock": 5, "done": 6}, "scrub": {"lock": 5, "done": 6}, "set_error": {"lock": 5, "done": 0},
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", [dict, Token])
def test_each_verb_changes_the_token_and_returns_it(verb: str, kind: Any) -> None:
    token = kind({"_id": "t", "type": "token", "exit_code": "", **BEFORE[verb]})
    assert getattr(BasicTokenModifier(), verb)(token) is token
    assert state_of(token) == VERBS[verb]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("ref", ["t", ["doc", "group", "t"]])
def test_nested_tokens_are_changed_where_they_are(verb: str, ref: Any) -> None:
    token = {"type": "token", "exit_code": "", **BEFORE[verb]}
    record: dict[str, Any] = {"t": token} if isinstance(ref, str) else {"_id": "doc", "group": {"t": token}}
    modifier = NestedTokenModifier()
    assert getattr(modifier, verb)(ref, record) is record
    assert modifier.get_token(ref, record) is token
    assert state_of(token) == VERBS[verb]


def test_output_is_added_to_both_kinds() -> None:
    assert BasicTokenModifier().add_output({"a": 1}, {"b": 2}) == {"a": 1, "b": 2}
    assert NestedTokenModifier().add_output("t", {"t": {"a": 1}}, {"b": 2}) == {"t": {"a": 1, "b": 2}}


def test_locking_names_host_and_time_and_scrubbing_counts() -> None:
    token: dict[str, Any] = {}
    BasicTokenModifier().lock(token)
    assert token["lock"] > 1_000_000_000
    assert token["hostname"]
    for n in (1, 2):
        assert BasicTokenModifier().scrub(token)["scrub_count"] == n


@pytest.mark.parametrize("verb", [*VERBS, "add_output"])
def test_the_base_class_knows_no_verb(verb: str) -> None:
    assert TokenModifier(timeout=5).timeout == 5
    with pytest.raises(NotImplementedError, match=verb):
        getattr(TokenModifier(), verb)({})

"""Changes tokens in somebody's name: operators change all, others their own; what is not theirs is skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ... import changes, edits, steering
from ...backends.base import Json
from ...changes import Changed
from ...errors import BadInput, NotFound, NotPermitted
from ...pool import Pool
from ...pushes import user_name
from ...selectors import Selector, parse
from ..access import Person, Role
from ..access.people import LOCAL

#: What may be done to tokens, by the words of the command line.
VERBS = ("retry", "reset", "scrub", "cancel", "rm", "pause", "resume", "edit")


def selected(words: Any) -> Selector:
    """Return the selector that a request names: a word, or a list of them; raises BadInput."""
    if isinstance(words, str):
        return parse([words])
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return parse(words)
    raise BadInput("the selection is no list of words", 'for example ["state:error", "batch:night"]')


def change(
    pool: Pool,
    person: Person,
    verb: str,
    selector: Selector,
    dry_run: bool = False,
    running: bool = False,
    fields: Mapping[str, Any] | None = None,
) -> Changed:
    """Apply a verb to the chosen tokens as far as this person may change them."""
    if verb not in VERBS:
        raise BadInput(f"there is no verb {verb!r}", ", ".join(VERBS))
    if verb == "edit":
        return _edit(pool, person, selector, fields or {}, dry_run)
    if verb == "cancel":
        chosen = changes.cancel_verb(user_name() if person == LOCAL else person.name)
    else:
        chosen = changes.REMOVE_RUNNING if verb == "rm" and running else changes.VERBS[verb]
    fits = chosen.fits
    holders: set[str] = set()
    mine = replace(chosen, fits=lambda doc: person.may_change(doc) and fits(doc))
    done = changes.apply(pool.backend, selector, steering.noting_holders(mine, holders), dry_run)
    steering.steer_many(pool.backend, sorted(holders), look=True)
    return done


def _edit(pool: Pool, person: Person, selector: Selector, fields: Mapping[str, Any], dry_run: bool) -> Changed:
    if "submitter" in fields and not person.may(Role.OPERATOR):
        raise NotPermitted("who submitted a token is not to be changed", "ask an operator")
    if person.may(Role.OPERATOR):
        return edits.edit(pool.backend, selector, fields, dry_run)
    matched, own = 0, []
    for doc in changes.select(pool.backend, selector):
        matched += 1
        if person.may_change(doc):
            own.append(str(doc["_id"]))
    if not own:
        return Changed(matched, 0, matched)
    done = edits.edit(pool.backend, Selector(ids=tuple(own)), fields, dry_run)
    return replace(done, matched=matched, skipped=done.skipped + matched - len(own))


def change_one(pool: Pool, person: Person, verb: str, token_id: str, **more: Any) -> Changed:
    """Apply a verb to one token; raises NotFound, NotPermitted."""
    own_token(pool, person, token_id)
    return change(pool, person, verb, Selector(ids=(token_id,)), **more)


def own_token(pool: Pool, person: Person, token_id: str) -> Json:
    """Return a token that this person may change; raises NotFound, NotPermitted."""
    doc = pool.backend.get_many([token_id])[0]
    if doc is None:
        raise NotFound(f"there is no token {token_id!r}", "it was deleted, or never there")
    if not person.may_change(doc):
        whose = f"it is {doc['submitter']}'s" if doc.get("submitter") else "it is nobody's"
        raise NotPermitted(f"you may not change token {token_id}: {whose}", "ask an operator")
    return doc


def as_json(done: Changed, verb: str, dry_run: bool) -> Json:
    """Return what was done in the form that the command line prints."""
    counts = {"matched": done.matched, "changed": done.changed, "skipped": done.skipped, "reopened": done.reopened}
    return {"schema": 1, "verb": verb, "dry_run": dry_run, **counts, "failed": list(done.failed)}

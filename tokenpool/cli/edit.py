"""The verb `edit`: changes fields of tokens that do not run, by words, by a patch, or in an editor."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

import click

from ..edits import CORE, difference, refuse_core
from ..errors import BadInput
from ..pool import Pool
from ..selectors import parse
from ..transitions import DONE, ERROR, LOCKED, state_of
from .bulk import bulk_options, confirmed, tell
from .fields import FIELDS, RESOURCES, typed
from .output import on_terminal, say
from .session import Session, verb

Json = dict[str, Any]

#: Fields that hold a text, whatever it looks like.
TEXTS = frozenset({"name", "description", "batch", "input", "command", "image", "env"})

_ASSIGNMENT = re.compile(r"([A-Za-z_][\w-]*(?:\.[^.=:\s]+)*)=(.*)", re.DOTALL)


@verb(
    "edit",
    "tokenpool edit task_1f0c priority=5 timeout=2h",
    "tokenpool edit state:error batch:night ram_gb=16 --yes",
    "tokenpool edit task_1f0c not_before=",
    "tokenpool edit batch:night --json-patch patch.json --dry-run",
)
@bulk_options
@click.option("--json-patch", "patch", metavar="FILE", help="A JSON object to be merged into each token; null removes.")
@click.pass_obj
def edit(session: Session, selector: tuple[str, ...], yes: bool, dry_run: bool, patch: str | None) -> int:
    """Change fields of tokens that do not run.

    FIELD=VALUE stands beside the selectors: the value is written as for `push`, or JSON, else it is a text; FIELD= removes
    the field, and A.B=VALUE is a field inside one. With an id alone, on a terminal, the token opens in $EDITOR. All tokens are checked before the first is
    written. A finished token runs again only after `retry` or `reset`.
    """
    fields, words = _split(selector)
    if patch is not None:
        fields = {**_read(patch), **fields}
    chosen = parse(words)
    with session.open() as pool:
        if chosen.ids:
            pool.count(chosen)
        if len(chosen.ids) == 1:
            _refuse_running(session, pool, chosen.ids[0])
        if not fields and patch is None:
            if len(chosen.ids) != 1 or not on_terminal():
                raise BadInput("no field is named", "write FIELD=VALUE, for example priority=5")
            fields = _in_editor(pool, chosen.ids[0])
            if not fields:
                say("nothing was changed")
                return 0
        refuse_core(fields)
        planned = pool.edit(chosen, fields, dry_run=True)
        if not dry_run and not confirmed(session, pool, "edit", chosen, yes, lambda: planned):
            return 1
        done = planned if dry_run else pool.edit(chosen, fields)
        ended = len(chosen.ids) == 1 and state_of(pool.get(chosen.ids[0]).doc) in (DONE, ERROR)
    code = tell(session, "edit", done, dry_run)
    if ended and not dry_run and not session.json:
        say(f"it is finished; to run it again: {session.command('retry', *chosen.ids)}")
    return code


def _refuse_running(session: Session, pool: Pool, token_id: str) -> None:
    if state_of(pool.get(token_id).doc) == LOCKED:
        raise BadInput(
            f"token {token_id} runs, and its worker has read it already",
            f"end it first: {session.command('cancel', token_id)}, or take it back: {session.command('reset', token_id)}",
        )


# --- fields --------------------------------------------------------------------------------------------------------------


def _split(words: Iterable[str]) -> tuple[Json, list[str]]:
    """Return the fields that are set, as a patch, and the words that choose tokens."""
    fields: Json = {}
    rest = []
    for word in words:
        found = _ASSIGNMENT.fullmatch(word)
        if found is None:
            rest.append(word)
            continue
        path, text = found.group(1).split("."), found.group(2)
        if path[0] in RESOURCES:
            path.insert(0, "resources")
        place = fields
        for name in path[:-1]:
            inside = place.setdefault(name, {})
            if not isinstance(inside, dict):
                raise BadInput(f"{word!r} is inside of what another word sets", f"set {name} once")
            place = inside
        place[path[-1]] = None if text == "" else _value(path, text)
    return fields, rest


def _value(path: list[str], text: str) -> Any:
    """Return what a text means in the field of this path: as `push` would read it, else JSON, else the text itself."""
    if path[0] == "resources" and len(path) == 2:
        return typed({path[1]: text})["resources"][path[1]] if path[1] in RESOURCES else text
    if len(path) == 1 and path[0] in FIELDS:
        return typed({path[0]: text})[path[0]]
    try:
        value = json.loads(text)
    except ValueError:
        return text
    # A command named true, or a batch named 7.
    return text if path[0] in TEXTS and not isinstance(value, (list, dict)) else value


def _read(path: str) -> Json:
    try:
        with click.open_file(path, encoding="utf-8") as file:
            return _object(file.read(), "standard input" if path == "-" else path)
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text", "a JSON object, in UTF-8") from None


def _object(text: str, name: str) -> Json:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{name} is no JSON: {error}", 'for example {"priority": 5, "timeout": null}') from None
    if not isinstance(found, dict):
        raise BadInput(f"{name} holds no JSON object", 'for example {"priority": 5, "timeout": null}')
    return found


def _in_editor(pool: Pool, token_id: str) -> Json:
    """Let the user change the token in an editor; return the patch that does the same."""
    doc = pool.get(token_id).doc
    before = {name: value for name, value in doc.items() if not (name.startswith("_") or name in CORE)}
    text = json.dumps(before, ensure_ascii=False, indent=2) + "\n"
    while True:
        sys.stdout.flush()
        changed = click.edit(text, extension=".json", require_save=True)
        if changed is None:
            return {}
        try:
            return difference(before, _object(changed, "the token"))
        except BadInput as error:
            if not click.confirm(f"{error}; edit again?", default=True, err=True):
                return {}
            text = changed

"""The verb `config`: which settings hold and where they come from; never a password."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..config import DEFAULTS, STORAGE, Setting, load, user_file
from ..errors import BadInput
from .output import print_json, print_table, say
from .session import Nouns, Session, help_if_bare, verb, without_password

#: Names of a storage's options whose values nobody needs to see.
_SECRET = re.compile(r"key|secret|token|pass|credential|sas|connection_string|auth", re.IGNORECASE)


@click.group("config", cls=Nouns, examples=("tokenpool config list --origin", "tokenpool config set slots 4"))
@click.pass_context
def config(ctx: click.Context) -> int:
    """Show and change the settings.

    A flag goes before the environment, that before ./tokenpool.toml, that before the user's file, that before picas'
    conf.yml, that before the default.
    """
    return help_if_bare(ctx)


@config.add_command
@verb("list", "tokenpool config list --origin")
@click.option("--origin", is_flag=True, help="Where each value comes from.")
@click.pass_obj
def list_settings(session: Session, origin: bool) -> None:
    """List all settings."""
    settings = session.settings()
    entries = {**settings.entries, **_options(settings.places)}
    if session.json:
        print_json({name: {"value": _shown(entry.value), "origin": entry.origin} for name, entry in entries.items()})
        return
    rows = [[name, str(_shown(entry.value)), *([entry.origin] if origin else [])] for name, entry in entries.items()]
    print_table(("setting", "value", *(["origin"] if origin else [])), rows, color={})


@config.add_command
@verb("get", "tokenpool config get pool")
@click.argument("name")
@click.pass_obj
def get(session: Session, name: str) -> None:
    """Print one setting."""
    value = _shown(session.settings()[_known(name)])
    if session.json:
        print_json(value)
    else:
        click.echo(str(value))


@config.add_command
@verb("set", "tokenpool config set pool couchdb+https://me@host:6984/night", "tokenpool config set grace 30")
@click.argument("name")
@click.argument("value")
def set_setting(name: str, value: str) -> None:
    """Write a setting into the user's file."""
    if name.split(".")[0] == STORAGE:
        told = 'a table in the file: [storage."s3://bucket/"] and below it endpoint_url = "https://host"'
        raise BadInput("the options of storages are not set one by one", f"{told}; tokenpool config path names it")
    default = DEFAULTS[_known(name)]
    if without_password(value) != value:
        raise BadInput(
            "a password does not belong into the settings",
            "leave it out of the URL; use TOKENPOOL_PASSWORD_FILE, or ~/.netrc",
        )
    # Checked as if it stood in the file; all else there is left out of it.
    checked = load({}, Path(os.devnull), **{name: value})[name]
    path = user_file(os.environ)
    _write(path, name, json.dumps(checked if not isinstance(default, str) else value, ensure_ascii=False))
    say(f"wrote {name} to {path}")
    now = load().entries[name]
    if now.origin != str(path):
        say(f"but {now.origin} goes before it here")


@config.add_command
@verb("path", 'less "$(tokenpool config path)"')
def path() -> None:
    """Print where the user's file is."""
    click.echo(str(user_file(os.environ)))


def _known(name: str) -> str:
    name = name.replace("-", "_")
    if name not in DEFAULTS:
        import difflib

        close = difflib.get_close_matches(name, DEFAULTS, 1)
        raise BadInput(
            f"there is no setting {name!r}", f"did you mean {close[0]!r}?" if close else f"known: {', '.join(DEFAULTS)}"
        )
    return name


def _options(places: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return the options of storages as settings, with stars for what may be a secret and is not named only."""
    found: dict[str, Setting] = {}
    for front, place in places.items():
        for name, value in place.value.items():
            shown = _masked(name, value)
            told = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, default=str)
            found[f'{STORAGE}."{without_password(front)}".{name}'] = Setting(told, place.origin)
    return found


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {inner: _masked(inner, each) for inner, each in value.items()}
    if isinstance(value, list):
        return [_masked(name, each) for each in value]
    if isinstance(value, str) and value.startswith("secret:"):
        return value
    return "***" if isinstance(value, str) and _SECRET.search(name) else value


def _shown(value: Any) -> Any:
    return without_password(value) if isinstance(value, str) else value


def _write(path: Path, name: str, value: str) -> None:
    """Put a line into the file in place of the old one; comments and the rest stay as they are."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if not re.match(rf"\s*{name}\s*=", line)]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent)
    with open(handle, "w", encoding="utf-8") as file:
        file.write("\n".join([*kept, f"{name} = {value}", ""]))
    os.replace(partial, path)

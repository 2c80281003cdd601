"""The verb `access`: who may use the server, with which role, and by which API tokens."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from ..errors import BadInput
from .output import one_line, print_json, print_table, say
from .serve import default_users, needs_web, users_option
from .session import Nouns, Session, help_if_bare, verb
from .types import DURATION

if TYPE_CHECKING:
    from ..web.access.roster import ApiToken, Roster

ROLES = ("viewer", "submitter", "worker", "operator")

role_option = click.option(
    "--role", type=click.Choice(ROLES), default="submitter", show_default=True, help="What they may do."
)
password_option = click.option(
    "--password-file", type=click.File(), metavar="FILE", help="Read the password from it; - is standard input."
)


@click.group(
    "access",
    cls=Nouns,
    examples=(
        "tokenpool access add ann --role operator",
        "tokenpool access token nextflow --role submitter --expires 90d",
        "tokenpool access revoke 3f2a9c01",
    ),
)
@click.pass_context
def access(ctx: click.Context) -> int:
    """Show and change who may use the server.

    A viewer looks; a submitter also pushes, and changes their own tokens; a worker is a machine that works through the
    server; an operator may do everything. Passwords and API tokens are kept as hashes; a running server obeys at once.
    """
    return help_if_bare(ctx)


@access.add_command
@verb("list", "tokenpool access list", "tokenpool access list --json | jq '.tokens[].id'")
@users_option
@click.pass_obj
def list_people(session: Session, users: Path | None) -> None:
    """List people and API tokens."""
    people = _roster(users).people()
    if session.json:
        told = [{"name": each.name, "role": each.role} for each in people.users.values()]
        print_json({"schema": 1, "users": told, "tokens": [_as_json(each) for each in people.tokens.values()]})
        return
    if people.users:
        print_table(("name", "role"), [[one_line(each.name), each.role] for each in people.users.values()], color={})
    if people.tokens:
        rows = [[each.id, one_line(each.name), each.role, _ends(each)] for each in people.tokens.values()]
        print_table(("API token", "name", "role", "expires"), rows, color={})
    if not people.users and not people.tokens:
        say("nobody is known: tokenpool access add NAME")


@access.add_command
@verb("add", "tokenpool access add ann --role operator", "tokenpool access add bob --password-file bob.txt")
@click.argument("name")
@role_option
@password_option
@users_option
def add(name: str, role: str, password_file: TextIO | None, users: Path | None) -> None:
    """Add somebody; their password is asked for."""
    _roster(users).add(name, role, _password(name, password_file))
    say(f"{name} may log in as {role}")


@access.add_command
@verb("passwd", "tokenpool access passwd ann", "pwgen 20 1 | tokenpool access passwd ann --password-file -")
@click.argument("name")
@password_option
@users_option
def passwd(name: str, password_file: TextIO | None, users: Path | None) -> None:
    """Give somebody another password; where they are logged in, they are no more."""
    _roster(users).set_password(name, _password(name, password_file))
    say(f"{name} has another password")


@access.add_command
@verb("role", "tokenpool access role ann viewer")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
@users_option
def role(name: str, role: str, users: Path | None) -> None:
    """Let somebody do more, or less."""
    _roster(users).set_role(name, role)
    say(f"{name} is {role} now")


@access.add_command
@verb("remove", "tokenpool access remove ann")
@click.argument("name")
@users_option
def remove(name: str, users: Path | None) -> None:
    """Let somebody in no more."""
    _roster(users).remove(name)
    say(f"{name} may log in no more")


@access.add_command
@verb("token", "tokenpool access token nextflow --role submitter --expires 90d")
@click.argument("name")
@role_option
@click.option("--expires", type=DURATION, metavar="TIME", help="After so long it holds no more; else until revoked.")
@users_option
@click.pass_obj
def token(session: Session, name: str, role: str, expires: float | None, users: Path | None) -> None:
    """Make an API token and print it; it can be read now and never again.

    It is sent as `Authorization: Bearer tp_…`. What it pushes has NAME as its submitter.
    """
    made = _roster(users).new_token(name, role, expires)
    if session.json:
        print_json({"schema": 1, "token": made})
    else:
        click.echo(made)


@access.add_command
@verb("revoke", "tokenpool access revoke 3f2a9c01")
@click.argument("token_id", metavar="ID")
@users_option
def revoke(token_id: str, users: Path | None) -> None:
    """Let an API token hold no more; its id is in `access list`."""
    gone = _roster(users).revoke(token_id.removeprefix("tp_").partition("_")[0])
    say(f"API token {gone.id} of {gone.name} holds no more")


def _roster(users: Path | None) -> Roster:
    needs_web()
    from ..web.access.roster import Roster

    return Roster(users or default_users())


def _password(name: str, file: TextIO | None) -> str:
    if file is not None:
        return str(file.readline()).rstrip("\r\n")
    if not sys.stdin.isatty():
        raise BadInput(
            "a password cannot be asked for here", "--password-file FILE, or --password-file - to pipe it in"
        )
    return str(click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True))


def _ends(each: ApiToken) -> str:
    if each.expires is None:
        return "never"
    return _time(each.expires) + (" (expired)" if each.expired(time.time()) else "")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")


def _as_json(each: ApiToken) -> dict[str, object]:
    return {"id": each.id, "name": each.name, "role": each.role, "created": each.created, "expires": each.expires}

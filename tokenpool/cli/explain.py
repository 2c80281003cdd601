"""The verb `explain`: why a token does not run, who runs it, how it ended."""

from __future__ import annotations

import click

from .output import COLORS, one_line, print_json
from .session import Session, verb


@verb("explain", "tokenpool explain task_1f0c", "tokenpool explain task_1f0c --json | jq -r '.reasons[].code'")
@click.argument("token_id", metavar="ID")
@click.pass_obj
def explain(session: Session, token_id: str) -> None:
    """Say why a token does not run, who runs it, or how it ended.

    The reason that counts most comes first; the line below it is what can be done about it.
    """
    with session.open() as pool:
        found = pool.explain(token_id)
    if session.json:
        print_json(found.as_json())
        return
    click.echo(f"{one_line(found.id)}  {click.style(found.state, fg=COLORS[found.state])}")
    for reason in found.reasons:
        click.echo(f"  {one_line(reason.text)}")
        if reason.hint:
            click.echo(click.style(f"      {one_line(reason.hint)}", dim=True))

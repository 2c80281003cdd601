"""The verb `completion`."""

from __future__ import annotations

import click

from .session import verb


@verb(
    "completion",
    'eval "$(tokenpool completion bash)"          # in ~/.bashrc',
    "tokenpool completion fish > ~/.config/fish/completions/tokenpool.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from . import COMPLETE, root

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "tokenpool", COMPLETE).source())

"""The verb `exec`: runs a token's command here and now, to look into what fails; the token itself is not touched."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from ..ahead import Watching
from ..backends.base import Json
from ..bays import Bays
from ..children import Finished
from ..errors import BadInput
from ..executers import Supervisor, foreground
from ..lifecycle import Context, prepare
from ..limits import Limits
from ..pool import Pool
from ..runners import Runners
from ..runners.base import Places, Policy, Result
from ..runners.command import CommandRunner
from ..worker_options import WorkerOptions
from ..workplace import MovesData
from .output import say
from .policy import staging_of
from .session import Session, verb


class Foreground:
    """What a runner may ask for, done on this terminal: no log files, no supervisor, the user's own input."""

    def __init__(self, pool: Pool) -> None:
        self.policy = Policy(modules=("*",))
        self._pool = pool

    def attachment(self, token: Mapping[str, Any], name: str) -> Iterator[bytes]:
        """Return what is attached to the token."""
        return self._pool.backend.get_attachment(token["_id"], name)

    def execute(self, argv: list[str], places: Places, timeout: float | None) -> Finished:
        """Run one command to its end, with our standard streams."""
        return foreground(argv, cwd=places.work, env=places.environment, timeout=timeout)


@verb(
    "exec",
    "tokenpool exec task_1f0c",
    "tokenpool exec task_1f0c -- bash",
    "tokenpool exec task_1f0c --keep -- python -m pdb simulate.py",
    takes_command=True,
)
@click.argument("token_id", metavar="ID")
@click.option("--keep", is_flag=True, help="Keep the folder; without it, only that of a command that failed is kept.")
@click.pass_context
def exec_token(ctx: click.Context, token_id: str, keep: bool) -> int:
    """Run a token here, without claiming or changing it.

    It runs in a fresh folder, with its inputs and the environment that a worker would give it, on this terminal; its outputs
    stay in that folder. What stands behind -- runs in its place: a shell, to look around. The exit code is the command's.
    """
    session = ctx.ensure_object(Session)
    command = ctx.meta.get("tokenpool.command")
    if command == []:
        raise BadInput("there is no command behind --", session.command("exec", token_id, "--", "bash"))
    with session.open() as pool:
        doc = pool.get(token_id).doc
        root = Path(tempfile.mkdtemp(prefix="tokenpool-exec-"))
        failed = False
        try:
            result = _run({**doc, "lease": {"claim": uuid4().hex}}, pool, root, command, session)
            failed = bool(result.exit_code)
        finally:
            if not (keep or failed):
                shutil.rmtree(root, ignore_errors=True)
    if result.message:
        say(result.message)
    if keep or failed:
        say(f"the folder is kept: {root}")
    return result.exit_code


def _run(doc: Json, pool: Pool, root: Path, command: list[str] | None, session: Session) -> Result:
    """Run the token, or the command in its place, which has no time limit."""
    bays = Bays(str(root / "attempt"))
    policy = Policy(secrets=str(session.settings()["secrets"]))
    moves = MovesData(WorkerOptions(policy=policy, **staging_of(session, {})), pool.backend, bays)
    with Supervisor() as supervisor, Limits("exec") as limits:
        places = prepare(doc, Context(pool.backend, supervisor, bays, limits, stager=moves))
        if doc.get("inputs"):
            moves().fetch(doc, places, Watching(doc["lease"]["claim"]))
        if command is not None:
            # One word with spaces is a shell line, as for `push`.
            line = command[0] if len(command) == 1 and " " in command[0] else command
            return CommandRunner().run({"command": line}, places, Foreground(pool))
        runners = Runners()
        try:
            return runners.of(doc).run(doc, places, Foreground(pool))
        finally:
            runners.close()

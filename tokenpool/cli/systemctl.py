"""Talks to systemd for the verb `service`: tells it what to do where it runs, and the user where it does not."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import TokenpoolError
from .output import say, warn

#: Seconds that systemctl gets for what waits for nothing.
PATIENCE = 60.0


def line(system: bool, words: Sequence[str]) -> str:
    """Return a call of systemctl as it is typed."""
    return shlex.join(["systemctl", *([] if system else ["--user"]), *words])


def why_not(system: bool) -> str | None:
    """Return why systemd cannot be told anything here; None where it can."""
    if shutil.which("systemctl") is None:
        return "systemctl is not on PATH"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    socket = Path("/run/systemd/private") if system else Path(runtime) / "systemd" / "private"
    return None if socket.exists() else f"no systemd runs {'this machine' if system else 'for this user'}"


def tell(system: bool, calls: Sequence[Sequence[str]], patience: float | None = PATIENCE) -> bool:
    """Have systemd do something, and tell whether it could be asked; where not, tell what is left to be done."""
    why = why_not(system)
    if why is not None:
        warn(f"{why}: nothing was started or stopped")
        click.echo(f"hint: where systemd runs: {' && '.join(line(system, words) for words in calls)}", err=True)
        return False
    for words in calls:
        call(system, words, patience)
    return True


def call(system: bool, words: Sequence[str], patience: float | None = PATIENCE) -> str:
    """Return what systemctl says; raises TokenpoolError with its last line."""
    argv = shlex.split(line(system, words))
    hint = f"tokenpool service show tells the unit; try by hand: {shlex.join(argv)}"
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=patience, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise TokenpoolError(f"systemctl {words[0]} did not answer within {patience:g} s", hint) from None
    if done.returncode != 0:
        said = [each.strip() for each in done.stderr.splitlines() if each.strip()] or [f"exit code {done.returncode}"]
        raise TokenpoolError(f"systemctl {words[0]} failed: {said[0]}", hint)
    return done.stdout


def tell_of_lingering() -> None:
    """Say that a user's services end with the last session, where they do."""
    name = _account()
    if name and not Path("/var/lib/systemd/linger", name).exists():
        say(
            f"it ends when {name} logs out; to keep it, and to start it at boot: loginctl enable-linger {shlex.quote(name)}"
        )


def _account() -> str:
    """Return the name of this process's account, "" where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""

"""Runs the commands of batch systems: with a time limit, without secrets, and with refusals told in two lines."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import NotFound
from .base import Job, LaunchFailed, QuotaReached

#: Seconds that a batch system gets for one answer.
PATIENCE = 60.0
#: Variables that would travel into jobs and into the files that a batch system keeps of them.
SECRET = ("TOKENPOOL_PASSWORD", "PICAS_PASSWORD")
#: What batch systems say when there could be more later.
_QUOTA = re.compile(
    r"MaxSubmit|MaxJob|SubmitLimit|QOS\w*Limit|quota|would exceed|limit (?:on|of) .*jobs", re.IGNORECASE
)


class NoAnswer(LaunchFailed):
    """Nobody knows whether it was done: the answer took too long, or made no sense."""


@dataclass(frozen=True)
class Said:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The last line that says what is wrong, as one clean line."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith("Try ")] or lines
        line = lines[-1] if lines else f"exit code {self.code}"
        return "".join(letter for letter in line if letter.isprintable())[:300]


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that may be seen by a batch system."""
    return {name: value for name, value in environ.items() if name not in SECRET}


def find_program(name: str, system: str) -> str:
    """Return the path of a batch system's command; raises NotFound."""
    found = shutil.which(name)
    if found is None:
        raise NotFound(
            f"{name} is not on PATH: this machine cannot talk to {system}",
            f"log in where {name} works, or load its module first",
        )
    return found


def ask(argv: Sequence[str], system: str, stdin: str = "", patience: float | None = None) -> Said:
    """Run a command of a batch system to its end; raises NotFound without it, NoAnswer if it takes too long."""
    program, patience = find_program(argv[0], system), PATIENCE if patience is None else patience
    process = subprocess.Popen(
        [program, *argv[1:]], env=without_secrets(os.environ), start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            out, err = process.communicate(stdin.encode(), timeout=patience)
        except subprocess.TimeoutExpired:
            raise NoAnswer(
                f"{argv[0]} did not answer within {patience:g} s", "tokenpool launch list tells later what was taken"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return Said(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def advice_for(said: Said, by_sign: Mapping[str, str], otherwise: str) -> str:
    """Return what to do about a refusal: the advice of the first sign that stands in what was said.

    >>> advice_for(Said(1, "", "no Proxy"), {"proxy": "get one"}, "see the manual")
    'get one'
    """
    text = (said.out + said.err).lower()
    return next((advice for sign, advice in by_sign.items() if sign in text), otherwise)


def refusal(said: Said, what: str, hint: str, jobs: Sequence[Job] = ()) -> LaunchFailed:
    """Return the error that a refusing command means."""
    if _QUOTA.search(said.err + said.out):
        return QuotaReached(f"{what}: {said.complaint}", "wait until some have ended, or launch fewer", jobs)
    return LaunchFailed(f"{what}: {said.complaint}", hint, jobs)

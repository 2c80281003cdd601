"""What every peer answers: how long N shell tokens took, and how many results of each kind were found afterwards."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: What each token runs, everywhere: one process.
SHELL, COMMAND = "/bin/sh", "true"


class Missing(Exception):
    """The peer is not installed here; the text says what to install."""


@dataclass(frozen=True)
class Measured:
    """One run: seconds from the first submitted token to the last result, and what was counted after it."""

    seconds: float
    exit_codes: int
    logs: int
    kept: str


def program(name: str, package: str) -> str:
    """Return the path of a program; raises Missing."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"apt-get install {package}")
    return found


def first_line(*command: str) -> str:
    """Return the first line that a program says about itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0]


def files_below(folder: Path, *names: str) -> int:
    """Return the number of files whose name fits one of the patterns."""
    return sum(1 for name in names for path in folder.rglob(name) if path.is_file())

"""xargs -P: the floor that creating processes allows; it keeps nothing at all."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from base import COMMAND, SHELL, Measured, first_line, program


def version() -> str:
    return first_line(program("xargs", "findutils"), "--version")


def run(tokens: int, slots: int, folder: Path) -> Measured:
    lines = "\n".join(map(str, range(tokens)))
    began = time.perf_counter()
    subprocess.run(["xargs", f"-P{slots}", "-I{}", SHELL, "-c", COMMAND], input=lines, text=True, check=True)
    return Measured(time.perf_counter() - began, 0, 0, "nothing")

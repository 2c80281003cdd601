"""GNU parallel with a log of exit codes and a file for each output."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from base import COMMAND, SHELL, Measured, files_below, first_line, program


def version() -> str:
    return first_line(program("parallel", "parallel"), "--version")


def run(tokens: int, slots: int, folder: Path) -> Measured:
    command = ["parallel", "--will-cite", f"-j{slots}", "--joblog", "joblog", "--results", "results"]
    lines = "\n".join(map(str, range(tokens)))
    environment = {**os.environ, "PARALLEL_SHELL": SHELL, "HOME": str(folder)}
    began = time.perf_counter()
    # Without a place for its argument in the command it would add one.
    subprocess.run(
        [*command, f"{COMMAND} # {{}}"],
        input=lines,
        text=True,
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    took = time.perf_counter() - began
    codes = sum(line.split("\t")[6] == "0" for line in (folder / "joblog").read_text().splitlines()[1:])
    return Measured(took, codes, files_below(folder / "results", "stdout", "stderr"), "joblog, two files each")

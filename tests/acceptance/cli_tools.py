"""Calls the command line in this process, as a shell would: words in; exit code, standard output and error out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tokenpool.cli import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """What a call gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The first line of an error that is exactly two lines."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 2, self.err
        assert lines[0].startswith("error: "), self.err
        assert lines[1].startswith("hint: "), self.err
        return lines[0]


def call(*words: object, stdin: str | bytes = b"") -> Answer:
    """Run one verb in this process, without a terminal."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="surrogateescape", write_through=True) for _ in range(2))
    with tempfile.TemporaryFile("w+b") as file:
        file.write(stdin if isinstance(stdin, bytes) else stdin.encode())
        file.seek(0)
        reader = io.TextIOWrapper(file, "utf-8")
        with mock.patch.object(sys, "stdin", reader), redirect_stdout(out), redirect_stderr(err):
            code = main([str(word) for word in words])
    told = [stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err)]  # type: ignore[attr-defined]
    answer = Answer(code, *told)
    assert "Traceback" not in answer.err, answer.err
    return answer


def ok(*words: object, stdin: str | bytes = b"") -> Answer:
    """Run one verb that must succeed."""
    answer = call(*words, stdin=stdin)
    assert answer.code == 0, answer
    return answer


def command(*words: object) -> list[str]:
    """Return the arguments that start the program in a process of its own."""
    return [sys.executable, "-m", "tokenpool", *map(str, words)]


def environment() -> dict[str, str]:
    """Return an environment in which that process finds this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def spawn(words: Sequence[object], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(command(*words), env=environment(), capture_output=True, text=True, timeout=60, **more)


def use(url: str) -> str:
    """Make this the pool of all calls, with its views; return its URL."""
    Path("tokenpool.toml").write_text(f"pool = {json.dumps(url)}\n")
    ok("init")
    return url


def states() -> dict[str, int]:
    """Return the tokens of the pool by state, without those states that have none."""
    return {state: count for state, count in ok("status", "--json").json["states"].items() if count}


def ids(*selector: str) -> list[str]:
    """Return the ids of the chosen tokens, as scripts get them."""
    return ok("list", "-q", *selector).out.split()

"""What tests of CWL workflows use: a suite of small workflows, git repositories as remotes, and the verbs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_tools import call, ok

SUITE = Path(__file__).resolve().parent / "suite"
TOOLS = SUITE / "tools"


def need(*programs: str) -> None:
    """Skip where a program is missing; fail where everything has to be there."""
    beside = Path(sys.executable).parent
    missing = [each for each in programs if shutil.which(each) is None and not (beside / each).exists()]
    if missing and os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail(f"there is no {missing[0]}", pytrace=False)
    if missing:
        pytest.skip(f"there is no {missing[0]}")


# ── remotes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Remotes:
    """A folder of git repositories as a server has them: ``<user>/<repo>``."""

    root: Path

    @property
    def file_url(self) -> str:
        return self.root.as_uri()

    def make(self, name: str, files: Mapping[str, str], branch: str = "main") -> Remote:
        """Make a repository with one commit."""
        folder = self.root / name
        folder.mkdir(parents=True)
        remote = Remote(folder)
        remote.git("init", "--quiet", "--initial-branch", branch)
        remote.commit(files)
        return remote


@dataclass(frozen=True)
class Remote:
    """One repository."""

    folder: Path

    def git(self, *words: str) -> str:
        who = {f"GIT_{role}_{part}": "someone" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["git", *words], cwd=self.folder, env={**os.environ, **who}, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str]) -> str:
        """Write files, commit them; return the commit."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a change")
        # What a plain web server needs.
        self.git("update-server-info")
        return self.git("rev-parse", "HEAD")


# ── pools ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pushed(*words: object) -> str:
    """Push one workflow; return its token's id."""
    return ok("push", "--cwl", *words).out.strip()


def work(*words: object) -> None:
    """Run all that waits."""
    answer = call("work", "--quit", "--slots", 2, *words)
    assert answer.code == 0, answer.err


def token(token_id: str) -> dict[str, Any]:
    """Return a token as the pool has it."""
    found: dict[str, Any] = ok("show", token_id, "--json").json
    return found


def attachment(token_id: str, name: str) -> bytes:
    from tokenpool.pool import connect

    with connect() as pool:
        return pool.attachment(token_id, name)


def message(token_id: str) -> tuple[str, str]:
    """Return the failure class and the message of a token that failed."""
    found = token(token_id)
    return found["attempts"][-1]["failure_class"], found["error"][-1]["message"]


def comparable(result: Any) -> Any:
    """Return an output object without the places of its files, which differ from run to run."""
    if isinstance(result, dict):
        return {name: comparable(each) for name, each in result.items() if name not in ("location", "path")}
    return [comparable(each) for each in result] if isinstance(result, list) else result


def here_and_now(folder: Path, *words: object) -> tuple[int, Any, str]:
    """Run a workflow without a pool, in a process of its own; return exit code, output object, log."""
    folder.mkdir()
    command = [sys.executable, "-m", "tokenpool", "run-cwl", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr

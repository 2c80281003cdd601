"""The examples for users of makeitso and lando run as they stand, and the benchmark of conformance too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cwl_tools import SUITE, need

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("cwltool")


def run(*words: object) -> str:
    """Run a program with this Python's `tokenpool` on its path; return what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        list(map(str, words)), env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_makeitso_session() -> None:
    need("git")
    told = run(ROOT / "examples" / "makeitso" / "session.sh").splitlines()
    assert told[0] == "here and now: 12"
    assert told[1] == "through the pool: sha1$ad552e6dc057d1d825bf49df79d6b98eba846ebe"
    assert told[2].startswith("of commit: ")


def test_a_lando_job() -> None:
    need("git")
    assert run(ROOT / "examples" / "lando" / "session.sh") == "report: MouseRNA.txt\nexit code: 0\n"


def test_the_conformance_benchmark_finds_the_pool_equal() -> None:
    # When tests of both kinds, one that has to fail among them, are run through a pool and without one
    need("cwltest")
    told = run(sys.executable, ROOT / "benchmarks" / "cwl_conformance.py", SUITE, "--limit", "4")
    # Then all pass on both sides
    through, alone = ([int(each) for each in line.split()[-4:-1]] for line in told.splitlines()[1:3])
    assert through == alone == [4, 0, 0]
    assert told.splitlines()[-1] == "equal"

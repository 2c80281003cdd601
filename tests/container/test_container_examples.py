"""The example for users of PYTQ runs as it stands, in each engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from engines import IMAGE, EngineServer

SESSION = Path(__file__).resolve().parents[2] / "examples" / "pytq" / "session.sh"


def test_pytq_launch_and_a_worker(engine: EngineServer) -> None:
    # Given the test's image in place of alpine
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "IMAGE": IMAGE}
    # When the session runs
    done = subprocess.run([str(SESSION)], env=environ, capture_output=True, text=True, check=False)
    # Then each task has done its work in the shared folder
    assert done.returncode == 0, done.stdout + done.stderr
    first, *others = done.stdout.splitlines()
    assert first == "Hello world!"
    assert [line.split()[:4] for line in others] == [[f"task{n}:", "try", "1", "with"] for n in (1, 2, 3)]

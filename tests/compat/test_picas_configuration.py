"""What picas and we write of a user's configuration, the other reads: file, key and password."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = ("--host-url", "https://picas.example:6984", "--database", "pool", "--username", "ann")
PASSWORD = "gr3en håt"


@pytest.mark.parametrize("writer", ["picas", "tokenpool"])
def test_one_writes_and_the_other_reads(python: str, tmp_path: Path, writer: str) -> None:
    # Given a home with .config, without which picas fails
    home = tmp_path / "home"
    (home / ".config").mkdir(parents=True)
    environment = {**os.environ, "HOME": str(home), "PYTHONWARNINGS": "ignore"}
    programs = {"picas": (python, environment), "tokenpool": (sys.executable, {**environment, "PYTHONPATH": str(ROOT)})}

    def run(library: str, code: str, *argv: str) -> str:
        program, env = programs[library]
        done = subprocess.run(
            [program, "-c", code.replace("LIBRARY", library), *argv],
            env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    # When one writes the configuration
    run(writer, "from LIBRARY.apps.picas_cli import main; main()", "init", *ACCOUNT, "--password", PASSWORD)
    # Then the other reads it, password and all
    reader = "tokenpool" if writer == "picas" else "picas"
    told = run(
        reader,
        "from LIBRARY.picas_config import PicasConfig; from LIBRARY.crypto import decrypt_password;"
        "config = PicasConfig().config; word = config['encrypted_password'];"
        "print(ascii(decrypt_password(word if isinstance(word, bytes) else word.encode()).decode()));"
        "print(config['host_url'], config['database'], config['username'])",
    )
    assert told.splitlines()[-2:] == [ascii(PASSWORD), "https://picas.example:6984 pool ann"]

"""Machines without an engine, sockets that are not for us, and picas' workers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_tools import ROOT, ok, use
from container_tools import failure, kept, message, out, push, shown, work_off
from engines import IMAGE, EngineServer


@pytest.fixture
def pool(sqlite_url: str) -> str:
    """An empty pool."""
    return use(sqlite_url)


@pytest.mark.parametrize("engine_name", ["auto", "docker", "podman"])
def test_no_engine(pool: str, engine_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    monkeypatch.setenv("PATH", "/usr/bin/nonexistent")
    work_off("--engine", engine_name, command="true")
    assert failure(shown("t"))[1] == "system"
    assert f"nobody answers at {tmp_path}/nobody.sock; start Docker" in message(shown("t"))


def test_no_apptainer(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin/nonexistent")
    work_off("--engine", "apptainer", command="true")
    assert failure(shown("t"))[1] == "system"
    assert "neither apptainer nor singularity was found" in message(shown("t"))


def test_something_else_that_listens_is_no_engine(pool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as odd:
        os.chdir(tmp_path)
        odd.bind("odd.sock")
        odd.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/odd.sock")
        work_off("--grace", "1s", command="true", timeout=2)
    assert failure(shown("t"))[1] in ("system", "timeout")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_a_socket_that_is_not_for_us(engine: EngineServer) -> None:
    script = (
        "import os, sys; from tokenpool.engines.finding import find; from tokenpool.engines.base import EngineTrouble\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: find('docker', os.environ)\n"
        "except EngineTrouble as error: print(error, error.hint, error.failure_class, sep='|')\n"
    )
    engine.socket.chmod(0o600)
    answer = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    told, hint, kind = answer.stdout.strip().split("|")
    assert told == f"no permission to use the container engine at {engine.socket}", answer.stderr
    assert "add the worker's user to the group of that socket" in hint
    assert kind == "system"


def test_without_the_engines_library_the_token_says_what_to_install(
    engine: EngineServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "docker.py").write_text("raise ImportError('no docker')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))
    work_off(command="true")
    assert failure(shown("t"))[1] == "system"
    assert message(shown("t")).endswith("pip install 'tokenpool[container]'")


@pytest.mark.parametrize(
    "fields",
    [
        {"image": IMAGE, "command": "echo 'a b' > /output/x; cat /output/x", "env": {"A": "1 2"}},
        {"image": IMAGE, "command": ["sh", "-c", "echo a b; pwd"]},
        {
            "executors": [
                {"image": IMAGE, "command": ["sh", "-c", "echo $WORD; exit 3"], "env": {"WORD": "x y"}, "ignore_error": True},
                {"image": IMAGE, "command": ["echo", "a b"], "stdout": "/output/o"},
                {"image": IMAGE, "command": ["cat"], "stdin": "o", "workdir": "/output"},
            ]
        },
    ],
)  # fmt: skip
def test_the_line_for_picas_workers_does_the_same(engine: EngineServer, fields: dict[str, Any], tmp_path: Path) -> None:
    work_off(**fields)
    folder = tmp_path / "picas"
    folder.mkdir()
    line = subprocess.run(shown("t")["input"], shell=True, cwd=folder, capture_output=True, text=True, check=True)
    # Ours also logs what goes to a file.
    assert line.stdout
    assert list(dict.fromkeys(out().splitlines())) == line.stdout.splitlines()


# ── apptainer ────────────────────────────────────────────────────────────────────────────────────────────────────────

FAKE = """#!/bin/sh
printf '%s\\n' "$@" > "{seen}"
env | grep ENV_ >> "{seen}"
case "$*" in *missing*) echo "FATAL:   While checking image: could not open image /missing.sif" >&2; exit 255;; esac
while [ $# -gt 0 ]; do [ "$1" = docker://alpine:3 ] && break; shift; done
shift
cd "$TOKENPOOL_WORKDIR" 2>/dev/null
exec "$@"
"""


@pytest.fixture
def apptainer(pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that notes how it was called and runs the command without a container."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "apptainer").write_text(FAKE.format(seen=tmp_path / "seen"))
    (folder / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    return tmp_path / "seen"


Seen = Callable[[], list[str]]


def test_apptainer_is_used_where_there_is_no_engine(apptainer: Path) -> None:
    work_off("--no-network", image="alpine:3", command="echo hi; exit 3", env={"COLOUR": "red"})
    assert failure(shown("t")) == (3, "executor")
    assert out() == "hi\n"
    words = apptainer.read_text().splitlines()
    work = str(kept().resolve().parent)
    assert words[:5] == ["exec", "--containall", "--no-home", "--pwd", "/work"]
    binds = [words[at + 1] for at, word in enumerate(words) if word == "--bind"]
    assert [each.rpartition(":")[0].rpartition(":")[2] for each in binds] == [
        "/work", "/input", "/output", "/tmp", "/resource", "/work/resource",
    ]  # fmt: skip
    assert all(each.startswith(work) for each in binds)
    assert [each.rpartition(":")[2] for each in binds] == ["rw"] * 4 + ["ro"] * 2
    assert words[words.index("--net") :][:3] == ["--net", "--network", "none"]
    assert "APPTAINERENV_COLOUR=red" in words
    assert "APPTAINERENV_INPUT=/input" in words


def test_executors_of_apptainer_hand_on_files(apptainer: Path) -> None:
    steps = [
        {"image": "alpine:3", "command": ["sh", "-c", "echo abc; exit 1"], "stdout": "/output/o", "ignore_error": True},
        {"image": "alpine:3", "command": ["tr", "a", "x"], "stdin": "/output/o"},
    ]
    work_off("--engine", "apptainer", executors=steps)
    assert failure(shown("t")) == (0, None)
    assert out() == "xbc\n"


def test_options_of_apptainer_are_allowed_by_the_worker_too(apptainer: Path) -> None:
    work_off("--allow-option", "nv", image="alpine:3", command="true", container_options=["--nv"])
    assert "--nv" in apptainer.read_text().splitlines()
    push(_id="refused", image="alpine:3", command="true", container_options=["--fakeroot"])
    ok("work", "--quit", "--slots", 1, "--workdir", "scratch", "--cleanup", "always")
    assert failure(shown("refused"))[1] == "invalid"


def test_an_image_that_apptainer_does_not_find(apptainer: Path) -> None:
    work_off(image="/missing.sif", command="true")
    assert failure(shown("t")) == (255, "staging")
    assert "could not open image /missing.sif" in message(shown("t"))

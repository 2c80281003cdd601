"""The program picas-cli, from its command line to its exit code."""

from __future__ import annotations

import os
import runpy
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenpool import crypto, picas_config
from tokenpool.apps import picas_cli

ROOT = Path(__file__).parents[2]
ACCOUNT = ["--host-url", "https://picas.example:6984", "--database", "pool", "--username", "ann"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and an environment that says nothing of picas."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(crypto, "CRYPTO_KEY_PATH", str(tmp_path / ".config/picas/key.dat"))
    for name in picas_config.ENVIRONMENT.values():
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def init(*options: str) -> int:
    return picas_cli.main(["init", *ACCOUNT, "--password", "secret", *options])


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_no_verb_prints_the_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code = picas_cli.main([])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert all(verb in err for verb in ("init", "passwd", "dump-config"))


def test_an_unknown_verb_is_two_lines_and_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        picas_cli.main(["tokens"])

    error, hint = lines(capsys)
    assert caught.value.code == 2
    assert error.startswith("error: ")
    assert hint == "hint: picas-cli --help"


def test_init_then_dump_leaves_the_password_out(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init() == 0
    assert picas_cli.main(["dump-config"]) == 0

    out = capsys.readouterr().out
    script: dict[str, Any] = {}
    exec(out, script)
    assert script["PICAS_HOST_URL"] == "https://picas.example:6984"
    assert (script["PICAS_DATABASE"], script["PICAS_USERNAME"]) == ("pool", "ann")
    assert script["PICAS_PASSWORD"] == "***"
    assert "secret" not in out


def test_the_password_is_dumped_when_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init()

    assert picas_cli.main(["dump-config", "--show-password"]) == 0

    assert "PICAS_PASSWORD = 'secret'" in capsys.readouterr().out


def test_a_login_inside_the_address_is_left_out_too(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picas_cli.main(["init", "--host-url", "https://ann:inline@h", "--username", "ann", "--password", "secret"])

    picas_cli.main(["dump-config"])
    assert "inline" not in capsys.readouterr().out
    picas_cli.main(["dump-config", "--show-password"])
    assert "https://ann:inline@h" in capsys.readouterr().out


def test_a_dumped_file_is_private_even_if_it_was_not(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init()
    target = home / "picasconfig.py"
    target.write_text("x" * 10_000)
    target.chmod(0o644)

    assert picas_cli.main(["dump-config", "--show-password", "-o", "~/picasconfig.py"]) == 0

    assert runpy.run_path(str(target))["PICAS_PASSWORD"] == "secret"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert "secret" not in capsys.readouterr().out


def test_a_dump_may_go_into_a_device(home: Path) -> None:
    init()

    assert picas_cli.main(["dump-config", "-o", os.devnull]) == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize(
    "place",
    [lambda verb, path: ["--config", path, verb], lambda verb, path: [verb, "--config", path]],
    ids=["before", "behind"],
)
def test_the_configuration_path_counts_before_and_behind_the_verb(
    home: Path, capsys: pytest.CaptureFixture[str], place: Callable[[str, str], list[str]]
) -> None:
    # Given a configuration elsewhere, and none in the usual place
    other = str(home / "other.yml")
    assert picas_cli.main([*place("init", other), *ACCOUNT, "--password", "secret"]) == 0
    assert not (home / ".config/picas/conf.yml").exists()

    # When it is dumped, then it is the one that is read
    assert picas_cli.main(place("dump-config", other)) == 0
    assert f"from {other}" in capsys.readouterr().out


def test_init_without_a_user_name_asks_for_it_not_for_a_password(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: pytest.fail("asked for a password"))

    code = picas_cli.main(["init"])

    error, hint = lines(capsys)
    assert (code, error) == (2, "error: no user name")
    assert "--username" in hint


def test_nobody_there_to_type_a_password_is_an_error_in_two_lines(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", nobody)

    assert picas_cli.main(["init", *ACCOUNT]) == 2
    assert lines(capsys) == ["error: no password was typed", "hint: run it on a terminal"]


@pytest.mark.parametrize("verb", ["dump-config", "passwd"])
def test_without_a_configuration_the_hint_says_how_to_get_one(
    home: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    code = picas_cli.main([verb])

    *_, error, hint = lines(capsys)
    assert code == 4
    assert error.startswith("error: no picas configuration at ")
    assert hint == "hint: write one with: picas-cli init"


@pytest.mark.parametrize("option", ["--new-password", "--password"])
def test_passwd_hands_the_new_password_on(home: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    init()
    told: list[tuple[str, str, bytes, str]] = []
    monkeypatch.setattr(picas_config.PicasConfig, "change_couchdb_password", lambda self, *all: told.append(all))

    assert picas_cli.main(["passwd", option, "new"]) == 0

    assert told == [("https://picas.example:6984", "ann", b"secret", "new")]
    config = picas_config.PicasConfig().config
    assert crypto.decrypt_password(config["encrypted_password"]) == b"new"


def test_a_directory_in_the_way_is_an_error_in_two_lines(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init()
    capsys.readouterr()

    assert picas_cli.main(["dump-config", "-o", str(home)]) == 1

    *_, error, hint = lines(capsys)
    assert error == f"error: Is a directory: {home}"
    assert hint.startswith("hint: ")


def test_an_interrupt_ends_as_the_shell_expects(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("getpass.getpass", interrupt)

    assert picas_cli.main(["init", *ACCOUNT]) == 130


# --- as a program


def program(home: Path, module: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a picas-cli in a process of its own, with `home` as its home."""
    code = f"import sys; from {module}.apps.picas_cli import main; sys.exit(main())"
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-c", code, *argv], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_program_keeps_data_and_talk_apart(home: Path) -> None:
    assert program(home, "tokenpool", "init", *ACCOUNT, "--password", "secret").returncode == 0

    dumped = program(home, "tokenpool", "dump-config")

    assert dumped.returncode == 0
    assert all(line.startswith(("#", "PICAS_")) for line in dumped.stdout.splitlines())


def test_importing_the_modules_loads_no_heavy_library(home: Path) -> None:
    code = (
        "import sys, tokenpool.apps.picas_cli, tokenpool.couchdblogger, tokenpool.metadata;"
        "print([name for name in ('cryptography', 'yaml', 'urllib3', 'couchdb', 'requests') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"

"""picas' encrypted password: the same key file, the same ciphertext, both ways."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tokenpool import crypto
from tokenpool.errors import BadInput, NotFound

# Written by picas 1.1.2.
PICAS_KEY = b"f4qlR_DTFN-wkZXABc-ydJNynp8f5brprTpzUZxesjU="
PICAS_CIPHERTEXT = (
    "gAAAAABrASUOqBPSTKhOX0VXuUg-oBIdoCi-QvlDKDU7S9_91EH8vyCtcikVNB0JpGzgCVRFF_VOHrPyp670RmN9G_7qowfS8Q=="
)
PASSWORD = "gr3en håt"


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def key_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's key belongs, in a home without a `.config`."""
    path = tmp_path / ".config" / "picas" / "key.dat"
    monkeypatch.setattr(crypto, "CRYPTO_KEY_PATH", str(path))
    return path


@pytest.mark.parametrize("ciphertext", [PICAS_CIPHERTEXT, PICAS_CIPHERTEXT.encode()])
def test_what_picas_encrypted_is_read(ciphertext: str | bytes) -> None:
    assert crypto.decrypt_password(ciphertext, PICAS_KEY).decode() == PASSWORD


def test_the_key_lies_where_picas_looks_for_it(tmp_path: Path) -> None:
    code = "from tokenpool import crypto; crypto.generate_and_save_key(); print(crypto.read_key().decode())"
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == (tmp_path / ".config" / "picas" / "key.dat").read_text()


def test_a_first_key_is_private_and_its_directory_is_made(key_path: Path) -> None:
    crypto.generate_and_save_key(str(key_path))

    assert rights(key_path) == 0o600
    assert rights(key_path.parent) == 0o700
    assert crypto.read_key() == key_path.read_bytes()
    assert crypto.decrypt_password(crypto.encrypt_password(b"secret")) == b"secret"


def test_a_key_that_is_there_stays(key_path: Path) -> None:
    crypto.generate_and_save_key(str(key_path))
    before = crypto.read_key()

    crypto.generate_and_save_key(str(key_path))

    assert crypto.read_key() == before


@pytest.mark.parametrize(("answer", "replaced"), [("y", True), ("Y ", True), ("", False), ("n", False)])
def test_a_key_is_replaced_only_after_a_yes(
    key_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, replaced: bool
) -> None:
    crypto.generate_and_save_key(str(key_path))
    before = crypto.read_key()
    monkeypatch.setattr("builtins.input", lambda prompt: answer)

    crypto.generate_and_save_key(str(key_path), skip_if_exists=False)

    assert (crypto.read_key() != before) is replaced


def test_no_key_says_where_it_was_looked_for(key_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"key\.dat") as caught:
        crypto.read_key()

    assert isinstance(caught.value, NotFound)
    assert "picas-cli init" in caught.value.hint


def test_a_wrong_key_is_told_apart_from_no_key() -> None:
    other = b"A" * 43 + b"="

    with pytest.raises(BadInput, match="cannot be decrypted"):
        crypto.decrypt_password(PICAS_CIPHERTEXT, other)
    with pytest.raises(BadInput, match="not a Fernet key"):
        crypto.decrypt_password(PICAS_CIPHERTEXT, b"short")


def test_a_private_file_replaces_an_open_one_and_keeps_the_link_to_it(tmp_path: Path) -> None:
    # Given a world-readable file behind a link
    real, link = tmp_path / "dotfiles.yml", tmp_path / "conf.yml"
    real.write_text("old")
    real.chmod(0o644)
    link.symlink_to(real)

    # When it is written
    crypto.write_private(str(link), b"new")

    # Then the link stays, the file is private, and no draft lies about
    assert link.is_symlink()
    assert (real.read_text(), rights(real)) == ("new", 0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf.yml", "dotfiles.yml"]


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "conf.yml"
    target.write_text("old")

    def full(draft: str, path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)

    with pytest.raises(OSError, match="No space"):
        crypto.write_private(str(target), b"new")

    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]

"""Keep picas' password out of plain sight: encrypted on disk, with its key beside it, so no defence against a thief."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from .errors import BadInput, NotFound

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

CRYPTO_KEY_PATH = os.path.expanduser("~/.config/picas/key.dat")


class MissingFile(NotFound, FileNotFoundError):
    """A file of the configuration is not there."""


def generate_and_save_key(key_path: str = CRYPTO_KEY_PATH, skip_if_exists: bool = True) -> None:
    """Write a fresh key to `key_path`, for its owner only; one that is there stays, unless the user says otherwise."""
    from cryptography.fernet import Fernet

    if os.path.exists(key_path) and (skip_if_exists or not _may_replace(key_path)):
        return
    write_private(key_path, Fernet.generate_key())


def read_key() -> bytes:
    """Return the key of this user."""
    try:
        with open(CRYPTO_KEY_PATH, "rb") as file:
            return file.read()
    except FileNotFoundError as absent:
        hint = "copy it from where the configuration was made, or run: picas-cli init"
        raise MissingFile(f"no key at {CRYPTO_KEY_PATH}", hint) from absent


def encrypt_password(password: bytes | str, key: bytes | str | None = None) -> bytes:
    """Return the password as a Fernet token, made with `key` or this user's own."""
    return _fernet(key).encrypt(_as_bytes(password))


def decrypt_password(encrypted: bytes | str, key: bytes | str | None = None) -> bytes:
    """Return the password inside a Fernet token that `key`, or this user's own, has made."""
    from cryptography.fernet import InvalidToken

    try:
        return _fernet(key).decrypt(_as_bytes(encrypted))
    except InvalidToken as wrong:
        hint = "the key is another one, or the text is damaged; `picas-cli init` writes both anew"
        raise BadInput("the stored password cannot be decrypted", hint) from wrong


def write_private(path: str, data: bytes) -> None:
    """Put `data` at `path` in one step, readable by its owner only, in a directory made at need."""
    # A configuration that is a link into somebody's dotfiles stays one.
    target = os.path.realpath(os.path.expanduser(path))
    directory = os.path.dirname(target)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    # mkstemp's file is 0600 from its birth: at no moment can others read it.
    handle, draft = tempfile.mkstemp(dir=directory, prefix=".picas-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(draft, target)
    except BaseException:
        os.unlink(draft)
        raise


def _may_replace(key_path: str) -> bool:
    """Ask whether the key may go; passwords it has encrypted go with it."""
    answer = input(f"{key_path} holds a key; replace it, and lose what it encrypted? (y/N) ")
    return answer.strip().lower() == "y"


def _fernet(key: bytes | str | None) -> Fernet:
    """Return the cipher of a key."""
    from cryptography.fernet import Fernet

    try:
        return Fernet(read_key() if key is None else key)
    except ValueError as wrong:
        raise BadInput("this is not a Fernet key", "a key is 32 bytes in url-safe base64, 44 letters") from wrong


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text

"""Turns passwords into hashes that are slow to guess, and compares without telling by time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import threading

#: scrypt's cost: 16 MB, about 0.2 s of one core.
N, R, P = 2**14, 8, 5
MEMORY = 64 << 20
#: Longer ones are refused before any work is done.
LONGEST = 1024

#: Guesses at once, so that they cannot take all memory and cores.
_at_once = threading.BoundedSemaphore(2)


def hash_password(password: str) -> str:
    """Return the hash to keep: ``scrypt$N$r$p$salt$hash``."""
    salt = os.urandom(16)
    return f"scrypt${N}${R}${P}${_text(salt)}${_text(_scrypt(password, salt, N, R, P))}"


def verify(password: str, kept: str) -> bool:
    """Tell whether a password has this hash; False for a hash that cannot be read."""
    try:
        kind, n, r, p, salt, wanted = kept.split("$")
        if kind != "scrypt" or len(password) > LONGEST:
            return False
        found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
        return hmac.compare_digest(found, base64.b64decode(wanted))
    except ValueError:
        return False


def waste_time(password: str) -> None:
    """Take as long as `verify` does: an unknown name must not be told from a wrong password."""
    if len(password) <= LONGEST:
        _scrypt(password, b"nobody has this.", N, R, P)


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    with _at_once:
        return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=MEMORY, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

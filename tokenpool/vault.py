"""Finds the secrets that a token names on this machine, and hides their values in what the token wrote."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .errors import BadInput

#: The environment variables of a worker that hold secrets begin with this.
FRONT = "TOKENPOOL_SECRET_"
#: Shorter values are not hidden: the log would be full of stars, and they are no secrets.
SHORTEST = 4
_PIECE = 1 << 20


def secrets_of(token: Mapping[str, Any], folder: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the secrets that a token names; raises BadInput for one that this worker does not have."""
    names = token.get("secrets")
    return {name: _value(name, folder, environ) for name in names} if isinstance(names, list) else {}


def _value(name: str, folder: str, environ: Mapping[str, str]) -> str:
    if FRONT + name in environ:
        return environ[FRONT + name]
    path = Path(folder).expanduser() / name if folder else None
    try:
        if path is not None:
            return path.read_text("utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        pass
    where = f" or the file {path}" if path is not None else ""
    raise BadInput(f"this worker has no secret {name!r}", f"start it with {FRONT}{name} in its environment{where}")


def hide(data: bytes, values: Collection[str]) -> bytes:
    """Return `data` with stars in place of each value, as many as it has bytes.

    >>> hide(b"key=hunter2", ["hunter2"])
    b'key=*******'
    """
    for value in _worth_hiding(values):
        data = data.replace(value, b"*" * len(value))
    return data


def hide_in_file(path: str, values: Collection[str]) -> None:
    """Put stars in place of each value in a file, where it stands."""
    hidden = _worth_hiding(values)
    if not hidden or not os.path.exists(path):
        return
    overlap = max(map(len, hidden)) - 1
    with open(path, "r+b") as file:
        at = 0
        while piece := file.read(_PIECE + overlap):
            covered = hide(piece, values)
            if covered != piece:
                file.seek(at)
                file.write(covered)
            at += min(_PIECE, len(piece))
            file.seek(at)


def _worth_hiding(values: Collection[str]) -> list[bytes]:
    return sorted((value.encode() for value in values if len(value) >= SHORTEST), key=len, reverse=True)

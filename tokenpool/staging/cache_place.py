"""Where the cache of this machine is and how large it may grow, as the settings say it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..config import bytes_of
from .cache import Cache


def cache_of(place: str = "", limit: str = "20%", environ: Mapping[str, str] | None = None) -> Cache:
    """Return the cache in the folder that is set, or below the user's own cache; `limit` is ``50GB``, or ``20%`` of its disk."""
    root = cache_root(place, environ)
    return Cache(root, bytes_of(limit, disk_bytes(root)))


def cache_root(place: str = "", environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of the cache.

    >>> cache_root("", {"XDG_CACHE_HOME": "/c"}).as_posix()
    '/c/tokenpool/data'
    """
    if place:  # copies of a `Datasource` may be in the same folder
        return Path(place).expanduser().absolute() / "data"
    env = os.environ if environ is None else environ
    base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".cache")
    return Path(base) / "tokenpool" / "data"


def disk_bytes(root: Path) -> int:
    """Return the size of the disk where a folder is, or is going to be."""
    folder = root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    disk = os.statvfs(folder)
    return disk.f_blocks * disk.f_frsize

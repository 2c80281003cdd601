"""Download a dictionary of files from Grid storage, several at a time."""

from __future__ import annotations

import logging
import queue
from collections.abc import Mapping
from typing import Any

from . import srm

_TRIES = 10


class Downloader(srm.Downloader):
    """The thread of this module's `download`: fewer tries, its own logger."""

    def __init__(self, q: queue.Queue[str], *, pause: float = 1.0) -> None:
        super().__init__(q, logging.getLogger("Pindel"), tries=_TRIES, pause=pause)


def download(files: Mapping[Any, str], threads: int = 10, *, pause: float = 1.0) -> None:
    """Download the values of `files` into the current directory; an OSError names those that failed."""
    q: queue.Queue[str] = queue.Queue()
    for srm_file in files.values():
        q.put(srm_file)
    srm.run_all([Downloader(q, pause=pause) for _ in range(min(max(1, threads), q.qsize()))])

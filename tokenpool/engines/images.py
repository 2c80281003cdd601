"""Remembers which images tokens used and when, and removes those that none has used for long."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

#: Below this part of its disk being free, images go before their time, the longest unused first.
FREE = 0.1


class Engine(Protocol):
    """What pruning asks of an engine."""

    def remove_image(self, image: str) -> bool:
        """Remove an image that no container uses; tell whether it is gone."""

    def free(self) -> float:
        """Return which part of the disk of its images is free."""


class Images:
    """The images of one engine that tokens used; others are nobody's here to remove."""

    def __init__(self, folder: str, engine: str) -> None:
        name = hashlib.sha256(engine.encode()).hexdigest()[:12]
        self._path = os.path.join(folder, f"{name}.images")

    def used(self, image: str) -> None:
        """Note that an image is used now."""
        with self._open() as known:
            known[image] = time.time()

    def prune(self, engine: Engine, seconds: float, tell: Callable[[str], None]) -> None:
        """Remove images that were not used for so long; while the disk is nearly full, others too."""
        with self._open() as known:
            for image in sorted(known, key=lambda name: known[name]):
                old = time.time() - known[image] > seconds
                if not old and engine.free() >= FREE:
                    return
                if engine.remove_image(image):
                    del known[image]
                    tell(f"removed image {image}, which was not used for long")

    @contextmanager
    def _open(self) -> Iterator[dict[str, float]]:
        """Give what is known, for us alone; changes are kept."""
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        with open(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                known = {str(name): float(when) for name, when in json.load(file).items()}
            except (ValueError, AttributeError, TypeError):
                known = {}
            try:
                yield known
            finally:
                file.seek(0)
                file.truncate()
                json.dump(known, file)

"""Puts one file of this machine somewhere, and makes sure that all of it arrived."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future

from ..storage import shown
from ..storage.base import Storage
from .checksums import kind_of, sums_of
from .values import File, Task, Upload, WrongContent

#: Files of so many bytes are summed up while they are sent.
LARGE = 8 << 20


class Put:
    """One upload; `reached` is how many bytes went at best."""

    def __init__(self, what: Upload, storage: Storage, task: Task) -> None:
        self.what, self.storage, self.task = what, storage, task
        self.reached = 0
        self._sha256: Future[str] | None = None
        self._size = os.stat(what.path).st_size
        task.progress.add(total=self._size)

    def attempt(self) -> File:
        """Send it whole; raises as storages do."""
        what, task = self.what, self.task
        sha256 = self._sha256 = self._sha256 or self._summed()
        sent = 0

        def tell(count: int) -> None:
            nonlocal sent
            task.check()
            sent += count
            task.progress.add(moved=count)

        try:
            there = self.storage.write(what.url, what.path, tell)
            task.progress.add(moved=self._size - sent)
            sent = self._size
        except BaseException:
            task.progress.add(moved=-sent)
            raise
        if there.size is not None and there.size != self._size:
            raise WrongContent(
                f"{self._size} bytes were sent to {shown(what.url)}, {there.size} are there", "try it again"
            )
        if there.checksum:
            kind = kind_of(there.checksum)
            sums = sums_of(what.path, kind, check=task.check)
            if not sums.agree(there.checksum):
                raise WrongContent(f"what arrived at {shown(what.url)} is not what was sent: its {kind} differs",
                                   "try it again")  # fmt: skip
        return File(what.path, what.url, self._size, sha256.result())

    def _summed(self) -> Future[str]:
        """Return the SHA-256 of the file, which is still being computed if it is large."""
        found: Future[str] = Future()

        def work() -> None:
            try:
                found.set_result(sums_of(self.what.path, check=self.task.check).of("sha256"))
            except BaseException as error:  # whoever asks for it raises it
                found.set_exception(error)

        if self._size < LARGE:
            work()
        else:
            threading.Thread(target=work, name="tokenpool-sha256", daemon=True).start()
        return found

    def close(self) -> None:
        """Nothing is kept."""

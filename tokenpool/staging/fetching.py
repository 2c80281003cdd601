"""Fetches one file: in one stream or in several, on from where it broke, checked, and put in its place when it is whole."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any
from uuid import uuid4

from ..errors import ServerAway
from ..storage import shown
from ..storage.base import PIECE, Entry, Storage
from .checksums import Sums, kind_of
from .room import expect_room, local_errors
from .values import Download, File, Stopped, Task, WrongContent

#: Files of so many bytes come in several streams, each of which takes so many at a time.
RANGED, RANGE = 32 << 20, 16 << 20
#: Where a stream is to end: None is the end of the file.
Span = tuple[int, "int | None"]


class ShortRead(ServerAway):
    """A stream ended before the file did."""


class Fetch:
    """One download; `reached` is how many of its bytes are here."""

    def __init__(
        self,
        what: Download,
        storage: Storage,
        task: Task,
        help: Callable[[Callable[[], None]], None],
        helpers: int,
    ) -> None:
        self.what, self.storage, self.task, self._help, self._helpers = what, storage, task, help, helpers
        self.reached = 0
        folder, name = os.path.split(what.path)
        self.part = os.path.join(folder, f".{name[:100]}.{uuid4().hex[:8]}.part")
        self._file = -1
        #: What is known of the source before it is asked, the first time only.
        self._told = what.entry
        self._entry: Entry | None = None
        self._total = 0
        self._begin(None)

    # --- one attempt -------------------------------------------------------------------------------------------------

    def attempt(self) -> File:
        """Fetch what is missing, check it, put it in its place; raises as storages do, and WrongContent."""
        entry, self._told = self._told or self._stat(), None
        with local_errors():
            anew = self._file < 0 or not self._same(entry)
            expect_room(self.what.path, (entry.size or 0) - (0 if anew else self.reached), shown(self.what.url))
            if anew:
                self._open(entry)
            self._read_all()
            self._check_whole(entry)
            with self.task.last_word:
                self.task.check()
                os.replace(self.part, self.what.path)
        return File(self.what.path, self.what.url, self.reached, self._sums.of("sha256"))

    def close(self) -> None:
        """Let go of the file; what is not in its place is removed."""
        with self.task.last_word:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
                self._remove()

    def _stat(self) -> Entry:
        """Ask the storage; a checksum that somebody else told of the file still counts where it knows none itself."""
        entry, told = self.storage.stat(self.what.url), self.what.entry
        if told is None or not told.checksum or entry.checksum or entry.size not in (None, told.size):
            return entry
        return replace(entry, checksum=told.checksum)

    def _same(self, entry: Entry) -> bool:
        """Tell whether the source is still what the beginning came from."""
        known = self._entry
        unsure = entry.size is None and not entry.version and not entry.checksum
        return known is not None and not unsure and known == entry

    def _open(self, entry: Entry) -> None:
        self._begin(entry)
        os.makedirs(os.path.dirname(self.what.path) or ".", exist_ok=True)
        with self.task.last_word:
            self.task.check()
            if self._file < 0:
                self._file = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
                self.task.undo = self._remove
            os.ftruncate(self._file, 0)

    def _begin(self, entry: Entry | None) -> None:
        """Forget all that came so far."""
        if entry is not None:
            self.task.progress.add(total=(entry.size or 0) - self._total, moved=-self.reached)
            self._total = entry.size or 0
        self._entry, self.reached = entry, 0
        self._sums = Sums(kind_of(entry.checksum) if entry else "")
        self._hashed = 0
        self._came: dict[int, int] = {}
        self._counting, self._hashing = threading.Lock(), threading.Lock()
        size = entry.size if entry is not None else None
        if size is None or size < RANGED or not self.storage.ranges:
            self._missing: deque[Span] = deque([(0, None)])
        else:
            self._missing = deque((at, min(at + RANGE, size)) for at in range(0, size, RANGE))

    def _remove(self) -> None:
        try:
            os.unlink(self.part)
        except FileNotFoundError:
            pass

    # --- reading -----------------------------------------------------------------------------------------------------

    def _read_all(self) -> None:
        """Read all spans that are missing: here, and in as many threads as are free to help."""
        crew = _Crew(self)
        for _ in range(min(self._helpers, len(self._missing) - 1)):
            self._help(crew.work)
        crew.work()
        crew.wait()
        if crew.error is not None:
            raise crew.error

    def take(self) -> Span | None:
        """Return a span that nobody reads yet."""
        with self._counting:
            return self._missing.popleft() if self._missing else None

    def read(self, span: Span) -> None:
        """Read one span into its place; what did not come is missing again."""
        start, end = span
        at = start
        whole = False
        try:
            pieces: Any = self.storage.read(self.what.url, start, end)
            with closing(pieces):
                for piece in pieces:
                    self.task.check()
                    at = self._write(piece, at, end)
            size = self._entry.size if self._entry else None
            expected = end if end is not None else size
            if expected is not None and at < expected:
                raise ShortRead(
                    f"{shown(self.what.url)} broke off after {at - start} of {expected - start} bytes", "try it again"
                )
            whole = True
        finally:
            with self._counting:
                self._came[start] = at
                if not whole:
                    self._missing.appendleft((at, end))
            self._hash_on(wait=False)

    def _write(self, piece: bytes, at: int, end: int | None) -> int:
        if end is not None and at + len(piece) > end:
            raise WrongContent(f"{shown(self.what.url)} sent more bytes than were asked for", "try it again")
        view = memoryview(piece)
        done = 0
        while done < len(piece):
            done += os.pwrite(self._file, view[done:], at + done)
        with self._counting:
            self.reached += len(piece)
        self.task.progress.add(moved=len(piece))
        if self._hashing.acquire(blocking=False):
            try:
                if at == self._hashed:
                    self._sums.update(piece)
                    self._hashed += len(piece)
            finally:
                self._hashing.release()
        return at + len(piece)

    # --- checking ----------------------------------------------------------------------------------------------------

    def _hash_on(self, wait: bool) -> None:
        """Go on with the checksums as far as the file is here without a gap."""
        if not self._hashing.acquire(blocking=wait):
            return
        try:
            while (end := self._known_end()) > self._hashed:
                self.task.check()
                piece = os.pread(self._file, min(PIECE, end - self._hashed), self._hashed)
                self._sums.update(piece)
                self._hashed += len(piece)
        finally:
            self._hashing.release()

    def _known_end(self) -> int:
        with self._counting:
            return max((end for start, end in self._came.items() if start <= self._hashed), default=0)

    def _check_whole(self, entry: Entry) -> None:
        self._hash_on(wait=True)
        name, size = shown(self.what.url), self.reached
        wrong = ""
        if (entry.size is not None and size != entry.size) or self._hashed != size:
            wrong = f"{name} has {entry.size} bytes, {size} arrived"
        elif not self._sums.agree(entry.checksum):
            wrong = f"{name} arrived damaged: its {kind_of(entry.checksum)} is not what its storage says"
        elif self.what.sha256 and self._sums.of("sha256") != self.what.sha256:
            wrong = f"{name} is not what was asked for: its sha256 is {self._sums.of('sha256')}, not {self.what.sha256}"
        if wrong:
            self._entry = None  # all of it comes again
            hint = "look at the file, and at the token's sha256" if self.what.sha256 else "look at the file there"
            raise WrongContent(wrong, hint)


class _Crew:
    """The threads that read one file."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._change = threading.Condition()
        self._at_work = 0
        self.error: BaseException | None = None

    def work(self) -> None:
        """Read spans until none is left, or one of the crew has failed."""
        with self._change:
            self._at_work += 1
        try:
            while self.error is None and not self._fetch.task.ended.is_set():
                span = self._fetch.take()
                if span is None:
                    break
                with local_errors():
                    self._fetch.read(span)
        except BaseException as error:  # raised by who waits
            self.error = self.error or error
        finally:
            with self._change:
                self._at_work -= 1
                self._change.notify_all()

    def wait(self) -> None:
        """Return when nobody reads any more."""
        with self._change:
            while self._at_work:
                self._change.wait()
        if self.error is None:
            self._fetch.task.check()


__all__ = ["Fetch", "ShortRead", "Stopped"]

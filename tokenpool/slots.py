"""The slots of a worker: threads that run claimed tokens, and what is known of each while it runs."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from .backends.base import Json
from .children import Child
from .lifecycle import Run
from .runners.base import Places
from .util import timestamp

#: Bytes of a running token's log that others are shown.
TAIL = 8192
#: Running tokens that a worker's document names.
NAMED = 200


@dataclass
class Running:
    """A token in a slot, or waiting for one; `stopped` says why its child was told to end."""

    doc: Json
    since: str = field(default_factory=timestamp)
    began: float = field(default_factory=time.monotonic)
    child: Child | None = None
    places: Places | None = None
    stopped: str = ""


class Slots:
    """Runs tokens in threads, so many at a time; what ended is taken out by `ended`.

    `run` runs one claimed token and returns its Run, or None where this machine cannot run anything.
    """

    def __init__(self, size: int, run: Callable[[Json], Run | None], grace: float) -> None:
        self.size = 0
        self.running: dict[str, Running] = {}
        self._run, self._grace = run, grace
        self._waiting: SimpleQueue[Json | None] = SimpleQueue()
        self._ended: SimpleQueue[tuple[str, Run | None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopping = ""
        self.resize(size)

    def resize(self, size: int) -> None:
        """Run so many tokens at a time from now on; what runs already runs to its end."""
        while self.size < size:
            thread = threading.Thread(target=self._serve, name=f"slot-{self.size}", daemon=True)
            self._threads.append(thread)
            self.size += 1
            thread.start()
        while self.size > size:
            self._waiting.put(None)
            self.size -= 1

    def start(self, doc: Json) -> None:
        """Run a claimed token as soon as a slot is free."""
        self.running[doc["lease"]["claim"]] = Running(doc)
        self._waiting.put(doc)

    def _serve(self) -> None:
        while (doc := self._waiting.get()) is not None:
            self._ended.put((doc["lease"]["claim"], self._run(doc)))

    def wake(self) -> None:
        """Let `ended` return now."""
        self._ended.put(None)

    def ended(self, timeout: float) -> list[tuple[Running, Run | None]]:
        """Wait at most so many seconds for a token to end; return all that ended since."""
        found = []
        try:
            entry = self._ended.get(timeout=timeout) if timeout > 0 else self._ended.get_nowait()
            while True:
                if entry is not None:
                    found.append((self.running.pop(entry[0]), entry[1]))
                entry = self._ended.get_nowait()
        except Empty:
            return found

    # --- ending what runs --------------------------------------------------------------------------------------------

    def on_child(self, claim: str, child: Child, places: Places) -> None:
        """Take note of the process of a token; one that was to end before it began ends now."""
        running = self.running[claim]
        running.child, running.places = child, places
        if running.stopped or self._stopping:
            self.stop([running], running.stopped or self._stopping)

    def why_stopped(self, claim: str) -> str:
        """Return why a token was told to end, "" where it was not."""
        running = self.running.get(claim)
        return running.stopped if running else ""

    def stop(self, those: Iterable[Running], why: str, grace: float | None = None) -> None:
        """Tell the children of some tokens to end: SIGTERM, and SIGKILL after the grace."""
        for running in those:
            running.stopped = running.stopped or why
            if running.child is not None:
                running.child.kill(self._grace if grace is None else grace)

    def stop_all(self, why: str, grace: float | None = None) -> None:
        """Tell everything to end, also what is just being started."""
        self._stopping = why
        self.stop(list(self.running.values()), why, grace)

    def go_on(self) -> None:
        """What is started from now on may run."""
        self._stopping = ""

    def close(self) -> None:
        """End the threads; nothing runs any more."""
        self.resize(0)
        for thread in self._threads:
            thread.join(5.0)

    # --- telling -----------------------------------------------------------------------------------------------------

    def told(self, followed: Iterable[str]) -> list[dict[str, Any]]:
        """Return what others are told of running tokens; of those that are followed, the ends of their logs too."""
        wanted = set(followed)
        return [self._tell(running, wanted) for running in list(self.running.values())[:NAMED]]

    def _tell(self, running: Running, followed: set[str]) -> dict[str, Any]:
        doc = running.doc
        told = {
            "token": doc["_id"],
            "claim": doc["lease"]["claim"],
            "batch": str(doc.get("batch") or ""),
            "since": running.since,
            "phase": "run" if running.child is not None else "wait",
            "command": str(doc.get("name") or doc.get("input") or "")[:120],
        }
        if doc["_id"] in followed and running.places is not None:
            told["out"] = tail_of(running.places.stdout)
            told["err"] = tail_of(running.places.stderr)
        return told


def tail_of(path: Path) -> dict[str, Any]:
    """Return size and end of a log file: text, or base64 where it is no UTF-8, so that whoever follows counts bytes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            data = file.read(min(size, TAIL))
    except OSError:
        return {"size": 0, "tail": ""}
    try:
        return {"size": size, "tail": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"size": size, "tail": base64.b64encode(data).decode("ascii"), "base64": True}

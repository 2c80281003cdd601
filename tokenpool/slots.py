"""The slots of a worker: threads that run claimed tokens, and what is known of each while it runs."""

from __future__ import annotations

import base64
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from .ahead import Ahead
from .backends.base import Json
from .lifecycle import Context, Run, Started, end_token, fetch_ahead, run_token, start_token
from .runners.base import Begun, Places
from .staging.values import Progress
from .util import timestamp
from .vault import hide

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
    child: Begun | None = None
    places: Places | None = None
    stopped: str = ""
    #: What it does where that is not to be seen from its child, and how far its data is.
    phase: str = ""
    progress: Progress | None = None
    #: What fetches its inputs while it waits.
    ahead: Ahead | None = None


class Work:
    """The parts of a token's life, each as slots need it; `broken` hears where this machine cannot run anything."""

    def __init__(self, context: Context, broken: Callable[[str, OSError], None]) -> None:
        self._context, self._broken = context, broken

    def widen(self, n: int) -> None:
        """Let so many of the tokens that were begun go on at a time."""
        self._context.supervisor.widen(n)
        self._context.runners.widen(n)

    def push(self) -> None:
        """Send on what was begun."""
        self._context.supervisor.push()
        self._context.runners.push()

    def start(self, doc: Json, on_end: Callable[[Begun], None], lane: str | None) -> Started | None:
        """Begin a token that needs no thread, of this lane where one is given; None: it needs `run`."""
        try:
            return start_token(doc, self._context, on_end, lane)
        except OSError:
            return None  # `run` meets it as well, and tells

    def end(self, started: Started) -> Run | None:
        """Finish such a token after its process ended; None: this machine cannot."""
        return self._guarded(lambda: end_token(started, self._context))

    def run(self, doc: Json, ahead: Ahead | None = None) -> Run | None:
        """Take a token through its whole life; None: this machine cannot."""
        return self._guarded(lambda: run_token(doc, self._context, ahead))

    def fetch_ahead(self, doc: Json) -> Ahead | None:
        """Begin to fetch the inputs of a token that waits; None: this machine cannot, and `run` tells why."""
        try:
            return fetch_ahead(doc, self._context)
        except OSError:
            return None

    def _guarded(self, part: Callable[[], Run]) -> Run | None:
        try:
            return part()
        except OSError as error:
            self._broken(self._context.bays.root, error)
            return None


class Slots:
    """Runs tokens, so many at a time, first come first served; what ended is taken out by `ended`.

    A token that is one process goes to the supervisor, which starts the next one without asking us; any other one, and
    the end of one that takes long, has a thread. `work` does the parts of a token's life.
    """

    def __init__(self, size: int, work: Work, grace: float, prefetch: int = 0) -> None:
        self.size = 0
        #: Tokens whose inputs are fetched while they wait.
        self.prefetch = prefetch
        self.running: dict[str, Running] = {}
        self._work, self._grace = work, grace
        self._waiting: deque[Running] = deque()
        self._ended: SimpleQueue[tuple[str, Run | None] | Begun | None] = SimpleQueue()
        #: Tokens without a thread: all wait in the same lane, as two would not know of each other's turns.
        self._begun: dict[Begun, Started] = {}
        #: Tokens that have a thread, and threads' tasks.
        self._threaded: set[str] = set()
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopping = ""
        self.resize(size)

    def resize(self, size: int) -> None:
        """Run so many tokens at a time from now on; what runs already runs to its end."""
        self.size = size
        self._work.widen(max(0, size - len(self._threaded)))
        self._hand_out()

    def prepare(self, prefetch: int) -> None:
        """Fetch the inputs of so many waiting tokens from now on; what is being fetched goes on."""
        self.prefetch = prefetch
        self._hand_out()

    def start(self, docs: Iterable[Json]) -> None:
        """Run claimed tokens as soon as slots are free."""
        for doc in docs:
            running = self.running[doc["lease"]["claim"]] = Running(doc)
            self._waiting.append(running)
        self._hand_out()

    def _hand_out(self) -> None:
        """Pass on what waits: any number to the supervisor, to threads only what finds a slot free."""
        while self._waiting:
            running = self._waiting[0]
            claim = running.doc["lease"]["claim"]
            if not (running.stopped or self._stopping) and len(self._threaded) < self.size:
                lane = next(iter(self._begun.values())).lane if self._begun else None
                started = self._work.start(running.doc, self._ended.put, lane)
                if started is not None:
                    self._begun[started.child] = started
                    self._waiting.popleft()
                    continue
            if len(self._threaded) + len(self._begun) >= self.size and not running.stopped:
                break
            self._waiting.popleft()
            self._threaded.add(claim)
            self._work.widen(max(0, self.size - len(self._threaded)))
            self._in_thread(partial(self._run, running.doc, running.ahead))
        self._work.push()
        for running in islice(self._waiting, self.prefetch):
            if running.ahead is None and running.doc.get("inputs") and not (running.stopped or self._stopping):
                running.ahead = self._work.fetch_ahead(running.doc)

    def _run(self, doc: Json, ahead: Ahead | None) -> None:
        self._ended.put((doc["lease"]["claim"], self._work.run(doc, ahead)))

    def _in_thread(self, task: Callable[[], None]) -> None:
        if len(self._threads) < max(self.size, len(self._threaded)):
            thread = threading.Thread(target=self._serve, name=f"slot-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._tasks.put(task)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def wake(self) -> None:
        """Let `ended` return now."""
        self._ended.put(None)

    def ended(self, timeout: float) -> list[tuple[Running, Run | None]]:
        """Wait at most so many seconds for a token to end; return all that ended since."""
        found = []
        try:
            entry = self._ended.get(timeout=timeout) if timeout > 0 else self._ended.get_nowait()
            while True:
                if entry is not None and not isinstance(entry, tuple):
                    entry = self._end(self._begun.pop(entry))
                if entry is not None:
                    claim, run = entry
                    found.append((self.running.pop(claim), run))
                    if claim in self._threaded:
                        self._threaded.discard(claim)
                        self._work.widen(max(0, self.size - len(self._threaded)))
                entry = self._ended.get_nowait()
        except Empty:
            self._hand_out()
            return found

    def _end(self, started: Started) -> tuple[str, Run | None] | None:
        """Finish a token whose process has ended; a thread does it where that takes time."""
        claim = started.doc["lease"]["claim"]
        if started.small:
            return claim, self._work.end(started)
        self._in_thread(lambda: self._ended.put((claim, self._work.end(started))))
        return None

    # --- ending what runs --------------------------------------------------------------------------------------------

    def on_child(self, claim: str, child: Begun, places: Places) -> None:
        """Take note of the process of a token; one that was to end before it began ends now."""
        running = self.running[claim]
        running.child, running.places = child, places
        if running.stopped or self._stopping:
            self.stop([running], running.stopped or self._stopping)

    def on_phase(self, claim: str, name: str, progress: Progress | None) -> None:
        """Take note of what a token does, and of how far its data is."""
        running = self.running.get(claim)
        if running is not None:
            running.phase, running.progress = name, progress

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
        for _ in self._threads:
            self._tasks.put(None)
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
            "phase": running.phase or ("run" if running.child is not None and running.child.pid else "wait"),
            "command": str(doc.get("name") or doc.get("input") or "")[:120],
        }
        if running.progress is not None:
            told["progress"] = _told_progress(running.progress)
        if doc["_id"] in followed and running.places is not None:
            hidden = tuple(running.places.secrets.values())
            told["out"] = tail_of(running.places.stdout, hidden)
            told["err"] = tail_of(running.places.stderr, hidden)
        return told


def _told_progress(progress: Progress) -> dict[str, Any]:
    told: dict[str, Any] = {"files": progress.files, "files_done": progress.files_done}
    told.update(bytes_done=progress.bytes_done, bytes_total=progress.bytes_total)
    return {**told, "note": progress.note} if progress.note else told


def tail_of(path: str, hidden: Collection[str] = ()) -> dict[str, Any]:
    """Return size and end of a log file: text, or base64 where it is no UTF-8, so that whoever follows counts bytes."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            data = hide(file.read(min(size, TAIL)), hidden)
    except OSError:
        return {"size": 0, "tail": ""}
    try:
        return {"size": size, "tail": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"size": size, "tail": base64.b64encode(data).decode("ascii"), "base64": True}

"""Moves files between this machine and storages: several at a time, tried again, checked, and never seen half."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..errors import ServerAway, TokenpoolError
from ..storage import Storages
from ..storage.urls import scheme_of
from .fetching import Fetch
from .putting import Put
from .threads import Threads
from .values import Download, File, Progress, Stopped, Task, Upload, WrongContent

Answer = TypeVar("Answer")

#: Seconds between two questions whether to go on, and those that threads get to end by themselves.
ASK, LAST = 0.1, 0.4
#: Streams between folders of this machine at once: the work is the kernel's, and more threads only wait for each other.
HERE = 4
#: Seconds before something is tried again for the first time; twice as long each time, at most so long.
PAUSE, LONGEST = 0.5, 30.0


class Transfers:
    """The transfers of one process, at most `width` streams at a time. Safe from several threads."""

    def __init__(self, storages: Storages, width: int = 16, attempts: int = 5, pause: float = PAUSE) -> None:
        self.storages, self.width, self.attempts, self.pause = storages, width, attempts, pause
        self._threads = Threads(width)
        self._news = threading.Condition()
        self._failures = 0

    def run(
        self,
        those: Sequence[Download | Upload],
        progress: Progress | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[File]:
        """Do all of them, or raise the first error that trying again does not heal; nothing half is left then.

        `stopped` is asked at least once a second; when it says so, Stopped is raised within a second, whatever hangs.
        """
        progress = progress or Progress()
        progress.add(files=len(those))
        return self._all([Task(each, progress) for each in those], stopped)

    def ask(
        self,
        questions: Sequence[Callable[[], Answer]],
        progress: Progress | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[Answer]:
        """Return the answers to questions that storages may be slow with, asked again and given up as transfers are."""
        progress = progress or Progress()
        return self._all([Task(each, progress) for each in questions], stopped)

    def _all(self, tasks: list[Task], stopped: Callable[[], bool]) -> list[Any]:
        queue = Queue(tasks)
        for _ in range(min(len(tasks), max((self._streams(task) for task in tasks), default=0))):
            self._next(queue, self._threads.submit)
        try:
            self._wait(tasks, stopped)
        except BaseException:
            queue.waiting.clear()
            self._drop(tasks)
            raise
        return [task.answer for task in tasks]

    def _streams(self, task: Task) -> int:
        """Return how many tasks like this one are worth doing at once."""
        where = task.what.url if isinstance(task.what, (Download, Upload)) else ""
        return min(self.width, HERE) if where and scheme_of(where) in ("", "file") else self.width

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.close()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self, tasks: Sequence[Task], stopped: Callable[[], bool]) -> None:
        left, seen = list(tasks), -1
        while left:
            if stopped():
                raise Stopped("stopped while data was on its way")
            with self._news:
                while left and left[-1].done:
                    left.pop()
                if left and seen == self._failures:
                    self._news.wait(ASK)
                look, seen = seen != self._failures, self._failures
            # Not each time one is done: there may be many.
            failed = next((task.error for task in tasks if task.error is not None), None) if look or not left else None
            if failed is not None:
                raise failed

    def _drop(self, tasks: Sequence[Task]) -> None:
        """Give the threads a moment to end; those that hang are left alone with what they do."""
        for task in tasks:
            task.ended.set()
        end = time.monotonic() + LAST
        with self._news:
            while any(task.threads for task in tasks) and (left := end - time.monotonic()) > 0:
                self._news.wait(left)
            hanging = [thread for task in tasks for thread in task.threads]
        for task in tasks:
            if not task.done or task.error is not None:
                task.drop()
        for thread in hanging:
            self._threads.let_go(thread)

    # --- in the threads ----------------------------------------------------------------------------------------------

    def _next(self, queue: Queue, begin: Callable[[Callable[[], None]], None]) -> None:
        """Begin with one more; when it is done, the next one follows."""
        try:
            task = queue.waiting.popleft()
        except IndexError:
            return
        begin(lambda: self._work(task, queue))

    def _work(self, task: Task, queue: Queue) -> None:
        try:
            self._here(task, lambda: self._file(task))
        except BaseException as error:  # whoever waits for it raises it
            task.error = error
        with self._news:
            task.done = True
            self._failures += task.error is not None
            queue.left -= 1
            # Nobody is woken for each of many files.
            if task.error is not None or not queue.left:
                self._news.notify_all()
        self._next(queue, self._threads.follow)

    def _here(self, task: Task, deed: Callable[[], None]) -> None:
        """Do something for a task in this thread, which counts as hanging until it is done."""
        me = threading.get_ident()
        with self._news:
            task.threads.add(me)
        try:
            deed()
        finally:
            with self._news:
                task.threads.discard(me)
                if task.ended.is_set():
                    self._news.notify_all()

    def _help(self, task: Task, deed: Callable[[], None]) -> None:
        self._threads.submit(lambda: self._here(task, deed))

    def _file(self, task: Task) -> None:
        task.check()
        what = task.what
        if not isinstance(what, (Download, Upload)):
            task.answer = self._again_and_again(Question(what), task)
            return
        storage = self.storages.of(what.url, what.credentials)
        move: Fetch | Put
        if isinstance(what, Download):
            move = Fetch(what, storage, task, lambda deed: self._help(task, deed), self.width - 1)
        else:
            move = Put(what, storage, task)
        try:
            task.answer = self._again_and_again(move, task)
        finally:
            move.close()
        task.progress.add(done=1)

    def _again_and_again(self, move: Fetch | Put | Question, task: Task) -> Any:
        """Try until it works; what gets on a little has all its attempts anew."""
        failures, reached = 0, 0
        while True:
            task.check()
            try:
                return move.attempt()
            except (ServerAway, WrongContent) as error:
                failures = 1 if move.reached > reached else failures + 1
                reached = max(reached, move.reached)
                hopeless = isinstance(error, WrongContent) and failures > 1
                if hopeless or failures >= self.attempts:
                    raise _told(error, failures) from None
                task.progress.note = f"trying again: {error}"
                task.ended.wait(min(LONGEST, self.pause * 2 ** (failures - 1)))


class Queue:
    """The tasks of one call that wait for a thread, and how many are not done yet."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.waiting, self.left = deque(tasks), len(tasks)


class Question:
    """Something that is asked of a storage."""

    reached = 0

    def __init__(self, deed: Callable[[], Any]) -> None:
        self.attempt = deed


def _told(error: TokenpoolError, failures: int) -> TokenpoolError:
    if failures > 1 and not isinstance(error, WrongContent):
        error.message = f"{error} (tried {failures} times)"
    return error


__all__ = ["Download", "File", "Progress", "Stopped", "Transfers", "Upload", "WrongContent"]

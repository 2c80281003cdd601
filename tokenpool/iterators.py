"""Yields claimed tokens one after another: picas' iterators, each `next` a claim that nobody else has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from .backends.base import Want
from .claims import Claimer
from .documents import Task
from .errors import ClaimFailed, Conflict, NotFound, PoolEmpty
from .picaslogger import picaslogger
from .transitions import claimable


class ViewIterator:
    """What an iterator has to do: write `claim_task`, raise IndexError from it where no work is left."""

    _stop = False
    database: Any = None

    def __init__(self) -> None:
        self._stop = False

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        if self.is_stopped():
            raise StopIteration
        try:
            return self.claim_task()
        except IndexError:
            self.stop()
            raise StopIteration from None

    next = __next__

    def reset(self) -> None:
        """Start again after the end."""
        self._stop = False

    def stop(self) -> None:
        """End: the next `next` stops the iteration."""
        self._stop = True

    def is_stopped(self) -> bool:
        """Tell whether it ended."""
        return self._stop

    def claim_task(self) -> Task:
        """Claim and return one token; IndexError where none is left."""
        raise NotImplementedError(f"{type(self).__name__} has no claim_task")

    def reconnect(self, database: Any) -> None:
        """Go on with another connection to the same database."""
        self.database = database


def _claim_task(database: Any, view: str, allowed_failures: int = 10, **view_params: Any) -> Task:
    """Claim one token of a view; IndexError where it is empty, EnvironmentError where others were always faster."""
    claimer = _claimer(database, view, view_params)
    if claimer is None:
        return _claim_plainly(database, view, allowed_failures, **view_params)
    return _claim_with(claimer, allowed_failures)


def _claimer(database: Any, view: str, view_params: dict[str, Any]) -> Claimer | None:
    """Return a claimer on this client's pool, None for a client that is not ours (a test's, a user's)."""
    pool = getattr(database, "pool", None)
    if pool is None:
        return None
    params = dict(view_params)
    design = params.pop("design_doc", "Monitor")
    for ours in ("window_size", "allowed_failures"):
        params.pop(ours, None)
    return Claimer(pool.backend, pool.attendance.lease, Want(design=design, view=view, view_params=params))


def _claim_with(claimer: Claimer, allowed_failures: int) -> Task:
    for _ in range(allowed_failures):
        claimed = claimer.commit(1).claimed
        if claimed:
            return Task(claimed[0])
        if claimer.exhausted:
            raise PoolEmpty("no token waits in this view", "push some: tokenpool push FILE")
    raise ClaimFailed("Unable to claim task.", "others were faster every time; try again")


def _claim_plainly(database: Any, view: str, allowed_failures: int, **view_params: Any) -> Task:
    """Claim through a client that has picas' methods only."""
    conflicts: tuple[type[BaseException], ...] = (Conflict, _couchdb_conflict())
    for _ in range(allowed_failures):
        try:
            task = Task(database.get_single_from_view(view, window_size=100, **view_params))
        except (NotFound, ValueError) as error:
            if isinstance(error, IndexError):
                raise
            continue  # deleted between the look at the view and the read
        if not claimable(task):
            continue
        try:
            saved: Task = database.save(task.lock())
            return saved
        except conflicts:
            continue
    raise ClaimFailed("Unable to claim task.", "others were faster every time; try again")


def _couchdb_conflict() -> type[BaseException]:
    from .backends.couch_errors import couchdb

    conflict: type[BaseException] = couchdb.http.ResourceConflict
    return conflict


class TaskViewIterator(ViewIterator):
    """Claims the tokens of one view until it is empty."""

    def __init__(self, database: Any, view: str, **view_params: Any) -> None:
        super().__init__()
        self.database = database
        self.view = view
        self.view_params = view_params
        self._claimers: dict[str, Claimer] = {}

    def claim_task(self) -> Task:
        return self._claim(self.view)

    def _claim(self, view: str) -> Task:
        allowed = int(self.view_params.get("allowed_failures", 10))
        # One claimer for the life of the iterator: it reads a window of candidates once and claims from it.
        if view not in self._claimers:
            claimer = _claimer(self.database, view, self.view_params)
            if claimer is None:
                return _claim_task(self.database, view, **self.view_params)
            self._claimers[view] = claimer
        # A new lease where the old one was ended by others, or belongs to the process that this one was forked from.
        self._claimers[view].lease = self.database.pool.attendance.lease
        return _claim_with(self._claimers[view], allowed)

    def reconnect(self, database: Any) -> None:
        super().reconnect(database)
        self._claimers = {}


class PrioritizedViewIterator(TaskViewIterator):
    """Claims from one view as long as it has tokens, then from another."""

    def __init__(self, database: Any, high_priority_view: str, low_priority_view: str, **view_params: Any) -> None:
        super().__init__(database, high_priority_view, **view_params)
        self.high_priority_view = high_priority_view
        self.low_priority_view = low_priority_view

    def claim_task(self) -> Task:
        try:
            return self._claim(self.high_priority_view)
        except IndexError:
            return self._claim(self.low_priority_view)


class EndlessViewIterator(ViewIterator):
    """Waits for more work where another iterator ends; `stop_callback(**args)` ends it."""

    def __init__(
        self,
        view_iterator: ViewIterator,
        sleep_sec: float = 10,
        stop_callback: Callable[..., bool] | None = None,
        **stop_callback_args: Any,
    ) -> None:
        super().__init__()
        self.iterator = view_iterator
        self.sleep_sec = sleep_sec
        self.stop_callback = stop_callback
        self.stop_callback_args = stop_callback_args

    def is_cancelled(self) -> bool:
        """Tell whether it was stopped or its callback says so."""
        return self.is_stopped() or (self.stop_callback is not None and self.stop_callback(**self.stop_callback_args))

    def __next__(self) -> Task:
        while not self.is_cancelled():
            try:
                return next(self.iterator)
            except StopIteration:
                self.iterator.reset()
                picaslogger.info("Iterator is waiting for work...")
                self._wait()
        raise StopIteration

    def _wait(self) -> None:
        """Sleep, in pieces, so that a callback that says stop is heard soon."""
        end = time.monotonic() + self.sleep_sec
        while not self.is_cancelled() and time.monotonic() < end:
            time.sleep(min(0.1, max(0.0, end - time.monotonic())))

    def claim_task(self) -> Task:
        return self.iterator.claim_task()

    def reconnect(self, database: Any) -> None:
        super().reconnect(database)
        self.iterator.reconnect(database)

"""A `concurrent.futures.Executor` whose calls are tokens of a pool: results and exceptions come back."""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from typing import Any

from .errors import BadInput, TokenpoolError
from .functions import exchange
from .functions.exchange import Invocation
from .local_workers import LocalWorkers
from .pool import Pool, connect
from .transitions import DONE, ERROR, FINAL, attempts_of, state_of

#: Seconds that a chunk of `map` should take, the most calls in one, and the least chunks for each worker.
CHUNK, CHUNK_MOST, SHARES = 0.25, 1000, 4
#: Seconds after which calls that have not come back are long: each is a token of its own then.
PATIENCE = 0.5
#: Tokens that are read at a time, and the shortest and longest pauses between two looks, in seconds.
READ, SOON, LATE = 500, 0.01, 1.0
#: Workers that the pool is thought to have where nobody knows.
UNKNOWN = 8


class PoolFuture(Future[Any]):
    """The result of one call, to come."""

    def __init__(self, executor: PoolExecutor, call: Invocation) -> None:
        super().__init__()
        self.call = call
        self._executor = executor
        #: The id of its token, once it has one.
        self.token = ""

    def cancel(self) -> bool:
        """Take it back; one that runs is stopped."""
        cancelled = super().cancel()
        if cancelled:
            self._executor._cancelled(self)
        return cancelled


class _Sent:
    """A token and the futures that it is to fulfil."""

    def __init__(self, futures: Sequence[PoolFuture], chunk: bool) -> None:
        self.futures, self.chunk = futures, chunk


class PoolExecutor(Executor):
    """Calls functions through a pool.

    `workers`: so many processes are started here for it, which import the modules of the functions that are submitted
    and no others; 0: the pool's own workers run them, under their own rules. `pickles`: functions and values that
    are no plain JSON travel as pickles; by default only between this process and its own workers. `fields` are given to
    every token: `timeout=60`.
    """

    def __init__(
        self,
        pool: str | Pool = "",
        workers: int | None = None,
        *,
        batch: str = "",
        pickles: bool | None = None,
        **fields: Any,
    ) -> None:
        if workers is not None and workers < 0:
            raise BadInput(f"{workers} workers make no sense", "0 for the pool's own, or how many to start here")
        self._own = isinstance(pool, str)
        self._workers = len(os.sched_getaffinity(0)) if workers is None else workers
        # An own name: the local workers take nothing that is not from here.
        self._batch = batch or (f"executor-{uuid.uuid4().hex[:12]}" if self._workers else "")
        self._pickles = bool(self._workers) if pickles is None else pickles
        self._fields = {**fields, **({"batch": self._batch} if self._batch else {})}
        self._pool = pool if isinstance(pool, Pool) else connect(pool, create=True)
        self._local = LocalWorkers(pool if isinstance(pool, str) else self._pool.url, self._workers, self._batch)
        self._lock = threading.Condition()
        self._outbox: deque[_Sent] = deque()
        self._pending: dict[str, _Sent] = {}
        self._withdrawn: deque[str] = deque()
        self._seconds: float | None = None  # that a call takes
        self._seen = -1  # finished tokens of the batch when we looked
        self._closing = False
        self._failed: BaseException | None = None
        self._thread: threading.Thread | None = None

    # --- what everybody uses -----------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolFuture:
        """Have ``fn(*args, **kwargs)`` called; raises TypeError where it cannot be sent."""
        future = PoolFuture(self, Invocation(fn, args, kwargs))
        self._send([_Sent([future], chunk=False)])
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Iterator[Any]:
        """Return the results of ``fn(*each)`` in order; `chunksize` calls share a token, by default as many as take a moment."""
        end = None if timeout is None else time.monotonic() + timeout
        futures = [PoolFuture(self, Invocation(fn, args)) for args in zip(*iterables)]
        if chunksize is not None:
            self._send(_chunks(futures, max(1, chunksize)))
            return _results(futures, end)
        probes = 2 * (self._workers or UNKNOWN)
        self._send(_chunks(futures[:probes], 1))
        if rest := futures[probes:]:
            self._wait_for_one(futures[:probes])
            self._send(_chunks(rest, self._fair_chunk(len(rest))))
        return _results(futures, end)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the local workers end when the last one is back."""
        with self._lock:
            self._closing = True
            futures = [each for sent in (*self._outbox, *self._pending.values()) for each in sent.futures]
            self._lock.notify_all()
        if cancel_futures:
            for future in futures:
                future.cancel()
        if self._thread is None:
            self._leave()
        elif wait:
            self._thread.join()

    # --- chunks ------------------------------------------------------------------------------------------------------

    def _wait_for_one(self, futures: Sequence[PoolFuture]) -> None:
        """Wait until it is known how long a call takes, or that it takes long."""
        began = time.monotonic()
        news = threading.Event()
        for future in futures:
            future.add_done_callback(lambda each: news.set())
        # The first call of all waits for the workers to start.
        news.wait(PATIENCE if self._seconds is not None else 20 * PATIENCE)
        if not news.is_set() and self._seconds is None:
            self._seconds = time.monotonic() - began

    def _fair_chunk(self, count: int) -> int:
        share = math.ceil(count / (SHARES * (self._workers or UNKNOWN)))
        if self._seconds is None:
            return 1
        return max(1, min(share, CHUNK_MOST, int(CHUNK / max(self._seconds, 1e-6))))

    # --- sending -----------------------------------------------------------------------------------------------------

    def _send(self, sent: Sequence[_Sent]) -> None:
        functions = {each.futures[0].call.function for each in sent if _is_hashable(each.futures[0].call.function)}
        for function in functions:
            name = exchange.name_of(function)
            if not name and not self._pickles:
                exchange.packed([Invocation(function)], False, False)  # says what is wrong
            self._local.allow(name.partition(":")[0])
        with self._lock:
            if self._closing:
                raise RuntimeError("the executor was shut down: it takes no more calls")
            if self._failed is not None:
                raise exchange.RemoteError(str(self._failed)) from self._failed
            self._outbox.extend(sent)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="tokenpool-futures")
                self._thread.start()
            self._lock.notify_all()

    def _cancelled(self, future: PoolFuture) -> None:
        with self._lock:
            sent = self._pending.get(future.token)
            if sent is not None and all(each.cancelled() for each in sent.futures):
                self._withdrawn.append(future.token)
            self._lock.notify_all()

    def _push(self) -> bool:
        """Push what waits to be sent; tell whether there was anything."""
        with self._lock:
            taken = [self._outbox.popleft() for _ in range(min(len(self._outbox), READ))]
        ready: list[tuple[dict[str, Any], _Sent]] = []
        for sent in taken:
            if all(each.cancelled() for each in sent.futures):
                _notify(sent.futures)
                continue
            try:
                function = exchange.packed([each.call for each in sent.futures], sent.chunk, self._pickles)
            except Exception as error:  # what a pickle raises is the caller's
                _fail(sent.futures, error)
                continue
            ready.append(({"name": function["name"], **self._fields, "function": function}, sent))
        for (_, sent), answer in zip(ready, self._pool.push_stream([token for token, _ in ready])):
            if answer.reason:
                _fail(sent.futures, exchange.RemoteError(f"the pool refused the call: {answer.reason}"))
                continue
            with self._lock:
                for each in sent.futures:
                    each.token = answer.id
                self._pending[answer.id] = sent
                if all(each.cancelled() for each in sent.futures):
                    self._withdrawn.append(answer.id)
        return bool(taken)

    # --- getting back: one thread ------------------------------------------------------------------------------------

    def _serve(self) -> None:
        pause = SOON
        try:
            with ExitStack() as stack:
                stack.callback(self._leave)
                stack.enter_context(self._pool.looked_after())
                while not self._is_over():
                    self._local.see_to_it()
                    busy = self._push() or self._cancel()
                    busy = self._collect() or busy
                    pause = SOON if busy else min(LATE, 1.3 * pause)
                    with self._lock:
                        if not self._outbox and not self._withdrawn:
                            self._lock.wait(pause if self._pending else LATE)
        except BaseException as error:
            self._give_up(error)

    def _is_over(self) -> bool:
        with self._lock:
            # An executor that nobody shut down must not keep its program from ending.
            closing = self._closing or not threading.main_thread().is_alive()
            return closing and not self._outbox and not self._pending

    def _cancel(self) -> bool:
        with self._lock:
            ids = [each for each in self._withdrawn if each in self._pending]
            self._withdrawn.clear()
        if ids:
            self._pool.cancel(ids)
        return bool(ids)

    def _collect(self) -> bool:
        """Read what has finished since we looked; tell whether there was anything."""
        if not self._pending:
            return False
        counts = self._pool.counts(self._batch) if self._batch else self._pool.counts()
        finished = counts[DONE] + counts[ERROR]
        new, self._seen = finished - self._seen, finished
        if new == 0:
            return False
        found = 0
        with self._lock:
            ids = list(self._pending)
        # The first ones are done first, as a rule; all are looked at only where the counts say that there is one more.
        for at in range(0, len(ids), READ):
            for token_id, doc in zip(ids[at : at + READ], self._pool.backend.get_many(ids[at : at + READ])):
                if doc is None or state_of(doc) in FINAL:
                    found += 1
                    self._fulfil(token_id, doc)
            if new > 0 and found >= new:
                break
        return found > 0

    def _fulfil(self, token_id: str, doc: Mapping[str, Any] | None) -> None:
        with self._lock:
            sent = self._pending.pop(token_id)
        waiting = [each for each in sent.futures if each.set_running_or_notify_cancel()]
        if doc is None:
            _fail(waiting, exchange.RemoteError(f"token {token_id} was removed from the pool"))
            return
        outcomes = exchange.outcomes_of(doc, lambda name: self._pool.attachment(token_id, name))
        if outcomes is None and len(sent.futures) > 1 and not self._was_cancelled(doc):
            self._repeat(sent, waiting)
            return
        given: Sequence[dict[str, Any] | None] = outcomes or [None] * len(sent.futures)
        for future, outcome in zip(sent.futures, given):
            if future.cancelled():
                continue
            if outcome is None:
                future.set_exception(exchange.failure_of(doc))
                continue
            seconds = outcome.get("seconds")
            if isinstance(seconds, (int, float)):
                self._seconds = seconds if self._seconds is None else 0.8 * self._seconds + 0.2 * seconds
            try:
                value, error = exchange.result_of(outcome, self._pickles, self._local.knows)
            except Exception as wrong:  # a pickle that this process cannot read
                value, error = None, wrong
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

    def _repeat(self, sent: _Sent, waiting: Sequence[PoolFuture]) -> None:
        """One call ended the process of its chunk: each goes on alone, so that the others are not lost with it."""
        with self._lock:
            for future in waiting:
                future._state = "PENDING"
                self._outbox.append(_Sent([future], chunk=False))

    def _was_cancelled(self, doc: Mapping[str, Any]) -> bool:
        attempts = attempts_of(doc)
        return bool(doc.get("cancel")) or (bool(attempts) and attempts[-1].get("failure_class") == "cancelled")

    def _give_up(self, error: BaseException) -> None:
        with self._lock:
            self._failed = error
            sent = [*self._outbox, *self._pending.values()]
            self._outbox.clear()
            self._pending.clear()
        text = f"{error}; {error.hint}" if isinstance(error, TokenpoolError) else f"{type(error).__name__}: {error}"
        for each in sent:
            _fail(each.futures, exchange.RemoteError(f"the calls cannot go on: {text}"))

    def _leave(self) -> None:
        self._local.close()
        if self._own:
            self._pool.backend.close()


def _chunks(futures: Sequence[PoolFuture], size: int) -> list[_Sent]:
    return [_Sent(futures[at : at + size], chunk=size > 1) for at in range(0, len(futures), size)]


def _results(futures: list[PoolFuture], end: float | None) -> Iterator[Any]:
    futures.reverse()
    try:
        while futures:
            yield futures[-1].result(None if end is None else max(0.0, end - time.monotonic()))
            futures.pop()
    finally:
        for future in futures:  # nobody waits for them any more
            future.cancel()


def _fail(futures: Iterable[PoolFuture], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


def _notify(futures: Iterable[PoolFuture]) -> None:
    for future in futures:
        future.set_running_or_notify_cancel()


def _is_hashable(function: Any) -> bool:
    try:
        hash(function)
    except TypeError:
        return False
    return True

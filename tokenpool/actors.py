"""picas' face of a worker: subclass `RunActor`, write `process_task`, call `run`."""

from __future__ import annotations

import copy
import logging
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from . import chance, transitions
from .attendance import note_attempt
from .commits import Outcome, commit
from .deadlines import Deadline
from .documents import Task, drop_unsavable, stubs_of
from .errors import ClaimFailed, Conflict, OutOfSpace, ServerAway, TokenpoolError, TokenTimeout
from .executers import ProcessGroups, Supervisor, watching
from .iterators import EndlessViewIterator, TaskViewIterator
from .util import Timer, timestamp

log = logging.getLogger(__name__)

#: Seconds that a child has after SIGTERM before it is killed.
GRACE = 30.0
#: Times a result that meets a conflict is merged and saved again through a client that is not ours.
SAVES = 3


class _Leave(BaseException):
    """Unwinds whatever runs when a signal says stop; no `except Exception` of a script holds it up."""


class AbstractRunActor:
    """Claims tokens one after another and gives each to `process_task`."""

    # Class-level, so that an actor whose own __init__ never calls ours runs all the same.
    db: Any = None
    iterator: Any = None
    token_reset_values: Sequence[int] | None = (0, 0)
    current_task: Task | None = None
    subprocess: subprocess.Popen[bytes] | None = None
    tasks_processed = 0
    _groups: ProcessGroups | None = None
    _claim = ""
    _saved_task: Task | None = None
    _base: dict[str, Any] | None = None
    _looping = False
    _saving = False
    _leaving = False

    def __init__(
        self,
        db: Any,
        iterator: Any = None,
        view: str = "todo",
        token_reset_values: Sequence[int] | None = (0, 0),
        **view_params: Any,
    ) -> None:
        if db is None:
            raise ValueError("Database must be initialized")
        self.db = db
        self.token_reset_values = token_reset_values
        self.iterator = TaskViewIterator(db, view, **view_params) if iterator is None else iterator

    # --- what a script may write ---------------------------------------------------------------------------------------

    def prepare_env(self, *args: Any, **kwargs: Any) -> None:
        """Called once before the first token."""

    def prepare_run(self, *args: Any, **kwargs: Any) -> None:
        """Called before each token."""

    def process_task(self, task: Task) -> None:
        """Run one token; to be written by the script."""
        raise NotImplementedError(f"{type(self).__name__} has no process_task")

    def cleanup_run(self, *args: Any, **kwargs: Any) -> None:
        """Called after each token."""

    def cleanup_env(self, *args: Any, **kwargs: Any) -> None:
        """Called once at the end, whatever happened."""

    # --- one token -----------------------------------------------------------------------------------------------------

    def _run(self, task: Task, timeout: float | None) -> None:
        """Process one token and save what became of it; a fault in the script fails the token, not the worker."""
        self.current_task = task
        claim = self._claim = _claim_of(task)
        began = timestamp()
        self._base = copy.deepcopy(task.doc)
        deadline = Deadline(timeout, self._kill_children)
        try:
            with deadline, self._attended(task):
                self.prepare_run()
                self.process_task(task)
            if deadline.passed:
                raise TokenTimeout(f"Token execution exceeded timeout limit of {timeout} seconds")
        except Exception as error:
            log.info("token %s failed: %s: %s", task.id, type(error).__name__, error)
            task.error(f"Exception {type(error)} occurred during processing: {error}", exception=error)
        finally:
            deadline.disarm()
        if dropped := drop_unsavable(task):
            task.error(f"not JSON, so it could not be saved: {dropped}")
        if self._leaving:  # a script swallowed the signal; its token is given back all the same
            raise _Leave
        if claim:  # without a claim of ours (a test's client) there is no history
            note_attempt(task.doc, self._base, began)
        with self._undisturbed():
            self._save(task, claim)
            self._saved_task = task
        self._after(task)

    @contextmanager
    def _attended(self, task: Task) -> Iterator[None]:
        """Let the pool know what runs; its children end when somebody cancels it, or when it is not ours any more."""
        pool = getattr(self.db, "pool", None)
        if pool is None or not self._claim:
            yield
            return
        attendance = pool.attendance
        attendance.begin(self._base or task.doc, lambda: self._kill_children(GRACE))
        try:
            yield
        finally:
            attendance.finish()

    def _after(self, task: Task) -> None:
        try:
            self.cleanup_run()
        except Exception:  # the token is saved; what a script does afterwards does not end the others
            log.exception("cleanup_run failed after token %s", task.id)
        self.tasks_processed += 1

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Let a signal wait: a token that has been run is saved first, so that it is not run again."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False
        if self._leaving and self._looping:
            raise _Leave

    def _save(self, task: Task, claim: str) -> None:
        """Write the result: merged where somebody changed the token meanwhile, again and again while the server is away."""
        if getattr(self.db, "pool", None) is None:
            self._save_plainly(task)
            return
        delay = 0.2
        while True:
            try:
                written = commit(self.db.pool.backend, (), [Outcome(task.doc, claim, self._base)])
                break
            except (ServerAway, OutOfSpace) as error:
                log.warning("the result of %s waits for the server: %s", task.id, error)
                if self._leaving and self._looping:
                    raise _Leave from None
                time.sleep(chance.uniform(0, delay))
                delay = min(60.0, delay * 2)
        for doc in written.closed:
            task.doc.update(doc)
            task.doc["_attachments"] = stubs_of(doc)
        if written.superseded:
            log.warning("token %s is not ours any more; its result was kept in its history", task.id)

    def _save_plainly(self, task: Task) -> None:
        """Save through a client that has picas' methods only."""
        from .backends.couch_errors import ResourceConflict, couchdb

        conflicts = (Conflict, ResourceConflict, couchdb.http.ResourceConflict)
        for _ in range(SAVES):
            try:
                self.db.save(task)
                return
            except conflicts as error:
                log.info("token %s was changed by somebody else, merging: %r", task.id, error)
                try:
                    task["_rev"] = self.db.get(task.id).rev
                except (KeyError, ValueError, AttributeError):
                    break
            except (ssl.SSLEOFError, ssl.SSLError) as error:
                log.info("the connection broke, connecting again: %r", error)
                self.reconnect()
                self.db.save(task)
                return
        log.warning("the result of token %s could not be saved", task.id)

    def reconnect(self) -> None:
        """Connect anew; the iterator goes on with the new connection."""
        self.db = self.db.copy()
        self.iterator.reconnect(self.db)

    # --- many tokens ---------------------------------------------------------------------------------------------------

    def run(self, max_token_time: float | None = None) -> None:
        """Process tokens until the iterator ends."""
        with self._environment():
            for task in self._tasks():
                self._run(task, timeout=max_token_time)
                self.current_task = None

    def _tasks(self) -> Iterator[Task]:
        """Yield claimed tokens; one failing request does not end the worker."""
        iterator, delay = iter(self.iterator), 0.1
        while True:
            try:
                task = next(iterator)
            except StopIteration:
                return
            except (ServerAway, ClaimFailed) as error:
                log.warning("no token could be claimed, trying again: %s", error)
                time.sleep(chance.uniform(0, delay))
                delay = min(60.0, delay * 2)
                continue
            delay = 0.1
            yield task

    @contextmanager
    def _environment(self) -> Iterator[None]:
        """Signals, children and the script's own environment around the loop; all are put back at the end."""
        self.time = Timer()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        cleaned = False
        try:
            with Supervisor() as supervisor, watching(supervisor) as self._groups:
                self.prepare_env()
                self.setup_handler()
                self._looping = True
                yield
        except _Leave:
            self._looping, cleaned = False, True
            # A second one must not cut short what the first one began.
            _set_handlers(dict.fromkeys(before, signal.SIG_IGN))
            self._shut_down()
        finally:
            self._looping = False
            self._groups = None
            if getattr(self.db, "pool", None) is not None:
                self.db.pool.leave()
            _set_handlers(before)
            if not cleaned:
                self.cleanup_env()

    # --- stop ------------------------------------------------------------------------------------------------------------

    def setup_handler(self) -> None:
        """Leave in order on SIGTERM and SIGINT."""
        log.info("Setting up signal handlers")
        try:
            signal.signal(signal.SIGTERM, self.handler)
            signal.signal(signal.SIGINT, self.handler)
        except ValueError:
            log.info("not in the main thread: signals are left to it")

    def handler(self, signum: int, frame: FrameType | None) -> None:
        """Stop the child, give the current token back with `token_reset_values`, clean up, exit 0."""
        log.info("shutting down, called with signal %s", signum)
        self._leaving = True
        self._kill_children(GRACE)
        if self._saving:
            return
        if self._looping:
            # The database is not touched from inside a signal: whatever was interrupted may hold its locks.
            raise _Leave
        self._shut_down()

    def _kill_children(self, grace: float = 0.0) -> None:
        if self._groups is not None:
            self._groups.kill(grace)
        child = self.subprocess
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(timeout=grace)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _shut_down(self) -> None:
        self._kill_children(GRACE)
        task = self.current_task
        try:
            if task is not None and task is not self._saved_task and self.token_reset_values is not None:
                self._give_back(task)
            self._abandon_claims()
        except TokenpoolError as error:
            log.warning("the token could not be given back: %s", error)
        finally:
            self.cleanup_env()
        sys.exit(0)

    def _give_back(self, task: Task) -> None:
        claim = self._claim
        task.scrub()
        values = self.token_reset_values or (0, 0)
        task["lock"], task["done"] = values[0], values[1]
        if getattr(self.db, "pool", None) is None:
            self._save_plainly(task)
        else:
            commit(self.db.pool.backend, (), [Outcome(task.doc, claim)])

    def _abandon_claims(self) -> None:
        """Give back what was being claimed when the signal came."""
        for iterator in (self.iterator, getattr(self.iterator, "iterator", None)):
            for claimer in getattr(iterator, "_claimers", {}).values():
                claimer.abandon()


class RunActor(AbstractRunActor):
    """An actor with limits."""

    def run(
        self,
        max_token_time: float | None = None,
        max_total_time: float | None = None,
        max_tasks: int | None = None,
        max_scrub: int = 0,
        stop_function: Callable[..., bool] | None = None,
        **stop_function_args: Any,
    ) -> None:
        """Process tokens until the iterator ends or a limit is reached; times in seconds.

        `max_scrub`: times that a failed token is put back to todo; `stop_function` is asked after every token.
        """
        timer = Timer()
        if max_total_time is not None and isinstance(self.iterator, EndlessViewIterator):
            _also_stop(self.iterator, lambda: timer.elapsed() > max_total_time)
        with self._environment():
            for task in self._tasks():
                self._run(task, timeout=max_token_time)
                self._scrub_if_failed(task, max_scrub)
                if stop_function is not None and stop_function(**stop_function_args):
                    break
                if max_tasks and self.tasks_processed == max_tasks:
                    break
                if max_total_time is not None and timer.elapsed() > max_total_time:
                    break
                self.current_task = None

    def _scrub_if_failed(self, task: Task, max_scrub: int) -> None:
        code = task.doc.get("exit_code")
        # An exit code that was never set says nothing; the work is not repeated for it.
        failed = task.doc.get("lock") == transitions.PICAS_ERROR or not (
            code in ("", None) or transitions.means_success(code)
        )
        if failed and transitions.scrubs(task.doc) < max_scrub:
            log.info("scrubbing token %s", task.id)
            task.scrub()
            with self._undisturbed():
                self._restub(task)
                self._save(task, "")

    def _restub(self, task: Task) -> None:
        """Take the server's own stubs of the logs: not every server accepts stubs without its digest."""
        if getattr(self.db, "pool", None) is not None and task.doc.get("_attachments"):
            now = self.db.pool.backend.get_many([task.id])[0] or {}
            task.doc["_attachments"] = now.get("_attachments", {})


def _also_stop(iterator: EndlessViewIterator, over: Callable[[], bool]) -> None:
    """Add a stop condition to the one that a script gave."""
    theirs, arguments = iterator.stop_callback, iterator.stop_callback_args
    iterator.stop_callback = lambda: over() or (theirs is not None and theirs(**arguments))
    iterator.stop_callback_args = {}


def _claim_of(task: Task) -> str:
    """Return the claim under which we hold the token, empty where a user's own iterator claimed it."""
    lease = task.doc.get("lease")
    return str(lease.get("claim", "")) if isinstance(lease, dict) else ""


def _set_handlers(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        try:
            signal.signal(number, handler)
        except (ValueError, TypeError):  # not the main thread, or a handler that was not set from Python
            continue


__all__ = ["AbstractRunActor", "RunActor", "log", "signal", "subprocess"]

"""The life of one claimed token: prepare → run → close → attach, whatever happens in between."""

from __future__ import annotations

import logging
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import attachments, retries, transitions
from .ahead import Ahead, Watching
from .attachments import attach_files, attach_logs, keep_checkpoint, restore_checkpoint
from .backends.base import Backend, Json
from .bays import Bays
from .checks import problem
from .children import Child, Finished, OnEnd, Supervisor
from .commits import Outcome
from .errors import BadInput, ServerAway, TokenpoolError
from .fit import Placement, wanted
from .limits import Limits
from .links import SupervisorLost
from .runners import Runners
from .runners.base import Begun, Places, Policy, Result, Runner
from .staging.plan import has_data
from .staging.values import Progress
from .util import timestamp
from .vault import FRONT, hide, hide_in_file, secrets_of

if TYPE_CHECKING:  # made when the first token has data
    from .staging.stager import Stager

log = logging.getLogger(__name__)

#: The exit code of what SIGTERM has ended, and seconds within which a worker hears that it was meant as well.
TERMINATED, HEARSAY = 143, 0.5


def no_stager() -> Stager:
    """Stand for what moves data where nothing does."""
    raise BadInput("data is not moved here", "run the token by a worker")


@dataclass(frozen=True)
class Context:
    """What a run needs of its worker."""

    backend: Backend
    supervisor: Supervisor
    bays: Bays
    limits: Limits
    runners: Runners = field(default_factory=Runners)
    policy: Policy = field(default_factory=Policy)
    cwd: Path | None = None
    cpus: int = 1
    grace: float = 10.0
    log_limit: int = 1_000_000
    cleanup: str = "success"
    #: What every child inherits; read once.
    environ: Mapping[str, str] = field(default_factory=lambda: inherited(os.environ))
    on_child: Callable[[str, Begun, Places], None] = lambda claim, child, places: None
    #: Why the worker stopped this claim's child: "", "cancelled", "preempted" or "lost".
    stopped: Callable[[str], str] = lambda claim: ""
    #: Waits until the worker is told to leave, at most so many seconds, and tells whether it was.
    leaves: Callable[[float], bool] = lambda seconds: False
    #: The CPUs and GPUs that a claim was given.
    placement: Callable[[str], Placement] = lambda claim: Placement()
    #: What brings data and takes it away; made when the first token asks for it.
    stager: Callable[[], Stager] = no_stager
    #: What a claim does now, and how far its data is.
    on_phase: Callable[[str, str, Progress | None], None] = lambda claim, name, progress: None

    def attachment(self, token: Mapping[str, Any], name: str) -> Iterator[bytes]:
        """Return what is attached to a token under a name, piece by piece."""
        return self.backend.get_attachment(token["_id"], name)

    def execute(self, argv: list[str], places: Places, timeout: float | None) -> Finished:
        """Run one child process to its end, inside the memory that its token asked for."""
        claim = places.own["TOKENPOOL_CLAIM"]
        with self.limits.around(claim, places.ram_gb) as limit:
            child = self._start(limit.wrap(argv), places, timeout)
            limit.watch(child)
            self.on_child(claim, child, places)
            finished = child.wait()
            places.oom = limit.out_of_memory(finished)
        return finished

    def enqueue(self, argv: list[str], places: Places, timeout: float | None, on_end: OnEnd) -> Child:
        """Hand one child process to the supervisor, to be run in its turn; sent with the supervisor's next `push`."""
        child = self._start(argv, places, timeout, tell=False, queued=True, more=True, on_end=on_end)
        self.on_child(places.own["TOKENPOOL_CLAIM"], child, places)
        return child

    def serve(self, argv: list[str], log: str, on_end: OnEnd) -> Child:
        """Start a process that stays from one token to the next."""
        return self.supervisor.start(
            argv, cwd=self.bays.root, env={}, inherit=True, stdout=log, stderr=log, on_end=on_end
        )

    def _start(self, argv: list[str], places: Places, timeout: float | None, **how: Any) -> Child:
        return self.supervisor.start(
            argv,
            cwd=self.cwd or places.work,
            env=places.own,
            inherit=True,
            stdout=places.stdout,
            stderr=places.stderr,
            timeout=timeout,
            grace=self.grace,
            cpus=self.placement(places.own["TOKENPOOL_CLAIM"]).cpus,
            **how,
        )


@dataclass(frozen=True)
class Run:
    """One attempt that ended: the outcome to write, how it went, where its files are."""

    outcome: Outcome
    result: Result
    places: Places
    seconds: float = 0.0


def run_token(doc: Json, context: Context, ahead: Ahead | None = None) -> Run:
    """Take one claimed token through its whole life; returns the outcome to be written, never raises for the token.

    `ahead` is what fetches its inputs already.
    """
    claim = doc["lease"]["claim"]
    began, clock = timestamp(), time.monotonic()
    places = ahead.places if ahead is not None else prepare(doc, context)
    if context.stopped(claim):  # while it waited for its slot
        result = Result(transitions.PICAS_ERROR)
    else:
        result = execute(doc, places, context, ahead)
    if ahead is not None:
        ahead.end()  # its folder is going to be another's
    result = _as_stopped(_as_cut(result, context), _why_ended(result, claim, context))
    closed = close(doc, _as_hidden(result, places), began, context)
    attach(closed, result, places, context)
    return keep(Run(Outcome(closed, claim), result, places, time.monotonic() - clock), context)


@dataclass(frozen=True)
class Started:
    """A token whose one process was handed to the supervisor, or that its runner does without a thread of ours."""

    doc: Json
    runner: Runner
    places: Places
    child: Begun
    #: Who lets it wait for its turn.
    lane: str = ""

    @property
    def small(self) -> bool:
        """Tell whether ending it takes no time worth mentioning: its logs travel inside the closing write."""
        return attachments.size_of(self.places.stdout) + attachments.size_of(self.places.stderr) <= attachments.INLINE


def start_token(doc: Json, context: Context, on_end: Callable[[Any], None], lane: str | None = None) -> Started | None:
    """Begin a token that needs no thread, one process for the supervisor say; None: it needs `run_token`, in a thread.

    With `lane`, only one that waits for its turn there. Raises OSError where this machine cannot run anything.
    """
    if doc.get("checkpoint") or doc.get("secrets") or _ram(doc) or has_data(doc) or problem(doc):
        return None
    try:
        runner = context.runners.of(doc)
        command = runner.command(doc)
    except BadInput:
        return None
    own = runner.lane if command is None else ""
    if (command is None and not own) or lane not in (None, own):
        return None
    places = prepare(doc, context)
    begun: Begun | None = None
    try:
        if command is not None:
            begun = context.enqueue(command.argv, places, command.timeout, on_end)
        else:
            begun = runner.start(doc, places, context, on_end)
            if begun is not None:
                context.on_child(doc["lease"]["claim"], begun, places)
    except (SupervisorLost, BadInput):
        begun = None
    if begun is None:
        context.bays.give_back(places.bay)
        return None
    return Started(doc, runner, places, begun, own)


def end_token(started: Started, context: Context) -> Run:
    """Take a token whose process has ended through the rest of its life."""
    doc = started.doc
    claim = doc["lease"]["claim"]
    try:
        finished = started.child.result()
        result, began, seconds = started.runner.result(doc, finished), finished.began, finished.seconds
    except SupervisorLost as error:
        result, began, seconds = Result(transitions.PICAS_ERROR, "lost", f"{error}; {error.hint}"), 0.0, 0.0
    result = _as_stopped(_as_cut(result, context), _why_ended(result, claim, context))
    closed = close(doc, result, timestamp(began or None), context)
    attach(closed, result, started.places, context)
    return keep(Run(Outcome(closed, claim), result, started.places, seconds), context)


# --- the four calls ------------------------------------------------------------------------------------------------


def prepare(doc: Json, context: Context) -> Places:
    """Make the attempt's own folder, its log files and its environment."""
    bay = context.bays.take()
    volumes = context.stager().prepare(doc, bay.work) if has_data(doc) else ()
    return Places(bay, bay.work, _environment(doc, bay.work, context), context.environ, _ram(doc), volumes=volumes)


def fetch_ahead(doc: Json, context: Context) -> Ahead:
    """Begin to fetch the inputs of a token that waits for its slot, into its own folder; raises OSError as `prepare`."""
    watching = Watching(doc["lease"]["claim"], context.stopped, context.on_phase)
    return Ahead(doc, prepare(doc, context), context.stager(), watching)


def execute(doc: Json, places: Places, context: Context, ahead: Ahead | None = None) -> Result:
    """Run the token; what cannot be run at all is a result as well."""
    try:
        if odd := problem(doc):
            return Result(transitions.PICAS_ERROR, "invalid", odd)
        restore_checkpoint(doc, context.cwd or Path(places.work), context.backend)
        places.secrets = secrets_of(doc, context.policy.secrets, os.environ)
        places.own = {**places.own, **places.secrets}
        runner = context.runners.of(doc)
        if has_data(doc):
            watch = Watching(doc["lease"]["claim"], context.stopped, context.on_phase)
            run = partial(runner.run, doc, places, context)
            result = context.stager().around(doc, places, watch, run, ahead.found if ahead else None)
        else:
            result = runner.run(doc, places, context)
    except BadInput as error:
        return Result(transitions.PICAS_ERROR, "invalid", f"{error}; {error.hint}")
    except SupervisorLost as error:
        return Result(transitions.PICAS_ERROR, "lost", f"{error}; {error.hint}")
    except ServerAway as error:  # before it began: the token did nothing wrong
        return Result(transitions.PICAS_ERROR, "preempted", f"{error}; {error.hint}")
    except TokenpoolError as error:
        return Result(transitions.PICAS_ERROR, "staging", f"{error}; {error.hint}")
    except Exception as error:  # a fault of ours or of a plug-in must not take the worker's other tokens along
        log.exception("running token %s failed", doc["_id"])
        return Result(transitions.PICAS_ERROR, "system", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    if places.oom and result.failure_class:
        message = f"stopped: it used more memory than the {places.ram_gb:g} GB that it asked for"
        return replace(result, failure_class="oom", message=message, files={}, reuse_key="")
    return result


def close(doc: Json, result: Result, began: str, context: Context) -> Json:
    """Return the document as it is to stand: finished, failed, or given back for another attempt."""
    closed = {**doc}
    closed["attempts"] = [*transitions.attempts_of(doc), _attempt(doc, result, began)]
    if result.output is not None:
        closed["output"] = dict(result.output)
    if result.reuse_key:
        closed["reuse_key"] = result.reuse_key
    verdict = retries.judge(closed, result.exit_code, result.failure_class)
    if verdict.move != "unlock":
        closed["exit_code"] = result.exit_code
    return retries.apply(closed, verdict, context.backend.now(), result.message)


def attach(closed: Json, result: Result, places: Places, context: Context) -> None:
    """Put logs, files that are its result, and what the next attempt begins with, into the document."""
    for path in (places.stdout, places.stderr) if places.secrets else ():
        hide_in_file(path, places.secrets.values())
    attach_files(closed, result.files, context.backend)
    attach_logs(closed, places.stdout, places.stderr, context.log_limit, context.backend)
    if closed.get("checkpoint"):
        keep_checkpoint(closed, context.cwd or Path(places.work), context.backend)


def keep(run: Run, context: Context) -> Run:
    """Leave the attempt's folder under the token's name where the worker was told so: a failed one can be looked at."""
    if context.cleanup == "never" or (context.cleanup == "success" and run.result.failure_class):
        name = f"{_safe_name(run.outcome.doc['_id'])}.{run.outcome.claim[:8]}"
        run.places.work = context.bays.keep(run.places.bay, name)
        run.places.kept = True
    return run


def clean(run: Run, context: Context) -> None:
    """Give the attempt's folder to the next one, unless it is kept; its outcome is recorded."""
    if has_data(run.outcome.doc):
        context.stager().settled(run.outcome.claim)
    if not run.places.kept:
        context.bays.give_back(run.places.bay)


# --- history ---------------------------------------------------------------------------------------------------------


def _attempt(doc: Json, result: Result, began: str) -> Json:
    return {
        "claim": doc["lease"]["claim"],
        "worker": doc["lease"].get("worker", ""),
        "hostname": doc["hostname"],
        "start_time": began,
        "end_time": timestamp(),
        "exit_code": result.exit_code,
        "failure_class": result.failure_class or None,
        "counted": retries.is_counted(result.exit_code, result.failure_class),
        "cpu_seconds": round(result.cpu_seconds, 3),
        "max_rss_mb": round(result.max_rss_mb, 1),
        **({"executors": [dict(each) for each in result.executors]} if result.executors else {}),
    }


def _as_hidden(result: Result, places: Places) -> Result:
    """What a run says of itself may hold what nobody else is to see."""
    values = places.secrets.values()
    return replace(result, message=hide(result.message.encode(), values).decode()) if values else result


def _as_cut(result: Result, context: Context) -> Result:
    """What ended on a full disk may have lost a part of its logs and files: it counts as lost, and runs elsewhere."""
    if not context.bays.is_full:
        return result
    message = f"the disk of {context.bays.root} was full when it ended: what it wrote may be cut"
    return replace(result, failure_class="lost", message=message, output=None, files={}, reuse_key="")


def _why_ended(result: Result, claim: str, context: Context) -> str:
    """Return why a child was ended: a batch system ends all processes of a job at once, and we may be the last to hear."""
    by_all = result.exit_code == TERMINATED and not context.stopped(claim) and context.leaves(HEARSAY)
    return context.stopped(claim) or ("preempted" if by_all else "")


def _as_stopped(result: Result, why: str) -> Result:
    """A child that its worker stopped did not fail by itself; one that had ended well before stands as it is."""
    if not why or (result.exit_code == 0 and not result.failure_class):
        return result
    message = "cancelled while it ran" if why == "cancelled" else result.message
    return replace(result, failure_class=why, message=message, output=None, files={}, reuse_key="")


# --- places and logs -------------------------------------------------------------------------------------------------


def _safe_name(token_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", token_id)[:100]


def _ram(doc: Json) -> float:
    """Return the memory in GB that a token asked for; 0: it said nothing, or nothing that makes sense."""
    try:
        return wanted(doc).ram_gb
    except BadInput:
        return 0.0


def _environment(doc: Json, work: str, context: Context) -> dict[str, str]:
    own = doc.get("env")
    placed = dict(context.placement(doc["lease"]["claim"]).environment)
    # A number of threads is advice, which the token may know better; the GPUs are not.
    threads = {name: placed.pop(name) for name in ("OMP_NUM_THREADS",) if name in placed}
    folders = dict.fromkeys(("TOKENPOOL_WORKDIR", "INPUT", "OUTPUT", "RESOURCE", "TEMP"), work)
    if has_data(doc):  # without data all are one
        names = {"INPUT": "input", "OUTPUT": "output", "RESOURCE": "resource", "TEMP": "tmp"}
        folders.update({name: os.path.join(work, folder) for name, folder in names.items()})
    return {
        **threads,
        **({str(name): str(value) for name, value in own.items()} if isinstance(own, dict) else {}),
        **folders,
        "CPU": str(context.cpus),
        **placed,
        "TOKENPOOL_TOKEN_ID": doc["_id"],
        "TOKENPOOL_ATTEMPT": str(len(transitions.attempts_of(doc)) + 1),
        "TOKENPOOL_CLAIM": doc["lease"]["claim"],
    }


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the pool's password and without secrets: a token gets those that it names."""
    return {name: value for name, value in environ.items() if not name.startswith(("TOKENPOOL_PASSWORD", FRONT))}

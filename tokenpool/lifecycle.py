"""The life of one claimed token: prepare → run → attach → close, whatever happens in between."""

from __future__ import annotations

import base64
import io
import logging
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import transitions
from .backends.base import Backend, Json
from .children import Child, Finished, Supervisor
from .commits import Outcome
from .errors import BadInput, Conflict, ServerAway, TokenpoolError
from .runners import runner_for
from .runners.base import Places, Result
from .util import timestamp

log = logging.getLogger(__name__)

#: Logs up to this many bytes travel inside the closing write; larger ones are streamed before it.
INLINE = 256 * 1024


@dataclass(frozen=True)
class Context:
    """What a run needs of its worker."""

    backend: Backend
    supervisor: Supervisor
    root: Path
    worker: str
    cwd: Path | None = None
    cpus: int = 1
    grace: float = 10.0
    log_limit: int = 1_000_000
    cleanup: str = "success"
    #: What every child inherits; read once.
    environ: Mapping[str, str] = field(default_factory=lambda: inherited(os.environ))
    on_child: Callable[[str, Child], None] = lambda claim, child: None
    #: Why the worker stopped this claim's child: "", "cancelled", "preempted" or "lost".
    stopped: Callable[[str], str] = lambda claim: ""

    def execute(self, argv: list[str], places: Places, timeout: float | None) -> Finished:
        """Run one child process to its end."""
        child = self.supervisor.start(
            argv,
            cwd=str(self.cwd or places.work),
            env=dict(places.environment),
            stdout=str(places.stdout),
            stderr=str(places.stderr),
            timeout=timeout,
            grace=self.grace,
        )
        self.on_child(places.environment["TOKENPOOL_CLAIM"], child)
        return child.wait()


@dataclass(frozen=True)
class Run:
    """One attempt that ended: the outcome to write, how it went, where its files are."""

    outcome: Outcome
    result: Result
    places: Places
    seconds: float = 0.0


def run_token(doc: Json, context: Context) -> Run:
    """Take one claimed token through its whole life; returns the outcome to be written, never raises for the token."""
    claim = doc["lease"]["claim"]
    began, clock = timestamp(), time.monotonic()
    places = prepare(doc, context)
    if context.stopped(claim):  # while it waited for its slot
        result = Result(transitions.PICAS_ERROR)
    else:
        result = execute(doc, places, context)
    result = _as_stopped(result, context.stopped(claim))
    closed = close(doc, result, began, context.worker)
    attach(closed, places, context)
    return Run(Outcome(closed, claim), result, places, time.monotonic() - clock)


# --- the four calls ------------------------------------------------------------------------------------------------


def prepare(doc: Json, context: Context) -> Places:
    """Make the attempt's own folder, its log files and its environment."""
    claim = doc["lease"]["claim"]
    name = f"{_safe_name(doc['_id'])}.{claim[:8]}"
    work = context.root / name
    work.mkdir(parents=True, exist_ok=True)
    return Places(work, context.root / f"{name}.out", context.root / f"{name}.err", _environment(doc, work, context))


def execute(doc: Json, places: Places, context: Context) -> Result:
    """Run the token; what cannot be run at all is a result as well."""
    try:
        return runner_for(doc).run(doc, places, context)
    except BadInput as error:
        return Result(transitions.PICAS_ERROR, "invalid", f"{error}; {error.hint}")
    except Exception as error:  # a fault of ours or of a plug-in must not take the worker's other tokens along
        log.exception("running token %s failed", doc["_id"])
        return Result(transitions.PICAS_ERROR, "system", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


def close(doc: Json, result: Result, began: str, worker: str) -> Json:
    """Return the document as it is to stand: finished, failed, or given back for another attempt."""
    closed = {**doc}
    attempt = _attempt(doc, result, began, worker)
    closed["attempts"] = [*transitions.attempts_of(doc), attempt]
    if result.output is not None:
        closed["output"] = dict(result.output)
    if result.failure_class in ("preempted", "lost"):
        transitions.unlock(closed)
        return closed
    closed["exit_code"] = result.exit_code
    if result.exit_code == 0 and not result.failure_class:
        transitions.close(closed)
    elif result.failure_class in ("invalid", "system", "cancelled"):
        transitions.fail(closed, result.message)
    elif may_retry(closed):
        transitions.scrub(closed)
    else:
        transitions.close(closed)
        if result.message:
            closed["error"] = [*_errors(doc), {"time": closed["done"], "message": result.message}]
    return closed


def attach(closed: Json, places: Places, context: Context) -> None:
    """Put the logs into the document: the closing attempt's under picas' names, earlier ones' with their number."""
    number = len(closed["attempts"])
    final = transitions.state_of(closed) in transitions.FINAL
    base = f"logs_{closed['_id']}" if final else f"logs_{closed['_id']}.{number}"
    attachments = dict(closed.get("_attachments") or {})
    for kind, path, name in (("stdout", places.stdout, f"{base}.out"), ("stderr", places.stderr, f"{base}.err")):
        data = read_capped(path, context.log_limit)
        closed["attempts"][-1][kind] = name
        if len(data) > INLINE and _stream(closed, name, data, attachments, context):
            continue
        attachments[name] = {"content_type": "text/plain", "data": base64.b64encode(data).decode("ascii")}
    closed["_attachments"] = attachments


def clean(run: Run, context: Context) -> None:
    """Remove the attempt's folder as the worker was told; a failed one is kept to be looked at."""
    failed = bool(run.result.failure_class)
    if context.cleanup == "never" or (context.cleanup == "success" and failed):
        return
    for path in (run.places.stdout, run.places.stderr):
        path.unlink(missing_ok=True)
    try:
        run.places.work.rmdir()
    except OSError:
        shutil.rmtree(run.places.work, ignore_errors=True)


# --- history ---------------------------------------------------------------------------------------------------------


def may_retry(doc: Mapping[str, Any]) -> bool:
    """Tell whether a failed token has attempts left; only counted ones use them up."""
    allowed = doc.get("max_retries")
    if isinstance(allowed, bool) or not isinstance(allowed, (int, float)):
        return False
    return sum(bool(attempt.get("counted", True)) for attempt in transitions.attempts_of(doc)) <= allowed


def _attempt(doc: Json, result: Result, began: str, worker: str) -> Json:
    return {
        "claim": doc["lease"]["claim"],
        "worker": worker,
        "hostname": doc["hostname"],
        "start_time": began,
        "end_time": timestamp(),
        "exit_code": result.exit_code,
        "failure_class": result.failure_class or None,
        "counted": result.failure_class not in ("preempted", "lost"),
        "cpu_seconds": round(result.cpu_seconds, 3),
        "max_rss_mb": round(result.max_rss_mb, 1),
    }


def _errors(doc: Mapping[str, Any]) -> list[Json]:
    found = doc.get("error")
    return list(found) if isinstance(found, list) else []


def _as_stopped(result: Result, why: str) -> Result:
    """A child that its worker stopped did not fail by itself; one that had ended well before stands as it is."""
    if not why or (result.exit_code == 0 and not result.failure_class):
        return result
    message = "cancelled while it ran" if why == "cancelled" else result.message
    return Result(result.exit_code, why, message, result.cpu_seconds, result.max_rss_mb)


# --- places and logs -------------------------------------------------------------------------------------------------


def _safe_name(token_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", token_id)[:100]


def _environment(doc: Json, work: Path, context: Context) -> dict[str, str]:
    resources = doc.get("resources")
    wanted = resources.get("cpu_cores") if isinstance(resources, dict) else None
    own = doc.get("env")
    # Until a token stages data, its folders are all its work folder.
    folders = dict.fromkeys(("TOKENPOOL_WORKDIR", "INPUT", "OUTPUT", "RESOURCE", "TEMP"), str(work))
    return {
        **context.environ,
        **({str(name): str(value) for name, value in own.items()} if isinstance(own, dict) else {}),
        **folders,
        "CPU": str(wanted if isinstance(wanted, int) and wanted > 0 else context.cpus),
        "TOKENPOOL_TOKEN_ID": doc["_id"],
        "TOKENPOOL_ATTEMPT": str(len(transitions.attempts_of(doc)) + 1),
        "TOKENPOOL_CLAIM": doc["lease"]["claim"],
    }


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the pool's password: a token has no business with it."""
    return {name: value for name, value in environ.items() if not name.startswith("TOKENPOOL_PASSWORD")}


def read_capped(path: Path, limit: int) -> bytes:
    """Return a log file whole, or its head and tail with a mark between where it is larger than `limit` bytes."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return b""
    with path.open("rb") as file:
        if size <= limit:
            return file.read()
        head = file.read(limit // 2)
        file.seek(size - (limit - limit // 2))
        tail = file.read()
    mark = f"\n\n[tokenpool: {size - len(head) - len(tail)} of {size} bytes left out here]\n\n".encode()
    return head + mark + tail


def _stream(closed: Json, name: str, data: bytes, attachments: dict[str, Any], context: Context) -> bool:
    """Send a large log ahead of the closing write; False where it has to travel inside after all."""
    for _ in range(3):
        try:
            closed["_rev"] = context.backend.put_attachment(
                closed["_id"], closed["_rev"], name, io.BytesIO(data), len(data), "text/plain"
            )
        except (Conflict, ServerAway):
            pass  # somebody wrote to the token, or nobody knows what arrived: the token is read, the log sent again
        except TokenpoolError:
            return False
        try:
            now = context.backend.get(closed["_id"])
        except TokenpoolError:
            return False
        if not transitions.is_held_by(now, closed["attempts"][-1]["claim"]):
            return False
        arrived = now["_rev"] == closed["_rev"] and name in now.get("_attachments", {})
        closed["_rev"] = now["_rev"]
        if arrived:
            # The stub is the server's: some want their own digest back.
            attachments[name] = now["_attachments"][name]
            return True
    return False

"""The verb `work`, and what it shares with `run`: a worker made of options and settings, told about on stderr."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import walltime
from ..backends.base import Want
from ..config import CLEANUPS
from ..errors import BadInput, TokenpoolError
from ..fit import Resources, capacity
from ..pool import Pool
from ..spool import default_root
from ..worker import Event, Summary, Worker, WorkerOptions, cpu_count
from .output import COLORS, command_of, number, of_os_error, one_line, print_json, say, warn
from .policy import policy_of, policy_options, staging_of, staging_options
from .session import Session, flags, verb
from .types import DURATION, PAIR, SIZE, VIEW

Function = TypeVar("Function", bound=Callable[..., Any])

UNDELIVERED = 75


def worker_options(function: Function) -> Function:
    """Give a verb the options that `work` and `run` share; what is not given comes from the settings."""
    return flags(
        click.option(
            "--slots",
            type=click.IntRange(1),
            metavar="N",
            help="Tokens run at a time; else one for each CPU this process may use.",
        ),
        click.option("--grace", type=DURATION, metavar="TIME", help="Time between SIGTERM and SIGKILL (10s)."),
        click.option(
            "--log-limit", type=SIZE, metavar="BYTES", help="Keep so much of each log: its head and tail (1MB)."
        ),
        click.option(
            "--workdir",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Make the attempts' folders there.",
        ),
        click.option("--cleanup", type=click.Choice(CLEANUPS), help="When an attempt's folder is removed (success)."),
        click.option(
            "--lease",
            type=DURATION,
            metavar="TIME",
            help="Tokens of a worker that is not seen for so long come back (2m).",
        ),
        click.option(
            "--spool",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Keep finished tokens there while the server is away.",
        ),
        click.option(
            "--prefetch", type=click.IntRange(0), metavar="N", help="Claim N tokens more than slots are free (0)."
        ),
        staging_options,
        policy_options,
    )(function)


@verb(
    "work",
    "tokenpool work --slots 4 --quit",
    "tokenpool work --batch night --idle-timeout 5m --max-total-time 47h",
    "tokenpool work --view Monitor/todo -v",
)
@click.option(
    "-b", "--batch", "batches", multiple=True, metavar="NAME", help="Only tokens of this batch; may be repeated."
)
@click.option(
    "--tag", "tags", type=PAIR, multiple=True, metavar="K=V", help="Only tokens with this tag; may be repeated."
)
@click.option("--view", type=VIEW, metavar="DESIGN/VIEW", help="Only tokens that this view lists, in its order.")
@click.option("--quit", is_flag=True, help="Leave when nothing waits.")
@click.option("--idle-timeout", type=DURATION, metavar="TIME", help="Leave after having nothing to do for so long.")
@click.option(
    "--poll", type=DURATION, metavar="TIME", help="The longest pause between two looks at an empty pool (5s)."
)
@click.option("--sleep-time", type=DURATION, hidden=True, help="makeitso's word for --poll.")
@click.option("--max-tasks", type=click.IntRange(1), metavar="N", help="Leave after N tokens.")
@click.option(
    "--max-total-time", type=DURATION, metavar="TIME", help="Claim nothing after so long; leave when all is finished."
)
@click.option(
    "--walltime", metavar="TIME", help="Leave by then: a duration, or a time as RFC 3339; in a Slurm job, its end."
)
@click.option("--on-idle", metavar="CMD", help="With --idle-timeout: run this before leaving.")
@click.option(
    "--max-fast-failures",
    type=click.IntRange(1),
    metavar="N",
    help="Claim no more after N failures in a row, each within 5s.",
)
@click.option("--check", metavar="CMD", help="Then run this; claim again when it succeeds.")
@click.option(
    "--adopt-picas-after", type=DURATION, metavar="TIME", help="Put back what picas has held for so long; else never."
)
@click.option("--cpus", type=click.FloatRange(0, min_open=True), metavar="N", help="CPUs for all tokens together.")
@click.option("--ram", type=click.FloatRange(0, min_open=True), metavar="GB", help="Memory for all tokens together.")
@click.option("--gpus", "gpu_count", type=click.IntRange(0), metavar="N", help="GPUs for all tokens together.")
@worker_options
@click.option(
    "--cwd",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Run every command in DIR, not in a folder of its own.",
)
@click.pass_obj
def work(session: Session, /, **given: Any) -> int:
    """Claim tokens and run them.

    Runs until it is stopped (Ctrl-C, SIGTERM: running tokens are given back), or --quit, --idle-timeout, --max-tasks,
    --max-total-time or --walltime end it. Exit code 0 also when tokens failed: the worker did its job; 75 when finished
    tokens could not be delivered and wait in the spool.
    """
    configure_log(session)
    sleep_time = given.pop("sleep_time")
    given["poll"] = sleep_time if given["poll"] is None else given["poll"]
    if given["on_idle"] and given["idle_timeout"] is None and not session.settings()["idle_timeout"]:
        raise BadInput("--on-idle is run when the worker was idle for its time", "give --idle-timeout too")
    if given["check"] and given["max_fast_failures"] is None:
        raise BadInput("--check is run after fast failures", "give --max-fast-failures too")
    with session.open() as pool:
        options = options_of(session, given)
        expect_views(pool, options)
        say(f"working on {pool.url} with {number(options.slots, 'slot')}")
        worker = Interruptible(pool, options, teller(session))
        summary = run_worker(worker)
    _report(session, summary)
    if summary.undelivered:
        return UNDELIVERED
    return 0


def _report(session: Session, summary: Summary) -> None:
    if session.json:
        print_json({"schema": 1, **vars(summary)})
        return
    others = ("returned", "superseded", "undelivered")
    rest = "".join(f", {getattr(summary, name)} {name}" for name in others if getattr(summary, name))
    say(f"left: {summary.done} done, {summary.failed} failed{rest}")
    if summary.spool:
        warn(
            f"finished tokens wait in {summary.spool}; the next worker here delivers them, or: tokenpool spool deliver"
        )


# --- shared with run -----------------------------------------------------------------------------------------------------


class Interruptible(Worker):
    """A worker that remembers that somebody told it to leave."""

    interrupted = False

    def stop(self) -> None:
        """Ask it to leave."""
        self.interrupted = True
        super().stop()


def run_worker(worker: Worker) -> Summary:
    """Run a worker to its end; raises what keeps it from running anything here."""
    try:
        summary = worker.run()
    except TokenpoolError:
        raise
    except OSError as error:
        raise of_os_error(error) from error
    if worker.broken is not None:
        raise of_os_error(worker.broken)
    return summary


def options_of(session: Session, given: Mapping[str, Any], **fixed: Any) -> WorkerOptions:
    """Return the options of a worker: what was given, then the settings."""
    names = ("slots", "poll", "idle_timeout", "grace", "log_limit", "cleanup", "lease", "prefetch")
    settings = session.settings(**{name: given.get(name) for name in names})
    design, view = given.get("view") or ("", "")
    scratch = given.get("workdir") or settings["scratch"]
    chosen: dict[str, Any] = {
        "slots": settings["slots"] or cpu_count(),
        "batches": tuple(given.get("batches", ())),
        "tags": dict(given.get("tags", ())),
        "design": design,
        "view": view,
        "quit": given.get("quit", False),
        "idle_timeout": settings["idle_timeout"] or None,
        "workdir": Path(scratch).expanduser().absolute() if scratch else None,
        "spool": _spool(session, given.get("spool")),
        "capacity": _capacity(given, scratch),
        "ends": _end(given.get("walltime")),
        "on_idle": given.get("on_idle") or "",
        "check": given.get("check") or "",
        **{name: settings[name] for name in ("poll", "grace", "log_limit", "cleanup", "lease", "prefetch")},
        **{name: given.get(name) for name in ("max_tasks", "max_total_time", "cwd", "max_fast_failures")},
        "adopt_picas_after": given.get("adopt_picas_after"),
        "policy": policy_of(session, given),
        **staging_of(session, given),
    }
    return WorkerOptions(**{**chosen, **fixed})


def _spool(session: Session, given: Path | None) -> Path:
    """Return where finished tokens are kept while the server is away."""
    return default_root(str(given or session.settings()["spool"])).absolute()


def _end(given: str | None) -> float | None:
    """Return when the worker has to have left, in seconds since 1970."""
    now = time.time()
    end = walltime.parse(given, now) if given else walltime.end_of(os.environ, now)
    if given and end is not None and end <= now:
        raise BadInput(f"--walltime {given} is over already", "a time to come: 2h, or 2030-01-31T18:00:00Z")
    return end


def _capacity(given: Mapping[str, Any], scratch: Any) -> Resources:
    """Return what tokens may use: what was given, the rest as this machine, its cgroup or its batch job allows."""
    found = capacity(os.environ, folder=Path(scratch).expanduser() if scratch else None)
    names = {"cpu_cores": given.get("cpus"), "ram_gb": given.get("ram"), "gpus": given.get("gpu_count")}
    return replace(found, **{name: value for name, value in names.items() if value is not None})


def expect_views(pool: Pool, options: WorkerOptions) -> None:
    """Raise NotFound now where the views that the worker reads are missing, not in its log for ever."""
    pool.backend.candidates(Want(options.batches, options.tags, options.design, options.view), 1)


def configure_log(session: Session) -> None:
    """Send what the library logs to stderr, in the words of the command line."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Words())
    log = logging.getLogger("tokenpool")
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.INFO if session.verbose else logging.ERROR if session.quiet else logging.WARNING)


class _Words(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def teller(session: Session) -> Callable[[Event], None]:
    """Return what tells each event on stderr, if asked to."""
    if not session.verbose:
        return lambda event: None
    idle = False

    def tell(event: Event) -> None:
        nonlocal idle
        if event.kind == "idle":
            if not idle:
                say("idle: nothing waits that has room here")
            idle = True
            return
        idle = False
        say(event_line(event))

    return tell


def event_line(event: Event) -> str:
    """Return one event as a line."""
    what = click.style(event.state, fg=COLORS.get(event.state)) if event.kind == "finished" else event.kind
    code = f" exit {event.token.get('exit_code')}" if event.kind == "finished" else ""
    return f"{what} {one_line(event.token.get('_id', ''))}{code}: {command_of(event.token)}"

"""The verb `work`, and what it shares with `run`: a worker made of options and settings, told about on stderr."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..backends.base import Want
from ..config import CLEANUPS
from ..errors import TokenpoolError
from ..pool import Pool
from ..worker import Event, Summary, Worker, WorkerOptions, cpu_count
from .output import COLORS, command_of, number, of_os_error, one_line, print_json, say
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
@click.option("--max-tasks", type=click.IntRange(1), metavar="N", help="Leave after N tokens.")
@click.option(
    "--max-total-time", type=DURATION, metavar="TIME", help="Claim nothing after so long; leave when all is finished."
)
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

    Runs until it is stopped (Ctrl-C, SIGTERM: running tokens are given back), or --quit, --idle-timeout, --max-tasks or
    --max-total-time end it. Exit code 0 also when tokens failed: the worker did its job.
    """
    configure_log(session)
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
    names = ("slots", "poll", "idle_timeout", "grace", "log_limit", "cleanup")
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
        **{name: settings[name] for name in ("poll", "grace", "log_limit", "cleanup")},
        **{name: given.get(name) for name in ("max_tasks", "max_total_time", "cwd")},
    }
    return WorkerOptions(**{**chosen, **fixed})


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
                say("idle: nothing waits")
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

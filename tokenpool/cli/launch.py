"""The verb `launch`: workers by a batch system, or on this machine; what was launched, and its end."""

from __future__ import annotations

import importlib
import os
import re
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from ..errors import BadInput, NotPermitted
from .output import age, number, one_line, print_json, print_table, say, warn
from .session import Nouns, Session, Verb, flags, help_if_bare, is_file, verb, without_password
from .types import DURATION, PAIR

if TYPE_CHECKING:
    from ..config import Settings
    from ..launchers.base import Job, Order

Function = TypeVar("Function", bound=Callable[..., Any])

COLORS = {"running": "green", "waiting": "cyan", "unknown": "yellow", "ended": "white"}
#: Verbs in modules of their own, imported when they are used: the module, the function in it, and its line of help.
ELSEWHERE: dict[str, tuple[str, str, str]] = {
    "grid": (".launch_grid", "grid", "Start workers on the Grid, by DIRAC or by an ARC computing element."),
    "cloud": (".launch_cloud", "cloud", "Make machines in a cloud, each with one worker."),
}


class Systems(Nouns):
    """The kinds of systems that start workers, and what was launched by them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = super().list_commands(ctx)
        return [name for name in (*own, *ELSEWHERE) if name not in LAST] + [name for name in LAST if name in own]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ELSEWHERE:
            module, attribute, _ = ELSEWHERE[cmd_name]
            found: click.Command = getattr(importlib.import_module(module, __package__), attribute)
            return found
        return super().get_command(ctx, cmd_name)


LAST = ("list", "cancel")


@click.group(
    "launch",
    cls=Systems,
    examples=(
        "tokenpool launch slurm -n 20 --cpus 4 --time 2h -- -p short",
        "tokenpool launch local -n 2",
        "tokenpool launch list",
    ),
)
@click.pass_context
def launch(ctx: click.Context) -> int:
    """Start workers elsewhere, and see what became of them.

    What stands behind -- goes to the batch system as it is.
    """
    return help_if_bare(ctx)


# --- orders --------------------------------------------------------------------------------------------------------------


class BatchVerb(Verb):
    """A verb whose words behind ``--`` are the batch system's."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*click.Command.collect_usage_pieces(self, ctx), "[-- OPTIONS OF THE SYSTEM...]"]


def order_options(function: Function) -> Function:
    """Give a verb what all orders of workers take."""
    return flags(
        click.option(
            "-n", "--jobs", type=click.IntRange(1), default=1, metavar="N", help="Jobs, each with a worker (1)."
        ),
        click.option("--cpus", type=click.IntRange(1), default=1, metavar="N", help="CPUs of each job (1)."),
        click.option(
            "--ram-gb", type=click.FloatRange(0, min_open=True), metavar="GB", help="Memory of each job; else the system's."
        ),
        click.option("--gpus", type=click.IntRange(0), default=0, metavar="N", help="GPUs of each job (0)."),
        click.option(
            "--time", "walltime", type=DURATION, metavar="TIME", help="How long a job may run; its worker leaves before."
        ),
        click.option(
            "--slots", type=click.IntRange(1), metavar="N", help="Tokens that a worker runs at a time; else one for each CPU."
        ),
        click.option(
            "-b", "--batch", "batches", multiple=True, metavar="NAME", help="Only tokens of this batch; may be repeated."
        ),
        click.option("--tag", "tags", type=PAIR, multiple=True, metavar="K=V", help="Only tokens with this tag."),
        click.option("--quit", is_flag=True, help="Workers leave when nothing waits."),
        click.option(
            "--idle-timeout",
            type=DURATION,
            default=120.0,
            metavar="TIME",
            help="Workers leave after having nothing to do for so long (2m).",
        ),
        click.option("--work", "more", default="", metavar="OPTIONS", help="More options of tokenpool work, in one word."),
        click.option("--setup", multiple=True, metavar="LINE", help="A shell line before the worker; may be repeated."),
        click.option("--env", type=PAIR, multiple=True, metavar="K=V", help="A variable of the worker; no secrets."),
        click.option("--program", metavar="CMD", help="How tokenpool is called there; else this very installation."),
        click.option(
            "--logs", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
            default=Path("tokenpool-logs"), help="Where the jobs' own output goes (tokenpool-logs).",
        ),
        click.option("--name", metavar="NAME", help="A name for this order; else one is made."),
        click.option(
            "--template", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
            help="Fill this template in place of ours.",
        ),
        click.option(
            "--script", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
            help="Hand in this script, as --print made it and you changed it.",
        ),
        click.option("--print", "shown", is_flag=True, help="Print the script and launch nothing."),
        click.option("--dry-run", is_flag=True, help="Tell what would be launched, and launch nothing."),
    )(function)  # fmt: skip


def order_of(session: Session, given: dict[str, Any], extra: tuple[str, ...] = (), local: bool = False) -> Order:
    """Return the order that the options describe; raises BadInput."""
    import shlex

    from ..launchers.base import Order

    settings = session.settings()
    pool, password_file = pool_and_password(settings, local)
    words = ["--quit"] if given["quit"] else ["--idle-timeout", f"{given['idle_timeout']:g}s"]
    for name in given["batches"]:
        words += ["--batch", name]
    for key, value in given["tags"]:
        words += ["--tag", f"{key}={value}"]
    return Order(
        pool=pool,
        jobs=given["jobs"],
        slots=given["slots"] or given["cpus"],
        cpus=given["cpus"],
        ram_gb=given["ram_gb"],
        gpus=given["gpus"],
        walltime=given["walltime"],
        name=given["name"] or f"tp-{uuid.uuid4().hex[:8]}",
        work=(*words, *shlex.split(given["more"])),
        extra=extra,
        setup=given["setup"],
        program=given["program"] or ("tokenpool" if given["setup"] else f"{shlex.quote(sys.executable)} -m tokenpool"),
        password_file=password_file,
        logs=str(given["logs"].absolute()),
        env=given["env"],
        template=given["template"].read_text("utf-8") if given["template"] else "",
    )


def pool_and_password(settings: Settings, inherited: bool = False) -> tuple[str, str]:
    """Return the pool's URL without a password, and the path of the file that holds it, if one does.

    `inherited`: the worker has our environment, and nobody else sees it. Raises BadInput for a password that would have
    to stand in a script.
    """
    from ..backends.sqlite_files import parse_url

    if is_file(settings.pool):
        return parse_url(settings.pool).url, ""
    if settings["password_file"]:
        path = Path(str(settings["password_file"])).expanduser().absolute()
        if not path.is_file():
            raise NotPermitted(f"the password file {path} is not there", "check password_file")
        return without_password(settings.pool), str(path)
    hint = "write it into a file that only you and your jobs can read, and name it in TOKENPOOL_PASSWORD_FILE"
    if urlsplit(settings.pool.partition("+")[2]).password:
        raise BadInput("the password in the pool's URL would be seen in the job script", hint)
    if "TOKENPOOL_PASSWORD" in settings.environ and not inherited:
        raise BadInput("TOKENPOOL_PASSWORD does not reach a job: batch systems show its environment", hint)
    return settings.pool, ""


def hand_in(session: Session, kind: str, order: Order, given: dict[str, Any]) -> int:
    """Launch an order, or only show it; tells what was launched, also where not all was."""
    from ..launchers import open_launcher
    from ..launchers.base import LaunchFailed
    from ..launchers.launching import launch as hand

    launcher = open_launcher(kind)
    script = _again(given["script"], order.name) if given["script"] else launcher.script(order)
    if given["shown"]:
        click.echo(script, nl=False)
        return 0
    if given["dry_run"]:
        if session.json:
            print_json({"schema": 1, "dry_run": True, "launcher": kind, "workers": order.jobs, "script": script})
        else:
            say(f"would launch {number(order.jobs, 'worker')} by {kind}, on {order.pool}; --print shows the script")
        return 0
    if is_file(order.pool) and kind != "local":
        warn("a SQLite pool is for one machine: workers of other nodes need a CouchDB")
    with session.open(make_file=kind == "local"):
        pass  # what cannot be reached from here would fail in every job
    Path(order.logs).mkdir(parents=True, exist_ok=True)
    try:
        jobs = hand(kind, launcher, order, script, _ledger())
    except LaunchFailed as error:
        _tell(session, error.jobs)
        raise
    _tell(session, jobs)
    return 0


def _again(file: Path, name: str) -> str:
    """Return a script that was printed and changed, under the name of this order: it may be handed in many times."""
    text = file.read_text("utf-8")
    old = re.search(r"TOKENPOOL_LAUNCH=([\w-]{8,})", text)
    return text.replace(old.group(1), name) if old else text


def _tell(session: Session, jobs: list[Job]) -> None:
    """Tell what was launched."""
    if session.json:
        print_json({"schema": 1, "jobs": [as_json(job) for job in jobs]})
        return
    for job in jobs:
        if session.quiet:
            click.echo(job.id)
        say(f"launched {number(job.size, 'worker')}: {job.launcher} job {job.id}, {job.name}")


def _ledger() -> Any:
    from ..launchers.ledger import Ledger, folder_of

    return Ledger(folder_of(os.environ))


# --- one verb for each system ----------------------------------------------------------------------------------------------


def _system(kind: str, told: str, *examples: str) -> None:
    """Add the verb of one kind of system."""

    def run(ctx: click.Context, /, **given: Any) -> int:
        session: Session = ctx.obj
        extra = tuple(ctx.meta.get("tokenpool.command", ()))
        if extra and kind == "local":
            raise BadInput("there is no batch system behind launch local", "leave out -- and what follows")
        return hand_in(session, kind, order_of(session, given, extra, local=kind == "local"), given)

    run.__doc__ = told
    decorated = click.pass_context(order_options(run))
    launch.add_command(click.command(kind, cls=BatchVerb, examples=examples, takes_command=kind != "local")(decorated))


_system(
    "local",
    "Start workers on this machine that outlive the shell.",
    "tokenpool launch local -n 2 --slots 4",
    "tokenpool launch local --idle-timeout 1h --batch night",
)
_system(
    "slurm",
    """Start workers by Slurm, as one job array.

    A worker learns from Slurm when its job ends, claims nothing that does not fit before, and gives back what has not
    ended. --print shows the script; a changed one is handed in with --script.
    """,
    "tokenpool launch slurm -n 20 --cpus 4 --time 2h -- -p short",
    "tokenpool launch slurm -n 20 --time 2h --print > workers.sh",
    "tokenpool launch slurm -n 20 --script workers.sh",
)
_system(
    "pbs",
    "Start workers by PBS, as one job array.",
    "tokenpool launch pbs -n 20 --cpus 4 --time 2h -- -q short",
    "tokenpool launch pbs -n 20 --setup 'module load python' --program tokenpool",
)
_system(
    "htcondor",
    """Start workers by HTCondor, as one cluster of jobs.

    What stands behind -- becomes lines of the submit description.
    """,
    "tokenpool launch htcondor -n 20 --cpus 4 --time 2h",
    "tokenpool launch htcondor -n 20 -- 'requirements = OpSysMajorVer == 9'",
)


# --- what was launched -------------------------------------------------------------------------------------------------------


def as_json(job: Job) -> dict[str, Any]:
    """Return a job as --json prints it."""
    names = ("launcher", "id", "name", "state", "size", "running", "reason", "submitted")
    return {name: getattr(job, name) for name in names}


def _noted(session: Session) -> list[Job]:
    """Return what was launched from this account, on the pool that was named or on all."""
    from ..launchers.launching import refresh

    named = session.settings().pool if session.pool else ""
    if named:
        named = pool_and_password(session.settings(), inherited=True)[0]
    return refresh(_ledger(), named)


@launch.add_command
@verb("list", "tokenpool launch list", "tokenpool launch list --json | jq '.jobs[].id'")
@click.option("-a", "--all", "every", is_flag=True, help="Also those that have ended, for a week.")
@click.pass_obj
def list_jobs(session: Session, every: bool) -> None:
    """List what was launched from this account, as its batch system knows it now.

    With -p only what works on that pool. `unknown`: the system could not be asked.
    """
    jobs = [job for job in _noted(session) if every or job.state != "ended"]
    if session.json:
        print_json({"schema": 1, "jobs": [as_json(job) for job in jobs]})
    elif session.quiet:
        for job in jobs:
            click.echo(job.id or job.name)
    elif jobs:
        titles = ("name", "launcher", "id", "state", "workers", "running", "since", "reason")
        print_table(titles, map(_row, jobs), COLORS)
    else:
        say("nothing that was launched from here is left; -a shows what was")


def _row(job: Job) -> list[str]:
    cells = [job.name, job.launcher, job.id or "?", job.state, str(job.size), str(job.running)]
    return [*cells, age(job.submitted), one_line(job.reason)]


@launch.add_command
@verb(
    "cancel", "tokenpool launch cancel tp-3f9a01bc", "tokenpool launch cancel 4711 4712", "tokenpool launch cancel all"
)
@click.option("--dry-run", is_flag=True, help="Only tell what it would be.")
@click.argument("which", metavar="NAME|ID", nargs=-1, required=True)
@click.pass_obj
def cancel(session: Session, which: tuple[str, ...], dry_run: bool) -> int:
    """End what was launched: waiting jobs go, running workers give their tokens back.

    To let workers finish what they run, use tokenpool worker drain.
    """
    from ..errors import NotFound
    from ..launchers import open_launcher

    alive = [job for job in _noted(session) if job.state != "ended"]
    chosen = [job for job in alive if "all" in which or job.name in which or job.id in which]
    strange = [word for word in which if word != "all" and not any(word in (job.name, job.id) for job in alive)]
    if strange:
        raise NotFound(f"nothing that is called {strange[0]} was launched, or it has ended", "tokenpool launch list -a")
    for kind in sorted({job.launcher for job in chosen}):
        those = [job for job in chosen if job.launcher == kind and job.id]
        if not dry_run:
            open_launcher(kind).cancel(those)
        for job in those:
            say(f"{'would cancel' if dry_run else 'cancelled'} {job.launcher} job {job.id}, {job.name}")
    if session.json:
        print_json({"schema": 1, **({"dry_run": True} if dry_run else {}), "jobs": [as_json(job) for job in chosen]})
    return 0

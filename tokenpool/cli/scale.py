"""The verb `scale`: keeps as many workers as the waiting tokens need, and says why."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadInput
from .launch import BatchVerb, order_of, order_options
from .launch_cloud import for_machines
from .output import number, print_json, say, warn
from .session import Session, is_file
from .types import DURATION
from .work import configure_log

if TYPE_CHECKING:
    from ..scale import Decision, Demand, Rules
    from ..scaling import Scaler

#: Options of an order that make no sense for many of them.
NOT_OURS = {"jobs", "name", "script", "shown", "tags", "quit", "dry_run"}


def _order_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give `scale` the options of an order that all its orders share."""
    own = list(getattr(function, "__click_params__", ()))
    decorated = order_options(function)
    params = [each for each in decorated.__click_params__ if each in own or each.name not in NOT_OURS]  # type: ignore[attr-defined]
    decorated.__click_params__ = params  # type: ignore[attr-defined]
    return decorated


@click.command(
    "scale",
    cls=BatchVerb,
    takes_command=True,
    examples=(
        "tokenpool scale --launcher slurm --min 0 --max 50 --backlog 100",
        "tokenpool scale --launcher slurm --max 20 --cpus 4 --time 2h -- -p short",
        "tokenpool scale --launcher local --max 2 --once --dry-run",
        "tokenpool scale --simulate 100000 --max 50 --backlog 100",
    ),
)
@click.option(
    "--launcher", "kind", metavar="NAME", default="local", help="What starts workers: slurm, cloud, … (local)."
)
@click.option("--min", "minimum", type=click.IntRange(0), default=0, metavar="N", help="Workers at least (0).")
@click.option("--max", "maximum", type=click.IntRange(1), default=10, metavar="N", help="Workers at most (10).")
@click.option(
    "--backlog",
    type=click.IntRange(1),
    metavar="N",
    help="Open tokens for each worker; else as many as one runs side by side.",
)
@click.option("--per-token", is_flag=True, help="A worker for each token, which leaves after it.")
@click.option("--patience", type=DURATION, default=60.0, metavar="TIME", help="Let idle workers go after so long (1m).")
@click.option(
    "--unknown", type=DURATION, default=600.0, metavar="TIME",
    help="Count a job that its system does not know for so long (10m).",
)  # fmt: skip
@click.option("--every", type=DURATION, default=15.0, metavar="TIME", help="Time between two looks (15s).")
@click.option("--once", is_flag=True, help="Look and act once, and leave.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option("--simulate", type=click.IntRange(1), metavar="TOKENS", help="Play it with so many made-up tokens.")
@_order_options
@click.pass_context
def scale(ctx: click.Context, /, **given: Any) -> int:
    """Keep as many workers as the waiting tokens need.

    Counts the tokens that such workers can run, and the workers there are or will be; starts some, or lets idle ones go.
    No worker that runs something is touched. Each decision is told in one line with its reason. It may be killed and
    started again: what it has launched is found again.
    """
    session: Session = ctx.obj
    rules = _rules(given)
    if given["simulate"]:
        return _simulate(session, given, rules)
    configure_log(session)
    extra = tuple(ctx.meta.get("tokenpool.command", ()))
    with session.open(make_file=given["kind"] == "local") as pool:
        scaler = _scaler(session, pool, given, rules, extra)
        scaler.launcher.script(scaler.order)  # an order that makes no sense fails here, before anything is launched
        if given["dry_run"]:
            decision, demand = scaler.look()
            _tell(session, decision, demand, [*decision.reasons])
            return 0
        with scaler.notes.alone():
            if given["once"]:
                decision, lines = scaler.step()
                _tell(session, decision, None, lines)
                return 0
            say(f"keeping {rules.minimum} to {number(rules.maximum, 'worker')} by {scaler.kind} on {pool.url}")
            with _patient() as wait:
                scaler.run(given["every"], _teller(session), wait)
    return 0


def _rules(given: dict[str, Any]) -> Rules:
    from ..scale import Rules

    if given["minimum"] > given["maximum"]:
        raise BadInput(f"--min {given['minimum']} is more than --max {given['maximum']}", "give a larger --max")
    if given["per_token"] and (given["backlog"] or 1) != 1:
        raise BadInput("--per-token is a backlog of one", "leave --backlog out")
    return Rules(given["minimum"], given["maximum"], given["backlog"] or 1, given["patience"], given["unknown"])


def _scaler(session: Session, pool: Any, given: dict[str, Any], rules: Rules, extra: tuple[str, ...]) -> Scaler:
    from pathlib import Path

    from ..launchers import open_launcher
    from ..launchers.ledger import Ledger, folder_of
    from ..scaling import Notes, Scaler

    local, launcher = given["kind"] == "local", open_launcher(given["kind"])
    order = order_of(session, {**given, "jobs": 1, "name": "", "tags": (), "quit": False}, extra, local=local)
    if given["kind"] == "cloud":
        order = for_machines(order, given["program"])
    if given["per_token"]:
        order = replace(order, slots=1, work=(*order.work, "--max-tasks", "1"))
    if is_file(order.pool) and not local:
        warn("a SQLite pool is for one machine: workers of other nodes need a CouchDB")
    Path(order.logs).mkdir(parents=True, exist_ok=True)
    folder = folder_of(os.environ)
    return Scaler(
        pool=pool,
        kind=given["kind"],
        launcher=launcher,
        order=order,
        rules=rules,
        ledger=Ledger(folder),
        notes=Notes(folder.with_name("scale"), order.pool, given["kind"], given["batches"]),
        batches=tuple(given["batches"]),
        side_by_side=given["backlog"] is None and not given["per_token"],
    )


def _tell(session: Session, decision: Decision, demand: Demand | None, lines: list[str]) -> None:
    if session.json:
        told = {"schema": 1, "wanted": decision.wanted, "have": decision.have, "start": decision.start}
        more = {"drain": list(decision.drain), "cancel": [job.id for job in decision.cancel], "reasons": lines}
        print_json({**told, **more})
        return
    for line in lines:
        say(line)


def _teller(session: Session) -> Callable[[list[str]], None]:
    """Return what tells a round; what goes on as before is told again only if somebody wants to know all."""
    before: list[str] = []

    def tell(lines: list[str]) -> None:
        if session.json:
            print_json({"schema": 1, "reasons": lines})
            return
        heads = [line.partition(":")[0] for line in lines]
        if session.verbose or heads != before:
            for line in lines:
                say(line)
        before[:] = heads

    return tell


@contextmanager
def _patient() -> Iterator[Callable[[float], bool]]:
    """Give what waits, and tells whether SIGTERM came meanwhile: a round is never cut short."""
    leave = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        leave.set()

    before = {which: signal.signal(which, stop) for which in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield leave.wait
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _simulate(session: Session, given: dict[str, Any], rules: Rules) -> int:
    from ..simulation import Simulation, World, lines

    world = World(tokens=given["simulate"], slots=given["slots"] or given["cpus"], walltime=given["walltime"] or 7200.0)
    if given["backlog"] is None:
        rules = replace(rules, backlog=world.slots)
    outcome = lines(Simulation(world, rules, given["every"]), lambda line: None if session.quiet else say(line))
    names = ("ended", "started", "drained", "cancelled", "refusals", "lost", "harmed", "most_jobs", "seconds")
    told = {name: getattr(outcome, name) for name in names}
    if session.json:
        print_json({"schema": 1, **told})
        return 0
    say(
        f"{number(outcome.ended, 'token')} ended in {outcome.seconds / 3600:.1f} hours; {outcome.started} workers started, "
        f"{outcome.most_jobs} at most, {outcome.drained} let go, {outcome.harmed} busy ones harmed"
    )
    return 0

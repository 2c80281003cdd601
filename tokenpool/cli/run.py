"""The verb `run`: push a file as a new batch, work it here, end with what failed and what to type next."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import click

from ..cwl.sources import is_source
from ..errors import TokenpoolError
from ..pool import Pool
from ..worker import Event, WorkerOptions
from .intake import Source, described, print_tokens, push_options, source_of
from .output import command_of, number, print_json, say, tail
from .progress import Meter, counts_note
from .push import send
from .session import Session, verb
from .waiting import SOME_FAILED
from .work import Interruptible, configure_log, event_line, expect_views, options_of, run_worker, worker_options
from .workflows import cwl_options, fetch_result, workflow_of

INTERRUPTED = 130
#: Failed tokens that are shown whole, and the lines of their logs.
SHOWN, LINES = 10, 10
#: Folders of failed tokens that are remembered: a million failures must not fill the memory.
KEPT = 1000


@verb(
    "run",
    "tokenpool run jobs.txt",
    "tokenpool run jobs.csv --slots 8 --timeout 10m --max-retries 2",
    "tokenpool run - --batch night < jobs.txt",
    "tokenpool run ctb/salmon:master params.yaml",
    takes_command=True,
)
@click.argument("file", nargs=-1)
@push_options
@cwl_options
@worker_options
@click.option("--isolated", is_flag=True, help="Run each command in a folder of its own, not in this one.")
@click.pass_context
def run(ctx: click.Context, /, file: tuple[str, ...], **given: Any) -> int:
    """Push a file of tokens, or a workflow, and run them here.

    They become a new batch, named like FILE unless --batch says otherwise; it is worked until none of its tokens waits or
    runs. Commands run in the current folder. Exit code 0, or 3 if some tokens failed. Ctrl-C gives running tokens back.

    FILE may be a CWL workflow (user/repo[:ref][/path.cwl], a URL, a .cwl file) with a file of parameters behind it. It is
    a token too; its output files are then fetched from the pool into the current folder, and its output object is printed.
    """
    session = ctx.ensure_object(Session)
    configure_log(session)
    command = ctx.meta.get("tokenpool.command")
    given["batch"] = given["own_batch"] = given["batch"] or _batch_name(file)
    workflow = command is None and len(file) > 0 and is_source(file[0])
    opened = (
        nullcontext(workflow_of(session, file[0], file[1:], given)) if workflow else source_of(file, command, given)
    )
    with opened as source:
        count = source.check()
        if given["dry_run"]:
            print_tokens(source)
            return 0
        with session.open(create=given["create"], make_file=True) as pool:
            code = Local(session, pool, given).run(source, count)
            if workflow and code == 0:
                fetch_result(pool, given["batch"], Path.cwd(), show=not session.json)
            return code


def _batch_name(file: tuple[str, ...]) -> str:
    """Return the file's name with a suffix that makes it a new batch every time."""
    stem = re.sub(r"[^\w.-]", "_", Path(file[0]).stem) if file and file[0] != "-" else "run"
    return f"{stem.replace(' ', '_') or 'run'}-{secrets.token_hex(3)}"


@dataclass
class Tally:
    """What happened here, told to the meter."""

    meter: Meter
    slots: int
    verbose: bool = False
    finished: int = 0
    failed: int = 0
    running: int = 0
    folders: dict[str, str] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        if event.kind == "idle":
            return
        self.running += 1 if event.kind == "started" else -1
        if event.kind == "finished":
            self.finished += 1
            if event.state == "error":
                self.failed += 1
                if len(self.folders) < KEPT:
                    self.folders[event.token["_id"]] = event.workdir
        if self.verbose:
            say(event_line(event))
        self.meter.set(
            self.finished,
            f"{self.finished - self.failed} done, {self.failed} failed, {min(self.running, self.slots)} running",
        )


class Local:
    """One run."""

    def __init__(self, session: Session, pool: Pool, given: Mapping[str, Any]) -> None:
        self.session, self.pool, self.batch = session, pool, str(given["batch"])
        self.cwd = None if given["isolated"] else Path.cwd()
        self.options: WorkerOptions = options_of(
            session, given, batches=(self.batch,), quit=True, idle_timeout=None, cwd=self.cwd
        )
        self.interrupted = False
        self.undelivered = 0
        self.folders: dict[str, str] = {}

    def run(self, source: Source, count: int) -> int:
        """Push, work, report; return the exit code."""
        expect_views(self.pool, self.options)
        sent = send(self.pool, source, count)
        say(described(sent.pushed, self.batch, [f"{number(sent.known)} known already"] if sent.known else []))
        self.work()
        counts = self.pool.counts(self.batch)
        failed = list(self._failures(counts))
        if self.session.json:
            refused = {"refused": sent.refused} if sent.refused else {}
            told = {"schema": 1, "pool": self.pool.url, "batch": self.batch, "states": counts, **refused}
            print_json({**told, "failed": failed})
        else:
            self._tell(counts, failed)
        if self.interrupted:
            return INTERRUPTED
        if self.undelivered:
            return 75
        return SOME_FAILED if counts["error"] or counts["invalid"] else 1 if sent.refused else 0

    def work(self) -> None:
        """Work the batch until none of it waits or runs, here or on other machines."""
        counts = self.pool.counts(self.batch)
        with Meter(self.batch, sum(counts.values())) as meter:
            tally = Tally(meter, self.options.slots, self.session.verbose)
            tally.folders = self.folders
            pause, told = 0.2, False
            while True:
                worker = Interruptible(self.pool, self.options, tally)
                self.undelivered += run_worker(worker).undelivered
                counts = self.pool.counts(self.batch)
                self.interrupted = worker.interrupted
                waiting = counts["todo"] or counts["held"] or counts["locked"]
                if self.interrupted or self.undelivered or worker.drained or not waiting:
                    return
                if not told and counts["todo"] + counts["held"]:
                    told = True
                    example = next(iter(self.pool.tokens(["state:todo", "state:held", f"batch:{self.batch}"])), None)
                    if example is not None:
                        say(f"some tokens wait; why: {self.session.command('explain', example.id)}")
                # Others run the rest; what they give back is ours to take.
                meter.set(counts["done"] + counts["error"], counts_note(counts))
                try:
                    time.sleep(pause)
                except KeyboardInterrupt:
                    self.interrupted = True
                    return
                pause = min(5.0, pause * 1.5)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _failures(self, counts: Mapping[str, int]) -> Iterator[dict[str, Any]]:
        """Yield what is known of the first failed tokens."""
        if not counts["error"]:
            return
        for token in islice(self.pool.tokens(f"state:error batch:{self.batch}".split()), SHOWN):
            yield {
                "id": token.id,
                "command": command_of(token.doc),
                "exit_code": token.doc.get("exit_code"),
                "workdir": str(self.cwd or self.folders.get(token.id, "")),
                "log": self._log(token.id),
            }

    def _log(self, token_id: str) -> list[str]:
        logs = None
        with contextlib.suppress(TokenpoolError):
            logs = self.pool.logs(token_id)
        return list(tail(logs.err or logs.out, LINES)) if logs else []

    def _tell(self, counts: Mapping[str, int], failed: list[dict[str, Any]]) -> None:
        for entry in failed:
            click.echo(err=True)
            click.echo(f"{click.style('failed', fg='red')} {entry['id']}", err=True)
            click.echo(f"  command    {entry['command']}", err=True)
            click.echo(f"  exit code  {entry['exit_code']}", err=True)
            if entry["workdir"]:
                click.echo(f"  folder     {entry['workdir']}", err=True)
            for line in entry["log"]:
                click.echo(f"  | {line}", err=True)
            click.echo(f"  next       {self.session.command('logs', entry['id'])}", err=True)
        if failed:
            click.echo(err=True)
        more = counts["error"] - len(failed)
        say(f"batch {self.batch}: {counts_note(counts)}" + (f"; {more} more failed" if more > 0 and failed else ""))
        where = ["--cwd", str(self.cwd)] if self.cwd else []
        again = self.session.command("work", "--batch", self.batch, "--quit", *where)
        if self.interrupted:
            say(f"interrupted; running tokens were given back. To go on:\n  {again}")
        elif failed:
            retry = self.session.command("retry", "state:error", f"batch:{self.batch}")
            say(f"to run them again:\n  {retry} --yes && {again}")

"""The verb `doctor`: one line for each thing that must be right, with a hint where it is not."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import click

from ..errors import NotFound, TokenpoolError
from ..pool import Pool
from .output import number, of_os_error, one_line, print_json
from .session import Session, verb, without_password

OK, WARN, FAIL = "ok", "warn", "fail"
MARKS = {OK: "green", WARN: "yellow", FAIL: "red"}
#: Invalid tokens that are named one by one.
NAMED = 20
#: Seconds by which two clocks may differ before lock and done times mislead.
CLOCK = 5.0
LEAST_FREE = 1_000_000_000


@dataclass(frozen=True)
class Check:
    """What was found about one thing."""

    status: str
    name: str
    message: str
    hint: str = ""


@verb(
    "doctor",
    "tokenpool doctor",
    "tokenpool doctor --fix",
    "tokenpool doctor --json | jq '.checks[] | select(.status != \"ok\")'",
)
@click.option("--fix", is_flag=True, help="Write missing or old views; mend or close invalid tokens.")
@click.pass_obj
def doctor(session: Session, fix: bool) -> int:
    """Check this computer and the pool; mend what can be mended.

    Exit code 1 if anything fails. An invalid token is one that no view lists: --fix gives it the `done` that it lacks, or
    closes it as an error.
    """
    found = []
    for check in _checks(session, fix):
        found.append(check)
        if not session.json and not (session.quiet and check.status == OK):
            click.echo(
                f"{click.style(f'{check.status:<4}', fg=MARKS[check.status])}  {check.name:<11} {one_line(check.message)}"
            )
            if check.hint:
                click.echo(f"      hint: {check.hint}")
    if session.json:
        print_json({"schema": 1, "checks": [asdict(check) for check in found]})
    return 1 if any(check.status == FAIL for check in found) else 0


def _checks(session: Session, fix: bool) -> Iterator[Check]:
    yield from _here()
    try:
        settings = session.settings()
        url, origin = without_password(settings.pool), settings.entries["pool"].origin
        yield Check(OK, "settings", f"pool {url} (from {origin})")
        scratch = str(settings["scratch"] or tempfile.gettempdir())
    except TokenpoolError as error:
        yield Check(FAIL, "settings", error.message, error.hint)
        return
    yield _disk("scratch", scratch)
    yield _supervisor()
    try:
        with session.open() as pool:
            yield Check(OK, "pool", f"{pool.url} answers")
            yield from _pool(pool, fix)
    except TokenpoolError as error:
        yield Check(FAIL, "pool", error.message, error.hint)


# --- this computer -------------------------------------------------------------------------------------------------------


def _here() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check(OK if sys.version_info >= (3, 9) else FAIL, "python", f"{version} at {sys.executable}")
    yield _package("sqlite", lambda: sqlite3.sqlite_version, (3, 34))
    yield _package("urllib3", lambda: _installed("urllib3"), (2,))
    yield _package("couchdb", lambda: _installed("couchdb"), (1, 2))


def _installed(name: str) -> str:
    from importlib import metadata

    return metadata.version(name)


def _package(name: str, version: Callable[[], str], least: tuple[int, ...]) -> Check:
    wanted = ".".join(map(str, least))
    try:
        found = version()
    except ImportError:
        return Check(FAIL, name, "is not installed", f"pip install '{name}>={wanted}'")
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < least:
        return Check(FAIL, name, f"{found} is older than {wanted}", "use a newer Python or package")
    return Check(OK, name, found)


def _disk(name: str, path: str) -> Check:
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            free = shutil.disk_usage(path).free
    except OSError as error:
        told = of_os_error(error)
        return Check(FAIL, name, told.message, told.hint)
    if free < LEAST_FREE:
        return Check(
            WARN, name, f"{path} has only {free / 1e9:.1f} GB left", "make room, or set scratch to another disk"
        )
    return Check(OK, name, f"{path} has {free / 1e9:.0f} GB left")


def _supervisor() -> Check:
    """Run a command as a worker would."""
    from ..executers import Supervisor

    try:
        with tempfile.TemporaryDirectory() as folder, Supervisor() as supervisor:
            null = os.path.join(folder, "log")
            began = time.perf_counter()
            child = supervisor.start(["true"], cwd=folder, env=dict(os.environ), stdout=null, stderr=null)
            code = child.wait().returncode
            spent = time.perf_counter() - began
    except (OSError, TokenpoolError) as error:
        return Check(FAIL, "supervisor", str(error), "no command can be run here")
    if code:
        return Check(FAIL, "supervisor", f"the command true ended with {code}", "is it in PATH?")
    return Check(OK, "supervisor", f"ran a command in {spent * 1000:.0f} ms")


# --- the pool ------------------------------------------------------------------------------------------------------------


def _pool(pool: Pool, fix: bool) -> Iterator[Check]:
    clock = _clock(pool)
    if clock is not None:
        yield clock
    path = getattr(getattr(pool.backend, "place", None), "path", None)
    if path is not None:
        yield _disk("pool disk", os.path.dirname(path))
    yield _designs(pool, fix)
    try:
        invalid = pool.counts()["invalid"]
    except NotFound:
        return
    yield from _invalid(pool, invalid, fix)


def _clock(pool: Pool) -> Check | None:
    """Compare our clock with the server's; a file has none."""
    transport = getattr(pool.backend, "transport", None)
    if transport is None:
        return None
    from email.utils import parsedate_to_datetime

    date = transport.request("GET", "/").headers.get("Date")
    with contextlib.suppress(TypeError, ValueError):
        apart = time.time() - parsedate_to_datetime(date).timestamp()
        if abs(apart) > CLOCK:
            return Check(WARN, "clock", f"{apart:+.0f} s from the server's", "ages and times will mislead; use NTP")
        return Check(OK, "clock", "agrees with the server's")
    return Check(WARN, "clock", "the server does not tell its time")


def _designs(pool: Pool, fix: bool) -> Check:
    from ..designs import DEFAULT_DESIGNS, design_document

    wanted = [design_document(name) for name in DEFAULT_DESIGNS]
    there = pool.backend.get_many([design["_id"] for design in wanted])
    stale = [
        f"{design['_id'][8:]} ({'differs' if now else 'missing'})"
        for design, now in zip(wanted, there)
        if now is None or {name: value for name, value in now.items() if name != "_rev"} != design
    ]
    if not stale:
        return Check(OK, "views", f"{', '.join(DEFAULT_DESIGNS)} are there and current")
    if fix:
        pool.init()
        return Check(OK, "views", f"written: {', '.join(stale)}")
    return Check(FAIL, "views", ", ".join(stale), f"tokenpool doctor --fix, or tokenpool init {pool.url}")


def _invalid(pool: Pool, count: int, fix: bool) -> Iterator[Check]:
    if not count:
        yield Check(OK, "tokens", "none is invalid")
        return
    for token in islice(pool.tokens("state:invalid"), NAMED):
        yield Check(OK if fix else WARN, "token", f"{token.id}: {why_invalid(token.doc)}")
    if not fix:
        yield Check(FAIL, "tokens", f"{number(count)} can never run: no view lists them", "tokenpool doctor --fix")
        return
    from ..changes import Verb, apply
    from ..selectors import Selector

    done = apply(pool.backend, Selector(states=("invalid",)), Verb("fix", ("invalid",), mend))
    yield Check(OK if not done.failed else FAIL, "tokens", f"{number(done.changed)} mended")


def why_invalid(doc: dict[str, Any]) -> str:
    """Return in words why no view lists a token."""
    if "done" not in doc:
        return "it has no done"
    return f"lock {doc.get('lock')!r} with done {doc['done']!r} is no state"


def mend(doc: dict[str, Any]) -> None:
    """Give a token the `done` that it lacks, as picas' own scripts forget it; close any other as an error."""
    from ..transitions import INVALID, fail, state_of

    if "done" not in doc:
        doc["done"] = 0
        if state_of(doc) != INVALID:
            return
    fail(doc, f"closed by tokenpool doctor: {why_invalid(doc)}")

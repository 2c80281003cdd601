"""The verb `service`: systemd units for workers, `scale` and the server; made, shown and removed."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import BadInput, NotFound, NotPermitted
from .output import print_json, print_table, say, warn
from .session import Nouns, Session, Verb, flags, help_if_bare, is_file, verb, without_password
from .systemctl import call, line, tell, tell_of_lingering, why_not
from .types import DURATION, PAIR

if TYPE_CHECKING:
    from ..launchers.systemd import Service

Function = TypeVar("Function", bound=Callable[..., Any])

KINDS = ("worker", "scale", "server")
COLORS = {"active": "green", "activating": "cyan", "deactivating": "yellow", "failed": "red", "inactive": "white"}


@click.group(
    "service",
    cls=Nouns,
    examples=(
        "tokenpool service install worker -- --slots 4",
        "tokenpool service install scale -- --launcher slurm --max 50",
        "tokenpool service status",
    ),
)
@click.pass_context
def service(ctx: click.Context) -> int:
    """Let systemd run workers, scale or the server.

    From now on, and after each start of the machine. KIND is worker, scale or server. What stands behind -- goes to the verb that it runs: work, scale, serve.
    """
    return help_if_bare(ctx)


class ServiceVerb(Verb):
    """A verb whose words behind ``--`` are those of another verb."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*click.Command.collect_usage_pieces(self, ctx), "[-- OPTIONS OF ITS VERB...]"]


def _which(function: Function) -> Function:
    """Give a verb what names a service."""
    return flags(
        click.argument("kind", type=click.Choice(KINDS), metavar="KIND"),
        click.option("--system", is_flag=True, help="A service of the machine, not of this user."),
        click.option("--name", default="", metavar="NAME", help="Tells several of one kind apart."),
    )(function)


# --- install ---------------------------------------------------------------------------------------------------------------


@service.add_command
@click.command(
    "install",
    cls=ServiceVerb,
    takes_command=True,
    examples=(
        "tokenpool service install worker -- --slots 4 --batch night",
        "sudo tokenpool service install worker --system --as tokenpool",
        "tokenpool service install scale --print -- --launcher slurm --max 50",
        "tokenpool service install server -- --port 8081",
    ),
)
@_which
@click.option("--as", "user", metavar="USER", help="With --system: the account that it runs as.")
@click.option("--env", type=PAIR, multiple=True, metavar="K=V", help="A variable of the service; no secrets.")
@click.option(
    "--drain", type=DURATION, default=300.0, metavar="TIME",
    help="What a worker runs gets so long to end when it is stopped (5m).",
)  # fmt: skip
@click.option("--program", metavar="CMD", help="How tokenpool is called there; else this very installation.")
@click.option("--no-start", is_flag=True, help="Write the unit; neither start it now nor at the next boot.")
@click.option("--print", "shown", is_flag=True, help="Print the unit and change nothing.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and change nothing.")
@click.pass_context
def install(ctx: click.Context, /, **given: Any) -> int:
    """Write a unit, and have systemd start it now and at each boot.

    The pool's password is in no unit: name a file that holds it in TOKENPOOL_PASSWORD_FILE. With --system root hands that
    file over to the service, so that only root has to be able to read it.

    A worker that is stopped claims no more, and what it runs may end (--drain); the rest is given back.
    """
    from ..launchers.systemd import unit_text

    session: Session = ctx.obj
    wanted = _service(session, given, tuple(ctx.meta.get("tokenpool.command", ())))
    text = unit_text(wanted)
    if given["shown"]:
        click.echo(text, nl=False)
        return 0
    if is_file(wanted.pool) and given["system"]:
        warn(f"a SQLite pool is a file: {wanted.user} has to be able to write it")
    if wanted.user not in ("", "root") and not _open_to_all(Path(wanted.program[0])):
        warn(f"{wanted.user} cannot reach {wanted.program[0]}: install tokenpool where everybody may read it")
    path = _folder(given["system"]) / wanted.unit
    calls = [["daemon-reload"], *([] if given["no_start"] else [["enable", "--now", wanted.unit]])]
    if given["dry_run"]:
        told = [f"write {path}", *(line(given["system"], each) for each in calls)]
        if session.json:
            print_json({"schema": 1, "dry_run": True, "unit": wanted.unit, "file": str(path), "text": text})
        for each in told:
            say(f"would {each}" if each is told[0] else f"would call {each}")
        return 0
    again = _write(path, text)
    say(f"{'wrote again' if again else 'wrote'} {path}")
    running = tell(given["system"], calls if not again else [*calls, ["--no-block", "try-restart", wanted.unit]])
    if running and not given["system"] and not given["no_start"]:
        tell_of_lingering()
    if session.json:
        print_json({"schema": 1, "unit": wanted.unit, "file": str(path), "handed_over": running})
    return 0


def _service(session: Session, given: dict[str, Any], words: tuple[str, ...]) -> Service:
    """Return the service that the options describe; raises BadInput."""
    from ..launchers.systemd import VERBS, Service

    params = _accepted(VERBS[given["kind"]], words)
    pool, password_file = _pool(session)
    user = _account(given["system"], given["user"])
    if given["kind"] == "server":
        _servable(params, pool, user, given["program"])
    return Service(
        kind=given["kind"],
        program=_program(given["program"]),
        pool=pool,
        name=given["name"],
        words=words,
        password_file=password_file,
        user=user,
        env=(*_settings(session, given["system"]), *given["env"]),
        drain=given["drain"],
    )


def _accepted(name: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Return what its verb reads in these words; raises BadInput now for what it would refuse at each start."""
    from . import root

    command = root.get_command(click.get_current_context(), name)
    assert command is not None
    for word in words[: words.index("--")] if "--" in words else words:
        if word in ("--help", "--version", "-p", "-S", "--pool") or word.startswith(("--pool=", "-p=")):
            raise BadInput(f"{word} says nothing behind --", "name the pool in front: tokenpool -p URL service install")
    try:
        with command.make_context(name, list(words), obj=Session()) as made:
            return made.params
    except click.UsageError as error:
        raise BadInput(
            f"tokenpool {name}: {error.format_message()}", f"tokenpool {name} --help tells its options"
        ) from None


def _servable(params: dict[str, Any], pool: str, user: str, program: str | None) -> None:
    """Raise BadInput now for a server that would not start there, or not find the files that it is told of."""
    from .serve import needs_web, options_of

    if program is None:
        needs_web()
    if params.pop("browse"):
        raise BadInput("--open: a service has no browser", "leave it out")
    for name in ("users", "folder"):
        if params[name] and not params[name].is_absolute():
            raise BadInput(
                f"--{name} {params[name]}: a service starts in another folder", f"--{name} {params[name].absolute()}"
            )
    options = options_of(pool, **params, environ={"HOME": pwd.getpwnam(user).pw_dir} if user else os.environ)
    if user not in ("", "root") and options.users and options.users.stat().st_uid != pwd.getpwnam(user).pw_uid:
        warn(f"{options.users} has to belong to {user}, who reads it: chown {user} {options.users}")


def _pool(session: Session) -> tuple[str, str]:
    """Return the pool's URL without a password, and the file that holds it; raises BadInput where it is in no file."""
    from ..backends.sqlite_files import parse_url

    settings = session.settings()
    if is_file(settings.pool):
        return parse_url(settings.pool).url, ""
    if settings["password_file"]:
        path = Path(str(settings["password_file"])).expanduser().absolute()
        if not path.is_file():
            raise NotPermitted(f"the password file {path} is not there", "check password_file")
        return without_password(settings.pool), str(path)
    if without_password(settings.pool) != settings.pool or "TOKENPOOL_PASSWORD" in settings.environ:
        raise BadInput(
            "the password would have to stand in the unit, which everybody can read",
            "write it into a file of mode 600, and name that in TOKENPOOL_PASSWORD_FILE",
        )
    return settings.pool, ""


def _program(given: str | None) -> tuple[str, ...]:
    """Return the words that start tokenpool, the first with its whole path, as systemd wants it."""
    words = shlex.split(given) if given else [sys.executable, *_this()]
    found = shutil.which(words[0]) if words else None
    if found is None:
        raise BadInput(f"there is no program {given!r}", "write its whole path: --program /usr/bin/tokenpool")
    return (os.path.abspath(found), *words[1:])


def _open_to_all(path: Path) -> bool:
    """Tell whether everybody may enter the folders of a program, also of the one that it is a link to."""
    return all(parent.stat().st_mode & 0o001 for each in (path, path.resolve()) for parent in each.parents)


def _this() -> list[str]:
    """Return how this very program is called: as a module, or as the one file that it is in."""
    archive = sys.argv[0]
    return [os.path.abspath(archive)] if archive.endswith(".pyz") and os.path.isfile(archive) else ["-m", "tokenpool"]


def _account(system: bool, user: str | None) -> str:
    if not system:
        if user:
            raise BadInput("--as goes with --system", "a user's own service runs as that user")
        return ""
    if not user:
        raise BadInput("tokens would run as root", "--as USER; --as root if that is what you want")
    try:
        return pwd.getpwnam(user).pw_name
    except KeyError:
        hint = f"useradd --system --create-home --home-dir /var/lib/{user} {shlex.quote(user)}"
        raise BadInput(f"there is no account {user!r}", hint) from None


def _settings(session: Session, system: bool) -> list[tuple[str, str]]:
    """Return the settings of this shell that the service would not see, and the PATH that a user's programs are found by."""
    from ..config import DEFAULTS

    environ = session.settings().environ
    names = [f"TOKENPOOL_{name.upper()}" for name in DEFAULTS if name not in ("pool", "password_file")]
    found = [(name, environ[name]) for name in names if environ.get(name)]
    return found if system or not environ.get("PATH") else [*found, ("PATH", environ["PATH"])]


def _write(path: Path, text: str) -> bool:
    """Write a unit whole or not at all; tell whether there was one before. Raises BadInput for somebody else's."""
    from ..launchers.systemd import is_ours

    again = path.exists()
    if again and not is_ours(path):
        raise BadInput(f"{path} is not ours", "look at it, and name this service otherwise: --name NAME")
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, "utf-8")
        part.chmod(0o644)
        os.replace(part, path)
    except PermissionError:
        raise NotPermitted(f"{path} may not be written", "use sudo, or leave out --system") from None
    return again


# --- remove, show, status ----------------------------------------------------------------------------------------------------


@service.add_command
@verb("remove", "tokenpool service remove worker", "sudo tokenpool service remove worker --system --name night")
@_which
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and change nothing.")
@click.pass_obj
def remove(session: Session, kind: str, system: bool, name: str, dry_run: bool) -> int:
    """Stop a service and remove its unit.

    A worker's running tokens may end first, for as long as the unit says.
    """
    path = _found(kind, system, name)
    calls = [["disable", "--now", path.name]]
    if dry_run:
        for told in (*(f"call {line(system, each)}" for each in calls), f"remove {path}"):
            say(f"would {told}")
        return 0
    stopped = tell(system, calls, patience=None)
    try:
        path.unlink()
    except PermissionError:
        raise NotPermitted(f"{path} may not be removed", "use sudo") from None
    if stopped:
        tell(system, [["daemon-reload"]])
    say(f"removed {path}")
    if session.json:
        print_json({"schema": 1, "unit": path.name, "file": str(path), "handed_over": stopped})
    return 0


@service.add_command
@verb("show", "tokenpool service show worker")
@_which
@click.pass_obj
def show(session: Session, kind: str, system: bool, name: str) -> None:
    """Print the unit of a service as it was written."""
    path = _found(kind, system, name)
    if session.json:
        print_json({"schema": 1, "unit": path.name, "file": str(path), "text": path.read_text("utf-8")})
        return
    say(f"# {path}")
    click.echo(path.read_text("utf-8"), nl=False)


@service.add_command
@verb("status", "tokenpool service status", "tokenpool service status --json | jq '.services[].state'")
@click.pass_obj
def status(session: Session) -> None:
    """List the services that were installed here, this user's and the machine's, and what systemd says of them."""
    found = [_status(path, system) for system in (False, True) for path in _installed(system)]
    if session.json:
        print_json({"schema": 1, "services": found})
    elif session.quiet:
        for each in found:
            click.echo(each["unit"])
    elif found:
        titles = ("unit", "of", "state", "at boot", "pid", "pool")
        print_table(titles, [[str(value) for key, value in each.items() if key != "file"] for each in found], COLORS)
    else:
        say("no service was installed here: tokenpool service install worker")


def _status(path: Path, system: bool) -> dict[str, str]:
    told = dict.fromkeys(("ActiveState", "UnitFileState", "MainPID"), "?")
    if why_not(system) is None:
        asked = [f"--property={','.join(told)}", path.name]
        for said in call(system, ["show", *asked]).splitlines():
            name, _, value = said.partition("=")
            told[name] = value
    pool = next((each for each in path.read_text("utf-8").splitlines() if "TOKENPOOL_POOL=" in each), "")
    return {
        "unit": path.name,
        "of": "machine" if system else "user",
        "state": told["ActiveState"],
        "boot": told["UnitFileState"],
        "pid": told["MainPID"],
        "pool": pool.partition("TOKENPOOL_POOL=")[2].rstrip('"').replace("%%", "%"),
        "file": str(path),
    }


def _installed(system: bool) -> list[Path]:
    from ..launchers.systemd import PREFIX, is_ours

    return [path for path in sorted(_folder(system).glob(f"{PREFIX}*.service")) if is_ours(path)]


def _found(kind: str, system: bool, name: str) -> Path:
    """Return the unit of a service that we wrote; raises NotFound."""
    from ..launchers.systemd import Service

    unit = Service(kind, (), "", name).unit
    there = _installed(system)
    for path in there:
        if path.name == unit:
            return path
    others = ", ".join(path.name for path in there)
    hint = f"there are {others}" if others else "tokenpool service status lists this user's and the machine's"
    raise NotFound(f"no service {unit} was installed for {'the machine' if system else 'this user'}", hint)


def _folder(system: bool) -> Path:
    from ..config import home
    from ..launchers.systemd import folder_of

    return folder_of(system, os.environ, home(os.environ))

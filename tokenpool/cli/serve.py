"""The verb `serve`: pages, JSON API and GA4GH TES over a pool, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadInput, NotPermitted, TokenpoolError
from .output import say
from .session import Session, flags, verb

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..pool import Pool
    from ..web.options import WebOptions

#: Seconds that open requests have to end after a signal; event streams end at once.
GRACE = 5

users_option = click.option(
    "--users", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Who may log in: see `access`."
)


@verb(
    "serve",
    "tokenpool serve",
    "tokenpool serve --open",
    "tokenpool serve --host 0.0.0.0 --users people.json",
    "tokenpool serve --couchdb-users --root-path /pool --proxy 10.0.0.1",
)
@flags(
    click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDR", help="Where to listen."),
    click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one."),
    users_option,
    click.option("--couchdb-users", is_flag=True, help="People are those of the CouchDB that has the pool."),
    click.option("--root-path", default="", metavar="PATH", help="The path that a reverse proxy serves it under."),
    click.option("--proxy", "proxies", multiple=True, metavar="ADDR", help="Believe what this proxy says of visitors."),
    click.option("--secure", is_flag=True, help="Cookies only over HTTPS, which a proxy in front speaks."),
    click.option(
        "--folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Sessions, audit, series."
    ),
    click.option("--upload-limit", default="64MB", show_default=True, metavar="SIZE", help="The largest request."),
    click.option("--open", "browse", is_flag=True, help="Open a browser on it."),
)
@click.pass_obj
def serve(session: Session, /, browse: bool, **given: Any) -> int:
    """Serve a dashboard, a JSON API and GA4GH TES over the pool.

    On 127.0.0.1 nobody has to log in, unless there is a file of people: then, and on any other address, everybody does.
    People are added with `tokenpool access add`. The pool may be away: the server starts, says so, and goes on when it is
    back. It also does what `wait` and workers do: brings back what dead workers held.
    """
    needs_web()
    from ..web.app import make_app

    url = session.settings().pool
    options = options_of(url, **given)
    with listening(options.host, options.port) as where:
        address = f"http://{_spelled(where)}{options.root_path}/"
        with opened(session) as pool, pool.looked_after():
            app = make_app(pool, options)
            say(f"{pool.url} at {address}" + _who_may(options))
            return run(app, where, address if browse else "", session.verbose)


def needs_web() -> None:
    """Raise where the libraries of the server are not installed."""
    try:
        import fastapi  # noqa: F401
        import jinja2  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise TokenpoolError(
            f"the server needs a library that is not here: {error.name}", "pip install 'tokenpool[web]'"
        ) from None


# --- options -----------------------------------------------------------------------------------------------------------


def options_of(
    url: str,
    host: str,
    port: int,
    users: Path | None,
    couchdb_users: bool,
    root_path: str,
    proxies: tuple[str, ...],
    secure: bool,
    folder: Path | None,
    upload_limit: str,
    environ: Mapping[str, str] = os.environ,
) -> WebOptions:
    """Return the options of a server; raises BadInput where it would be open to others."""
    from ..config import bytes_of
    from ..web.options import LOOPBACK, WebOptions

    people = users or default_users(environ)
    if users is not None and not users.is_file():
        raise BadInput(f"{users} is not there", f"add somebody: tokenpool access add NAME --users {users}")
    if people.is_file():
        from ..web.access.roster import Roster

        Roster(people).people()  # one that cannot be read would let nobody in
    try:
        limit = bytes_of(upload_limit, 0)
    except ValueError:
        limit = 0
    if limit <= 0:
        raise BadInput(f"--upload-limit {upload_limit!r} is no size", "bytes, 64MB, 1GB")
    options = WebOptions(
        host=host,
        port=port,
        root_path=f"/{root_path.strip('/')}" if root_path.strip("/") else "",
        users=people if people.is_file() else None,
        couchdb_users=couchdb_users,
        folder=folder or default_folder(url),
        secure=secure,
        trusted_proxies=proxies,
        upload_limit=limit,
    )
    if options.open and (host not in LOOPBACK or proxies):
        who = f"{host} can be reached by others" if host not in LOOPBACK else "a proxy shows the server to others"
        raise BadInput(
            f"{who}, and nobody would have to log in", "add people: tokenpool access add NAME --role operator"
        )
    return options


def default_users(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file of people that is used where none is named, if it is there."""
    from ..config import user_file

    return user_file(environ).with_name("users.json")


def default_folder(url: str) -> Path:
    """Return where a server of this pool keeps what should survive a restart."""
    import hashlib

    base = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(base, "tokenpool", "serve", hashlib.sha256(url.encode()).hexdigest()[:12])


def _who_may(options: WebOptions) -> str:
    if options.open:
        return "; nobody has to log in, only this computer reaches it"
    return "; people of the CouchDB may log in" if options.couchdb_users else f"; people of {options.users} may log in"


# --- run ---------------------------------------------------------------------------------------------------------------


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Open the port before anything else, so that one that is taken is told at once."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # With its protocol named, asyncio sends small answers at once; else each waits 40 ms for the reader.
        place = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except socket.gaierror:
        raise BadInput(f"{host!r} is no address of this computer", "127.0.0.1, or 0.0.0.0 for all") from None
    with place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((host, port))
            # Who connects from now on waits until we serve.
            place.listen(1024)
        except PermissionError:
            raise NotPermitted(f"port {port} may not be opened", "one of 1024 or more: --port 8080") from None
        except OSError as error:
            raise BadInput(f"port {port} of {host} cannot be opened: {error.strerror}", "another: --port 0") from None
        yield place


def _spelled(where: socket.socket) -> str:
    host, port = where.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def opened(session: Session) -> Iterator[Pool]:
    """Open the pool, now or as soon as it is there again."""
    from ..errors import ServerAway
    from ..pool import Pool
    from ..web.later import LaterBackend

    try:
        with session.open(make_file=True) as pool:
            yield pool
            return
    except ServerAway as error:
        say(f"the pool is away, waiting for it: {error.message}")
    settings = session.settings()
    with Pool(LaterBackend(settings.pool, settings.password())) as pool:
        yield pool


def run(app: FastAPI, where: socket.socket, browse: str, verbose: bool) -> int:
    """Serve until SIGTERM or SIGINT; what is being answered then is answered."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if browse and self.started:
                import webbrowser

                webbrowser.open(browse)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.site.closing.begin()
            await super().shutdown(sockets)

    logging.getLogger("tokenpool").setLevel(logging.INFO)
    config = uvicorn.Config(
        app,
        log_level="info" if verbose else "warning",
        access_log=verbose,
        proxy_headers=False,  # the application believes its own list
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=75,  # longer than workers are silent: a write on a line that just closed is lost
    )
    # uvicorn raises the signal again once it has stopped: a server that was told to stop has not failed.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: None)
    server = Server(config)
    server.run([where])
    return 0 if server.started else 1

"""A server for tests: inside the test's own process, or as `tokenpool serve`; people of every role and their clients."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROLES = ("viewer", "submitter", "worker", "operator")
START_SECONDS = 60.0
STOP_SECONDS = 30.0


def password_of(role: str) -> str:
    """Return the password of the person of a role, whose name is that of the role."""
    return f"the {role}'s password"


@dataclass(frozen=True)
class People:
    """A file with one person and one API token of every role."""

    file: Path
    tokens: Mapping[str, str]

    def bearer(self, role: str) -> dict[str, str]:
        """Return the header with the API token of a role."""
        return {"Authorization": f"Bearer {self.tokens[role]}"}


def make_people(file: Path) -> People:
    """Write the file."""
    from tokenpool.web.access.roster import Roster

    roster = Roster(file)
    for role in ROLES:
        roster.add(role, role, password_of(role))
    return People(file, {role: roster.new_token(f"{role}'s machine", role) for role in ROLES})


def log_in(client: httpx.Client, name: str, password: str | None = None) -> httpx.Client:
    """Log a client in as a browser does, and let it send the token that forms need."""
    answer = client.post(
        "login", data={"name": name, "password": password or password_of(name)}, follow_redirects=False
    )
    assert answer.status_code == 303, answer.text
    client.headers["X-CSRF-Token"] = csrf_of(client)
    return client


def csrf_of(client: httpx.Client) -> str:
    """Return the token that a page gives to its forms."""
    text = client.get("login/again", headers={"Accept": "text/html"}).text
    found = re.search(r'name="csrf-token" content="([^"]+)"', text)
    assert found, text[:500]
    return found.group(1)


# --- what is there --------------------------------------------------------------------------------------------------


def everything(pool: Any) -> list[dict[str, Any]]:
    """Return all documents, revisions included."""
    rows = pool.backend.view("_all_docs", "", {"include_docs": True}).rows
    return [row.doc for row in rows if row.doc and row.doc["_id"] != "bell"]


# --- a real one --------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """`tokenpool serve` as a process."""

    process: subprocess.Popen[str]
    url: str
    said: list[str] = field(default_factory=list)

    def client(self, **more: Any) -> httpx.Client:
        """Return a client of it; the caller closes it."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **more)

    def stop(self) -> int:
        """Ask it to stop as a service manager does; return its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)


@contextlib.contextmanager
def serving(pool_url: str, *options: str, port: int = 0, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run `tokenpool serve` on a free port of 127.0.0.1; what it says is kept in ``said``."""
    command = [sys.executable, "-m", "tokenpool", "serve", "-p", pool_url, "--port", str(port), *options]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    try:
        server = Server(process, "")
        server.url = _url_of(server)
        _until_it_answers(server)
        yield server
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            server.said += process.stderr.read().splitlines()
            process.stderr.close()


#: What a browser complains of when the line to its server is cut, or its login is over.
CUT = ("net::ERR", "Failed to fetch", "network error", "htmx:sse:error", "401")


def port_of(server: Server) -> int:
    """Return the port on which it listens."""
    return int(server.url.rstrip("/").rpartition(":")[2])


def _url_of(server: Server) -> str:
    """Read what it says until it tells where it listens."""
    stderr = server.process.stderr
    assert stderr is not None
    while select.select([stderr], [], [], START_SECONDS)[0]:
        line = stderr.readline()
        if not line:
            break
        server.said.append(line.rstrip())
        found = re.search(r" at (http://\S+?/)(;|$)", line.strip())
        if found:
            return found.group(1)
    raise AssertionError(f"the server did not start: {server.said}")


def _until_it_answers(server: Server) -> None:
    # The port is open before this is asked: the connection waits until it is served.
    with server.client() as client:
        assert client.get("healthz").status_code == 200


# --- all routes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """One method of one path, and the role that it asks for; None: it asks nobody."""

    method: str
    path: str
    role: int | None

    @property
    def streams(self) -> bool:
        """Its answer may have no end."""
        return self.method == "GET" and self.path.rstrip("/").endswith(("events", "follow", "live", "listen"))

    def spelled(self, value: str = "nothing") -> str:
        """Return a path that leads there."""
        return re.sub(r"\{[^}]*\}", value, self.path)


def routes_of(app: Any) -> list[Route]:
    """Return all routes of an application, those of included routers too."""
    try:
        from fastapi.routing import iter_route_contexts as walk
    except ImportError:  # older versions copy the routes of a router that is included
        walk = iter
    found = []
    for route in walk(app.routes):
        for method in sorted(getattr(route, "methods", None) or ()):
            found.append(Route(method, route.path, role_of_route(route.dependant)))
    return found


def role_of_route(dependant: Any) -> int | None:
    """Return the highest role that a route or what it depends on asks for."""
    from tokenpool.web.access.gate import Requirement

    own = [dependant.call.role] if isinstance(dependant.call, Requirement) else []
    below = [role_of_route(each) for each in dependant.dependencies]
    return max([*own, *(role for role in below if role is not None)], default=None)

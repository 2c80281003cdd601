"""Gives the tests a server that speaks CouchDB's protocol: pouchdb-server, or the real one that somebody named.

``couchdb_server/`` beside this file holds the pinned npm packages and the wrapper that keeps one bad request from
ending the server. They are installed once per lock file, below the user's cache directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import urllib3

#: As it was before any test changed it: npm needs the user's home and proxies.
REAL_ENVIRONMENT: Mapping[str, str] = dict(os.environ)

SOURCES = Path(__file__).resolve().parent / "couchdb_server"
START_SECONDS = 60
INSTALL_SECONDS = 600


class Unavailable(Exception):
    """This computer cannot run the server; the text says what is missing."""


class RawCouch(NamedTuple):
    """A database as python-couchdb and picas spell it."""

    url: str
    name: str


def raw_couch(pool_url: str) -> RawCouch:
    """Split ``couchdb+http://user:pw@host:5984/name`` into ``http://user:pw@host:5984`` and ``name``."""
    parts = urlsplit(pool_url)
    return RawCouch(f"{parts.scheme[len('couchdb+') :]}://{parts.netloc}", unquote(parts.path[1:]))


def ensure_installed(
    cache: Path | None = None, environment: Mapping[str, str] = REAL_ENVIRONMENT, sources: Path = SOURCES
) -> Path:
    """Install the npm packages of `sources` unless this lock file's are there; return what holds ``node_modules``."""
    if cache is None:
        home = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home(), ".cache")
        cache = Path(home, "tokenpool-tests")
    wanted = [sources / "package.json", sources / "package-lock.json"]
    folder = cache / hashlib.sha256(b"\0".join(file.read_bytes() for file in wanted)).hexdigest()[:16]
    complete = folder / "complete"
    if complete.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            for file in wanted:
                shutil.copy(file, folder)
            _npm_ci(folder, environment)
            complete.touch()
    return folder


def _npm_ci(folder: Path, environment: Mapping[str, str]) -> None:
    command = [_program("npm", environment), "ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=INSTALL_SECONDS, check=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"`npm ci` failed in {folder}: {error.stdout.strip()[-2000:]}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"`npm ci` took more than {INSTALL_SECONDS} s in {folder}") from error


def _program(name: str, environment: Mapping[str, str]) -> str:
    found = shutil.which(name, path=environment.get("PATH", os.defpath))
    if found is None:
        raise Unavailable(f"`{name}` is not installed (Debian: apt install nodejs npm)")
    return found


SomeCouch = TypeVar("SomeCouch", bound="Couch")


class Couch:
    """A CouchDB server that runs already, and that others may use at the same time."""

    #: Whether Apache CouchDB itself answers.
    real = True
    stopped = False

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.rstrip("/"))
        self.url = urlunsplit(parts)
        self.username = unquote(parts.username or "")
        self.password = unquote(parts.password or "")
        self._base = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._headers = urllib3.make_headers(basic_auth=f"{self.username}:{self.password}" if parts.username else None)
        self._headers["Accept"] = "application/json"
        self._http = urllib3.PoolManager(retries=False, timeout=30)
        try:
            status, answer = self.call("GET", "/")
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            status, answer = 0, f"{type(error).__name__}: {error}"
        if status != 200:
            self._http.clear()
            raise RuntimeError(f"no CouchDB answers at {self._base}: {status} {answer}")

    def __enter__(self: SomeCouch) -> SomeCouch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Let go of the server; calling it again does no harm."""
        self._http.clear()
        self.stopped = True

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send one request with `body` as JSON; return status and the decoded answer, whatever the status is."""
        answer = self._http.request(method, self._base + path, json=body, headers=self._headers)
        return answer.status, json.loads(answer.data) if answer.data.strip() else None

    def create_database(self, hint: str = "") -> str:
        """Make an empty database of an unused name that holds `hint`; return its URL as tokenpool spells it."""
        words = re.sub("[^a-z0-9]+", "-", hint.lower()).strip("-")[:80]
        name = "-".join(filter(None, ["tokenpool-test", words, uuid.uuid4().hex[:12]]))
        status, answer = self.call("PUT", f"/{name}")
        if status not in (201, 202):
            raise RuntimeError(f"cannot make database {name}: {status} {answer}")
        return f"couchdb+{self.url}/{name}"

    def delete_database(self, pool_url: str) -> None:
        """Delete the database; one that is gone already is fine."""
        name = raw_couch(pool_url).name
        status, answer = self.call("DELETE", f"/{quote(name, safe='')}")
        if status not in (200, 202, 404):
            raise RuntimeError(f"cannot delete database {name}: {status} {answer}")

    def crashes(self) -> list[str]:
        """``METHOD PATH: message`` of every request that would have ended the server."""
        return []

    def requests(self) -> list[tuple[str, str]] | None:
        """Method and path with query of each request since the last reset, by any client; None if nobody counts."""
        return None

    def reset_requests(self) -> None:
        """Start counting anew."""


class CouchServer(Couch):
    """An own pouchdb-server on a free port of 127.0.0.1, in memory, from construction until `stop`.

    With `admin` (name and password) the server has that one administrator, and `url` holds both.
    """

    real = False
    #: The npm packages, and how the wrapper is to run them.
    packages = SOURCES
    options: Mapping[str, Any] = {}

    def __init__(self, admin: tuple[str, str] | None = None) -> None:
        installed = ensure_installed(sources=self.packages)
        config = {"admins": dict([admin])} if admin else {}
        self._command = [_program("node", REAL_ENVIRONMENT), str(SOURCES / "wrapper.js"), str(installed)]
        self._command.append(json.dumps(config))
        self._folder = tempfile.TemporaryDirectory(prefix="tokenpool-couchdb-")
        self._log = Path(self._folder.name, "stderr")
        self._crashes: list[str] = []
        account = ":".join(quote(word, safe="") for word in admin) + "@" if admin else ""
        try:
            super().__init__(f"http://{account}127.0.0.1:{self._start_process()}")
        except BaseException:
            self._end_process()
            self._folder.cleanup()
            raise
        self.reset_requests()

    def _start_process(self) -> int:
        """Start the server on its data; return its port when it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, json.dumps(self.options)], cwd=self._folder.name, env=dict(REAL_ENVIRONMENT),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        return self._await_port()

    def _await_port(self) -> int:
        """Wait for the one line that the wrapper prints when it answers."""
        assert self._process.stdout is not None
        line = b""
        if select.select([self._process.stdout], [], [], START_SECONDS)[0]:
            line = self._process.stdout.readline()
        if not line.startswith(b"listening "):
            raise RuntimeError(f"the CouchDB server did not start; it said: {self._log.read_text()[-2000:]!r}")
        return int(line.split()[1])

    def stop(self) -> None:
        """End the server and lose its data; crashes stay readable."""
        if self.stopped:
            return
        self._crashes = self._read_crashes()
        super().stop()
        self._end_process()
        self._folder.cleanup()

    def _end_process(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def crashes(self) -> list[str]:
        if self.stopped:
            return self._crashes
        with contextlib.suppress(urllib3.exceptions.HTTPError):  # a dead process is reported below
            self.requests()  # whatever was answered before this has come to light when this is answered
        return self._read_crashes()

    def _read_crashes(self) -> list[str]:
        lines = self._log.read_text(errors="replace").splitlines()
        found = [line[len("crash: ") :] for line in lines if line.startswith("crash: ")]
        status = self._process.poll()
        return found if status is None else [*found, f"the server ended by itself with status {status}: {lines[-5:]}"]

    def requests(self) -> list[tuple[str, str]]:
        _, answer = self.call("GET", "/_test/requests")
        return [(method, path) for method, path in answer]

    def reset_requests(self) -> None:
        self.call("DELETE", "/_test/requests")

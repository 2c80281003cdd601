"""Pilots of the real picas 1.1.2 in the fleet of a chaos test."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from couch_server import raw_couch
from picas_venv import picas_environment
from scale import PATIENCE

#: A user's script as picas' tutorial teaches it. With `looked` and `go` it stops once between its look at a view and its
#: read of the token, where any other worker may be faster.
SCRIPT = """
import json, os, sys, time
from picas.actors import RunActor
from picas.clients import CouchDB
from picas.executers import execute
from picas.modifiers import BasicTokenModifier

where, looked, go = json.loads(sys.argv[1])

class Slow(CouchDB):
    def get(self, id):
        global looked
        if looked:
            open(looked, "w").close()
            looked = ""
            while not os.path.exists(go):
                time.sleep(0.02)
        return super().get(id)

class Actor(RunActor):
    def process_task(self, token):
        out = execute(["bash", "-c", token["input"]])
        self.subprocess = out[0]
        token["exit_code"] = out[1]
        token["output"] = {"by": "picas"}
        BasicTokenModifier().close(token)
        for kind, data in (("out", out[2]), ("err", out[3])):
            token.put_attachment(f"logs_{token['_id']}.{kind}", data)

Actor(Slow(**where)).run()
"""


class Pilots:
    """Pilots of one pool; a context manager that leaves none of them behind."""

    def __init__(self, python: str, pool_url: str, folder: Path) -> None:
        self._python, self._folder = python, folder
        server, name = raw_couch(pool_url)
        parts = urlsplit(server)
        self._where: dict[str, Any] = {"url": f"http://{parts.netloc.rpartition('@')[2]}", "db": name}
        if parts.username:
            self._where.update(username=unquote(parts.username), password=unquote(parts.password or ""))
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, looked: Path | None = None, go: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a pilot that works until picas' view of waiting tokens is empty."""
        words = json.dumps([self._where, str(looked or ""), str(go or "")])
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"pilot-{len(self.processes)}.err").open("wb") as errors:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", self._python, "-c", SCRIPT, words], env=picas_environment(),
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Wait until all have ended by themselves, and well."""
        for number, process in enumerate(self.processes):
            code = process.wait(PATIENCE)
            assert code == 0, (self._folder / f"pilot-{number}.err").read_text()[-2000:]

    def __enter__(self) -> Pilots:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

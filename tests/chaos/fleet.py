"""Real worker processes of one test: started as a user starts them, harmed by signals, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from history import Harm, uptime
from picas_scripts import child_environment
from scale import LEASE, PATIENCE

#: Options of every worker here, unless a test says otherwise: short times, so that losses are noticed soon.
OPTIONS: Mapping[str, Any] = {"slots": 2, "lease": f"{LEASE:g}s", "poll": "0.2s", "grace": "2s"}


@dataclass
class Member:
    """One worker process; `url` is how it reaches the pool."""

    process: subprocess.Popen[bytes]
    url: str
    told: Path
    options: Mapping[str, Any]
    harmed: bool = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def runs(self) -> bool:
        """Tell whether it lives; a stopped one does."""
        return self.process.poll() is None

    def words(self) -> str:
        """Return what it wrote to its standard error."""
        return self.told.read_text(errors="replace")


@dataclass
class Fleet:
    """The workers of one pool. A context manager: whatever happened, none of them outlives it."""

    url: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    harms: list[Harm] = field(default_factory=list)

    # --- coming ------------------------------------------------------------------------------------------------------

    def start(self, count: int = 1, url: str = "", environment: Mapping[str, str] | None = None, **more: Any) -> Member:
        """Start workers and return the last; an option of None is left out, True is a flag."""
        options = {**OPTIONS, **self.options, **more}
        for _ in range(count):
            member = self._start(url or self.url, options, {**self.environment, **(environment or {})})
        return member

    def _start(self, url: str, options: Mapping[str, Any], environment: Mapping[str, str]) -> Member:
        options = {"workdir": self.folder / "work", **options}
        # If the tests are killed, so are they.
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tokenpool", "work", "-v"]
        for name, value in options.items():
            if value is not None and value is not False:
                command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, told = tempfile.mkstemp(prefix="worker-", suffix=".err", dir=self.folder)
        with open(handle, "wb") as errors:
            process = subprocess.Popen(
                command, env={**child_environment(TOKENPOOL_POOL=url), **environment}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        self.members.append(Member(process, url, Path(told), options))
        return self.members[-1]

    def again(self, member: Member) -> Member:
        """Start another worker like this one."""
        return self._start(member.url, member.options, self.environment)

    # --- harm --------------------------------------------------------------------------------------------------------

    def kill(self, member: Member) -> None:
        """SIGKILL."""
        self._harm(member, "kill", signal.SIGKILL)
        member.process.wait()

    def stop(self, member: Member) -> None:
        """SIGSTOP: it stands still until `go_on`, while its tokens run on."""
        self._harm(member, "stop", signal.SIGSTOP, lets_overlap=True)

    def go_on(self, member: Member) -> None:
        """SIGCONT."""
        os.kill(member.pid, signal.SIGCONT)

    def end(self, member: Member) -> None:
        """SIGTERM: it is to leave in order."""
        self._harm(member, "end", signal.SIGTERM)

    def note(self, member: Member, kind: str, lets_overlap: bool = False) -> None:
        """Take note of something that is done to it in another way, to its connection for example."""
        member.harmed = True
        self.harms.append(Harm(kind, member.pid, uptime(), lets_overlap))

    def _harm(self, member: Member, kind: str, signum: int, lets_overlap: bool = False) -> None:
        self.note(member, kind, lets_overlap)
        os.kill(member.pid, signum)

    # --- looking -----------------------------------------------------------------------------------------------------

    @property
    def living(self) -> list[Member]:
        """The workers that run."""
        return [member for member in self.members if member.runs()]

    def nobody_left(self, but: Collection[Member] = ()) -> None:
        """Raise AssertionError where a worker that nobody harmed has ended."""
        for member in self.members:
            ended = member.process.poll()
            assert member.harmed or member in but or ended is None, (
                f"a worker left with {ended}:\n{member.words()[-2000:]}"
            )

    def words(self) -> str:
        """Return the last words of all workers, for a failure."""
        return "\n".join(f"--- {m.pid} {m.process.poll()}\n{m.words()[-1500:]}" for m in self.members)

    # --- going -------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Ask all to leave, and wait until they did."""
        for member in self.living:
            os.kill(member.pid, signal.SIGTERM)
            os.kill(member.pid, signal.SIGCONT)
        for member in self.members:
            member.process.wait(PATIENCE)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            if member.runs():
                os.kill(member.pid, signal.SIGKILL)
            member.process.wait()
        if error is not None:
            print(self.words())

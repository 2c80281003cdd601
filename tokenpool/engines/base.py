"""What a container job is: plain values that travel to the process which asks the engine for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import TokenpoolError
from ..util import timestamp

Json = dict[str, Any]

#: Where a container finds the attempt's folder, unless its executor names another place to work in.
WORK = "/work"
#: Folders of the attempt's own, by their names there, and where containers see them; the last one cannot be written.
FOLDERS = {"input": "/input", "output": "/output", "tmp": "/tmp", "resource": "/resource"}
READ_ONLY = ("resource",)


class EngineTrouble(TokenpoolError):
    """A container could not be run, and its token may be without fault: `failure_class` says whose it is."""

    def __init__(self, message: str, hint: str, failure_class: str = "system", exit_code: int = 99) -> None:
        super().__init__(message, hint)
        self.failure_class, self.code = failure_class, exit_code


@dataclass(frozen=True)
class Mount:
    """A folder of this machine and where containers see it."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Step:
    """One container: an executor of a token, or all of a token that has one command."""

    image: str
    #: Arguments of the image's entrypoint, or of `entrypoint`; None: those that the image names.
    command: list[str] | None = None
    #: Goes before the image's own entrypoint; None: that one.
    entrypoint: list[str] | None = None
    #: "": where the image says.
    workdir: str = WORK
    env: dict[str, str] = field(default_factory=dict)
    #: Files inside the container that are read, or written besides the logs.
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    ignore_error: bool = False


@dataclass(frozen=True)
class Job:
    """All containers of one attempt, and what they may use."""

    token: str
    claim: str
    #: The same for the same work of the same token.
    spec: str
    #: The attempt's folder on this machine.
    folder: str
    steps: list[Step]
    #: The mounts that the worker's owner adds.
    mounts: list[Mount]
    #: ``uid:gid``; "": the user that the image names.
    user: str = ""
    network: bool = True
    memory: int = 0  # bytes; 0: as much as there is
    cpus: float = 0.0
    gpus: list[str] = field(default_factory=list)
    #: What the token's ``container_options`` mean to the engine.
    options: Json = field(default_factory=dict)
    login: dict[str, str] = field(default_factory=dict)
    grace: float = 10.0  # s from SIGTERM to SIGKILL
    engine: str = ""  # its address
    records: str = ""  # the folder in which living clients are known
    prune: float | None = None  # s after which an unused image goes

    def as_json(self) -> Json:
        """Return it as JSON can hold it."""
        return asdict(self)


def job_of(value: Json) -> Job:
    """Return the job that `as_json` wrote."""
    steps, mounts = [Step(**each) for each in value["steps"]], [Mount(**each) for each in value["mounts"]]
    return Job(**{**value, "steps": steps, "mounts": mounts})


def begun(number: int, out: int, err: int) -> Json:
    """Return what is told of an executor that begins when its logs have so many bytes."""
    return {"number": number, "start_time": timestamp(), "stdout": [out], "stderr": [err]}


def ended(told: Json, exit_code: int, out: int, err: int) -> Json:
    """Return what is told of an executor that has ended."""
    logs = {"stdout": [told["stdout"][0], out], "stderr": [told["stderr"][0], err]}
    return {**told, "end_time": timestamp(), "exit_code": exit_code, **logs}


def all_mounts(job: Job) -> list[Mount]:
    """Return every mount of a job's containers, the attempt's own folders first."""
    own = [Mount(job.folder, WORK, True)]
    for name, target in FOLDERS.items():
        own.append(Mount(f"{job.folder}/{name}", target, name not in READ_ONLY))
        if name in READ_ONLY:  # it is seen in the work folder too
            own.append(Mount(f"{job.folder}/{name}", f"{WORK}/{name}", False))
    return own + list(job.mounts)

"""The interface of what runs one token: one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..bays import Bay
from ..children import Child, Finished, OnEnd


@dataclass(frozen=True)
class Policy:
    """What the owner of a worker lets tokens do there, and what they are run with; no token can change it."""

    #: The container engine: auto, docker, podman or apptainer.
    engine: str = "auto"
    #: Containers may use the network.
    network: bool = True
    #: Containers run as the user that their image names, not as the worker's own.
    image_user: bool = False
    #: Folders of this machine that every container sees: ``HOST``, ``HOST:PATH``, with ``:rw`` where it may write.
    mounts: tuple[str, ...] = ()
    #: Names of the engine's options that tokens may give, without dashes: ``shm-size``.
    container_options: tuple[str, ...] = ()
    #: Images that no token used for so many seconds are removed; None: none ever is.
    prune_images: float | None = None
    #: Python modules whose functions may be run: ``analysis`` (with what is inside), or ``*``.
    modules: tuple[str, ...] = ()
    #: Arguments and functions may come as pickles, which can do anything.
    pickles: bool = False
    #: The CWL runner, as a shell line without the workflow.
    cwl_runner: str = "cwltool"
    #: A folder with one file for each secret; its environment's ``TOKENPOOL_SECRET_<NAME>`` go first.
    secrets: str = ""
    #: Bytes of the largest file that is attached to its token.
    attach_limit: int = 10_000_000


@dataclass
class Places:
    """The folders of one attempt and its log files; `oom` is set when it was stopped for using too much memory."""

    bay: Bay
    #: The folder: the bay's, until it is kept under another name.
    work: str
    #: The variables that are this token's own, and those that all tokens here inherit.
    own: Mapping[str, str]
    inherited: Mapping[str, str]
    ram_gb: float = 0.0
    oom: bool = False
    #: The folder stands under its token's name, to be looked at.
    kept: bool = False
    #: The values of the secrets that the token names; they are hidden wherever they show.
    secrets: Mapping[str, str] = field(default_factory=dict)
    #: Paths that containers see, and the folders of this attempt that stand for them.
    volumes: tuple[tuple[str, str], ...] = ()

    @property
    def stdout(self) -> str:
        """The log file of the standard output."""
        return self.bay.stdout

    @property
    def stderr(self) -> str:
        """The log file of the errors."""
        return self.bay.stderr

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment."""
        return {**self.inherited, **self.own}


@dataclass(frozen=True)
class Command:
    """One process: its arguments, and how many seconds it may take (None: any)."""

    argv: list[str]
    timeout: float | None = None


@dataclass(frozen=True)
class Result:
    """How a run ended; `failure_class` is empty for success. Times in seconds, memory in MiB."""

    exit_code: int
    failure_class: str = ""
    message: str = ""
    cpu_seconds: float = 0.0
    max_rss_mb: float = 0.0
    output: Mapping[str, Any] | None = None
    #: Files to be attached to the token: their names there, and their paths here.
    files: Mapping[str, str] = field(default_factory=dict)
    #: By which other tokens find that this one did the same; "": it is not for them.
    reuse_key: str = ""
    #: How each executor of a token went: its number, times, exit code, and where in the logs its output stands.
    executors: tuple[Mapping[str, Any], ...] = ()


class Begun(Protocol):
    """A run that needs no thread: a child of the supervisor, or what stands for one."""

    @property
    def pid(self) -> int:
        """The process that it is; 0 until there is one."""

    def kill(self, grace: float = ...) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds. Returns at once."""

    def result(self) -> Finished:
        """Return how it ended, once it has. Raises SupervisorLost."""


class Context(Protocol):
    """What a runner may ask of the worker that it runs for."""

    @property
    def policy(self) -> Policy:
        """What the worker's owner allows."""

    def attachment(self, token: Mapping[str, Any], name: str) -> Iterator[bytes]:
        """Return what is attached to a token under a name, piece by piece; raises NotFound, ServerAway."""

    def execute(self, argv: list[str], places: Places, timeout: float | None) -> Finished:
        """Run one child process to its end; `timeout` in seconds, the whole tree is ended then."""


class Home(Context, Protocol):
    """A context that stays: runs may be begun in it that need no thread."""

    @property
    def grace(self) -> float:
        """The seconds between SIGTERM and SIGKILL."""

    def serve(self, argv: list[str], log: str, on_end: OnEnd) -> Child:
        """Start a process that stays from one token to the next; `on_end` hears, in another thread, when it is over."""


class Runner(ABC):
    """Runs one kind of token: one object for the whole life of a worker, used by all its slots at once."""

    def begin(self, context: Context) -> None:
        """Get ready, and put in order what an earlier worker of this machine left; called once, must return at once."""

    def close(self) -> None:
        """Let go of what was kept from one token to the next; nothing runs any more."""

    #: Who makes what `start` began wait for its turn: the supervisor, or a runner with a name of its own.
    lane = ""

    def start(
        self, token: Mapping[str, Any], places: Places, context: Home, on_end: Callable[[Any], None]
    ) -> Begun | None:
        """Begin a run that needs no thread, in a runner that has a `lane`; None: it needs `run`.

        It goes on at the next `push`, in its turn; `on_end` gets it in another thread when it is over.
        """
        return None

    def push(self) -> None:
        """Let what `start` began go on."""

    def widen(self, n: int) -> None:
        """Let so many of the runs that `start` began go on at a time."""

    def command(self, token: Mapping[str, Any]) -> Command | None:
        """Return what to execute where a run is nothing but that; None: `run` does more than start one process.

        Raises BadInput as `run` does.
        """
        return None

    def result(self, token: Mapping[str, Any], finished: Finished) -> Result:
        """Judge how the process of `command`, or what `start` began, ended."""
        raise NotImplementedError

    @abstractmethod
    def run(self, token: Mapping[str, Any], places: Places, context: Context) -> Result:
        """Run the token in its places until it ends; its output goes to the log files.

        `context` starts processes and ends them. Raises BadInput for a token
        that makes no sense; whatever the token itself does wrong is a Result.
        """

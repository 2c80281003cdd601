"""The interface of what runs one token: one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..bays import Bay
from ..children import Finished


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


class Context(Protocol):
    """What a runner may ask of the worker that it runs for."""

    def execute(self, argv: list[str], places: Places, timeout: float | None) -> Finished:
        """Run one child process to its end; `timeout` in seconds, the whole tree is ended then."""


class Runner(ABC):
    """Runs one kind of token."""

    def command(self, token: Mapping[str, Any]) -> Command | None:
        """Return what to execute where a run is nothing but that; None: `run` does more than start one process.

        Raises BadInput as `run` does.
        """
        return None

    def result(self, token: Mapping[str, Any], finished: Finished) -> Result:
        """Judge how the process of `command` ended."""
        raise NotImplementedError

    @abstractmethod
    def run(self, token: Mapping[str, Any], places: Places, context: Context) -> Result:
        """Run the token in its places until it ends; its output goes to the log files.

        `context` starts processes and ends them. Raises BadInput for a token
        that makes no sense; whatever the token itself does wrong is a Result.
        """

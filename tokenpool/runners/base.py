"""The interface of what runs one token: one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..children import Finished


@dataclass
class Places:
    """The folders of one attempt and its log files; `oom` is set when it was stopped for using too much memory."""

    work: Path
    stdout: Path
    stderr: Path
    environment: Mapping[str, str]
    ram_gb: float = 0.0
    oom: bool = False


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

    @abstractmethod
    def run(self, token: Mapping[str, Any], places: Places, context: Context) -> Result:
        """Run the token in its places until it ends; its output goes to the log files.

        `context` starts processes and ends them. Raises BadInput for a token
        that makes no sense; whatever the token itself does wrong is a Result.
        """

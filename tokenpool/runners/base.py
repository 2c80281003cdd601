"""The interface of what runs one token: one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Child(Protocol):
    """A process that is being run; what a worker needs to stop it."""

    def kill(self, grace: float) -> None:
        """Ask the whole tree to end, and end it after `grace` seconds."""


@dataclass(frozen=True)
class Places:
    """The folders of one attempt and its log files."""

    work: Path
    stdout: Path
    stderr: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """How a run ended; `failure_class` is empty for success. Times in seconds, memory in MiB."""

    exit_code: int
    failure_class: str = ""
    message: str = ""
    cpu_seconds: float = 0.0
    max_rss_mb: float = 0.0
    output: Mapping[str, Any] | None = None


class Runner(ABC):
    """Runs one kind of token."""

    @abstractmethod
    def run(self, token: Mapping[str, Any], places: Places, context: Any) -> Result:
        """Run the token in its places until it ends; its output goes to the log files.

        `context` (`tokenpool.lifecycle.Context`) starts processes and knows the limits. Raises BadInput for a token
        that makes no sense; whatever the token itself does wrong is a Result.
        """

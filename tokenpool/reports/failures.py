"""Puts failures together that say the same: by class, and by message without what differs from token to token."""

from __future__ import annotations

import re
import signal
from collections import Counter
from dataclasses import dataclass, field

from .bins import Groups
from .runs import FAILED, RETURNED, Run

#: Groups that are told apart, tokens that are named of each, hosts that are counted of each.
MOST_GROUPS, MOST_EXAMPLES, MOST_HOSTS = 1000, 5, 50
#: What stands for a failure that no class was written for: picas' workers know none.
UNCLASSED = "not classified"

_CHANGING = re.compile(r"\b(?:0x)?[0-9a-f]{12,}\b|\d+(?:\.\d+)?", re.IGNORECASE)
_LONGEST = 400


@dataclass
class Failure:
    """Failures that say the same."""

    failure: str = ""
    message: str = ""
    runs: int = 0
    #: Tokens that ended with it.
    tokens: int = 0
    first: float | None = None
    last: float | None = None
    examples: list[str] = field(default_factory=list)
    #: There are tokens that are not among the examples.
    more: bool = False
    hosts: Counter[str] = field(default_factory=Counter)
    #: The attachment with the standard error of the first example.
    log: str = ""
    #: What that one said last; filled in when the report is made.
    said: str = ""


class Failures:
    """All failures of a campaign."""

    def __init__(self) -> None:
        self.classes: Counter[str] = Counter()
        self.given_back: Counter[str] = Counter()
        self.groups: Groups[Failure] = Groups(Failure, MOST_GROUPS)

    def add(self, run: Run) -> None:
        """Count a run, if it failed or was given back."""
        if run.kind == RETURNED:
            self.given_back[run.failure or "given back"] += 1
        if run.kind != FAILED:
            return
        failure = run.failure or UNCLASSED
        self.classes[failure] += 1
        message = what_of(run)
        group = self.groups[f"{failure}\0{pattern(message, run.token)}"]
        group.runs += 1
        group.tokens += run.last
        if not group.message:
            group.failure, group.message = failure, message[:_LONGEST]
        self._note(group, run)

    def _note(self, group: Failure, run: Run) -> None:
        group.more = group.more or (len(group.examples) == MOST_EXAMPLES and run.token not in group.examples)
        if len(group.examples) < MOST_EXAMPLES and run.token not in group.examples:
            if not group.examples:
                group.log = run.log
            group.examples.append(run.token)
        if run.host in group.hosts or len(group.hosts) < MOST_HOSTS:
            group.hosts[run.host] += 1
        if run.end is not None:
            group.first = run.end if group.first is None else min(group.first, run.end)
            group.last = run.end if group.last is None else max(group.last, run.end)

    @property
    def largest(self) -> list[Failure]:
        """The groups with the most runs first."""
        return [group for _, group in self.groups.largest(lambda group: group.runs, 25)]


def what_of(run: Run) -> str:
    """Return what a failed run says of itself: its message, else its exit code in words."""
    return run.message or exit_words(run.exit_code)


def exit_words(code: int | None) -> str:
    """Return an exit code in words.

    >>> exit_words(3), exit_words(137), exit_words(None)
    ('exit code 3', 'exit code 137: ended by SIGKILL', 'no exit code')
    """
    if code is None:
        return "no exit code"
    try:
        return f"exit code {code}: ended by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"exit code {code}"


def pattern(message: str, token: str) -> str:
    """Return a message without the token's id, numbers and checksums; exit codes stay.

    >>> pattern("t17: no file /data/17.fq after 3 tries", "t17")
    '…: no file /data/#.fq after # tries'
    """
    if message.startswith("exit code "):
        return message
    return _CHANGING.sub("#", message.replace(token, "…") if token else message)[:_LONGEST]

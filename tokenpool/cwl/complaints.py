"""Finds in a CWL runner's log why it failed: what is wrong with the workflow, with line and column, or with a step."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Characters and lines of a message: the log is attached whole.
LONGEST, LINES = 2000, 12
#: What is said of a workflow, or of parameters, that can never run.
_INVALID = (
    "failed validation", "Invalid job input record", "Missing required input parameter", "is not a valid CWL",
    "Unsupported requirement", "UnsupportedRequirement", "Syntax error", "I'm sorry, I couldn't load this CWL file",
    "Anonymous file object must have", "Tool file not found", "Not a CWL", "No cwlVersion found", "Input object failed",
    "Error while scanning", "Unable to load", "Missing '$graph'", "doesn't exist", "missing required field",
    "contains illegal characters",
)  # fmt: skip
#: What is said where a step's container cannot be had.
_NO_IMAGE = ("is required to run this tool", "is not available for this tool", "Unable to find image")
_AWAY = re.compile(r"Error fetching .*(Max retries exceeded|timed out|Connection|HTTP 5\d\d)")
_SOURCE = re.compile(r"(?<![\w/.-])source/")
_STARTED = re.compile(r"^(INFO )?\[(job|step|workflow) ", re.MULTILINE)
_LEVEL = re.compile(r"^(ERROR|WARNING|INFO|DEBUG|CRITICAL)\b ?|^Traceback \(most recent call last\):", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Complaint:
    """Why a run failed, in the runner's words; `invalid`: nothing was run, and nothing ever can be."""

    message: str
    invalid: bool
    #: A URL could not be read just now, or a container's image, or what runs it, is not there.
    staging: bool = False


def judge(log: str, folder: str) -> Complaint:
    """Return what a log says of a failure; paths are shown as seen from the token's folder.

    >>> judge("INFO Resolved\\nERROR Tool definition failed validation:\\ntool.cwl:3:1: missing `class`\\n", "/w")
    Complaint(message='Tool definition failed validation:\\ntool.cwl:3:1: missing `class`', invalid=True, staging=False)
    """
    text = _COLOUR.sub("", log)
    started = _STARTED.search(text)
    before = text[: started.start()] if started else text
    early = _entries(before, "ERROR")
    if any(_AWAY.search(entry) for entry in early):
        return Complaint(_short("\n".join(early), folder), False, True)
    if any(sign in entry for entry in early for sign in _INVALID):
        return Complaint(_short("\n".join(early), folder), True)
    told = _entries(text, "ERROR") or _entries(text, "WARNING")
    said = "\n".join(told[-3:])
    return Complaint(_short(said, folder), False, any(sign in said for sign in _NO_IMAGE))


def _entries(text: str, level: str) -> list[str]:
    """Return the entries of a level: a line that begins with it, and those that follow up to the next entry."""
    marks = [*_LEVEL.finditer(text)]
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [text[mark.end() : end].strip() for mark, end in zip(marks, ends) if mark[1] == level]


def _short(text: str, folder: str) -> str:
    # As seen from the workflow's own folder, which the worker knows as `source`.
    seen = _SOURCE.sub("", text.replace(f"file://{folder}/", "").replace(f"{folder}/", ""))
    lines = [line.rstrip() for line in seen.splitlines() if line.strip()]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"... {len(lines) - LINES + 1} more lines; see the log"]
    return "\n".join(lines)[:LONGEST]

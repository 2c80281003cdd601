"""Brings a workflow's source to the worker, in a process of its own that can be ended: clones, downloads, unpacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..cwl.checkouts import bring
from ..cwl.sources import source_of
from ..errors import ServerAway, TokenpoolError
from .helper import serve

Json = dict[str, Any]


def main(request: str, answer: str) -> None:
    """Do what the request file says, and leave the answer file."""
    serve(_bring, request, answer)


def _bring(request: Json) -> Json:
    try:
        found = bring(source_of(request["workflow"]), Path(request["folder"]))
    except TokenpoolError as error:
        return {
            "error": f"{error}; {error.hint}",
            "failure_class": "staging" if isinstance(error, ServerAway) else "invalid",
        }
    return {"workflow": found.field()}

"""What `push --cwl`, `sendtask`, `run` and `run-cwl` share: from the words of a command line to a workflow's token."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import BadInput
from ..pool import Pool
from .intake import Source, fields_of
from .session import Session, flags
from .types import SIZE

Json = dict[str, Any]
Function = TypeVar("Function", bound=Callable[..., Any])


def param_option(function: Function) -> Function:
    """Give a verb the option for single parameters of a workflow."""
    return flags(
        click.option(
            "--param", "pairs", multiple=True, metavar="K=V", help="An input of the workflow, as YAML; may be repeated."
        )
    )(function)


def cwl_options(function: Function) -> Function:
    """Give a verb the options that say how the token of a workflow is made."""
    return flags(
        param_option,
        click.option(
            "--carry-limit",
            type=SIZE,
            metavar="BYTES",
            help="With a workflow: its files may have so many bytes together (50MB).",
        ),
        click.option("--provenance", is_flag=True, help="With a workflow: attach its CWLProv research object too."),
        click.option(
            "--resolve/--no-resolve",
            default=True,
            help="With a workflow: find the repository's commit and file now, or leave it to the worker.",
        ),
    )(function)


def workflow_of(session: Session, word: str, words: tuple[str, ...], given: Mapping[str, Any]) -> Source:
    """Return the one token of a workflow: its source, then at most one file of parameters."""
    from ..cwl.files import CARRY_LIMIT
    from ..cwl.params import read
    from ..cwl.sources import parse
    from ..cwl.tokens import Wanted, token_of

    if len(words) > 1:
        raise BadInput(
            f"{len(words)} files of parameters were named, not one", "one YAML or JSON file, then --param name=value"
        )
    file = words[0] if words else ""
    source = parse(word, session.settings()["github"])
    wanted = Wanted(given["carry_limit"] or CARRY_LIMIT, given["resolve"], given["provenance"])
    params = read(file, given["pairs"])
    item = token_of(source, params, Path(file).parent, wanted)
    if not given.get("name"):
        item["name"] = word
    return Source(
        lambda: iter([item]), word, fields_of(given), given["dedupe"], given["token_id"], given.get("own_batch")
    )


def fetch_result(pool: Pool, batch: str, folder: Path, show: bool) -> None:
    """Write the output files of a batch's one workflow into a folder, and print its output object if asked to."""
    from ..cwl.results import place

    for token in pool.tokens(["state:done", f"batch:{batch}"]):
        result = (token.doc.get("output") or {}).get("result")
        if not isinstance(result, dict):
            continue
        names = token.doc.get("_attachments") or {}
        placed = place(result, names, lambda name, id=token.id: pool.attachment(id, name), folder)  # type: ignore[misc]
        if show:
            click.echo(json.dumps(placed, indent=4, ensure_ascii=False))

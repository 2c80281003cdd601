"""The options that say what data comes to tokens and where their results go, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ..data_checks import DATA_CHECKS
from ..errors import BadInput
from ..storage.spelling import inputs_of, outputs_of
from .session import flags

Json = dict[str, Any]
Function = TypeVar("Function", bound=Callable[..., Any])


def data_options(function: Function) -> Function:
    """Give a verb the options that describe data."""
    return flags(
        click.option(
            "-i", "--input", "inputs", multiple=True, metavar="[PATH=]URL",
            help="Fetch this into $INPUT first; |gunzip, |untar, |unzip, |zstd behind it unpack; may be repeated.",
        ),
        click.option(
            "-r", "--resource", "shared_inputs", multiple=True, metavar="[PATH=]URL",
            help="The same into $RESOURCE, once for all tokens of a machine, read-only; may be repeated.",
        ),
        click.option(
            "-o", "--output", "outputs", multiple=True, metavar="[PATH=]URL",
            help="Put what stands in $OUTPUT there afterwards, or PATH (or a pattern) below it; with PATH, may be repeated.",
        ),
        click.option(
            "--attach", "attached", multiple=True, metavar="PATH",
            help="Keep this small file of $OUTPUT (or a pattern) at the token; may be repeated.",
        ),
        click.option("--output-always", is_flag=True, help="With --output and --attach: also when it failed."),
        click.option("--reuse", is_flag=True, help="Take the outputs of the same work that was done before."),
    )(function)  # fmt: skip


def data_fields(given: Mapping[str, Any]) -> Json:
    """Return the fields that the options of `data_options` name; raises BadInput."""
    fields: Json = {}
    inputs = [each for text in given["inputs"] for each in inputs_of(text)]
    inputs += [each for text in given["shared_inputs"] for each in inputs_of(text, shared=True)]
    outputs = [each for text in given["outputs"] for each in outputs_of(text)]
    if sum("path" not in each for each in outputs) > 1:
        raise BadInput(
            "two places were named for all outputs",
            "one --output URL for all of them; --output PATH=URL for a part: --output 'logs/*=s3://bucket/logs/'",
        )
    outputs += [{"path": path} for path in given["attached"]]
    if given["output_always"]:
        if not outputs:
            raise BadInput("--output-always says when outputs are taken, and there is none", "add --output URL")
        outputs = [{**each, "when": "always"} for each in outputs]
    for name, value in (("inputs", inputs), ("outputs", outputs), ("reuse", bool(given["reuse"]))):
        if value:
            DATA_CHECKS[name](value, {})
            fields[name] = value
    return fields

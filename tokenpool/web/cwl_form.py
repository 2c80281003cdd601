"""Makes a form of a CWL workflow's inputs, and a token of what was filled in; nothing of this machine is read for it."""

from __future__ import annotations

import base64
import io
import json
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ..cwl import texts
from ..cwl.params import FRONT
from ..cwl.sources import ATTACHED, Source
from ..cwl.tokens import BUNDLE
from ..errors import BadInput

Json = dict[str, Any]

#: Bytes of a workflow's text, and of the files that go along with one token.
LONGEST, CARRIED = 1 << 20, 48 << 20
CLASSES = ("Workflow", "CommandLineTool", "ExpressionTool", "Operation")
NUMBERS = {"int": "int", "long": "int", "float": "float", "double": "float"}


@dataclass(frozen=True)
class Field:
    """One input of a workflow, as a field of a form: `kind` is text, int, float, boolean, enum, file, folder or yaml."""

    name: str
    kind: str
    label: str = ""
    doc: str = ""
    optional: bool = False
    many: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workflow:
    """A workflow that somebody gave: its text, the process that is meant in it, and its inputs."""

    name: str
    text: str
    title: str
    process: str = ""
    fields: tuple[Field, ...] = ()
    notes: tuple[str, ...] = field(default=())


def read(text: str, name: str) -> Workflow:
    """Return the workflow of a CWL text; raises BadInput with line and column, or what is missing."""
    if len(text) > LONGEST:
        raise BadInput(
            f"{name} has {len(text):,} characters", f"a workflow has up to {LONGEST:,}; is it the right file?"
        )
    document = texts.parse(text, name)
    process = ""
    if isinstance(document, dict) and isinstance(document.get("$graph"), list):
        document, process = _main(document["$graph"], name)
    if not isinstance(document, dict):
        raise BadInput(f"{name} is no CWL", "a CWL file is an object with cwlVersion, class and inputs")
    kind = document.get("class")
    if kind not in CLASSES:
        told = f"its class is {kind!r}" if kind else "it has no class"
        raise BadInput(f"{name} is no CWL that can run: {told}", f"class: {', '.join(CLASSES[:3])}")
    if "inputs" not in document:
        raise BadInput(f"{name} names no inputs", "write inputs: {} where it has none")
    inputs = _named(document["inputs"], name)
    fields = tuple(field_of(each, value) for each, value in inputs.items())
    label = document.get("label") if isinstance(document.get("label"), str) else ""
    return Workflow(name, text, str(label or name), process, fields, tuple(_missing(document)))


def _main(graph: Sequence[Any], name: str) -> tuple[Any, str]:
    """Return the process that is meant in a file of several, and its name."""
    known = {str(each.get("id", "")).lstrip("#"): each for each in graph if isinstance(each, dict)}
    if "main" in known:
        return known["main"], "#main"
    raise BadInput(
        f"{name} holds {len(known)} processes and none is called main", "call the one that is meant: id: main"
    )


def _named(inputs: Any, name: str) -> Json:
    if isinstance(inputs, dict):
        return {str(key): value for key, value in inputs.items()}
    if isinstance(inputs, list) and all(isinstance(each, dict) and each.get("id") for each in inputs):
        return {str(each["id"]).rpartition("/")[2].lstrip("#"): each for each in inputs}
    raise BadInput(f"the inputs of {name} make no sense", "an object of names and types, or a list of objects with id")


def _missing(document: Mapping[str, Any]) -> list[str]:
    """Say which files a workflow names that did not come with it."""
    steps = document.get("steps")
    each_step = steps.values() if isinstance(steps, dict) else steps if isinstance(steps, list) else ()
    runs = [step.get("run") for step in each_step if isinstance(step, dict)]
    files = sorted({run for run in runs if isinstance(run, str) and "://" not in run and not run.startswith("#")})
    return [f"It names {each}, which has to be in the same .zip, or packed with `cwltool --pack`." for each in files]


def field_of(name: str, value: Any) -> Field:
    """Return the field for one input.

    >>> field_of("n", "int?").kind, field_of("reads", {"type": "File[]"}).many
    ('int', True)
    """
    given = value if isinstance(value, dict) else {"type": value}
    kind, optional, many, choices = type_of(given.get("type"))
    default = given.get("default")
    shown = (
        ""
        if default is None or isinstance(default, (dict, list))
        else str(default).lower()
        if isinstance(default, bool)
        else str(default)
    )
    doc = given.get("doc")
    return Field(
        name,
        kind,
        str(given.get("label") or ""),
        "\n".join(map(str, doc)) if isinstance(doc, list) else str(doc or ""),
        optional or default is not None,
        many,
        shown,
        choices,
    )


def type_of(given: Any) -> tuple[str, bool, bool, tuple[str, ...]]:
    """Return what kind of field a CWL type needs, whether it may be empty, holds several, and what can be chosen."""
    optional = many = False
    if isinstance(given, str):
        if given.endswith("?"):
            given, optional = given[:-1], True
        if given.endswith("[]"):
            given, many = given[:-2], True
    if isinstance(given, list):
        rest = [each for each in given if each != "null"]
        optional = len(rest) < len(given)
        if len(rest) != 1:
            return "yaml", optional, False, ()
        kind, _, many, choices = type_of(rest[0])
        return kind, optional, many, choices
    if isinstance(given, dict):
        if given.get("type") == "array":
            kind, _, nested, choices = type_of(given.get("items"))
            return ("yaml", False, False, ()) if nested or choices else (kind, False, True, ())
        if given.get("type") == "enum":
            symbols = given.get("symbols")
            chosen = (
                tuple(str(each).rpartition("/")[2].lstrip("#") for each in symbols) if isinstance(symbols, list) else ()
            )
            return "enum", False, False, chosen
        return "yaml", False, False, ()
    kinds = {"string": "text", "boolean": "boolean", "File": "file", "Directory": "folder", **NUMBERS}
    kind = kinds.get(given, "yaml") if isinstance(given, str) else "yaml"
    return ("yaml" if many and kind in ("boolean", "enum") else kind), optional, many and kind != "boolean", ()


# --- what was filled in ----------------------------------------------------------------------------------------------


def params_of(
    fields: Sequence[Field], texts_given: Mapping[str, str], files: Mapping[str, tuple[str, bytes]]
) -> tuple[Json, Json]:
    """Return the parameters and the attachments that a filled form means; raises BadInput for a field that is wrong."""
    params: Json = {}
    attachments: Json = {}
    for each in fields:
        text = texts_given.get(each.name, "").strip()
        if each.kind == "file" and each.name in files:
            file, data = files[each.name]
            params[each.name] = {"class": "File", "location": quote(f"{FRONT}{each.name}/{file}")}
            attachments[f"{FRONT}{each.name}/{file}"] = attachment(data)
            if each.many:
                params[each.name] = [params[each.name]]
            continue
        if each.kind == "boolean" and not each.optional:
            params[each.name] = text in ("true", "on", "1")
        elif text:
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            params[each.name] = [_value(each, line) for line in lines] if each.many else _value(each, text)
        elif not each.optional:
            raise BadInput(f"the input {each.name} is empty", "the workflow cannot run without it")
    return params, attachments


def _value(each: Field, text: str) -> Any:
    if each.kind in ("int", "float"):
        try:
            return int(text) if each.kind == "int" else float(text)
        except ValueError:
            raise BadInput(
                f"the input {each.name} is {text[:40]!r}, which is no number", f"it is of type {each.kind}"
            ) from None
    if each.kind == "boolean":
        return text in ("true", "on", "1")
    if each.kind == "enum" and text not in each.choices:
        raise BadInput(f"the input {each.name} cannot be {text[:40]!r}", f"one of: {', '.join(each.choices)}")
    if each.kind in ("file", "folder"):
        if "://" not in text and not text.startswith("/"):
            raise BadInput(
                f"the input {each.name} is {text[:60]!r}",
                "a URL, the full path that it has on the workers, or a file from here",
            )
        return {
            "class": "File" if each.kind == "file" else "Directory",
            "location": text if "://" in text else f"file://{text}",
        }
    return texts.parse(text, f"input {each.name}") if each.kind == "yaml" else text


def token_of(workflow: Workflow, params: Json, attachments: Json) -> Json:
    """Return the fields of the token that runs a workflow which goes along with it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(workflow.name)  # without a time: the same workflow has the same bytes
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, workflow.text)
    return {
        "name": workflow.title,
        "input": line_of(workflow.name + workflow.process, params),
        "workflow": Source(url=ATTACHED + BUNDLE, path=workflow.name + workflow.process).field(),
        "params": params,
        "_attachments": {BUNDLE: attachment(buffer.getvalue(), "application/zip"), **attachments},
    }


def remote_token(source: Source, word: str, params: Json) -> Json:
    """Return the fields of the token that runs a workflow which the worker fetches."""
    return {"name": word, "input": line_of(word, params), "workflow": source.field(), "params": params}


def line_of(word: str, params: Mapping[str, Any]) -> str:
    """Return the shell line that does the same where tokenpool is installed."""
    pairs = [f"--param {shlex.quote(f'{name}={json.dumps(value)}')}" for name, value in params.items()]
    return " ".join(["tokenpool run-cwl", shlex.quote(word), *pairs])


def attachment(data: bytes, content_type: str = "application/octet-stream") -> Json:
    """Return bytes as an attachment of a document."""
    return {"content_type": content_type, "data": base64.b64encode(data).decode("ascii")}

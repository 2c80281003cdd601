"""Checks the fields of a token that say what is run: containers, workflows, functions, and the secrets they need."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import BadInput

Fields = Mapping[str, Any]

#: Fields of which a token has one at most: each says what is run.
WHAT_IS_RUN = ("executors", "workflow", "function")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?")
_EXECUTOR = {"image", "command", "workdir", "stdin", "stdout", "stderr", "env", "ignore_error"}
_WORKFLOW = {"url", "repo", "ref", "path", "commit", "provenance"}


def _image(value: Any, fields: Fields) -> None:
    if not isinstance(value, str) or not value or re.search(r"[\s\0]", value) or value.startswith("-"):
        raise BadInput(f"image {_shown(value)} is no name of an image", "for example docker.io/library/alpine:3")
    if other := _others(fields, "image"):
        raise BadInput(f"a token has either an image or {other}", "leave one of them out")


def _executors(value: Any, fields: Fields) -> None:
    hint = 'for example [{"image": "alpine:3", "command": ["echo", "hi"]}]'
    if not isinstance(value, (list, tuple)) or not value:
        raise BadInput(f"executors {_shown(value)} is no list of executors", hint)
    for each in value:
        if not isinstance(each, Mapping):
            raise BadInput(f"executor {_shown(each)} is no object", hint)
        _known(each, _EXECUTOR, "executor")
        _image(each.get("image"), {})
        command = each.get("command")
        if not isinstance(command, (list, tuple)) or not command or not all(_is_text(word) for word in command):
            raise BadInput(f"the command {_shown(command)} of an executor is no list of texts", hint)
        env = each.get("env")
        if env is not None and not isinstance(env, Mapping):
            raise BadInput(f"the env {_shown(env)} of an executor is no object", 'for example {"THREADS": "4"}')
    if other := _others(fields, "executors"):
        raise BadInput(f"a token has either executors or {other}", "leave one of them out")


def _workflow(value: Any, fields: Fields) -> None:
    hint = 'for example {"url": "https://host/tool.cwl"}, or {"repo": "https://github.com/user/repo", "ref": "main"}'
    if not isinstance(value, Mapping):
        raise BadInput(f"workflow {_shown(value)} is no object", hint)
    _known(value, _WORKFLOW, "workflow")
    if not all(_is_text(each) for name, each in value.items() if name != "provenance"):
        raise BadInput(f"workflow {_shown(value)} holds what is no text", hint)
    if not isinstance(value.get("provenance", False), bool):
        raise BadInput(f"workflow.provenance {_shown(value['provenance'])} is neither true nor false", hint)
    if bool(value.get("url")) == bool(value.get("repo")):
        raise BadInput("a workflow has either a url or a repo", hint)
    if other := _others(fields, "workflow"):
        raise BadInput(f"a token has either a workflow or {other}", "leave one of them out")


def _function(value: Any, fields: Fields) -> None:
    hint = 'for example {"name": "package.module:function", "args": [1], "kwargs": {"x": 2}}'
    if not isinstance(value, Mapping):
        raise BadInput(f"function {_shown(value)} is no object", hint)
    _known(value, {"name", "args", "kwargs", "pickle", "chunk", "exact"}, "function")
    name = value.get("name")
    if not isinstance(name, str) or not _DOTTED.fullmatch(name):
        raise BadInput(f"function {_shown(name)} is no name", hint)
    if not isinstance(value.get("args") or [], (list, tuple)):
        raise BadInput(f"the args of function {name} are no list", hint)
    if not isinstance(value.get("kwargs") or {}, Mapping):
        raise BadInput(f"the kwargs of function {name} are no object", hint)
    if other := _others(fields, "function"):
        raise BadInput(f"a token has either a function or {other}", "leave one of them out")


def _options(value: Any, fields: Fields) -> None:
    if not isinstance(value, (list, tuple)) or not all(_is_text(each) and each.startswith("--") for each in value):
        raise BadInput(f"container_options {_shown(value)} is no list of options", 'for example ["--shm-size=1g"]')


def _registry_secret(value: Any, fields: Fields) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadInput(
            f"registry_secret {_shown(value)} is no name", "the name of a secret of the worker, no value: REGISTRY"
        )


def _params(value: Any, fields: Fields) -> None:
    if not isinstance(value, Mapping):
        raise BadInput(f"params {_shown(value)} is no object", 'the inputs of a workflow: {"message": "hi"}')


def _secrets(value: Any, fields: Fields) -> None:
    named = isinstance(value, (list, tuple)) and all(isinstance(each, str) and _NAME.fullmatch(each) for each in value)
    if not named:
        raise BadInput(
            f"secrets {_shown(value)} is no list of names",
            'names of what the worker knows: ["DATABASE_KEY"], no values',
        )


def _known(value: Mapping[str, Any], names: set[str], what: str) -> None:
    strange = sorted(str(name) for name in set(value) - names)
    if strange:
        raise BadInput(f"{what} has no field {strange[0]!r}", f"known: {', '.join(sorted(names))}")


def _others(fields: Fields, own: str) -> str:
    return next((name for name in ("image", *WHAT_IS_RUN) if name != own and fields.get(name)), "")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}..."


#: By the name of the field; None counts as not given.
RUN_CHECKS: Mapping[str, Callable[[Any, Fields], None]] = {
    "image": _image,
    "executors": _executors,
    "workflow": _workflow,
    "function": _function,
    "container_options": _options,
    "registry_secret": _registry_secret,
    "params": _params,
    "secrets": _secrets,
}

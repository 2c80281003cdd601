"""Writes the shell line that does what a token with containers does, for picas' workers, which know nothing but `input`."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..engines.base import FOLDERS, WORK
from ..engines.folders import inside

_USER = '-u "$(id -u):$(id -g)"'


def line_of(token: Mapping[str, Any]) -> str:
    """Return the line of a token with an image or executors: ``docker run`` for each container.

    >>> line_of({"image": "alpine:3", "command": "echo hi"}).rpartition(" -w /work ")[2]
    "--entrypoint /bin/sh alpine:3 -c 'echo hi'"
    """
    volumes = _volumes(token)
    lines = [f"mkdir -p {' '.join([*FOLDERS, *(folder for _, folder in volumes)])}"]
    for each in token.get("executors") or [token]:
        run = _run(token, each, volumes)
        lines.append(f"{{ {run} || true; }}" if each.get("ignore_error") else run)
    return " && ".join(lines)


def command_of(token: Mapping[str, Any]) -> Any:
    """Return what a token with an image runs in it: its `command`, else its `input`; None: what the image names.

    The `input` that `push` wrote for picas' workers is no command of its own.
    """
    command = token.get("command")
    if command is None and token.get("input") != line_of({**token, "command": None}):
        command = token.get("input")
    return command


def _volumes(token: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the executors of a token share beside the usual folders, and the folders that stand for it."""
    if not token.get("executors"):
        return []
    points = {str(each).rstrip("/") for each in token.get("volumes") or ()}
    for each in token.get("executors") or ():
        paths = (str(each.get(name) or "") for name in ("stdin", "stdout", "stderr"))
        points |= {posixpath.dirname(posixpath.normpath(path)) for path in paths if path.startswith("/")}
    usual = (WORK, *FOLDERS.values())
    own = [each for each in sorted(points - {"", "/"}) if not any(f"{each}/".startswith(f"{top}/") for top in usual)]
    tops = [each for each in own if not any(each.startswith(f"{other}/") for other in own)]
    return [(each, f"volumes/{number}") for number, each in enumerate(tops)]


def _run(token: Mapping[str, Any], each: Mapping[str, Any], volumes: Sequence[tuple[str, str]]) -> str:
    env = {**(token.get("env") or {}), **(each.get("env") or {})}
    workdir = WORK if each.get("workdir") is None else str(each["workdir"])
    mounts = [f'-v "$PWD":{WORK}']
    for name, target in FOLDERS.items():
        mounts.append(f'-v "$PWD/{name}":{target}' + (":ro" if name == "resource" else ""))
    mounts += [f'-v "$PWD/{folder}":{shlex.quote(seen)}' for seen, folder in volumes]
    folders = {"INPUT": "/input", "OUTPUT": "/output", "RESOURCE": "/resource", "TEMP": "/tmp"}
    words = ["docker run --rm", "-i" if each.get("stdin") else "", _USER, *mounts]
    words += [f"-e {shlex.quote(f'{name}={value}')}" for name, value in {**folders, **env}.items()]
    words += [f"-e {name}" for name in token.get("secrets") or ()]
    words += [shlex.quote(option) for option in token.get("container_options") or ()]
    words += [f"-w {shlex.quote(workdir)}"] if workdir else []
    words.append(_command(each, own_program=each is not token))
    for name, sign in (("stdin", "<"), ("stdout", ">"), ("stderr", "2>")):
        if each.get(name):
            folder, rest = inside(str(each[name]), workdir, volumes)
            words.append(f"{sign} {shlex.quote(posixpath.join(folder, rest))}")
    return " ".join(filter(None, words))


def _command(each: Mapping[str, Any], own_program: bool) -> str:
    image, command = shlex.quote(str(each["image"])), each.get("command")
    if command is None:
        return image
    if isinstance(command, str):
        return f"--entrypoint /bin/sh {image} -c {shlex.quote(command)}"
    words = [str(word) for word in command]
    if own_program:
        return f"--entrypoint {shlex.quote(words[0])} {image} {shlex.join(words[1:])}".rstrip()
    return f"{image} {shlex.join(words)}"

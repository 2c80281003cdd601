"""Makes a container job of a token and of what the worker's owner allows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..errors import BadInput
from ..fit import GB, wanted
from .base import FOLDERS, WORK, EngineTrouble, Mount, Step
from .folders import inside

Token = Mapping[str, Any]

#: What a token's fields are that say which work it is: the same ones, the same work.
CONTENT = (
    "_id", "creation_time", "image", "command", "input", "executors", "env", "container_options", "resources", "secrets",
    "registry_secret", "inputs", "outputs", "volumes",
)  # fmt: skip
#: Variables that are not for containers: the mark by which a worker finds the processes of its own.
KEPT_OUT = frozenset({"TOKENPOOL_CLAIM"})
SHELL = "/bin/sh"


def steps_of(token: Token, command: Any, env: Mapping[str, str], volumes: Sequence[tuple[str, str]] = ()) -> list[Step]:
    """Return the containers that a token asks for, in order; `command` is that of its image, None: the image's own.

    `volumes` as `inside` has them. Raises BadInput where it makes no sense.
    """
    executors = token.get("executors")
    if executors:
        return [_executor(each, env, volumes) for each in executors]
    image = token.get("image")
    if not isinstance(image, str):
        raise BadInput("the token names no image", "for example docker.io/library/alpine:3")
    if command is None or command == "":
        return [Step(image, env=dict(env))]
    if isinstance(command, str):
        return [Step(image, ["-c", command], [SHELL], env=dict(env))]
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        return [Step(image, command, env=dict(env))]
    raise BadInput("the command is neither a text nor a list of texts", 'for example ["echo", "hi"]')


def _executor(each: Mapping[str, Any], env: Mapping[str, str], volumes: Sequence[tuple[str, str]]) -> Step:
    own = {str(name): str(value) for name, value in (each.get("env") or {}).items()}
    first, *rest = each["command"]
    files = {name: str(each.get(name) or "") for name in ("stdin", "stdout", "stderr")}
    workdir = WORK if each.get("workdir") is None else str(each["workdir"])
    if workdir and not workdir.startswith("/"):
        raise BadInput(f"workdir {workdir} is no absolute path", "for example /output")
    for path in filter(None, files.values()):
        inside(path, workdir, volumes)
    ignored = bool(each.get("ignore_error"))
    return Step(each["image"], rest, [first], workdir, {**env, **own}, ignore_error=ignored, **files)


def environment_of(own: Mapping[str, str], gpus: Sequence[str]) -> dict[str, str]:
    """Return the variables of a container: the token's own, with its folders as they are there."""
    folders = {name.upper(): target for name, target in FOLDERS.items() if name != "tmp"}
    env = {"HOME": FOLDERS["tmp"], **{name: value for name, value in own.items() if name not in KEPT_OUT}}
    env.update(folders, TEMP=FOLDERS["tmp"], TOKENPOOL_WORKDIR=WORK)
    if gpus and all(name.isdigit() for name in gpus):  # counted anew in there
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(len(gpus))))
    return env


def gpus_of(token: Token, own: Mapping[str, str]) -> list[str]:
    """Return the GPUs that a token was given."""
    if not wanted(token).gpus:
        return []
    return [name for name in own.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]


def limits_of(token: Token) -> tuple[int, float]:
    """Return the memory in bytes and the CPUs that a token asked for, 0 for what it did not."""
    want = wanted(token)
    return int(want.ram_gb * GB), 0.0 if want.by_default else want.cpu_cores


def mounts_of(given: Sequence[str]) -> list[Mount]:
    """Return the mounts that the worker's owner named ``HOST[:PATH][:rw]``; raises EngineTrouble where one is missing."""
    return [mount_of(each) for each in given]


def mount_of(text: str) -> Mount:
    """Return one mount.

    >>> mount_of("/usr:/opt/host:rw")
    Mount(source='/usr', target='/opt/host', writable=True)
    """
    source, *rest = text.split(":")
    writable = bool(rest) and rest[-1] in ("rw", "ro") and rest.pop() == "rw"
    source = os.path.abspath(os.path.expanduser(source))
    target = rest[0] if rest else source
    if len(rest) > 1 or not target.startswith("/"):
        raise EngineTrouble(f"--mount {text} of this worker makes no sense", "write HOST, HOST:PATH or HOST:PATH:rw")
    if not os.path.exists(source):
        raise EngineTrouble(
            f"the folder {source} that this worker mounts is not there", "mount it, or leave --mount out"
        )
    return Mount(source, target, writable)


def login_of(secret: str) -> dict[str, str]:
    """Return what a registry gets to know from a secret: ``user:password``, or JSON with username and password.

    >>> login_of("ann:p:w")
    {'username': 'ann', 'password': 'p:w'}
    """
    if secret.lstrip().startswith("{"):
        try:
            found = json.loads(secret)
            return {"username": str(found["username"]), "password": str(found["password"])}
        except (ValueError, KeyError):
            raise EngineTrouble(
                "the secret of the registry has no username and password", 'write {"username": "…", "password": "…"}'
            ) from None
    user, colon, password = secret.partition(":")
    if not colon:
        raise EngineTrouble(
            "the secret of the registry holds no user:password", "write both, with a colon between them"
        )
    return {"username": user, "password": password}


def spec_of(token: Token, allowed: Collection[Any]) -> str:
    """Return what is the same for the same work under the same rules."""
    content = {name: token[name] for name in CONTENT if token.get(name) is not None}
    text = json.dumps([content, [str(each) for each in allowed]], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]

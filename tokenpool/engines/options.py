"""Says what a token's container options mean to the engine; only those that the worker's owner allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import BadInput
from .base import Json


def options_of(given: Sequence[str], allowed: Sequence[str]) -> Json:
    """Return the arguments that the engine's API gets for ``--name=value`` options; raises BadInput.

    >>> options_of(["--shm-size=1g"], ["shm-size"])
    {'shm_size': '1g'}
    """
    found: Json = {}
    for name, value in pairs(given, allowed):
        if name not in OPTIONS:
            raise BadInput(f"container option --{name} is unknown", f"known: {', '.join(sorted(OPTIONS))}")
        try:
            OPTIONS[name](found, value)
        except ValueError:
            raise BadInput(
                f"container option --{name}={value} makes no sense", f"for example {EXAMPLES[name]}"
            ) from None
    return found


def pairs(given: Sequence[str], allowed: Sequence[str]) -> list[tuple[str, str]]:
    """Return names and values of options; raises BadInput for one that the worker does not allow."""
    found = []
    for option in given:
        name, _, value = option.lstrip("-").partition("=")
        if name not in allowed:
            raise BadInput(
                f"container option --{name} is not allowed on this worker", f"start it with --allow-option {name}"
            )
        found.append((name, value))
    return found


def _text(key: str) -> Callable[[Json, str], None]:
    def take(found: Json, value: str) -> None:
        found[key] = _needed(value)

    return take


def _each(key: str) -> Callable[[Json, str], None]:
    def take(found: Json, value: str) -> None:
        found.setdefault(key, []).append(_needed(value))

    return take


def _switch(key: str) -> Callable[[Json, str], None]:
    def take(found: Json, value: str) -> None:
        if value not in ("", "true", "false"):
            raise ValueError(value)
        found[key] = value != "false"

    return take


def _number(key: str) -> Callable[[Json, str], None]:
    def take(found: Json, value: str) -> None:
        found[key] = int(value)

    return take


def _ulimit(found: Json, value: str) -> None:
    name, _, numbers = value.partition("=")
    soft, _, hard = numbers.partition(":")
    limit = {"name": _needed(name), "soft": int(soft), "hard": int(hard or soft)}
    found.setdefault("ulimits", []).append(limit)


def _tmpfs(found: Json, value: str) -> None:
    path, _, how = value.partition(":")
    found.setdefault("tmpfs", {})[_absolute(path)] = how


def _device(found: Json, value: str) -> None:
    _absolute(value)
    found.setdefault("devices", []).append(value if ":" in value else f"{value}:{value}:rwm")


def _gpus(found: Json, value: str) -> None:
    request: dict[str, Any] = {"capabilities": [["gpu"]]}
    if value == "all":
        request["count"] = -1
    elif value.startswith("device="):
        request["device_ids"] = value[7:].split(",")
    else:
        request["count"] = int(value)
    found["device_requests"] = [request]


def _host(found: Json, value: str) -> None:
    name, _, address = value.partition(":")
    found.setdefault("extra_hosts", {})[_needed(name)] = _needed(address)


def _needed(value: str) -> str:
    if not value:
        raise ValueError(value)
    return value


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(path)
    return path


#: By name, what takes a value; the names are those of ``docker run``.
OPTIONS: dict[str, Callable[[Json, str], None]] = {
    "add-host": _host,
    "cap-add": _each("cap_add"),
    "cap-drop": _each("cap_drop"),
    "device": _device,
    "dns": _each("dns"),
    "entrypoint": _text("entrypoint"),
    "gpus": _gpus,
    "group-add": _each("group_add"),
    "hostname": _text("hostname"),
    "init": _switch("init"),
    "ipc": _text("ipc_mode"),
    "network": _text("network_mode"),
    "pids-limit": _number("pids_limit"),
    "platform": _text("platform"),
    "read-only": _switch("read_only"),
    "runtime": _text("runtime"),
    "security-opt": _each("security_opt"),
    "shm-size": _text("shm_size"),
    "tmpfs": _tmpfs,
    "ulimit": _ulimit,
}
EXAMPLES = {
    **{name: f"--{name}=VALUE" for name in OPTIONS},
    "add-host": "--add-host=name:10.0.0.1",
    "cap-add": "--cap-add=SYS_PTRACE",
    "device": "--device=/dev/fuse",
    "gpus": "--gpus=all",
    "init": "--init",
    "pids-limit": "--pids-limit=100",
    "read-only": "--read-only",
    "shm-size": "--shm-size=1g",
    "tmpfs": "--tmpfs=/scratch:size=64m",
    "ulimit": "--ulimit=nofile=1024:2048",
}

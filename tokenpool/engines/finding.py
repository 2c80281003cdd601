"""Finds the container engine of this machine: DOCKER_HOST, the usual sockets, apptainer on the search path."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .base import EngineTrouble

PROGRAMS = ("apptainer", "singularity")
_START = "start Docker, or Podman's socket (systemctl --user start podman.socket), or name it in DOCKER_HOST"


@dataclass(frozen=True)
class Found:
    """An engine: the address of its socket, or the program that runs containers without one."""

    address: str = ""
    program: str = ""


def find(engine: str, environ: Mapping[str, str]) -> Found:
    """Return the engine that a worker is to use (auto, docker, podman, apptainer); raises EngineTrouble for none."""
    if engine == "apptainer":
        return Found(program=_program(environ))
    refused, absent = "", []
    for address in _addresses(engine, environ):
        trouble = _trouble(address)
        if not trouble:
            return Found(address)
        if trouble == "refused":
            refused = refused or address
        else:
            absent.append(address[7:])
    if engine == "auto" and any(shutil.which(name, path=environ.get("PATH")) for name in PROGRAMS):
        return Found(program=_program(environ))
    if refused:
        raise EngineTrouble(
            f"no permission to use the container engine at {refused[7:]}",
            "add the worker's user to the group of that socket, or run Podman as that user",
        )
    what = "no container engine was found" if engine == "auto" else f"{engine} was not found"
    raise EngineTrouble(f"{what}: nobody answers at {', '.join(absent)}", _START)


def _addresses(engine: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield where the engine may answer, the most likely first; nobody else's is tried where one is named."""
    names = {"podman": ("CONTAINER_HOST", "DOCKER_HOST")}.get(engine, ("DOCKER_HOST",))
    named = next((environ[name] for name in names if environ.get(name)), "")
    if named:
        yield named
        return
    own = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    docker = ("/var/run/docker.sock", f"{own}/docker.sock")
    podman = (f"{own}/podman/podman.sock", "/run/podman/podman.sock")
    usual = {"docker": docker, "podman": podman}.get(engine, docker + podman)
    yield from (f"unix://{path}" for path in usual)


def _trouble(address: str) -> str:
    """Return "" where somebody answers, "refused" where it is not for us, else "absent"."""
    if not address.startswith("unix://"):
        return ""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(address[7:])
        except PermissionError:
            return "refused"
        except OSError:
            return "absent"
    return ""


def _program(environ: Mapping[str, str]) -> str:
    for name in PROGRAMS:
        if found := shutil.which(name, path=environ.get("PATH")):
            return found
    raise EngineTrouble("neither apptainer nor singularity was found", "load its module, or choose another --engine")

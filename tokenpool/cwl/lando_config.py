"""Reads lando's own configuration: the machines that its server makes, as the command line that makes the same ones."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput
from . import texts

Json = dict[str, Any]

#: What lando's settings of machines are behind ``--`` of an order of machines. It has two spellings of flavor.
MACHINE = {
    "default_favor_name": "--flavor",
    "default_flavor_name": "--flavor",
    "worker_image_name": "--image",
    "ssh_key_name": "--key",
    "network_name": "--network",
    "floating_ip_pool_name": "--floating-ip-pool",
    "volume_size": "--volume-gb",
}
#: Settings of machines that are switches, or tables.
OTHERS = ("allocate_floating_ips", "volume_mounts", "cleanup_vm")
#: What lando's settings of the cloud are in the environment.
CLOUD = {
    "auth_url": "OS_AUTH_URL",
    "username": "OS_USERNAME",
    "user_domain_name": "OS_USER_DOMAIN_NAME",
    "project_name": "OS_PROJECT_NAME",
    "project_domain_name": "OS_PROJECT_DOMAIN_NAME",
}
#: The cloud's password, which is nobody's but the environment's.
PASSWORD = "OS_PASSWORD"
#: Parts of a configuration that a pool has no use for.
NEEDLESS = ("work_queue", "listen_queue", "bespin_api", "fake_cloud_service", "log_level", "commands")
PARTS = ("vm_settings", "cloud_settings", *NEEDLESS)


@dataclass(frozen=True)
class Server:
    """What stands in for lando's server: a command line and its environment. No secrets."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    #: Variables that whoever starts it has to have.
    needed: tuple[str, ...]
    #: Parts of the configuration that say nothing here.
    needless: tuple[str, ...]
    source: str

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(self.words)

    @property
    def _open_command(self) -> str:
        """The command line that takes more options: those of `scale` stand in front of those of a machine."""
        at = self.words.index("--") if "--" in self.words else len(self.words)
        return " ".join(filter(None, (shlex.join(self.words[:at]), '"$@"', shlex.join(self.words[at:]))))

    @property
    def script(self) -> str:
        """All of it as a shell script."""
        lines = [
            "#!/bin/sh",
            f"# lando's server, made of {self.source}: a machine for each token, removed when it has ended.",
        ]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()]
        lines += [f': "${{{name}:?is not set}}"' for name in self.needed]
        return "\n".join([*lines, f"exec {self._open_command}", ""])


def read(path: str, secrets: Sequence[str] = ()) -> Server:
    """Return what a configuration of lando's server stands for.

    Raises BadInput for one that makes no sense, or that holds a password which `secrets` does not name.
    """
    config = texts.load(Path(path), path)
    if not isinstance(config, dict) or not isinstance(config.get("vm_settings"), dict):
        raise BadInput(
            f"{path} is no configuration of lando: it has no vm_settings", f"known parts: {', '.join(PARTS)}"
        )
    strange = [str(name) for name in config if name not in PARTS]
    if strange:
        raise BadInput(f"{path} has a part {strange[0]!r} that lando has not", f"known parts: {', '.join(PARTS)}")
    cloud = _table(config, "cloud_settings", path)
    environment: dict[str, str] = {}
    needed: tuple[str, ...] = ()
    local = config.get("fake_cloud_service") is True
    if not local:
        environment, needed = _cloud(cloud, secrets, path)
    words = ["tokenpool", "scale", "--launcher", "local" if local else "cloud", "--per-token"]
    machine = _machine(config["vm_settings"], path)
    if not local:
        words += ["--", *machine]
    needless = tuple(name for name in NEEDLESS if name in config and name != "fake_cloud_service")
    return Server(tuple(words), environment, needed, needless, Path(path).name)


def _table(config: Json, name: str, path: str) -> Json:
    table = config.get(name) or {}
    if not isinstance(table, dict):
        raise BadInput(f"{path}: {name} = {table!r} is no table", f"names and values below {name}:")
    return table


def _cloud(cloud: Json, secrets: Sequence[str], path: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the environment that reaches the cloud, and the variables that are missing in it."""
    known = [*CLOUD, "password"]
    strange = [str(name) for name in cloud if name not in known]
    if strange:
        raise BadInput(f"{path}: cloud_settings has no {strange[0]!r}", f"known: {', '.join(known)}")
    if "password" in cloud and PASSWORD not in secrets:
        raise BadInput(
            f"{path}: cloud_settings holds a password, which is to be in no command line",
            f"--secret {PASSWORD} leaves it to the environment of whoever starts the machines",
        )
    environment = {CLOUD[name]: str(cloud[name]) for name in CLOUD if cloud.get(name) not in (None, "")}
    return environment, (PASSWORD,) if cloud else ()


def _machine(settings: Json, path: str) -> list[str]:
    """Return the words that describe a machine."""
    known = [*MACHINE, *OTHERS]
    words: list[str] = []
    for name, value in settings.items():
        if name not in known:
            if str(name).startswith("cwl_"):
                continue  # how a worker runs a workflow is the worker's own business
            raise BadInput(f"{path}: vm_settings has no {str(name)!r}", f"known: {', '.join(known)}")
        if name in MACHINE and value not in (None, "") and not _is_left_out(settings, str(name)):
            if isinstance(value, (dict, list)):
                raise BadInput(f"{path}: {name} = {value!r} is no name", f"for example {name}: NAME")
            words += [MACHINE[name], str(value)]
    words += [word for device, folder in _mounts(settings, path) for word in ("--mount", f"{device}:{folder}")]
    return [*words, "--on-idle", "keep"] if settings.get("cleanup_vm") is False else words


def _is_left_out(settings: Json, name: str) -> bool:
    if name == "default_favor_name":
        return bool(settings.get("default_flavor_name"))
    return name == "floating_ip_pool_name" and settings.get("allocate_floating_ips") is False


def _mounts(settings: Json, path: str) -> list[tuple[str, str]]:
    mounts = settings.get("volume_mounts") or {}
    if not isinstance(mounts, dict):
        raise BadInput(f"{path}: volume_mounts = {mounts!r} is no table", "for example {/dev/vdb1: /work}")
    return [(str(device), str(folder)) for device, folder in mounts.items()]
